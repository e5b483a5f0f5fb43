"""Pickles from anywhere: lists of strings and of arrays are read, everything else is an error.

What the malicious ones would do is proven with Python's own unpickler first, so that a test which
sees nothing happen means something.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import SetupProblem
from engine.pickles import pickled_strings, pickled_vectors

BLANK = b"cnumpy._core.multiarray\n_reconstruct\n"
VECTORS = [np.arange(n, n + 8, dtype=np.float32) for n in range(5)]
PATHS = ["data/Aamir_Khan/Aamir_Khan.1.jpg", "data\\Kajol\\1.jpg", "data/Élodie/१.jpg"]


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
def test_lists_of_vectors_are_read(protocol: int, dtype: str, tmp_path: Path) -> None:
    content = pickle.dumps([one.astype(dtype) for one in VECTORS], protocol)
    assert np.array_equal(pickled_vectors(written(tmp_path / "x", content)), np.stack(VECTORS))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_paths_are_read(protocol: int, tmp_path: Path) -> None:
    assert pickled_strings(written(tmp_path / "x", pickle.dumps(PATHS, protocol))) == PATHS
    many = [f"data/Somebody_{n}/{n}.jpg" for n in range(3000)]
    assert pickled_strings(written(tmp_path / "x", pickle.dumps(many, protocol))) == many
    assert pickled_strings(written(tmp_path / "x", pickle.dumps([], protocol))) == []


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_any_layout_are_read(protocol: int, tmp_path: Path) -> None:
    whole = np.stack(VECTORS)
    for content in (whole, np.asfortranarray(whole), list(whole), list(whole[:, None]), [whole[0]]):
        expected = np.stack([np.ravel(one) for one in content])
        found = pickled_vectors(written(tmp_path / "x", pickle.dumps(content, protocol)))
        assert np.array_equal(found, expected)


def test_a_pickle_of_numpy_1_is_read(tmp_path: Path) -> None:
    """NumPy 2 moved what NumPy 1 named; a file of either is the same otherwise."""
    for protocol in (2, 4, 5):
        content = pickle.dumps(VECTORS, protocol)
        old = content
        for module in (b"numpy._core.multiarray", b"numpy._core.numeric"):
            for before, length in ((b"\x8c", len(module)), (b"c", None)):
                new = module.replace(b"._core", b".core")
                size = b"" if length is None else bytes([length])
                shorter = b"" if length is None else bytes([len(new)])
                old = old.replace(before + size + module, before + shorter + new)
        assert old != content
        if protocol >= 4:  # frames say how long they are
            place = old.index(b"\x95") + 1
            size = struct.unpack_from("<Q", old, place)[0] - (len(content) - len(old))
            old = old[:place] + struct.pack("<Q", size) + old[place + 8 :]
        assert np.array_equal(pickled_vectors(written(tmp_path / "x", old)), np.stack(VECTORS))


class Call:
    """Pickled, it is a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def touching(mark: Path) -> dict[str, bytes]:
    """Pickles that make a file when they are loaded, each in a way of its own."""
    path, shell = str(mark), f"touch {mark}"
    code = f"open({path!r}, 'w').close()"
    objects = np.empty(1, object)
    objects[0] = Call(os.system, shell)
    found = {
        f"{name}, protocol {protocol}": pickle.dumps(content, protocol)
        for protocol in (0, 2, 4, 5)
        for name, content in {
            "os.system": Call(os.system, shell),
            "eval": Call(eval, code),
            "exec": Call(exec, code),
            "open": Call(open, path, "w"),
            "Popen": Call(subprocess.check_call, ["touch", path]),
            "after vectors": [*VECTORS, Call(os.system, shell)],
            "a chain": [Call(map, eval, [code]), Call(list, Call(map, eval, [code]))],
            "an array of objects": objects,
            "inside an array of objects": [*VECTORS, objects],
        }.items()
    }
    raw = shell.encode()
    found |= {
        "INST": b"(S'" + raw + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + raw + b"'\no.",
        "a name with dots": b"\x80\x04\x8c\x06shutil\x8c\x09os.system\x93\x8c"
        + bytes([len(raw)])
        + raw
        + b"\x85R.",
        "after an array": BLANK
        + b"(cnumpy\nndarray\n(I0\ntS'b'\ntR0cos\nsystem\n(S'"
        + raw
        + b"'\ntR.",
        "runpy": b"crunpy\n_run_code\n(S'" + code.replace("'", '"').encode() + b"'\n(dtR.",
    }
    return found


@pytest.mark.parametrize("what", touching(Path("x")))
def test_nothing_runs(what: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    content = touching(mark)[what]
    loaded = [sys.executable, "-c", "import pickle, sys; pickle.load(sys.stdin.buffer)"]
    if "protocol 0" in what or "protocol" not in what:  # one of each kind is proof enough
        subprocess.run(loaded, input=content, capture_output=True, check=False)
        assert mark.exists(), "this would do nothing anyway"
        mark.unlink()
    before = set(sys.modules)
    file = written(tmp_path / "evil.pkl", content)
    for read in (pickled_vectors, pickled_strings):
        with pytest.raises(SetupProblem, match="nothing in it was run"):
            read(file)
    assert not mark.exists()
    assert not {name for name in set(sys.modules) - before if not name.startswith("encodings.")}


def giant(opcode: bytes, size: int, width: str) -> bytes:
    return b"\x80\x04]" + opcode + struct.pack(width, size) + b"xa."


def doubling() -> bytes:
    """Thirty lists, each twice in the next: a thousand million strings, if anybody counts."""
    lists = b"".join(b"](h%ch%ce\x94" % (n, n) for n in range(30))
    return b"\x80\x04]\x94" + lists + b"."


ARRAY = b"cnumpy\nndarray\n"
FLOATS = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR"
BUFFER = b"cnumpy._core.numeric\n_frombuffer\n"
HARMFUL = {
    "a string of 8 GB": giant(b"\x8d", 2**33, "<Q"),
    "a string beyond all": giant(b"\x8d", 2**63 - 1, "<Q"),
    "bytes of 8 GB": giant(b"\x8e", 2**33, "<Q"),
    "a byte array of 8 GB": giant(b"\x96", 2**33, "<Q"),
    "a long of 2 GB": giant(b"\x8b", 2**31 - 1, "<L"),
    "a frame beyond all": giant(b"\x95", 2**63, "<Q"),
    "a memo of 64 GB": b"\x80\x02]r\xfe\xff\xff\xff" + b"X\x01\x00\x00\x00xa" * 2 + b"ja.",
    "lists twice in lists": doubling(),
    "a list in itself": b"\x80\x04]\x94h\x00a.",
    "a million marks": b"(" * 1_000_000 + b".",
    "a tuple without bottom": b")" + b"\x85" * 60_000 + b".",
    "lists a thousand deep": b"](" * 1_000 + b"." * 1_000,
    "more of the same": b"\x80\x04](K\x01\x94" + b"h\x00" * 200_000 + b"e.",
    "one array a million times": pickle.dumps([np.ones(8, np.float32)], 4)[:-2].replace(b"a", b"")
    + b"\x94h\x00"
    + b".",
    "an array of 4 TB": BUFFER + b"(S'abcd'\n" + FLOATS + b"(I1000000000000\ntS'C'\ntR.",
    "an array below zero": BUFFER + b"(S'abcd'\n" + FLOATS + b"(I-1\ntS'C'\ntR.",
    "an array of sides without end": BUFFER
    + b"(S''\n"
    + FLOATS
    + b"("
    + b"I0\n" * 99
    + b"tS'C'\ntR.",
    "a blank of 4 TB": BLANK + b"(" + ARRAY + b"(I1000000000000\ntS'b'\ntR.",
    "a blank of another kind": BLANK + b"(cnumpy\nmatrix\n(I0\ntS'b'\ntR.",
    "a blank of a number": BLANK + b"(I1\n(I0\ntS'b'\ntR.",
    "a blank that stays": BLANK + b"(" + ARRAY + b"(I0\ntS'b'\ntR.",
    "a type of objects": BUFFER + b"(S'12345678'\ncnumpy\ndtype\n(S'O8'\nI0\nI1\ntR(I1\ntS'C'\ntR.",
    "a type with fields": b"cnumpy\ndtype\n(S'f4'\ntR(I3\nS'<'\n(tS'a'\n(tI4\nI4\nI0\ntb.",
    "a type of anything": b"cnumpy\ndtype\n(S'" + b"O" * 5_000 + b"'\ntR.",
    "bytes that are no bytes": BUFFER + b"(I5\n" + FLOATS + b"(I1\ntS'C'\ntR.",
    "NumPy's way to a file": b"cnumpy\nfromfile\n(S'/etc/passwd'\ntR.",
    "NumPy's own loader": b"cnumpy\nload\n(S'/tmp/x.npy'\nNI01\ntR.",
    "NumPy's memory": b"cnumpy\nempty\n(I1000000000000\ntR.",
    "a mapped file": b"cnumpy\nmemmap\n(S'/etc/passwd'\ntR.",
    "getattr": b"c__builtin__\ngetattr\n(c__builtin__\nobject\nS'__subclasses__'\ntR.",
    "an import": b"c__builtin__\n__import__\n(S'os'\ntR.",
    "a name alone": b"cos\nsystem\n.",
    "a persistent id": b"Pevil\n.",
    "a binary persistent id": b"K\x01Q.",
    "an extension": b"\x80\x02\x82\x01.",
    "an extension of four bytes": b"\x80\x02\x84\x01\x00\x00\x00.",
    "a buffer from elsewhere": b"\x80\x05\x97.",
    "a read-only buffer": b"\x80\x05\x97\x98.",
    "a dictionary": pickle.dumps({"a": 1}),
    "a set": pickle.dumps({1}),
    "an object": pickle.dumps(Path("x")),
    "NEWOBJ": b"\x80\x02cpathlib\nPosixPath\n)\x81.",
    "NEWOBJ_EX": b"\x80\x04\x8c\x07pathlib\x8c\x09PosixPath\x93)}\x92.",
    "a state for a list": b"]}b.",
    "a state for a type": FLOATS + b"(tb.",
    "a state for a name": ARRAY + b"(I1\ntb.",
    "a call of a string": b"S'os.system'\n(tR.",
    "a call with a list": b"cnumpy\ndtype\n(lR.",
    "a call with too much": b"c_codecs\nencode\n(S'a'\nS'latin1'\nS'x'\ntR.",
    "another encoding": b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.",
    "a name of a number": b"\x80\x04K\x01K\x02\x93.",
    "nothing on the stack": b"a.",
    "no mark": b"e.",
    "no memo": b"h\x07.",
    "two things": b"K\x01K\x02.",
    "only the end": b".",
    "no end": b"]",
    "nothing": b"",
    "no pickle": b"\xff\xd8\xff\xe0",
    "a number without end": b"I" + b"9" * 100_000 + b"\n.",
    "a string": pickle.dumps("data/x.jpg"),
    "a number": pickle.dumps(5),
    "numbers": pickle.dumps([1, 2.5, None, True]),
    "lists of lists": pickle.dumps([[1.0, 2.0]]),
    "bytes": pickle.dumps([b"data/x.jpg"]),
    "a path without end": pickle.dumps(["x" * 5_000, np.zeros(1)]),
}


@pytest.mark.parametrize("what", HARMFUL)
def test_nothing_swells_or_falls_over(what: str, tmp_path: Path) -> None:
    file = written(tmp_path / "evil.pkl", HARMFUL[what])
    started = time.process_time()
    tracemalloc.start()
    try:
        for read in (pickled_vectors, pickled_strings):
            with pytest.raises(SetupProblem, match=r"evil\.pkl is not a list of"):
                read(file)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 30_000_000 + 20 * len(HARMFUL[what])
    assert time.process_time() - started < 60


def test_an_array_that_is_repeated_by_memo_is_read_once(tmp_path: Path) -> None:
    """One array of a megabyte, a hundred thousand times: 100 GB if each were another."""
    big = np.arange(262_144, dtype=np.float32)
    content = pickle.dumps([big] * 100_000, 4)
    assert len(content) < 2_000_000
    tracemalloc.start()
    try:
        found = pickled_vectors(written(tmp_path / "x", content))
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 100_000
    assert all(np.array_equal(one, big) for one in found[::50_000])
    assert most_bytes < 30_000_000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([np.ones(8, np.float32), np.ones(9, np.float32)], "differ in length"),
        ([np.array([1, np.nan], np.float32)], "no number"),
        ([np.array([1e300, 0], np.float64)], "no number"),
        ([], "empty"),
        ([np.zeros(0, np.float32)], "empty"),
        ([np.zeros(8, np.int64)], "floating-point"),
        ([np.zeros((2, 2, 2), np.float32)], "another size"),
        ([np.zeros(2, "datetime64[s]")], "floating-point"),
        (["data/x.jpg"], "no array"),
    ],
)
def test_vectors_that_are_none_are_told(content: Any, reason: str, tmp_path: Path) -> None:
    file = written(tmp_path / "x", pickle.dumps(content))
    with pytest.raises(SetupProblem, match=reason):
        pickled_vectors(file)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pkl", tmp_path):
        with pytest.raises(SetupProblem, match="can't be read"):
            pickled_strings(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.lists(st.sampled_from(b"()]}tRb0aeh\x94\x93\x85K.")).map(bytes))
def test_random_bytes_are_an_error(tmp_path: Path, content: bytes) -> None:
    file = written(tmp_path / "x", content)
    for read in (pickled_vectors, pickled_strings):
        with contextlib.suppress(SetupProblem):
            assert isinstance(read(file), list)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([2, 4, 5]), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255))))
def test_damaged_vectors_are_vectors_or_an_error(
    tmp_path: Path, protocol: int, damage: list[tuple[int, int]]
) -> None:
    content = bytearray(pickle.dumps(VECTORS, protocol))
    for place, value in damage:
        content[place % len(content)] = value
    try:
        found = pickled_vectors(written(tmp_path / "x", bytes(content)))
    except SetupProblem:
        return
    assert all(one.dtype == np.float32 and np.isfinite(one).all() for one in found)


@given(st.lists(st.text(max_size=50), max_size=20), st.sampled_from([0, 1, 2, 3, 4, 5]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_list_of_strings_is_read(tmp_path: Path, texts: list[str], protocol: int) -> None:
    buffer = io.BytesIO()
    pickle.dump(texts, buffer, protocol)
    assert pickled_strings(written(tmp_path / "x", buffer.getvalue())) == texts
