"""The cache remembers, forgets and survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.errors import BadSettings
from gallery.wikimedia.cache import Cache


def test_what_is_put_is_there_until_it_is_too_old(tmp_path: Path) -> None:
    file = tmp_path / "cache.db"
    with Cache(file) as cache:
        cache.put("a", "ключ", {"x": [1, "é"]})
        cache.put_many("a", {str(n): n for n in range(1200)})
        cache.put("note", "ключ", 2)
    with Cache(file) as cache:
        assert cache.get("a", "ключ") == {"x": [1, "é"]}
        assert len(cache.get_many("a", map(str, range(2000)))) == 1200
        assert cache.get("c", "ключ") is None
        cache.forget("a")
        assert cache.get_many("a", ["ключ", "1"]) == {}
        assert cache.get("note", "ключ") == 2
    with Cache(file, lifetime_s=-1) as cache:
        cache.put("a", "1", 1)
        assert (cache.get("a", "1"), cache.get("note", "ключ")) == (None, 2)


def test_a_kill_loses_nothing_that_was_put(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from gallery.wikimedia.cache import Cache\n"
        "cache = Cache(pathlib.Path(sys.argv[1]))\n"
        "n = 0\n"
        "while True:\n"
        "    cache.put_many('x', {f'{n} {k}': k for k in range(5)})\n"
        "    n += 1\n"
        "    print(n, flush=True)\n"
    )
    file = tmp_path / "cache.db"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(20):
        said = int(process.stdout.readline())
    time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with Cache(file) as cache:
        for n in range(said):
            assert len(cache.get_many("x", [f"{n} {k}" for k in range(5)])) == 5
        for n in range(said, said + 200):
            assert len(cache.get_many("x", [f"{n} {k}" for k in range(5)])) in (0, 5)


def test_a_cache_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="can't be used"):
        Cache(tmp_path / "missing" / "cache.db")
