"""What users get wrong, and the message each mistake earns: a table for arrays, for fits and for files."""

import builtins
import gzip
import re
import zipfile

import h5py
import jax
import numpy as np
import pandas as pd
import pytest
import scipy.io
import xarray as xr

from connectinfer.data.connectome import check_connectome, connectome, from_dense, to_dense
from connectinfer.data.objects import as_recording
from connectinfer.data.reading import open_connectome, open_recording
from connectinfer.data.recording import check_recording, recording
from connectinfer.data.saving import save
from connectinfer.data.spike_times import align_spikes, bin_spikes
from connectinfer.data.splits import hold_out, split_trials
from connectinfer.data.time_bins import cut_trials, rebin
from connectinfer.inference.fit import fit
from connectinfer.zoo import load_model

ONES = np.ones((2, 3, 2), int)
GOOD = recording(time=0.01, counts=ONES)
LONG = np.cumsum(np.full(100, 150.0))  # ms between spikes


def changed(index, value, dtype=float):
    values = ONES.astype(dtype)
    values[index] = value
    return values


MISTAKES = {
    "no data": (lambda: recording(time=0.01), "give exactly one of `counts`, `rates` and `fluorescence`; got none"),
    "two kinds": (lambda: recording(time=0.01, counts=ONES, rates=ONES), r"got \['counts', 'rates'\]"),
    "wrong dims": (
        lambda: recording(time=0.01, counts=ONES[0]),
        r"`counts` must have the axes \('trial', 'time', 'unit'\); got shape \(3, 2\). Transpose it, or give a list",
    ),
    "trials with other units": (
        lambda: recording(time=0.01, counts=[ONES[0], ONES[1, :, :1]]),
        r"`counts\[1\]` must have .* got shape \(3, 1\) beside \(3, 2\)",
    ),
    "text for numbers": (lambda: recording(time=0.01, counts=np.full((1, 1, 1), "x")), "`counts` must hold numbers"),
    "no trials": (lambda: recording(time=0.01, counts=[]), "`counts` is an empty list"),
    "NaN counts": (
        lambda: recording(time=0.01, counts=changed((1, 2, 0), np.nan), unit=["a", "b"], trial=[5, 6]),
        r"1 NaN or infinite values .*\(first nan at trial 6, time bin 2, unit a\).*pass `mask=np.isfinite\(counts\)`",
    ),
    "NaN fluorescence": (lambda: recording(time=0.6, fluorescence=changed((0, 0, 1), np.nan)), "1 NaN or infinite"),
    "negative counts": (
        lambda: recording(time=0.01, counts=changed((0, 1, 1), -2, int)),
        r"`counts` must not be negative \(first -2 at trial 0, time bin 1, unit 1\)",
    ),
    "fractional counts": (
        lambda: recording(time=0.01, counts=changed((0, 1, 1), 0.5)),
        r"whole numbers \(first 0.5 at trial 0, time bin 1, unit 1\). Pass firing rates in Hz as `rates`",
    ),
    "empty trial": (
        lambda: recording(time=0.01, counts=[ONES[0], ONES[0, :0]], trial=["a", "b"]),
        "trials without any observed bin: 'b'. Leave them out",
    ),
    "inputs of another length": (
        lambda: recording(time=0.01, counts=ONES, inputs=np.zeros((2, 4, 1))),
        "`inputs` has 4 time bins in trial 0, the data has 3. Inputs must be sampled on the bins of the data",
    ),
    "ragged inputs of another length": (
        lambda: recording(time=0.01, counts=[ONES[0], ONES[0, :2]], inputs={"u": [np.zeros(3), np.zeros(3)]}),
        r"`inputs\['u'\]` has 3 time bins in trial 1, the data has 2",
    ),
    "inputs of other trials": (
        lambda: recording(time=0.01, counts=ONES, inputs=np.zeros((3, 3, 1))),
        "`inputs` has 3 trials, the data has 2",
    ),
    "NaN inputs": (
        lambda: recording(time=0.01, counts=ONES, inputs=np.full((2, 3, 1), np.nan)),
        "`inputs` is NaN or infinite in trial 0, time bin 0; fill it",
    ),
    "duplicate units": (lambda: recording(time=0.01, counts=ONES, unit=["a", "a"]), "duplicate `unit` ids: 'a'"),
    "float ids": (
        lambda: recording(time=0.01, counts=ONES, unit=[1.0, 2.0]),
        r"`unit` ids are floating-point \(float64\); .*above 2\^53.* Read them as int64 or str",
    ),
    "ids beyond int64": (lambda: recording(time=0.01, counts=ONES, unit=[1, 2**63]), "must be int64 or str; got o"),
    "too few ids": (lambda: recording(time=0.01, counts=ONES, unit=[1]), "`unit` has 1 ids but `counts` has 2 units"),
    "unsorted time": (
        lambda: recording(time=[0.0, 0.2, 0.1], counts=ONES),
        "`time` must increase; bin 2 starts at 0.1 s, after 0.2 s. Sort the bins",
    ),
    "uneven time": (
        lambda: recording(time=[0.0, 0.1, 0.4], counts=ONES),
        "`time` must be uniform; bins are 0.2 s apart on average, but bins 1 and 2 are 0.3 s apart",
    ),
    "time of another length": (lambda: recording(time=[0.0, 0.1], counts=ONES), "but the data has 3 time bins"),
    "one bin without width": (lambda: recording(time=[0.0], counts=ONES[:, :1]), "pass `time` as a number"),
    "negative bin width": (lambda: recording(time=-0.1, counts=ONES), "must be a positive number of seconds; got -0.1"),
    "wrong mask shape": (
        lambda: recording(time=0.01, counts=ONES, mask=np.ones((2, 3, 1), bool)),
        r"`mask` has shape \(2, 3, 1\), the data \(trial, time, unit\) = \(2, 3, 2\)",
    ),
    "mask of numbers": (lambda: recording(time=0.01, counts=ONES, mask=ONES), "`mask` must be bool"),
    "array without time": (lambda: as_recording(ONES), "a bare array carries no time: pass `time`"),
    "floats of unknown kind": (lambda: as_recording(ONES * 0.5, time=0.01), "say what they are: `kind=` one of"),
    "unnamed DataArray": (
        lambda: as_recording(xr.DataArray(ONES, dims=("trial", "time", "unit"))),
        "say what the DataArray holds: `kind=`",
    ),
    "other dims": (
        lambda: as_recording(xr.DataArray(ONES[0], dims=("t", "cell"), name="counts")),
        r"must have dims \('trial', 'time', 'unit'\) in any order; got \('trial', 't', 'cell'\). Rename them",
    ),
    "time that runs on over trials": (
        lambda: as_recording(
            pd.DataFrame({"u": [1, 1, 1, 1]}, pd.MultiIndex.from_arrays([[0, 0, 1, 1], [0.0, 0.1, 0.2, 0.3]]))
        ),
        "no two trials share a time: it seems to run on. Subtract each trial's start",
    ),
    "dates for seconds": (
        lambda: as_recording(pd.DataFrame({"u": [1, 1]}, pd.to_datetime(["2024-01-01", "2024-01-02"]))),
        "the time index must be numbers in seconds",
    ),
    "dataset without data": (lambda: check_recording(xr.Dataset({"spk": 1})), "got none of them among the variables"),
    "transposed dataset": (
        lambda: check_recording(GOOD.transpose("unit", "time", "trial")),
        r"`counts` must have dims \('trial', 'time', 'unit'\); got \('unit', 'time', 'trial'\).*transpose",
    ),
    "wrong bin width": (
        lambda: check_recording(GOOD.assign_attrs(bin_width=10)),
        "is 10, but the time axis has bins of 0.01 s",
    ),
    "data under the mask": (lambda: check_recording(GOOD.assign(mask=GOOD["mask"] & False | (GOOD["time"] > 0))),
                            "masked entries of `counts` must hold 0"),
    "unsorted spikes": (
        lambda: bin_spikes({"a": [0.1, 0.3, 0.2]}, bin_width=0.1),
        r"spike times of unit 'a' are not sorted: 0.2 s follows 0.3 s \(index 2\)",
    ),
    "spikes in milliseconds": (
        lambda: bin_spikes({"a": LONG}, bin_width=0.1),
        "look like milliseconds or samples: units 'a' fire about every 150 s .* Divide by 1000, or by the sampling",
    ),
    "spikes in hours": (
        lambda: bin_spikes({"a": LONG / 3.6e6}, bin_width=0.1),
        "not in seconds: the median interval of a unit would be 0.0417 ms",
    ),
    "NaN spike": (lambda: bin_spikes({"a": [np.nan]}, bin_width=0.1), "unit 'a' must be finite"),
    "no spikes": (lambda: bin_spikes({"a": []}, bin_width=0.1), "there are no spikes"),
    "negative spike bins": (
        lambda: bin_spikes({"a": [0.1]}, bin_width=-0.1),
        "`bin_width` must be a positive number of seconds; got -0.1",
    ),
    "spikes without units": (lambda: bin_spikes(([0.1, 0.2], [1]), bin_width=0.1), "got 2 times and 1 unit ids"),
    "stop before start": (lambda: bin_spikes({"a": [0.1]}, bin_width=0.1, stop=-1.0), "after `stop`, -1 s"),
    "events in milliseconds": (
        lambda: align_spikes({"a": [0.1, 0.2]}, [500.0, 900.0], bin_width=0.1, window=(0.0, 1.0)),
        r"no event has a spike around it: events lie in \[500, 900\], spikes in \[0.1, 0.2\].* in seconds",
    ),
    "an event after the recording": (
        lambda: align_spikes({"a": [0.1, 9.0]}, [0.0, 50.0], bin_width=0.1, window=(0.0, 1.0)),
        r"1 of 2 trials lie outside the spikes, which range over \[0.1, 9\] s \(first: event 1 at 50 s\)",
    ),
    "endless trials": (lambda: align_spikes({"a": [0.1]}, [0.0], bin_width=0.1), "say where trials end"),
    "trial shorter than a bin": (
        lambda: align_spikes({"a": [0.1]}, [0.0, 1.0], bin_width=0.1, stops=[0.5, 1.05]),
        "trial 1 lasts from 0 s to 0.05 s after its event, less than one bin of 0.1 s",
    ),
    "stops of other trials": (
        lambda: align_spikes({"a": [0.1]}, [0.0], bin_width=0.1, stops=[1.0, 2.0]), "`stops` needs one time per event"
    ),
    "factor too large": (lambda: rebin(GOOD, 4), "`factor` must lie between 1 and the 3 bins"),
    "cutting several trials": (lambda: cut_trials(GOOD, 2), "only a recording of one trial can be cut"),
    "no test trials": (
        lambda: split_trials(np.random.default_rng(0), GOOD, test_fraction=0.1),
        r"0.1 of 2 trials leaves one part empty \(0 and 2\)",
    ),
    "holding out unknown units": (lambda: hold_out(GOOD, trials=[0], units=[9]), "unknown unit ids: 9. Known are 0, 1"),
    "holding out a whole unit": (
        lambda: hold_out(GOOD, trials=[0, 1], units=[1]), "units 1 would keep no observed bin. Hold out fewer entries"
    ),
    "edge to unknown neuron": (
        lambda: connectome([1, 2], [2, 3], neurons=[1, 2]), "`post` names 1 neurons that are not in `neurons`: 3"
    ),
    "float neuron ids": (lambda: connectome([1.0], [2.0]), r"`pre` ids are floating-point \(float64\)"),
    "duplicate neurons": (lambda: connectome([1], [2], neurons=[1, 2, 2]), "duplicate `neuron` ids: 2"),
    "ids of two types": (lambda: connectome([1], ["b"]), "`pre` and `post` need one id of the same type per edge"),
    "neuron ids of another type": (lambda: connectome([1], [2], neurons=["1", "2"]), "give all as int or as str"),
    "repeated edges": (
        lambda: connectome(["a", "a"], ["b", "b"], weight=[1.0, 2.0]),
        r"1 edges repeat another with the same pre, post, for example \('a', 'b'\).*sum_synapses.*give `kind`",
    ),
    "NaN weight": (lambda: connectome([1], [2], weight=[np.nan]), "`weight` of edge 0 is nan; leave out edges"),
    "weights of other edges": (lambda: connectome([1], [2], weight=[1.0, 2.0]), r"`weight` has shape \(2,\)"),
    "two of three coordinates": (
        lambda: connectome([1], [2], neurons=pd.DataFrame({"x": [0.0, 1], "y": [0.0, 1]}, [1, 2])),
        r"positions need x, y and z in micrometres; got \['x', 'y'\] only",
    ),
    "infinite position": (
        lambda: connectome([1], [2], neurons=pd.DataFrame({"x": [0.0, np.inf], "y": 0.0, "z": 0.0}, [1, 2])),
        r"bad position \[inf, 0.0, 0.0\] of neuron 2",
    ),
    "positions in nanometres": (
        lambda: connectome([1], [2], neurons=pd.DataFrame({"x": [0.0, 4e5], "y": 0.0, "z": 0.0}, [1, 2])),
        r"positions span 4e\+05 micrometres, more than a brain; are they nm\? Divide by 1000",
    ),
    "unknown sign": (
        lambda: connectome([1], [2], neurons=pd.DataFrame({"sign": [2, 1]}, [1, 2])), r"`sign` must be 1 \(excitatory\)"
    ),
    "matrix that is not square": (lambda: from_dense(np.ones((2, 3))), r"must be a square matrix \(post, pre\)"),
    "matrix of text": (lambda: to_dense(connectome([1], [2], kind=["x"], w=[1]), "kind"), r"choose one of \['w'\]"),
    "no connectome": (lambda: check_connectome(xr.Dataset()), "a connectome needs a variable `pre` with dims"),
}  # fmt: skip


@pytest.mark.parametrize(("mistake", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_memory_is_refused_with_what_to_do(mistake, message):
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        mistake()


ODE, POISSON = "low_rank_rnn_ode", "low_rank_rnn_poisson"
FITS = {
    "unknown model": ("low_rank_rnn_poison", {}, "Unknown model 'low_rank_rnn_poison'. Did you mean 'low_rank_rnn_po"),
    "unknown engine": (
        POISSON, {"engine": "nut"}, r"Unknown engine 'nut'. Did you mean 'nuts'\? Engines: state_space, nuts, svi"
    ),
    "unknown option of the model": (POISSON, {"rnak": 2}, "Unknown option 'rnak' for .* Did you mean 'rank'"),
    "unknown option of the engine": (
        POISSON, {"engine": "svi", "step": 2}, "Unknown option 'step' for .* Did you mean 'steps'"
    ),
    "option that `fit` sets": (POISSON, {"labels": None}, "Unknown option 'labels'"),
    "option of another engine": (ODE, {"guide": "normal"}, "with engine 'nuts'.*Options: .*target_accept_prob"),
    "unknown guide": (POISSON, {"engine": "svi", "guide": "norml"}, "'norml'. Did you mean 'normal'"),
    "data of another kind": ("low_rank_rnn_gaussian", {}, "needs a recording of fluorescence; got counts"),
    "rank larger than units": (POISSON, {"rank": 13}, "between 1 and the number of units; got rank=13 for 12 units"),
    "time step larger than tau": (
        POISSON, {"tau": 0.005},
        r"The time step must be smaller than `tau`; got bins of 0.01 s and tau=0.005 s. Bin .* more finely",
    ),
    "no draws": (
        POISSON, {"engine": "state_space", "draws": 0}, "got warmup=150, thinning=1 and draws=0"
    ),
    "no paths": (ODE, {"engine": "state_space"}, "is for models with latent paths: .*_ode' has no `CONDITIONALS`. Use"),
    "negative learning rate": (
        POISSON, {"engine": "svi", "learning_rate": -1.0}, "`learning_rate` positive; got 2000, 1, 500 and -1.0"
    ),
    "too few devices": (
        ODE, {"chain_method": "parallel", "chains": 64}, "64 parallel chains need 64 devices; JAX sees [12]"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def counts():
    return load_model(POISSON).example(jax.random.key(0))


@pytest.mark.parametrize(("model", "options", "message"), FITS.values(), ids=FITS)
def test_a_mistaken_fit_is_refused_before_it_starts(counts, model, options, message):
    with pytest.raises(ValueError, match=message):
        fit(model, counts, **options)


def pickled(path):
    np.savez(path, counts=np.array([ONES[0], ONES[0, :2]], object))


def truncated(write):
    def write_half(path):
        write(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return write_half


def matlab(path):
    scipy.io.savemat(path, {"spikes": np.random.default_rng(0).poisson(1.0, (50, 40, 3)).astype(float)})


def hdf5(path):
    with h5py.File(path, "w") as file:
        file["spikes"] = np.random.default_rng(0).poisson(1.0, (50, 40, 3))


def archive(path):
    np.savez(path, spikes=ONES, unit=np.arange(2), choice=np.arange(2))


def wrong_checksum(path):
    np.savez(path, spikes=np.ones((50, 40, 3), int))
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("spikes.npy").header_offset
    content = bytearray(path.read_bytes())
    content[start + 20000] ^= 255
    path.write_bytes(content)


def flipped(write):
    """With all bits of its middle tenth flipped."""

    def write_damaged(path):
        write(path)
        content = bytearray(path.read_bytes())
        middle = slice(len(content) * 45 // 100, len(content) * 55 // 100)
        content[middle] = bytes(255 - x for x in content[middle])
        path.write_bytes(content)

    return write_damaged


def text(content):
    return lambda path: path.write_text(content)


FILES = {
    "damaged MATLAB": ("a.mat", truncated(matlab), {}, r"a.mat cannot be read as a MATLAB file.*damaged"),
    "not MATLAB": ("a.mat", text("hello"), {}, "a.mat cannot be read as a MATLAB file"),
    "damaged MATLAB 7.3": ("a.mat", truncated(hdf5), {}, "a.mat cannot be read as a MATLAB file"),
    "damaged HDF5": ("a.h5", truncated(hdf5), {}, r"a.h5 cannot be read as HDF5 .*damaged"),
    "damaged netCDF": ("a.nc", truncated(hdf5), {}, "a.nc cannot be read as netCDF 4"),
    "no Zarr folder": ("a.zarr", lambda path: path.mkdir(), {}, "a.zarr cannot be read as Zarr"),
    "damaged zip": ("a.npz", truncated(archive), {}, "a.npz cannot be read as NumPy's npz .*damaged"),
    "wrong checksum": (
        "a.npz", wrong_checksum, {"fields": {"counts": "spikes"}, "bin_width": 0.1},
        "array 'spikes' of a.npz cannot be read",
    ),
    "pickled objects": (
        "a.npz", pickled, {"bin_width": 0.1}, "a.npz holds pickled Python objects, which are refused because loading"
    ),
    "damaged inside a compressed array": (
        "a.npz", flipped(lambda path: np.savez_compressed(path, spikes=np.arange(6000).reshape(50, 40, 3) % 7)),
        {"fields": {"counts": "spikes"}, "bin_width": 0.1}, "a.npz .*cannot be read|array 'spikes' of a.npz cannot",
    ),
    "damaged inside a compressed table": (
        "a.csv.gz",
        flipped(lambda path: path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 50 + bytes(range(48, 58)) * 99))),
        {}, "a.csv.gz cannot be read as a table",
    ),
    "damaged gzip": ("a.csv.gz", text("no gzip"), {}, "a.csv.gz cannot be read as a table"),
    "empty table": ("a.csv", text(""), {}, "a.csv cannot be read as a table"),
    "unknown suffix": ("a.mta", text(""), {}, r"no reader for a.mta. Did you mean .mat\? Readers exist for .mat, "),
    "not NWB": ("a.nwb", text("hello"), {}, "a.nwb cannot be read as NWB .*damaged"),
    "HDF5 that is not NWB": ("a.nwb", hdf5, {}, r"a.nwb cannot be read as NWB .*Missing NWB version"),
    "zipped archive": ("a.mat.gz", text(""), {}, "no reader for a.mat.gz"),
    "names that are not ours": (
        "a.npz", archive, {},
        r"none of .* is among the fields of the file:\n  spikes: int64 \(2, 3, 2\)\n.*fields=\{\"counts\"",
    ),
    "unknown path": (
        "a.npz", archive, {"fields": {"counts": "spike"}, "bin_width": 0.1},
        r"there is no field 'spike'. Did you mean 'spikes'\? The file holds:\n  spikes: int64",
    ),
    "unknown field": (
        "a.npz", archive, {"fields": {"counts": "spikes", "units": "unit"}, "bin_width": 0.1},
        r"unknown field 'units'. Did you mean 'unit'\? A further coordinate names its dimension",
    ),
    "no field of ours": (
        "a.npz", archive, {"fields": {"count": "spikes"}, "bin_width": 0.1},
        r"unknown field 'count'. Did you mean 'counts'\?",
    ),
    "unknown option": (
        "a.npz", archive, {"fields": {"counts": "spikes"}, "bin_widht": 0.1},
        r"unknown option 'bin_widht'. Did you mean 'bin_width'\?",
    ),
    "field and value": (
        "a.npz", archive, {"fields": {"counts": "spikes", "unit": "unit"}, "unit": [1, 2], "bin_width": 0.1},
        r"\['unit'\] are given both as fields and as values",
    ),
    "no time": ("a.npz", archive, {"fields": {"counts": "spikes"}}, "give either `time`, .* or `bin_width`"),
    "a window without events": (
        "a.npz", archive, {"fields": {"spike_times": "unit", "unit": "choice"}, "window": (0.0, 1.0)},
        r"\['window'\] cut trials around `events`, which are missing; give their times in s",
    ),
    "events and a stretch": (
        "a.npz", archive, {"fields": {"spike_times": "unit", "unit": "choice"}, "events": [0.0], "stop": 1.0},
        r"\['stop'\] say where one stretch lies, `events` where trials do; give one or the other",
    ),
    "trials of a stretch": (
        "a.npz", archive, {"fields": {"spike_times": "unit", "unit": "choice", "trial": "choice"}},
        "`trial` names the trials that `events` cut out of spike times",
    ),
    "spike times without units": (
        "a.npz", archive, {"fields": {"spike_times": "unit"}, "bin_width": 0.1}, "`unit` must give the unit of every"
    ),
    "binning of counts": (
        "a.npz", archive, {"fields": {"counts": "spikes"}, "bin_width": 0.1, "stop": 1.0},
        r"\['stop'\] belong to `spike_times`; `counts` is binned already",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "write", "options", "message"), FILES.values(), ids=FILES)
def test_a_mistaken_file_is_refused_by_name_with_what_to_do(tmp_path, name, write, options, message):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)) as refused:
        open_recording(tmp_path / name, **options)
    assert str(tmp_path) not in str(refused.value).replace(str(tmp_path / name), "")


def test_a_missing_file_names_its_neighbour(tmp_path):
    matlab(tmp_path / "session.mat")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*sesion.mat. Did you mean 'session.mat'\?"):
        open_recording(tmp_path / "sesion.mat")


@pytest.mark.parametrize(("suffix", "extra"), [("parquet", "parquet"), ("nwb", "nwb")])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, suffix, extra):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"PAR1")
    real = builtins.__import__

    def without_extras(name, *args, **kwargs):
        if name.split(".")[0] in ("pyarrow", "fastparquet", "pynwb"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_extras)
    with pytest.raises(
        ImportError, match=rf"needs the extra `{extra}`: python -m pip install 'connectinfer\[{extra}\]'"
    ):
        open_recording(path, fields={"counts": "unit_*"}, bin_width=0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param(None, r"none of \('pre', 'weight'\) is among the fields", id="foreign names"),
        pytest.param({"pre": "source"}, "give `pre` and `post`, or a matrix `weight` alone", id="no post"),
        pytest.param(
            {"pre": "source", "post": "target", "x": "size"}, "say with `neuron` which field", id="neurons without ids"
        ),
        pytest.param({"pre": "source", "post": "target"}, "1 edges repeat another", id="single synapses"),
    ],
)
def test_a_mistaken_edge_table_is_refused(tmp_path, fields, message):
    (tmp_path / "edges.csv").write_text("source,target,size\na,b,1\na,b,2\n")
    with pytest.raises(ValueError, match=message):
        open_connectome(tmp_path / "edges.csv", fields=fields)


def test_labelled_data_is_written_as_netcdf_or_zarr_only(tmp_path):
    with pytest.raises(ValueError, match=r"a recording or result is written as .nc or .zarr; got a.npz"):
        save(GOOD, tmp_path / "a.npz")
