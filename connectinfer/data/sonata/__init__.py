"""SONATA: circuits and their configs, read and written as connectomes, and files of spikes."""

from connectinfer.data.sonata.config import CONFIG
from connectinfer.data.sonata.network import (
    is_sonata_config,
    is_sonata_edges,
    open_circuit,
    open_sonata,
    to_sonata,
    write_sonata,
)

__all__ = ["CONFIG", "is_sonata_config", "is_sonata_edges", "open_circuit", "open_sonata", "to_sonata", "write_sonata"]
