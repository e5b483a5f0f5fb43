"""Keys: stable, unrelated, and from a secret that is made once and for its owner alone."""

from __future__ import annotations

import multiprocessing
import stat
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.store import Identity, secret_key
from bot.values import Sender
from engine.errors import BadSettings

names = st.text(max_size=8)


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new home" / "secret.key"
    key = secret_key(path)
    assert secret_key(path) == key
    assert len(key) == 64
    assert [file.name for file in path.parent.iterdir()] == ["secret.key"]
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_many_processes_at_once_agree_on_one_key(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        keys = set(pool.map(secret_key, [path] * 8))
    assert keys == {secret_key(path)}
    assert [file.name for file in tmp_path.iterdir()] == ["secret.key"]


def test_a_given_key_needs_no_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    assert secret_key(path, "k" * 32) == b"k" * 32
    assert not path.exists()
    with pytest.raises(BadSettings, match="fewer than 32"):
        secret_key(path, "k" * 31)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64])
def test_a_damaged_key_is_refused_and_not_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(content)
    with pytest.raises(BadSettings, match=r"secret\.key"):
        secret_key(path)
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadSettings, match="can't be used"):
        secret_key(tmp_path / "file" / "secret.key")


@given(names, names, names, names, names, names)
def test_different_people_have_different_keys(
    platform: str, user: str, chat: str, platform2: str, user2: str, chat2: str
) -> None:
    """Also where the strings only divide differently: ("ab", "c") and ("a", "bc")."""
    identity = Identity(b"s" * 32)
    one = identity.who(Sender(platform, user, chat))
    two = identity.who(Sender(platform2, user2, chat2))
    assert (one.user == two.user) == ((platform, user) == (platform2, user2))
    assert (one.chat == two.chat) == ((platform, user, chat) == (platform2, user2, chat2))
    assert one.user != one.chat


def test_keys_depend_on_the_secret_and_show_nothing() -> None:
    sender = Sender("telegram", "123456789", "-100987")
    one, two = (Identity(secret).who(sender) for secret in (b"a" * 32, b"b" * 32))
    assert one.user != two.user
    assert repr(one) == "Who()"
    assert "123456789" not in repr(sender)
    assert Identity(b"a" * 32).keyed("x") != Identity(b"b" * 32).keyed("x")


def test_a_tag_belongs_to_one_person_and_one_purpose() -> None:
    identity = Identity(b"a" * 32)
    one, two = (identity.who(Sender("web", user, "c")) for user in ("1", "2"))
    assert (
        len({identity.tag("forget", one), identity.tag("forget", two), identity.tag("x", one)}) == 3
    )
