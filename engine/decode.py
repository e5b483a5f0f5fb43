"""Untrusted bytes -> Photo, in worker processes that keep limits of memory and time.

``engine.decode_worker`` reads pictures; nothing else in the project opens what people send. A
worker that dies, hangs or swells is replaced and costs the one photo that did it. All of a process
share one pool of workers: one a core, at least 2 and at most 4, started when they are needed.
Pictures whose header tells that they are heavy are decoded one at a time, so that the other workers
are there for everybody else's.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from engine import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from io import BufferedReader

    from engine.types import Photo

_MOST_REMEMBERED = 1_000  # photos that ended a worker
_MOST_ANSWER_BYTES = 10_000
_UNDECODABLE = "the picture can't be decoded; send another one"
_PPM_LINES = 3  # before the pixels: kind, width and height, white
_RETIRED_FROM_BYTES = 120_000_000  # of memory that an idle worker holds; usual are 25 MB
_LIGHT_BYTES = 120_000_000  # of memory; a photo of 12 megapixels as HEIC takes 90 MB
_USUAL_RATIO = 2.5  # of a picture's sides
# Left, upper, right and lower edge in the upright picture in the file, in its pixels.
Part = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What is decoded at most."""

    max_bytes: int = 20_000_000  # of the file
    # Width times height as the file declares them. Formats that can't be decoded at reduced size
    # are refused earlier, when they would take more than 400 MB.
    max_pixels: int = 120_000_000
    max_frames: int = 2_000  # pictures in one file; the first is used
    long_side_px: int = 2_000  # of the result, see ``stretch``; larger pictures are reduced
    part: Part | None = None  # what is wanted of the picture; None for the whole
    seconds: float = 3.0  # of processor time for one picture; by the clock three times as long
    worker_bytes: int = 600_000_000  # that a worker may take beyond what it has when it is idle
    light_bytes: int | None = None  # that it may take, else it is ``Heavy``; None for any number


def stretch(width: int, height: int) -> float:
    """How much longer than usual a picture's long side may be, for as many pixels as a square."""
    ratio = max(width, height) / max(1, min(width, height))
    return math.sqrt(ratio) if ratio > _USUAL_RATIO else 1.0


def decode(data: bytes, limits: DecodeLimits | None = None, *, waits: bool = True) -> Photo:
    """The picture in untrusted bytes: upright, in sRGB, without alpha, reduced if it is large.

    JPEG, PNG, WebP, GIF, HEIC, AVIF, BMP and TIFF are read, of files with several pictures the
    first. What is transparent becomes white. A file that ended a worker is refused at once when it
    comes again, unless only the clock had run out. Safe to call from several threads; waits while
    all workers are busy and, if it ``waits``, while another heavy picture is decoded.

    Raises:
        Heavy: If the picture is heavy and it does not wait, so that others pass it.
        NotAnImage: If there is no picture of a kind that is read, or the decoder crashes over it.
        TooLarge: If the file exceeds the limits, those of memory and time included.
        SetupProblem: If no worker can be started.
    """
    limits = limits or DecodeLimits()
    check_size(data, limits)
    if _refused and (known := _refused.get(_sha256(data))):
        raise type(known)(str(known), **known.details)
    try:
        return _decoded(data, replace(limits, light_bytes=_LIGHT_BYTES))
    except errors.Heavy:
        if not waits:
            raise
    with _heavy_turn:
        return _decoded(data, limits)


def _decoded(data: bytes, limits: DecodeLimits) -> Photo:
    with _turn:
        worker = _worker_with(data, limits)
        try:
            return worker.decode(limits)
        except errors.PhotoProblem as problem:
            if worker.ended_by_photo() and limits.part is None:
                refuse([sha256 := _sha256(data)], problem)
                for tell in listeners:
                    tell(sha256)
            raise
        finally:
            if worker.usable():
                _idle.append(worker)
            else:
                worker.stop()
                tally["replaced"] += 1


def refuse(hashes: Iterable[str], problem: errors.PhotoProblem | None = None) -> None:
    """Never tries files of these SHA-256 (hexadecimal) again: they ended a worker."""
    if len(_refused) >= _MOST_REMEMBERED:
        _refused.clear()
    _refused.update(dict.fromkeys(hashes, problem or errors.DamagedImage(_UNDECODABLE)))


def check_size(data: bytes, limits: DecodeLimits) -> None:
    """Raises TooLarge if a file has too many bytes."""
    if len(data) > limits.max_bytes:
        limit = f"{limits.max_bytes / 1e6:.3g} MB"
        raise errors.TooLarge(f"the file has more than {limit}", what="bytes", limit=limit)


def start() -> None:
    """Starts a worker if there is none, without waiting; raises SetupProblem if it can't."""
    if not _idle:
        _idle.append(_Worker())


@atexit.register
def stop() -> None:
    """Ends the workers that are idle; the next photo starts one. At exit this happens by itself."""
    with contextlib.suppress(IndexError):
        while True:
            _idle.pop().stop()


def idle_workers() -> tuple[int, ...]:
    """Process ids of the workers that wait for a photo."""
    return tuple(worker.pid for worker in _idle)


def _worker_with(data: bytes, limits: DecodeLimits) -> _Worker:
    """A worker that has the file; what ended or hung before that is not the file's fault."""
    with contextlib.suppress(IndexError):
        while True:
            worker = _idle.pop()
            if worker.usable() and worker.take(data, limits):
                return worker
            worker.stop()
    worker = _Worker()
    if not worker.take(data, limits):
        worker.stop()
        raise errors.SetupProblem("the process that decodes pictures does not start")
    return worker


def _sha256(data: bytes) -> str:
    import hashlib  # not for workers, which import this module, too

    return hashlib.sha256(data).hexdigest()


class _Worker:
    """One process with its pipes."""

    def __init__(self) -> None:
        self._late = False
        self._resident_bytes: int | None = None  # None: it has not said yet that it is ready
        code = f"import sys; sys.path[:] = {sys.path!r}; from engine import decode_worker as worker"
        one_thread = ("MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        try:
            # Isolated, so that neither the environment nor the working folder decides what is
            # imported; in a session of its own, so that Ctrl-C is left to the main process.
            self._process = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
                [sys.executable, "-I", "-S", "-c", f"{code}; worker.serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **dict.fromkeys(one_thread, "1")},
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as exc:
            reason = f"no process can be started to decode: {exc.strerror}"
            raise errors.SetupProblem(reason) from exc
        self.pid = self._process.pid
        self._stdin = cast("BinaryIO", self._process.stdin)
        self._stdout = cast("BufferedReader", self._process.stdout)
        for pipe in (self._stdin, self._stdout):  # 10 ms less a photo than with Linux' usual 64 KB
            with contextlib.suppress(ImportError, AttributeError, OSError):
                import fcntl  # not on Windows

                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1_048_576)

    def usable(self) -> bool:
        return self._process.poll() is None and (self._resident_bytes or 0) < _RETIRED_FROM_BYTES

    def ended_by_photo(self) -> bool:
        return self._process.poll() is not None and not self._late

    def take(self, data: bytes, limits: DecodeLimits) -> bool:
        """Hands a file over; False if the process ends or hangs before it has all of it."""
        try:
            if self._resident_bytes is None:
                self._resident_bytes = self._answer()["resident"]
            _due[self] = time.monotonic() + 3 * limits.seconds
            _decoding.set()
            _watch()
            request = json.dumps({**asdict(limits), "size": len(data)}).encode() + b"\n"
            self._stdin.writelines((request, data))
            self._stdin.flush()
            return bool(self._answer()["taken"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def decode(self, limits: DecodeLimits) -> Photo:
        """What is in the file that was taken; see the function ``decode`` for the errors."""
        import numpy as np

        from engine.types import Photo

        try:
            answer = self._answer()
            width, height = map(int, answer.get("size", (0, 0)))
            pixels = np.empty((height, width, 3), np.uint8)
            if pixels.size:
                for _ in range(_PPM_LINES):
                    self._stdout.readline(_MOST_ANSWER_BYTES)
            self._stdout.readinto(pixels.data)
            self._resident_bytes = self._answer()["resident"]
            if "problem" in answer:
                kinds = (errors.DamagedImage, errors.TooLarge, errors.TooHeavy, errors.Heavy)
                kind = {one.__name__: one for one in kinds}.get(answer["problem"])
                raise (kind or errors.NotAnImage)(answer["message"], **answer["details"])
            source_width, source_height = map(int, answer["source_size"])
            size, corner = (source_width, source_height), (limits.part or (0, 0))[:2]
            return Photo(pixels, size, str(answer["format"]), corner)
        except (OSError, ValueError, KeyError, TypeError, MemoryError) as exc:
            self._process.kill()
            if self._process.wait() == -24 or self._late:  # SIGXCPU: processor time is used up
                message = "the picture takes too long to decode; send another one"
                raise errors.TooHeavy(message, what="time") from exc
            raise errors.DamagedImage(_UNDECODABLE) from exc
        finally:
            _due.pop(self, None)

    def stop(self) -> None:
        _due.pop(self, None)
        self._process.kill()
        self._process.wait()
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def _answer(self) -> dict[str, Any]:
        return dict(json.loads(self._stdout.readline(_MOST_ANSWER_BYTES)))

    def end_late(self) -> None:
        self._late = True
        self._process.kill()


@functools.cache
def _watch() -> None:
    """Starts the thread that ends whichever worker is late; to start one a photo takes 0.2 ms."""

    def watch() -> None:
        while _decoding.wait():
            time.sleep(0.2)
            for worker, due in [*_due.items()]:
                if due < time.monotonic():
                    worker.end_late()
            _decoding.clear()
            if _due:
                _decoding.set()

    threading.Thread(target=watch, name="decode deadlines", daemon=True).start()


_turn = threading.BoundedSemaphore(min(4, max(2, os.cpu_count() or 1)))
_heavy_turn = threading.Lock()
_idle: list[_Worker] = []  # last in, first out
_decoding = threading.Event()  # set while a worker has a file
_due: dict[_Worker, float] = {}  # those that have a file: when they are late (time.monotonic)
_refused: dict[str, errors.PhotoProblem] = {}  # by SHA-256: what ended a worker
listeners: list[Callable[[str], object]] = []  # told the SHA-256 of what ended one, by any thread
tally = Counter[str]()  # "replaced": workers that ended over a picture or had grown too large
