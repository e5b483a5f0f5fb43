"""The journal remembers, forgets and survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.errors import BadSettings
from gallery.sources.journal import Journal


def test_what_is_put_is_there_until_it_is_too_old(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    with Journal(file) as journal:
        journal.put("a", "ключ", {"x": [1, "é"]})
        journal.put_many("a", {str(n): n for n in range(1200)})
        journal.put("b", "ключ", 2)
    with Journal(file) as journal:
        assert journal.get("a", "ключ") == {"x": [1, "é"]}
        assert len(journal.get_many("a", map(str, range(2000)))) == 1200
        assert journal.get("c", "ключ") is None
        journal.forget("a")
        assert journal.get_many("a", ["ключ", "1"]) == {}
        assert journal.get("b", "ключ") == 2
    with Journal(file, lifetime_s=-1, lasting=frozenset("b")) as journal:
        journal.put("a", "1", 1)
        assert (journal.get("a", "1"), journal.get("b", "ключ")) == (None, 2)


def test_a_kill_loses_nothing_that_was_put(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from gallery.sources.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "n = 0\n"
        "while True:\n"
        "    journal.put_many('x', {f'{n} {k}': k for k in range(5)})\n"
        "    n += 1\n"
        "    print(n, flush=True)\n"
    )
    file = tmp_path / "journal.db"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(20):
        said = int(process.stdout.readline())
    time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with Journal(file) as journal:
        for n in range(said):
            assert len(journal.get_many("x", [f"{n} {k}" for k in range(5)])) == 5
        for n in range(said, said + 200):
            assert len(journal.get_many("x", [f"{n} {k}" for k in range(5)])) in (0, 5)


def test_a_journal_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="can't be used"):
        Journal(tmp_path / "missing" / "journal.db")
