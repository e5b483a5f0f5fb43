"""Compiling and running networks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from homes import copy_home
from numpy.typing import NDArray

from engine import runtime
from engine.errors import WeightsCorrupt
from engine.runtime import Network, compile_network, cores

KERNEL = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)


def _build() -> Any:
    """Two outputs from uint8 (N, 12): the product with KERNEL, and twice that."""
    ops = runtime.operators()
    rows = ops.parameter([-1, 12], np.uint8)
    once = ops.matmul(ops.convert(rows, "f32"), KERNEL, False, False)
    return runtime.graph(rows, once, ops.add(once, once))


def _rows(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 12), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> Network:
    return compile_network(_build, name="test", precision="f32")


@pytest.mark.parametrize("count", [2, 7, 64, 1])
def test_any_batch_size_gives_the_product(network: Network, count: int) -> None:
    once, twice = network.run(_rows(count))

    assert once.dtype == twice.dtype == np.float32
    np.testing.assert_allclose(once, _rows(count) @ KERNEL, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(twice, 2 * once)


def test_a_read_only_batch_is_taken(network: Network) -> None:
    rows = _rows(4)
    rows.flags.writeable = False

    np.testing.assert_array_equal(network.run(rows)[0], network.run(_rows(4))[0])


def test_a_batch_of_every_second_row_is_taken(network: Network) -> None:
    np.testing.assert_array_equal(network.run(_rows(6)[::2])[0], network.run(_rows(6))[0][::2])


def test_outputs_belong_to_the_caller(network: Network) -> None:
    first = network.run(_rows(3))[0]
    kept = first.copy()
    network.run(_rows(3, seed=1))

    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # writable
    assert np.abs(network.run(_rows(3))[0]).max() > 0


@pytest.mark.parametrize("threads", [None, 1])
def test_several_threads_get_each_their_own_answer(threads: int | None) -> None:
    network = compile_network(_build, name="test", precision="f32", threads=threads)
    wrong = []

    def ask(seed: int) -> None:
        for count in (1, 5, 33, 2) * 5:
            rows = _rows(count, seed)
            if not np.allclose(network.run(rows)[0], rows @ KERNEL, rtol=1e-4, atol=1e-3):
                wrong.append(seed)

    workers = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.parametrize(
    "batch", [_rows(1)[0], _rows(2)[:, :11], _rows(2)[:0], _rows(2).astype(np.float32)]
)
def test_a_batch_that_does_not_fit_is_refused(network: Network, batch: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="the network test takes"):
        network.run(batch)


def test_the_precision_is_the_one_asked_for(network: Network) -> None:
    assert network.precision == "f32"
    assert compile_network(_build, name="test", precision="bf16").precision == "bf16"
    assert compile_network(_build, name="test").precision in {"f32", "bf16"}


def test_a_network_that_does_not_fit_together_is_refused() -> None:
    def build() -> Any:
        ops = runtime.operators()
        rows = ops.parameter([-1, 7], np.uint8)
        return runtime.graph(rows, ops.matmul(ops.convert(rows, "f32"), KERNEL, False, False))

    with pytest.raises(WeightsCorrupt, match="the network test can't be built"):
        compile_network(build, name="test")


def test_a_network_is_built_once_for_all_starts(tmp_path: Path, network: Network) -> None:
    built = []

    def build() -> Any:
        built.append(1)
        return _build()

    for key in ("a", "a", "b", "b"):
        cached = compile_network(
            build, name="test", precision="f32", cache_folder=tmp_path / "cache", key=key
        )
        np.testing.assert_array_equal(cached.run(_rows(4))[0], network.run(_rows(4))[0])

    assert len(built) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_cache_that_can_not_be_is_no_error(tmp_path: Path, network: Network) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")

    blocked = compile_network(_build, name="test", precision="f32", cache_folder=file / "cache")

    np.testing.assert_array_equal(blocked.run(_rows(4))[0], network.run(_rows(4))[0])


def test_cores_are_those_this_process_may_use() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_nothing_is_reported_to_anybody(
    starter_home: Path, tmp_path: Path, hopper_jpeg: bytes
) -> None:
    """A match asks no name and connects to nobody; OpenVINO's telemetry is not even imported."""
    script = (
        "import atexit, sys\n"
        "def heard(event, given):\n"
        "    if event.startswith('socket.') and any(isinstance(one, tuple) for one in given):\n"
        "        print(event, file=sys.stderr)\n"
        "    if event.startswith('socket.get'): print(event, file=sys.stderr)\n"
        "sys.addaudithook(heard)\n"
        "def told(): print(sorted(m for m in sys.modules if 'telemetry' in m or '.ovc' in m))\n"
        "atexit.register(told)\n"
        "from bot.cli.main import main; main()"
    )
    photo, home = tmp_path / "photo.jpg", copy_home(starter_home, tmp_path / "home")
    photo.write_bytes(hopper_jpeg)
    command = [sys.executable, "-W", "error", "-c", script, "match", photo]
    command += ["--model", "dlib", "--home", home]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "Grace Hopper" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""


START = """
import os, sys, threading
from engine import runtime
both = threading.Barrier(2)
def first():
    core = runtime._core()
    both.wait()
    import openvino
    openvino.Type.u8.to_dtype(); openvino.Tensor(__import__("numpy").zeros(3, "uint8")).data
threads = [threading.Thread(target=first, daemon=True) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join(20) for thread in threads]
os._exit(any(thread.is_alive() for thread in threads))
"""


def test_threads_that_load_networks_at_once_do_not_wait_for_each_other() -> None:
    """The first conversion of a type deadlocked 2 to 10 of 25; benchmarks/starts.py does 500."""
    for _ in range(10):
        done = subprocess.run([sys.executable, "-c", START], timeout=60, check=False)
        assert done.returncode == 0
