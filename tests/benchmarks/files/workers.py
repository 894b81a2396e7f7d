"""Opens files in processes of their own, so that hangs, crashes and memory are seen and do no harm."""

import contextlib
import ctypes
import gzip
import io
import multiprocessing
import os
import re
import resource
import shutil
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from mutations import mutate
from sample import Sample
from traps import MARKER, OUTSIDE_VALUE, SECRET_TEXT
from typer.testing import CliRunner

from connectinfer.cli import app
from connectinfer.data.connectome import check_connectome
from connectinfer.data.reading import open_connectome, open_recording
from connectinfer.data.recording import check_recording

SECONDS, SECONDS_TO_START = 10, 120
# Four times the file's size; what small files may take is the work space of the libraries.
TIMES_THE_FILE, ALWAYS_ALLOWED = 4, 64e6
# Beyond what is used at the start; an allocation above it fails at once instead of harming the machine.
MOST_MEMORY = 4 * 2**30


class Source(NamedTuple):
    """What the files of a reader are made from; file number `i` is the same in every run."""

    reader: str
    sound: list[Sample]
    hostile: list[Sample]

    def file(self, index: int) -> Sample:
        """The hostile files, then mutations of the sound ones."""
        if index < len(self.hostile):
            return self.hostile[index]
        rng = np.random.default_rng([zlib.crc32(self.reader.encode()), index])
        return mutate(rng, self.sound[index % len(self.sound)], self.sound)


class Outcome(NamedTuple):
    """What came of one file: `verdict` is "opened", "refused" or a failure; `megabytes` is the growth of the peak."""

    index: int
    verdict: str
    text: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0
    by_command: bool = False
    foreign_warning: str = ""


def outcomes_of(source: Source, indices: list[int], command_every: int) -> Iterator[Outcome]:
    """The outcome of every file, in order; a process that hangs or dies is replaced by another."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["workers"])
    waiting = list(indices)
    while waiting:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(sender, source, waiting, command_every))
        process.start()
        sender.close()
        started = False
        while waiting:
            try:
                if not receiver.poll(2 * SECONDS if started else SECONDS_TO_START):
                    process.kill()
                    yield Outcome(waiting.pop(0), "hung", f"no answer within {2 * SECONDS} s")
                    break
                outcome = receiver.recv()
            except EOFError:
                process.join()
                yield Outcome(waiting.pop(0), "crashed", f"the process ended with code {process.exitcode}")
                break
            started = True
            if outcome is not None:
                waiting.pop(0)
                yield outcome
        process.join()


def _work(sender: Connection, source: Source, indices: list[int], command_every: int) -> None:
    used = 1024 * _status("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY, used + MOST_MEMORY))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with tempfile.TemporaryDirectory() as root:
        # The libraries take their memory once, and not from the first file that is judged.
        for number, sample in enumerate(source.sound):
            for by_command in (False, True):
                judge(-1, sample, Path(root) / f"sound{number}{by_command}", by_command)
        sender.send(None)
        for index in indices:
            sample = source.file(index)
            sender.send(judge(index, sample, Path(root) / str(index), index % command_every == 0))
            shutil.rmtree(Path(root) / str(index), ignore_errors=True)
        os.chdir("/")


def judge(index: int, sample: Sample, folder: Path, by_command: bool) -> Outcome:
    """Opens one file through the door, or through the command `convert`."""
    folder.mkdir()
    os.chdir(folder)
    path = sample.write(folder)
    before, started = _reset_peak(), time.perf_counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        verdict, text = (_through_command if by_command else _through_door)(sample, path)
    seconds, megabytes = time.perf_counter() - started, (_status("VmHWM") - before) * 1024 / 1e6
    allowed = max(TIMES_THE_FILE * _unpacked(sample), ALWAYS_ALLOWED) / 1e6
    if any(each.name == MARKER for each in folder.rglob("*")):
        verdict, text = "code executed", "the marker is there"
    elif verdict in ("opened", "refused") and seconds > SECONDS:
        verdict, text = "hung", f"{seconds:.1f} s: {text}"
    elif verdict in ("opened", "refused") and megabytes > allowed:
        verdict, text = "memory", f"{megabytes:.0f} MB where {allowed:.0f} MB are allowed; {verdict} {text}"
    foreign = [each for each in said if "connectinfer" not in str(each.message) and not _is_ours(each.filename)]
    warned = f"{foreign[0].category.__name__}: {foreign[0].message}" if foreign else ""
    return Outcome(index, verdict, text, seconds, megabytes, by_command, warned)


def _through_door(sample: Sample, path: Path) -> tuple[str, str]:
    door, check = (
        (open_recording, check_recording) if sample.content == "recording" else (open_connectome, check_connectome)
    )
    try:
        dataset = door(path, fields=sample.fields, **sample.values)
        check(dataset)
    except (ValueError, OSError, ImportError, TypeError) as error:
        *_, (frame, _) = traceback.walk_tb(_original(error).__traceback__)
        if not frame.f_globals.get("__name__", "").startswith("connectinfer"):
            return "wrong exception", traceback.format_exc()
        return ("leaked", str(error)) if SECRET_TEXT in str(error) else ("refused", str(error))
    except BaseException:
        return "wrong exception", traceback.format_exc()
    return ("leaked", "what lies in another file") if _leaks(dataset) else ("opened", str(dict(dataset.sizes)))


def _original(error: BaseException) -> BaseException:
    """The error that another only puts the file's name before: it must be worded by connectinfer itself."""
    cause = error.__cause__
    return _original(cause) if cause is not None and str(error).endswith(f": {cause}") else error


def _through_command(sample: Sample, path: Path) -> tuple[str, str]:
    words = ["convert", str(path), str(path.parent / "converted.nc"), "--as", sample.content]
    for option, pairs in (("--field", sample.fields or {}), ("--value", sample.values)):
        words += [word for name, value in pairs.items() for word in (option, f"{name}={value}")]
    with contextlib.redirect_stderr(io.StringIO()):
        result = CliRunner().invoke(app, words)
    if result.exit_code not in (0, 1) or "Traceback" in result.output:
        return "traceback", f"exit code {result.exit_code}: {result.output[-2000:]}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return "traceback", "".join(traceback.format_exception(result.exception))
    if SECRET_TEXT in result.output:
        return "leaked", result.output
    return ("refused" if result.exit_code else "opened"), re.sub(r"\s+", " ", result.output)


def _leaks(dataset: xr.Dataset) -> bool:
    for each in dataset.variables.values():
        if each.dtype.kind == "U" and (np.strings.find(each.values, SECRET_TEXT) >= 0).any():
            return True
        if each.dtype.kind in "iuf" and (
            (each.values == OUTSIDE_VALUE).any() or each.values.tobytes()[:3] == SECRET_TEXT.encode()[:3]
        ):
            return True
    return False


def _is_ours(filename: str) -> bool:
    return "/connectinfer/" in filename and "site-packages" not in filename


def _unpacked(sample: Sample) -> int:
    """Bytes of the files, those of archives unpacked."""
    return sum(max(len(each), _inside(each)) for each in sample.files.values()) + sample.unpacked


def _inside(content: bytes) -> int:
    try:
        if content[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(content)) as stream:
                return sum(len(each) for each in iter(lambda: stream.read(2**20), b""))
        if content[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                sizes = [(each.file_size, each.compress_size) for each in archive.infolist()]
                return sum(size for size, packed in sizes if packed <= len(content) and size <= 1032 * packed)
    except Exception:
        return 0
    return 0


def _status(name: str) -> int:
    """A line of the process's status, in kB."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def _reset_peak() -> int:
    """Gives back free memory and starts the peak anew; returns what is resident now, in kB."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")
