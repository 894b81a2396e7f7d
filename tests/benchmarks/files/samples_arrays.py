"""Small sound files of formats for arrays, with the odd constructs of each."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pynwb
import scipy.io
from sample import COUNTS, TIMES, UNITS, Sample, sessions, taken, wiring
from scipy import sparse

from connectinfer.data.saving import save

sys.path.append(str(Path(__file__).parents[2] / "data"))
from nwb_sessions import imaging, session
from sonata_network import write_network


def nwb(root: Path) -> Iterator[Sample]:
    def written(name, content):
        with pynwb.NWBHDF5IO(root / name, "w") as file:
            # The schema of the format is 200 kB, and mutating it would exercise its parser alone.
            file.write(content, cache_spec=False)
        return root / name

    content = session()
    content.add_unit_column("channels", "that see it", index=True)
    for unit in (7, 4):
        content.add_unit(spike_times=TIMES[unit % 3 :: 2], obs_intervals=[[0.0, 2.0]], channels=[unit], id=unit)
    content.add_trial(start_time=0.1, stop_time=0.6)
    content.add_trial(start_time=1.0, stop_time=1.4)
    content.add_epoch(0.0, 0.4, ["baseline"])
    yield taken(written("spikes.nwb", content), "recording")
    yield taken(root / "spikes.nwb", "recording", None, events=None)
    traces = np.random.default_rng(3).normal(size=(20, 2))
    yield taken(written("imaging.nwb", imaging({"dff": traces}, trials=[(0.2, 0.9)])), "recording")


def sonata(*mutable: str) -> Callable[[Path], Iterator[Sample]]:
    def make(root: Path) -> Iterator[Sample]:
        folder = root / f"sonata_{len(list(root.iterdir()))}"
        folder.mkdir()
        write_network(folder)
        files = {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}
        yield Sample(files, "config.json", "connectome", mutable=mutable)
        if mutable == ("network/edges.h5",):
            yield Sample({"edges.h5": files["network/edges.h5"]}, "edges.h5", "connectome")

    return make


def spike_files(root: Path) -> Iterator[Sample]:
    for name, path in (("new.h5", "spikes/v1"), ("old.h5", "spikes")):
        with h5py.File(root / name, "w") as file:
            order = np.argsort(TIMES)
            file[f"{path}/timestamps"] = TIMES[order] * 1000
            file[f"{path}/timestamps"].attrs["units"] = "milliseconds"
            file[f"{path}/{'node_ids' if name == 'new.h5' else 'gids'}"] = UNITS[order].astype(np.uint64)
        yield taken(root / name, "recording")


def matlab_5(root: Path) -> Iterator[Sample]:
    spikes = np.empty(2, object)
    spikes[:] = [COUNTS[0].astype(float), COUNTS[1][:5].astype(np.int16)]
    trials = np.zeros(2, dtype=[("spikes", object), ("choice", object)])
    trials["spikes"], trials["choice"] = spikes, [1.0, "left"]
    nested = {"area": np.array(["V1", "LM"], object), "map": sparse.csc_array(np.eye(3)), "flag": True, "c": 1 + 2j}
    for name, packed in (("plain.mat", False), ("packed.mat", True)):
        scipy.io.savemat(
            root / name,
            {"trials": trials, "nested": nested, "bin_width": 0.02},
            do_compression=packed,
            long_field_names=True,
        )
        sample = taken(root / name, "recording", {"counts": "trials.spikes", "bin_width": "bin_width"})
        # The first line holds the time of writing.
        sample.files[name] = b"MATLAB 5.0 MAT-file".ljust(116) + sample.files[name][116:]
        yield sample
    scipy.io.savemat(root / "w.mat", {"weight": sparse.csc_array(np.array([[0, 1.5], [2, 0]]))})
    sample = taken(root / "w.mat", "connectome")
    sample.files["w.mat"] = b"MATLAB 5.0 MAT-file".ljust(116) + sample.files["w.mat"][116:]
    yield sample
    scipy.io.savemat(root / "v4.mat", {"counts": COUNTS[0], "bin_width": 0.1, "note": "text"}, format="4")
    yield taken(root / "v4.mat", "recording")


def matlab_73(root: Path) -> Iterator[Sample]:
    with h5py.File(root / "new.mat", "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")

        def stored(name, values, kind, place=refs):
            item = place.create_dataset(name, data=values)
            item.attrs["MATLAB_class"] = np.bytes_(kind)
            return item.ref

        trials = file.create_group("trials")
        trials.attrs["MATLAB_class"] = np.bytes_("struct")
        spikes = [
            stored("s0", COUNTS[0].T.astype(float), "double"),
            stored("s1", COUNTS[1][:5].T.astype(float), "double"),
        ]
        trials.create_dataset("spikes", data=np.array([spikes], h5py.ref_dtype))
        letters = [
            stored(f"c{at}", np.array([[ord(each)] for each in word], np.uint16), "char")
            for at, word in enumerate(("V1", "LM"))
        ]
        file.create_dataset("cells", data=np.array([letters], h5py.ref_dtype)).attrs["MATLAB_class"] = np.bytes_("cell")
        stored("bin_width", [[0.02]], "double", file)
        stored("flag", np.ones((1, 1), np.uint8), "logical", file)
        stored("empty", np.zeros(2, np.uint64), "char", file)
        file["empty"].attrs["MATLAB_empty"] = 1
        matrix = file.create_group("weight")
        matrix.attrs["MATLAB_class"], matrix.attrs["MATLAB_sparse"] = np.bytes_("double"), np.uint64(3)
        matrix["data"], matrix["ir"], matrix["jc"] = (
            [1.5, 2.0],
            np.array([0, 2], np.uint64),
            np.array([0, 1, 1, 2], np.uint64),
        )
    sample = taken(root / "new.mat", "recording", {"counts": "trials.spikes", "bin_width": "bin_width"})
    yield sample
    yield sample._replace(content="connectome", fields={"weight": "weight"})


def npz(root: Path) -> Iterator[Sample]:
    np.savez(root / "plain.npz", counts=COUNTS, bin_width=0.02, unit=np.array([11, 12]), notes=np.array(["é", "b"]))
    yield taken(root / "plain.npz", "recording")
    np.savez_compressed(root / "spikes.npz", spike_times=TIMES, unit=UNITS, events=[0.1, 1.0], stops=[0.5, 1.7])
    yield taken(root / "spikes.npz", "recording")
    np.savez(root / "w.npz", pre=[1, 2], post=[2, 1], weight=np.ones(2, np.float16), neuron=[1, 2, 3], sign=[1, -1, 0])
    yield taken(root / "w.npz", "connectome")


def npy(root: Path) -> Iterator[Sample]:
    np.save(root / "counts.npy", COUNTS[0])
    yield taken(root / "counts.npy", "recording", None, bin_width=0.1)
    np.save(root / "weight.npy", np.asfortranarray(np.eye(4)))
    yield taken(root / "weight.npy", "connectome")
    np.save(root / "rates.npy", np.random.default_rng(0).uniform(size=(2, 9, 3)).astype(">f4"))
    yield taken(root / "rates.npy", "recording", None, bin_width=0.1)


def sparse_npz(root: Path) -> Iterator[Sample]:
    matrix = np.where(np.random.default_rng(0).uniform(size=(6, 6)) < 0.3, 1.5, 0)
    for kind in (sparse.csr_array, sparse.csc_array, sparse.coo_array):
        name = f"{kind.__name__}.npz"
        sparse.save_npz(root / name, kind(matrix), compressed=kind is not sparse.csr_array)
        yield taken(root / name, "connectome", {"weight": "matrix"})


def hdf5(root: Path) -> Iterator[Sample]:
    with h5py.File(root / "session.h5", "w") as file:
        file.create_dataset("counts", data=COUNTS, chunks=(1, 8, 2), compression="gzip", shuffle=True)
        file["bin_width"], file["unit"] = 0.02, np.array(["AVA", "RIM"], h5py.string_dtype())
        file["meta/deep/fixed"] = np.array([b"a", b"b"])
        file["meta/pairs"] = np.zeros(2, [("a", "i4"), ("b", "f8")])
        file["meta/nothing"] = h5py.Empty("f8")
        file["meta/alias"], file["gone"] = h5py.SoftLink("/counts"), h5py.SoftLink("/none")
    yield taken(root / "session.h5", "recording")
    with h5py.File(root / "edges.hdf5", "w", libver="latest") as file:
        file["g/pre"], file["g/post"], file["g/weight"] = [1, 2], [2, 1], np.ones(2, ">f4")
    yield taken(root / "edges.hdf5", "connectome", {"pre": "g.pre", "post": "g.post", "weight": "g.weight"})


def labelled(suffix: str) -> Callable[[Path], Iterator[Sample]]:
    def make(root: Path) -> Iterator[Sample]:
        save(sessions(), root / f"session{suffix}")
        yield taken(root / f"session{suffix}", "recording")
        save(wiring(), root / f"wiring{suffix}")
        yield taken(root / f"wiring{suffix}", "connectome")
        yield taken(root / f"wiring{suffix}", "connectome", {"pre": "pre", "post": "post", "kind": "kind"})

    return make
