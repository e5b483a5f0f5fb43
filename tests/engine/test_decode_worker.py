"""The workers: what ends one costs one photo, and everybody else is answered."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine import decode as decoding
from engine.decode import DecodeLimits, decode, idle_workers, start, stop
from engine.errors import Heavy, NotAnImage, PhotoProblem, SetupProblem, TooLarge


@pytest.fixture
def pid() -> int:
    """Of the one worker that is idle, as at the beginning; the other tests share them all."""
    while len(idle_workers()) > 1:
        decoding._idle.pop().stop()
    start()
    decode(jpeg())
    (pid,) = idle_workers()
    return pid


def jpeg(colour: str = "teal", size: tuple[int, int] = (64, 48), **more: Any) -> bytes:
    """A small photo."""
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "JPEG", **more)
    return stream.getvalue()


# Many seconds of processor time, for its scans, of which these limits allow any number.
SLOW = jpeg(size=(3_000, 3_000), progressive=True)
SLOW = SLOW[:-2] + SLOW[SLOW.rindex(b"\xff\xda") : -2] * 2_000 + SLOW[-2:]
PATIENT = DecodeLimits(seconds=1.0, max_pixels=10**12)


def test_a_worker_that_ends_while_idle_costs_nobody_a_photo(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert decode(jpeg("red")).width_px == 64
    assert idle_workers() != (pid,)


@pytest.mark.parametrize("ended", [signal.SIGSEGV, signal.SIGSTOP])
def test_a_worker_that_ends_or_hangs_before_it_has_the_photo_costs_nobody_one(
    pid: int, ended: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it lives was looked at before; the photo is not blamed for what came then."""
    monkeypatch.setattr(decoding, "_refused", {})
    usable = decoding._Worker.usable

    def end(worker: decoding._Worker) -> bool:
        if worker.pid == pid and usable(worker):
            os.kill(pid, ended)
        return worker.pid == pid or usable(worker)

    monkeypatch.setattr(decoding._Worker, "usable", end)
    assert decode(jpeg("red"), DecodeLimits(seconds=2.0)).width_px == 64
    assert pid not in idle_workers()
    assert not decoding._refused


def when_taken(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """Workers get a signal once they have the photo."""
    take = decoding._Worker.take

    def taken(worker: decoding._Worker, data: bytes, limits: DecodeLimits) -> bool:
        done = take(worker, data, limits)
        os.kill(worker.pid, number)
        return done

    monkeypatch.setattr(decoding._Worker, "take", taken)


def test_a_photo_that_ends_a_worker_is_told_and_never_tried_again(
    pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The codec's crash is simulated: the worker gets a signal while it works."""
    told: list[str] = []
    monkeypatch.setattr(decoding, "_refused", {})
    monkeypatch.setattr(decoding, "listeners", [told.append])
    with monkeypatch.context() as patch:
        when_taken(patch, signal.SIGSEGV)
        with pytest.raises(NotAnImage, match="can't be decoded"):
            decode(SLOW, PATIENT)
    assert pid not in idle_workers()
    assert told == list(decoding._refused)
    monkeypatch.setattr(decoding, "_refused", {})
    decoding.refuse(told)  # as after a restart
    before = idle_workers()
    monkeypatch.setattr(decoding._Worker, "take", None)  # it is not even tried
    with pytest.raises(NotAnImage, match="can't be decoded"):
        decode(SLOW, PATIENT)
    assert idle_workers() == before


def test_a_file_that_takes_too_long_is_refused_and_others_are_answered_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "_refused", {})
    with ThreadPoolExecutor(1) as beside:
        began = time.monotonic()
        bomb = beside.submit(decode, SLOW, PATIENT)
        answered = 0
        while not bomb.done():
            decode(jpeg())
            answered += 1
        assert isinstance(bomb.exception(), PhotoProblem)
    assert answered > 3
    assert time.monotonic() - began < 60


def test_a_worker_that_hangs_is_ended_by_the_clock(
    pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_refused", {})
    with monkeypatch.context() as patch:
        when_taken(patch, signal.SIGSTOP)
        with pytest.raises(TooLarge, match="too long"):
            decode(SLOW, PATIENT)
    assert pid not in idle_workers()
    assert decode(jpeg("blue")).width_px == 64


def test_a_picture_that_takes_more_memory_than_allowed_is_refused() -> None:
    limits = DecodeLimits(worker_bytes=100_000_000)
    stream = io.BytesIO()
    Image.new("RGB", (9_000, 8_000)).save(stream, "PNG")  # 288 MB
    with pytest.raises(TooLarge) as caught:
        decode(stream.getvalue(), limits)
    assert caught.value.details["what"] in {"memory", "time"}
    assert decode(jpeg(), limits).width_px == 64


def test_heavy_pictures_are_decoded_one_at_a_time_and_others_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "_LIGHT_BYTES", 20_000)
    heavy, light = jpeg(size=(128, 96)), jpeg()
    with ThreadPoolExecutor(4) as beside:
        with decoding._heavy_turn:  # one is being decoded
            waiting = [beside.submit(decode, heavy) for _ in range(4)]
            with pytest.raises(Heavy):
                decode(heavy, waits=False)
            assert decode(light, waits=False).width_px == 64
            assert not any(one.done() for one in waiting)
        assert [one.result().width_px for one in waiting] == [128] * 4


def test_a_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    script = (
        "import os, sys; from pathlib import Path; from engine.decode import decode, idle_workers;"
        "decode(Path(sys.argv[1]).read_bytes()); print(*idle_workers(), flush=True); os._exit(1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "photo.jpg")],
        capture_output=True,
        check=False,
    )
    (pid,) = map(int, done.stdout.split())
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()


def test_a_decoder_that_does_not_start_is_the_operators_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop()
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(SetupProblem, match="does not start"):
        decode(jpeg())


def test_an_idle_worker_is_small(hopper_jpeg: bytes) -> None:
    stop()  # what others have decoded decides how large theirs are
    decode(hopper_jpeg)
    (pid,) = idle_workers()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    assert pages * os.sysconf("SC_PAGE_SIZE") < 60_000_000
