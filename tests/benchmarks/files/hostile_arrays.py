"""Hostile files of formats for arrays: they link elsewhere, claim too much, turn in circles, hold code.

Each yields the name of the opened file, its bytes or files by name, what it claims to hold, and perhaps `fields`.
"""

import gzip
import io
import json
import pickle

import h5py
import numpy as np
from sample import Sample
from samples import sound_samples
from traps import BOMB, MARKER, OUTSIDE_VALUE, SECRET, Bomb, claim, hdf5_image, npy_image, pickled, zip_image


def nwb():
    outside = hdf5_image(lambda file: file.create_dataset("units", data=[1]))
    yield (
        "outside.nwb",
        {
            "outside.nwb": hdf5_image(lambda file: file.__setitem__("units", h5py.ExternalLink(SECRET, "/"))),
            "o.h5": outside,
        },
        "recording",
    )
    for sample in sound_samples()["nwb"][:1]:
        yield from _sonata_like(sample)


def _sonata_like(sample: Sample):
    """The sound file with a link to another file, a cycle, and absurd times in the place of its spikes."""
    path = "units/spike_times"
    for name, change in {
        "external": lambda file: file.__setitem__(path, h5py.ExternalLink(SECRET, "/")),
        "cycle": lambda file: file.__setitem__(path, h5py.SoftLink("/units")),
        "late": lambda file: file.__setitem__(path, np.linspace(0, 1e300, 30)),
        "far": lambda file: file.__setitem__(path, np.linspace(0, 1e9, 30)),
        "nothing": lambda file: file.__setitem__(path, np.full(30, np.nan)),
    }.items():
        image = io.BytesIO(sample.files[sample.opened])
        with h5py.File(image, "r+") as file:
            attributes = dict(file[path].attrs)
            del file[path]
            change(file)
            if name in ("late", "far", "nothing"):
                file[path].attrs.update(attributes)
        yield f"{name}.nwb", image.getvalue(), "recording"


def sonata_edges():
    def doubling(file):
        for at in range(40):
            file.create_group(f"g{at}")
        for at in range(39):
            file[f"g{at}/a"], file[f"g{at}/b"] = h5py.SoftLink(f"/g{at + 1}"), h5py.SoftLink(f"/g{at + 1}")
        file["edges"] = h5py.SoftLink("/g0")

    yield "doubling.h5", hdf5_image(doubling), "connectome"


def sonata_config():
    for name, config in {
        "outside": {"networks": {"nodes": [{"nodes_file": f"../{SECRET}"}], "edges": [{"edges_file": "/etc/passwd"}]}},
        "itself": {"network": "config.json"},
        "folder": {"networks": {"nodes": [{"nodes_file": "/"}], "edges": []}},
        "device": {"networks": {"nodes": [{"nodes_file": "/dev/zero"}], "edges": [{"edges_file": "/dev/zero"}]}},
        "inner device": {"network": "/dev/zero"},
        "types": {
            "networks": {"nodes": [{"nodes_file": "config.json", "node_types_file": "config.json"}], "edges": []}
        },
        "long": {"manifest": {"$A": "$B$B", "$B": "$A"}, "networks": {"nodes": [{"nodes_file": "$A" * 3000}]}},
        "surrogate": {"networks": {"nodes": [{"nodes_file": "\ud800.h5"}], "edges": []}},
    }.items():
        yield "config.json", {"config.json": json.dumps(config), name: b""}, "connectome"


def spikes():
    for name, times in {
        "late": [0.0, 1e300],
        "far": [0.0, 1e12],
        "nan": [0.0, np.nan],
        "negative": [-1e12, 0.0],
        "inf": [0, np.inf],
    }.items():

        def fill(file, times=times):
            file["spikes/v1/timestamps"], file["spikes/v1/node_ids"] = np.array(times), np.array([1, 2], np.uint64)

        yield f"{name}.h5", hdf5_image(fill), "recording", {"unit": "unit"} if name == "none" else None


def matlab_5():
    # An array of 2^31 - 1 doubles that announces itself in 64 bytes.
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    flags = (6).to_bytes(4, "little") + (8).to_bytes(4, "little") + (6).to_bytes(8, "little")
    for count, shape in (("huge", (2**31 - 1, 1)), ("negative", (2**32 - 1, 2**32 - 1))):
        dims = (5).to_bytes(4, "little") + (8).to_bytes(4, "little") + b"".join(n.to_bytes(4, "little") for n in shape)
        name = (1).to_bytes(4, "little") + (6).to_bytes(4, "little") + b"counts\x00\x00"
        data = (9).to_bytes(4, "little") + (2**31 - 8).to_bytes(4, "little")
        body = flags + dims + name + data
        yield f"{count}.mat", head + (14).to_bytes(4, "little") + len(body).to_bytes(4, "little") + body, "recording"
    yield "other.mat", b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + pickle.dumps(Bomb()), "recording"


def matlab_73():
    def cycle(file):
        file["trials/self"] = h5py.SoftLink("/trials")
        refs = file.create_dataset("cells", (2, 1), h5py.ref_dtype)
        refs[0, 0] = refs[1, 0] = refs.ref

    def doubling(file):
        for at in range(40):
            file.create_group(f"g{at}")
        for at in range(39):
            file[f"g{at}/a"], file[f"g{at}/b"] = file[f"g{at + 1}"], file[f"g{at + 1}"]

    def deep(file):
        file["/".join("a" * 900)] = 1.0

    def external(file):
        file["counts"] = h5py.ExternalLink("values.h5", "/counts")

    def virtual(file):
        layout = h5py.VirtualLayout((3, 2), "f8")
        layout[...] = h5py.VirtualSource("values.h5", "counts", (3, 2))
        file.create_virtual_dataset("counts", layout)

    values = hdf5_image(lambda file: file.__setitem__("counts", np.full((3, 2), OUTSIDE_VALUE)))
    for name, fill in {
        "cycle": cycle,
        "doubling": doubling,
        "deep": deep,
        "external": external,
        "virtual": virtual,
    }.items():
        yield f"{name}.mat", {f"{name}.mat": hdf5_image(fill, userblock_size=512), "values.h5": values}, "recording"


def hdf5_files():
    for name, files, kind, *_ in matlab_73():
        yield name.replace(".mat", ".h5"), {each.replace(".mat", ".h5"): inner for each, inner in files.items()}, kind

    def stored_outside(file):
        file.create_dataset("counts", (3, 2), "i1", external=[(SECRET, 0, 6)])

    def claims(file):
        file.create_dataset("counts", (2**20, 2**20), "f8", chunks=(2**10, 2**10), compression="gzip")

    def pickles(file):
        file.create_dataset("counts", (1,), h5py.vlen_dtype(np.uint8))[0] = np.frombuffer(
            pickle.dumps(Bomb()), np.uint8
        )
        file.attrs["python"] = np.void(pickle.dumps(Bomb()))

    def bomb(file):
        file.create_dataset(
            "counts",
            data=np.zeros((20000, 400)),
            compression="gzip",
            compression_opts=9,
            chunks=(20000, 400),
        )

    def long_text(file):
        file["pre"] = np.array(["a" * 10**5, *"b" * 999], h5py.string_dtype())
        file["post"] = np.array(["b"] * 1000, h5py.string_dtype())

    for name, fill in {"stored": stored_outside, "claims": claims, "pickles": pickles, "bomb": bomb}.items():
        yield f"{name}.h5", hdf5_image(fill), "recording"
    yield "long.h5", hdf5_image(long_text), "connectome"


def npz():
    yield (
        "pickled.npz",
        zip_image({"counts.npy": npy_image(pickled()), "bin_width.npy": npy_image(np.array(0.1))}),
        "recording",
    )
    yield "raw.npz", pickle.dumps(Bomb()), "recording"
    yield "bomb.npz", zip_image({"counts.npy": npy_image(np.zeros((1, 20000, 400)))}), "recording"
    yield "claims.npz", zip_image({"counts.npy": claim("(1000000, 1000000)")}), "recording"
    yield (
        "outside.npz",
        zip_image(
            {
                f"../{MARKER}": b"x",
                "/tmp/x.npy": npy_image(np.zeros(3)),
                "counts.npy": npy_image(np.ones((1, 3, 2), int)),
            }
        ),
        "recording",
    )
    yield "twice.npz", zip_image({"counts.npy": npy_image(np.ones((1, 3, 2), int))}) * 2, "recording"
    yield (
        "late.npz",
        zip_image({"spike_times.npy": npy_image(np.array([0, 1e300])), "unit.npy": npy_image(np.array([1, 2]))}),
        "recording",
    )
    yield (
        "far.npz",
        zip_image({"spike_times.npy": npy_image(np.array([0, 1e9])), "unit.npy": npy_image(np.array([1, 2]))}),
        "recording",
    )
    stops = {"events.npy": npy_image(np.array([0.0])), "stops.npy": npy_image(np.array([1e12]))}
    yield (
        "stops.npz",
        zip_image({"spike_times.npy": npy_image(np.array([0, 1.0])), "unit.npy": npy_image(np.array([1, 2])), **stops}),
        "recording",
    )
    yield "cut.npz", zip_image({"counts.npy": npy_image(np.ones((1, 30, 2), int)), **stops}), "recording"


def npy_files():
    yield "pickled.npy", npy_image(pickled()), "recording"
    yield "raw.npy", pickle.dumps(Bomb()), "recording"
    yield "counts.npy", claim("(1000000, 1000000)"), "recording"
    yield "rates.npy", claim("(-1, 2)", after=bytes(64)), "recording"
    yield "weight.npy", claim("(2, 2)", "|O", pickle.dumps([Bomb()] * 4)), "connectome"
    yield "nested.npy", claim("(" * 3000 + ")" * 3000), "recording"


def sparse():
    parts = {
        "format": np.array(b"csr"),
        "shape": np.array([2, 2]),
        "data": np.ones(2),
        "indices": np.array([0, 1]),
        "indptr": np.array([0, 1, 2]),
    }
    for name, change in {
        "wide": {"shape": np.array([2**40, 2**40]), "indptr": np.array([0, 1, 2])},
        "outside": {"indices": np.array([0, 10**9], np.int32)},
        "backwards": {"indptr": np.array([0, 2**31, 2])},
        "pickled": {"data": pickled()},
        "tall": {
            "format": np.array(b"coo"),
            "row": np.array([0, 1]),
            "col": np.array([1, 0]),
            "shape": np.array([2**33, 2**33]),
        },
    }.items():
        members = {key: npy_image(each) for key, each in (parts | change).items()}
        yield (
            f"{name}.npz",
            zip_image({f"{key}.npy": each for key, each in members.items()}),
            "connectome",
            {"weight": "matrix"},
        )


def netcdf():
    for name, files, kind, *_ in hdf5_files():
        files = files if isinstance(files, dict) else {name: files}
        yield (
            name.replace(".h5", ".nc"),
            {each if each == "values.h5" else each.replace(".h5", ".nc"): inner for each, inner in files.items()},
            kind,
        )
    yield "classic.nc", b"CDF\x01" + bytes(100), "recording"


def zarr():
    def store(array: dict, data: bytes = b"", group: dict | None = None):
        base = {"zarr_format": 3, "node_type": "group", "attributes": {}} | (group or {})
        meta = {
            "zarr_format": 3, "node_type": "array", "shape": [1, 3, 2], "data_type": "int64", "attributes": {},
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 3, 2]}},
            "dimension_names": ["trial", "time", "unit"], "fill_value": 0,
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        } | array  # fmt: skip
        return {
            "zarr.json": json.dumps(base),
            "counts/zarr.json": json.dumps(meta),
            "counts/c/0/0/0": data or np.ones(6, np.int64).tobytes(),
        }

    huge = {
        "shape": [1, 10**6, 10**6],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 10**6, 10**6]}},
    }
    chunks = {"shape": [1, 10**9, 2], "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 1, 1]}}}
    pickle_codec = {
        "codecs": [
            {"name": "numcodecs.pickle", "configuration": {}},
            {"name": "bytes", "configuration": {"endian": "little"}},
        ]
    }
    objects = {"data_type": "object", "fill_value": None}
    gz = {
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "gzip", "configuration": {"level": 9}},
        ]
    }
    bomb = {
        "shape": [1, 20000, 2000],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 20000, 400]}},
        "data_type": "int64",
        **gz,
    }
    version_2 = {
        "zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "|O", "compressor": None, "fill_value": None,
        "order": "C", "filters": [{"id": "pickle", "protocol": 4}],
    }  # fmt: skip
    for name, files in {
        "huge": store(huge),
        "chunks": store(chunks),
        "codec": store(pickle_codec),
        "objects": store(objects, pickle.dumps(Bomb())),
        "bomb": store(bomb, gzip.compress(bytes(BOMB), mtime=0)),
        "v9": store({}, group={"zarr_format": 9}),
        "negative": store({"shape": [1, -3, 2]}),
        "deep": store({"attributes": json.loads('{"a":' * 500 + "1" + "}" * 500)}),
        "pickled": {
            ".zgroup": '{"zarr_format": 2}',
            "counts/.zarray": json.dumps(version_2),
            "counts/.zattrs": '{"_ARRAY_DIMENSIONS": ["unit"]}',
            "counts/0": pickle.dumps(pickled()),
        },
    }.items():
        yield f"{name}.zarr", {f"{name}.zarr/{each}": inner for each, inner in files.items()}, "recording"
