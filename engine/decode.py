"""Untrusted bytes -> Photo, in worker processes that keep limits of memory and time.

``engine.decode_worker`` reads pictures; nothing else in the project opens what people send. A
worker that dies, hangs or swells is replaced and costs the one photo that did it.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import mmap
import os
import struct
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import NotAnImage, PhotoProblem, SetupProblem, TooLarge

if TYPE_CHECKING:
    from engine.types import Photo

__all__ = ["READABLE", "DecodeLimits", "decode", "idle_workers", "start", "stop"]

READABLE = "JPEG, PNG, WebP, GIF, HEIC, AVIF, BMP and TIFF"

_MOST_REMEMBERED = 1_000  # photos that ended a worker
_MOST_ANSWER_BYTES = 10_000
_RETIRED_FROM_BYTES = 120_000_000  # of memory that an idle worker holds; usual are 50 MB
_WORKER_ENVIRONMENT = dict.fromkeys(
    ("MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
)
_PROBLEMS = {"NotAnImage": NotAnImage, "TooLarge": TooLarge}


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What is decoded at most.

    Attributes:
        max_bytes: Size of the file.
        max_pixels: Width times height as the file declares them. Formats that can't be decoded
            at reduced size are refused earlier, when they would take more than 400 MB.
        max_frames: Pictures in one file; the first is used.
        long_side_px: Longer side of the result; larger pictures are reduced.
        seconds: Processor time for one picture; by the clock it may take three times as long.
        worker_bytes: Memory that a worker may take beyond what it has when it is idle.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 120_000_000
    max_frames: int = 2_000
    long_side_px: int = 2_000
    seconds: float = 3.0
    worker_bytes: int = 600_000_000


def decode(data: bytes, limits: DecodeLimits | None = None) -> Photo:
    """The picture in untrusted bytes: upright, in sRGB, without alpha, reduced if it is large.

    JPEG, PNG, WebP, GIF, HEIC, AVIF, BMP and TIFF are read, of files with several pictures the
    first. What is transparent becomes white. A file that ended a worker is refused at once when it
    comes again. Safe to call from several threads; waits while all workers are busy.

    Args:
        data: A file, as it was sent.
        limits: What is decoded at most.

    Returns:
        A photo whose long side is at most ``limits.long_side_px``.

    Raises:
        NotAnImage: If there is no picture, none of a kind that is read, a damaged one, or one that
            the decoder crashes over.
        TooLarge: If the file exceeds the limits, those of memory and time included.
        SetupProblem: If no worker can be started.
    """
    limits = limits or DecodeLimits()
    if len(data) > limits.max_bytes:
        limit = f"{limits.max_bytes / 1e6:.3g} MB"
        raise TooLarge(f"the file has more than {limit}", what="bytes", limit=limit)
    return _pool.decode(data, limits)


def start(limits: DecodeLimits | None = None) -> None:
    """Starts a worker if there is none, without waiting until it is ready.

    Raises:
        SetupProblem: If it can't be started.
    """
    _pool.start(limits or DecodeLimits())


def stop() -> None:
    """Ends the workers that are idle; the next photo starts one. At exit this happens by itself."""
    _pool.stop()


def idle_workers() -> tuple[int, ...]:
    """Process ids of the workers that wait for a photo."""
    return _pool.pids()


class _Pool:
    """The workers of this process: one a core, at least 2 and at most 4, started when needed."""

    def __init__(self) -> None:
        self._turn = threading.BoundedSemaphore(min(4, max(2, os.cpu_count() or 1)))
        self._idle: list[_Worker] = []  # last in, first out
        self._refused: dict[bytes, PhotoProblem] = {}  # by SHA-256: what ended a worker
        atexit.register(self.stop)

    def decode(self, data: bytes, limits: DecodeLimits) -> Photo:
        """See :func:`decode`."""
        if self._refused:
            known = self._refused.get(hashlib.sha256(data).digest())
            if known is not None:
                raise type(known)(str(known), **known.details)
        with self._turn:
            worker = self._take(limits)
            try:
                return worker.decode(data, limits)
            except _WorkerEnded as end:
                if len(self._refused) >= _MOST_REMEMBERED:
                    self._refused.clear()
                self._refused[hashlib.sha256(data).digest()] = end.problem
                raise end.problem from end
            finally:
                if worker.usable(limits):
                    self._idle.append(worker)
                else:
                    worker.stop()

    def start(self, limits: DecodeLimits) -> None:
        """See :func:`start`."""
        if not self._idle:
            self._idle.append(_Worker(limits))

    def stop(self) -> None:
        """See :func:`stop`."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().stop()

    def pids(self) -> tuple[int, ...]:
        """See :func:`idle_workers`."""
        return tuple(worker.pid for worker in self._idle)

    def _take(self, limits: DecodeLimits) -> _Worker:
        with contextlib.suppress(IndexError):
            while True:
                worker = self._idle.pop()
                if worker.usable(limits):
                    return worker
                worker.stop()
        return _Worker(limits)


class _WorkerEnded(Exception):  # noqa: N818 - not an error by itself
    """The worker ended over a photo."""

    def __init__(self, problem: PhotoProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class _Worker:
    """One process with its pipes and, on Linux, memory that is shared with it."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._long_side_px = limits.long_side_px
        self._memory_bytes = limits.worker_bytes
        self._shared_fd: int | None = None
        self._shared: mmap.mmap | None = None
        self._late = False
        self._resident_bytes = 0
        if hasattr(os, "memfd_create"):
            self._shared_fd = os.memfd_create("photo", os.MFD_CLOEXEC)
            size = 3 * limits.long_side_px**2
            os.ftruncate(self._shared_fd, size)
            self._shared = mmap.mmap(self._shared_fd, size)
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            "from engine.decode_worker import serve; "
            f"serve({limits.worker_bytes}, {self._shared_fd})"
        )
        try:
            # Isolated, so that neither the environment nor the working folder decides what is
            # imported; in a session of its own, so that Ctrl-C is left to the main process.
            self._process = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
                [sys.executable, "-I", "-S", "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={
                    **os.environ,
                    "MALLOC_ARENA_MAX": "1",
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                },
                pass_fds=() if self._shared_fd is None else (self._shared_fd,),
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as exc:
            raise SetupProblem(f"no process can be started to decode: {exc.strerror}") from exc
        self._ready = False

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def usable(self, limits: DecodeLimits) -> bool:
        """Whether it lives, is not swollen and was made for such limits."""
        return (
            self._process.poll() is None
            and self._resident_bytes < _RETIRED_FROM_BYTES
            and limits.long_side_px <= self._long_side_px
            and limits.worker_bytes == self._memory_bytes
        )

    def decode(self, data: bytes, limits: DecodeLimits) -> Photo:
        """The picture in the bytes; raises what the worker answers, or _WorkerEnded."""
        from engine.types import Photo

        if not self._ready:
            self._await_start()
        timer = threading.Timer(3 * limits.seconds, self._end_late)
        timer.start()
        try:
            self._send(json.dumps(asdict(limits)).encode())
            self._send(data)
            answer = self._answer()
            if "problem" in answer:
                kind = _PROBLEMS.get(str(answer["problem"]), NotAnImage)
                raise kind(str(answer["message"]), **answer["details"])
            pixels = self._pixels(answer["size"])
            width, height = answer["source_size"]
            return Photo(pixels, (int(width), int(height)), str(answer["format"]))
        except (OSError, EOFError, ValueError, KeyError, TypeError) as exc:
            raise _WorkerEnded(self._reason()) from exc
        finally:
            timer.cancel()

    def stop(self) -> None:
        """Ends the process and gives its memory back."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        if self._shared is not None and self._shared_fd is not None:
            self._shared.close()
            os.close(self._shared_fd)
            self._shared = self._shared_fd = None

    def _await_start(self) -> None:
        try:
            self._ready = self._answer().get("ready") is True
        except (OSError, EOFError, ValueError) as exc:
            self.stop()
            raise SetupProblem("the process that decodes pictures does not start") from exc

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(struct.pack("<I", len(data)))
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        (size,) = struct.unpack("<I", self._read(4))
        if size > _MOST_ANSWER_BYTES:
            raise ValueError("the answer is too long")
        answer = json.loads(self._read(size))
        if not isinstance(answer, dict):
            raise TypeError("the answer is no object")
        self._resident_bytes = int(answer.get("resident", 0))
        return answer

    def _pixels(self, size: Any) -> Any:
        """The pixels of the answer, uint8 (h, w, 3), in memory of their own."""
        import numpy as np

        width, height = (int(side) for side in size)
        if not (0 < width <= self._long_side_px and 0 < height <= self._long_side_px):
            raise ValueError("the answer has an impossible size")
        count = 3 * width * height
        if self._shared is None:
            return np.frombuffer(self._read(count), np.uint8).reshape(height, width, 3)
        pixels = np.frombuffer(self._shared, np.uint8, count)
        return pixels.reshape(height, width, 3).copy()

    def _read(self, count: int) -> bytes:
        assert self._process.stdout is not None
        found = self._process.stdout.read(count)
        if len(found) < count:
            raise EOFError
        return found

    def _end_late(self) -> None:
        self._late = True
        self._process.kill()

    def _reason(self) -> PhotoProblem:
        """What to tell about the photo that ended the process."""
        self._process.kill()
        code = self._process.wait()
        if self._late or code == -24:  # SIGXCPU
            return TooLarge("the picture takes too long to decode; send another one", what="time")
        return NotAnImage("the picture can't be decoded; send another one", reason="damaged")


_pool = _Pool()
