"""Which connectivity do these recordings require, and how sure can we be?

Every name below is loaded on first use, so that `import connectinfer` costs
milliseconds and loads no JAX.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectinfer.data.connectome import connectome
    from connectinfer.data.objects import as_recording
    from connectinfer.data.reading import open_connectome, open_recording
    from connectinfer.data.recording import check_recording, recording
    from connectinfer.data.saving import save
    from connectinfer.data.stitching import stitch
    from connectinfer.diagnostics.calibration import calibrate, judge_calibration
    from connectinfer.diagnostics.checks import diagnose
    from connectinfer.diagnostics.compare import compare
    from connectinfer.diagnostics.cross_validation import leave_out
    from connectinfer.diagnostics.held_out_scores import held_out_scores
    from connectinfer.diagnostics.power import power
    from connectinfer.diagnostics.rank_selection import select_rank
    from connectinfer.diagnostics.sensitivity import prior_sensitivity
    from connectinfer.diagnostics.verdict import Diagnosis
    from connectinfer.dynamics.low_rank import LowRankRNN
    from connectinfer.dynamics.phase_portrait import phase_portrait
    from connectinfer.dynamics.simulate import simulate
    from connectinfer.inference.fit import fit
    from connectinfer.inference.flow_posterior import fit_flow_posterior, train_flow_posterior
    from connectinfer.inference.infer_paths import infer_paths
    from connectinfer.inference.nuts import sample_nuts
    from connectinfer.inference.pooling import pool
    from connectinfer.inference.state_space import fit_state_space
    from connectinfer.inference.svi import fit_svi
    from connectinfer.inference.sweep import sweep
    from connectinfer.reporting.report import report
    from connectinfer.synthesis.connectivity import sample_connectivity
    from connectinfer.zoo import list_models, load_model

    __version__: str

__all__ = [
    "Diagnosis",
    "LowRankRNN",
    "__version__",
    "as_recording",
    "calibrate",
    "check_recording",
    "compare",
    "connectome",
    "diagnose",
    "fit",
    "fit_flow_posterior",
    "fit_state_space",
    "fit_svi",
    "held_out_scores",
    "infer_paths",
    "judge_calibration",
    "leave_out",
    "list_models",
    "load_model",
    "open_connectome",
    "open_recording",
    "phase_portrait",
    "pool",
    "power",
    "prior_sensitivity",
    "recording",
    "report",
    "sample_connectivity",
    "sample_nuts",
    "save",
    "select_rank",
    "simulate",
    "stitch",
    "sweep",
    "train_flow_posterior",
]

_HOME = {
    "Diagnosis": "diagnostics.verdict",
    "LowRankRNN": "dynamics.low_rank",
    "as_recording": "data.objects",
    "calibrate": "diagnostics.calibration",
    "check_recording": "data.recording",
    "compare": "diagnostics.compare",
    "connectome": "data.connectome",
    "diagnose": "diagnostics.checks",
    "fit": "inference.fit",
    "fit_flow_posterior": "inference.flow_posterior",
    "fit_state_space": "inference.state_space",
    "fit_svi": "inference.svi",
    "held_out_scores": "diagnostics.held_out_scores",
    "infer_paths": "inference.infer_paths",
    "judge_calibration": "diagnostics.calibration",
    "leave_out": "diagnostics.cross_validation",
    "list_models": "zoo",
    "load_model": "zoo",
    "open_connectome": "data.reading",
    "open_recording": "data.reading",
    "phase_portrait": "dynamics.phase_portrait",
    "pool": "inference.pooling",
    "power": "diagnostics.power",
    "prior_sensitivity": "diagnostics.sensitivity",
    "recording": "data.recording",
    "report": "reporting.report",
    "sample_connectivity": "synthesis.connectivity",
    "sample_nuts": "inference.nuts",
    "save": "data.saving",
    "select_rank": "diagnostics.rank_selection",
    "simulate": "dynamics.simulate",
    "stitch": "data.stitching",
    "sweep": "inference.sweep",
    "train_flow_posterior": "inference.flow_posterior",
}


def __getattr__(name: str):
    from importlib import import_module

    if name == "__version__":
        value = _version()
    elif name in _HOME:
        value = getattr(import_module(f"connectinfer.{_HOME[name]}"), name)
    else:
        raise AttributeError(_unknown(name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    try:
        return version("connectinfer")
    except PackageNotFoundError:
        # A checkout on the path that was never installed: its own pyproject.toml knows.
        import tomllib

        project = Path(__file__).parents[1] / "pyproject.toml"
        return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, __all__, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"module 'connectinfer' has no attribute {name!r}.{hint}"
