"""Sweeps: one fit for every recording and combination of options, on any number of machines, each result kept."""

import hashlib
import json
import logging
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib.metadata import version
from itertools import product
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
import zarr

from connectinfer._typing import FilePath
from connectinfer.data.content import content_digest
from connectinfer.data.labelled import read_labelled
from connectinfer.data.objects import as_recording
from connectinfer.data.reading import open_recording
from connectinfer.data.saving import save
from connectinfer.inference.fit import assigned, fit
from connectinfer.optimisation.interruption import terminations_interrupt
from connectinfer.optimisation.progress import announce, progress_bar, timed
from connectinfer.zoo import load_model

_DECIDING = ("connectinfer", "jax", "numpyro")
"""Packages whose versions decide what numbers come out."""

# NumPyro keeps its stack of handlers once a process: models traced in two threads at a time would mix.
_ONE_FIT_A_PROCESS = threading.Lock()

Source = Callable[[], Any]


class Task(NamedTuple):
    """One fit of a sweep: what decides its result, as `fit` takes it, and the file that the result goes to."""

    model: str
    source: Source
    settings: dict[str, Any]
    float64: bool
    file: Path


class Row(NamedTuple):
    """What a table of `sweep` says of one fit."""

    status: str
    seconds: float = np.nan
    file: str = ""
    error: str = ""


@terminations_interrupt()
def sweep(
    model: str | Path | ModuleType,
    recordings: Any,
    folder: FilePath,
    *,
    over: Mapping[str, Iterable[Any]] | None = None,
    client: Any = None,
    show_progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """Fits a model to every recording with every combination of the options in `over`, and keeps each result.

    Args:
        model: What `connectinfer.fit` takes; a file must be where the workers find it, too.
        recordings: One recording, or a dict of several by name. Each is what `connectinfer.as_recording` takes; the
            path of a file that `connectinfer.open_recording` reads without further words; or a function without
            arguments that returns a recording, as in `partial(ci.open_recording, path, bin_width=0.01)`. Paths and
            functions are opened where the fits run; recordings in memory are written to `folder` for workers.
        folder: Where results go, `<digest>.zarr`; it must be a folder that all workers share. The digest is that of the
            recording's content, the model's file, engine, options, seed, precision and the versions of connectinfer,
            JAX and NumPyro, so that the same call does what is missing, and nothing twice.
        over: From options of `connectinfer.fit` (`rank`, `seed`, `engine`, ...) to the values they take.
        client: A `distributed.Client`, on whose workers the fits run, one at a time in each process; without it they
            run here, one after the other.
        **options: Further options of `connectinfer.fit`, the same for all.

    Returns:
        A table with dims `recording` and the options in `over`: `status` ("finished", "diverged", "failed" or
        "interrupted"), `seconds` of the fit, `file` in `folder` (attribute) with the result, and `error`, why a fit
        failed. Failed fits stop no others; a warning counts them, and the same call tries them again. When a worker
        dies its fit goes on elsewhere, from a checkpoint. Ctrl-C leaves the fits that were not finished "interrupted",
        as it does the attribute `status`.

    Raises:
        ValueError: an unknown model, engine or option, or options that cannot be swept over or kept by their value.
        OSError: `folder` cannot be written to.
        KeyboardInterrupt: interrupted while recordings were read.
    """
    module, axes, options = load_model(model), _axes(over or {}), _plain_options(options)
    if twice := axes.keys() & options.keys():
        raise ValueError(f"{', '.join(sorted(twice))}: given both in `over` and as an option; keep one.")
    combinations = [options | dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    settings = [_settings(module, each) for each in combinations]
    place = Path(folder).absolute()
    place.mkdir(parents=True, exist_ok=True)
    named = recordings if isinstance(recordings, dict) else {"recording": recordings}
    if not named:
        raise ValueError("`recordings` is empty; give at least one.")
    with timed(f"reading {len(named)} recording{'s' * (len(named) != 1)}", show_progress):
        sources = {str(name): _source(data, place, client is not None) for name, data in named.items()}
        contents = dict(_outcomes(_content, sources, client))
    cells = [
        content if isinstance(content, BaseException) else _task(module, sources[name], content, each, place)
        for name, content in ((name, contents[name]) for name in sources)
        for each in settings
    ]
    done = _run({each.file.name: each for each in cells if isinstance(each, Task)}, client, show_progress)
    rows = [done.get(each.file.name, Row("interrupted")) if isinstance(each, Task) else _failed(each) for each in cells]
    coords = {"recording": list(sources)} | axes
    shape = [len(values) for values in coords.values()]
    columns = {name: np.array([getattr(row, name) for row in rows]).reshape(shape) for name in Row._fields}
    table = xr.Dataset({name: (list(coords), column) for name, column in columns.items()}, coords)
    table.attrs = {"model": _model_file(module).stem, "folder": str(folder)}
    return _judged(table, show_progress)


def run_task(task: Task) -> Row:
    """Computes one fit of a sweep, or goes on with it, unless it is there; its file appears when it is complete.

    Raises:
        ValueError: this process sees another recording, model file or version than `sweep` did, or `fit` refuses.
    """
    checkpoint = _partial(task.file)
    with _ONE_FIT_A_PROCESS, jax.enable_x64(task.float64):
        if not task.file.exists():
            recording = as_recording(task.source())
            here = _file_name(load_model(task.model), content_digest(recording), task.settings, task.float64)
            if here != task.file.name:
                raise ValueError(
                    f"This worker sees another recording, model file or version of {', '.join(_DECIDING)} than the "
                    "process that called `sweep`. Give both the same, and call it again."
                )
            result = fit(task.model, recording, checkpoint=checkpoint, show_progress=False, **task.settings)
            if result.attrs["status"] == "interrupted":
                raise KeyboardInterrupt
            # What a process that was killed had begun to write.
            for abandoned in task.file.parent.glob(f".{task.file.name}.*"):
                shutil.rmtree(abandoned)
            save(result, task.file)
        shutil.rmtree(checkpoint, ignore_errors=True)
        return _row(task.file)


@contextmanager
def local_workers(n: int) -> Iterator[Any]:
    """A `distributed.Client` of `n` processes on this machine, which no other machine reaches.

    Raises:
        ImportError: without the extra `distributed`.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ImportError(
            "Several workers need the extra `distributed`: python -m pip install 'connectinfer[distributed]', or "
            "'.[distributed]' in a clone."
        ) from error
    cache = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    env = {name.upper(): str(value) for name in cache if (value := getattr(jax.config, name)) is not None}
    # Ctrl-C reaches all processes that a shell started together; workers leave it to the one that waits for them.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        cluster = LocalCluster(
            n,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            # Errors of fits stand in the table.
            silence_logs=logging.CRITICAL,
            env=env,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with cluster, Client(cluster) as client:
        yield client


def _axes(over: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
    axes: dict[str, list[Any]] = {}
    for name, given in over.items():
        values = [] if isinstance(given, str) else [_item(value) for value in given]
        if not values or not all(isinstance(x, bool | int | float | str) for x in values):
            raise ValueError(f"`over` takes a list of numbers, text or truth values for {name!r}; got {given!r}.")
        if np.array(values).tolist() != values or len(set(values)) < len(values):
            raise ValueError(f"Values of {name!r} label a table, so they must be of one kind and differ; got {values}.")
        axes[name] = values
    return axes


def _plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: _item(value) for name, value in options.items()}
    for name, value in plain.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ValueError(
                "A sweep finds its results again by the values of options, which must be numbers, text, or lists of "
                f"them; got {name}={value!r}."
            ) from error
    return plain


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _settings(module: ModuleType, options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` for `fit`, with engine and seed even where they are the usual ones."""
    if "checkpoint" in options:
        raise ValueError("A sweep keeps the checkpoints of its fits in its own folder; leave out `checkpoint`.")
    others = {name: value for name, value in options.items() if name not in ("engine", "seed")}
    engine, _, _ = assigned(module, options.get("engine"), others)
    return {"seed": 0} | dict(options) | {"engine": engine}


def _source(data: Any, folder: Path, is_sent: bool) -> Source:
    if callable(data):
        return data
    if isinstance(data, str | PathLike):
        return partial(open_recording, Path(data).expanduser().absolute())
    recording = as_recording(data)
    if not is_sent:
        return lambda: recording
    # Workers that die take with them what they were sent; files stay.
    file = folder / "recordings" / f"{content_digest(recording)[:16]}.zarr"
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        save(recording, file)
    return partial(read_labelled, file)


def _content(source: Source) -> str:
    return content_digest(as_recording(source()))


def _task(module: ModuleType, source: Source, content: str, settings: dict[str, Any], folder: Path) -> Task:
    # The zoo may lie elsewhere on a worker.
    in_zoo = module.__name__.startswith("connectinfer.models.")
    name = module.__name__.rpartition(".")[2] if in_zoo else str(_model_file(module).absolute())
    float64 = bool(jax.config.read("jax_enable_x64"))
    return Task(name, source, settings, float64, folder / _file_name(module, content, settings, float64))


def _model_file(module: ModuleType) -> Path:
    if module.__file__ is None:
        raise ValueError(f"The model {module.__name__!r} has no file that a worker could load; write it into one.")
    return Path(module.__file__)


def _file_name(module: ModuleType, content: str, settings: Mapping[str, Any], float64: bool) -> str:
    code = hashlib.sha256(_model_file(module).read_bytes()).hexdigest()
    decides = [content, code, settings, float64, [version(name) for name in _DECIDING]]
    return f"{hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]}.zarr"


def _partial(file: Path) -> Path:
    """Folder of the checkpoint."""
    return file.with_suffix(".partial")


def _is_done(file: Path) -> bool:
    return file.exists() and not _partial(file).exists()


def _run(tasks: Mapping[str, Task], client: Any, show_progress: bool) -> dict[str, Row]:
    """What became of the tasks; those that are missing are computed. Ctrl-C ends it."""
    rows = {name: _row(task.file) for name, task in tasks.items() if _is_done(task.file)}
    missing, failed = {name: task for name, task in tasks.items() if name not in rows}, 0
    with progress_bar("fits", len(tasks), show_progress) as advance, suppress(KeyboardInterrupt):
        advance(len(rows), "")
        with closing(_outcomes(run_task, missing, client)) as outcomes:
            for name, outcome in outcomes:
                rows[name] = outcome if isinstance(outcome, Row) else _failed(outcome)
                failed += rows[name].status == "failed"
                advance(1, f"{failed} failed" if failed else "")
    return rows


def _outcomes(
    function: Callable[[Any], Any], cases: Mapping[str, Any], client: Any
) -> Generator[tuple[str, Any], None, None]:
    """What `function` returns for every case, or the exception it raises, by name, in the order of their ends."""
    if client is None:
        for name, case in cases.items():
            try:
                outcome = function(case)
            except Exception as error:
                outcome = error
            yield name, outcome
        return
    from distributed import as_completed

    # A pure key would give back what it found in a file before that changed.
    futures = {client.submit(function, case, pure=False): name for name, case in cases.items()}
    try:
        for future in as_completed(futures):
            error = future.exception()
            yield futures[future], future.result() if error is None else error
    except BaseException:
        client.cancel(list(futures))
        raise


def _row(file: Path) -> Row:
    attrs = zarr.open_group(file, mode="r").attrs
    return Row(str(attrs["status"]), float(str(attrs["wall_time"])), file.name)


def _failed(error: BaseException) -> Row:
    return Row("failed", error=f"{type(error).__name__}: {error}")


def _judged(table: xr.Dataset, show_progress: bool) -> xr.Dataset:
    """The table with its status; says what is amiss."""
    status, total = table["status"], table["status"].size
    if failed := int((status == "failed").sum()):
        first = next(text for text in table["error"].values.ravel() if text)
        warnings.warn(f"{failed} of {total} fits failed, the first with {first}", stacklevel=4)
    if diverged := int((status == "diverged").sum()):
        warnings.warn(f"{diverged} of {total} fits diverged: their results are not to be used.", stacklevel=4)
    missing = int((status == "interrupted").sum())
    if missing and show_progress:
        announce(f"The sweep was interrupted: {total - missing} of {total} fits are done; the same call goes on.")
    return table.assign_attrs(status="interrupted" if missing else "finished")
