"""Choices and history on a real database file: kept, sealed, forgotten."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import sqlalchemy as sa

import migrations
from bot.database import database_url
from bot.identity import Identity, Who
from bot.request import Sender
from bot.sealing import seal, unseal
from bot.store import Choice, PastMatch, Store
from bot.tables import StoreTables
from engine.errors import BadSettings, SetupProblem, TryLater

DAY_S = 86_400
IDENTITY = Identity(b"a secret of the tests, 32 bytes!")
USER_ID, CHAT_ID = "8765432109", "-1001234567890"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def who() -> Who:
    return IDENTITY.who(Sender("telegram", USER_ID, CHAT_ID))


def opened(
    home: Path, *, identity: Identity = IDENTITY, days: int = 30, clock: Clock | None = None
) -> AbstractAsyncContextManager[Store]:
    url = database_url(None, home)
    return Store.open(url, identity, history_days=days, clock=clock or Clock())


def a_match(store: Store, person: str = "Grace Hopper") -> PastMatch:
    return PastMatch(person, 51.25, "dlib", store.now_s())


async def test_choices_survive_a_restart(tmp_path: Path, who: Who) -> None:
    async with opened(tmp_path) as store:
        assert await store.choice(who) == Choice()
        await store.choose_model(who, "senet")
        await store.choose_top(who, 3)
        await store.choose_category(who, "боевики 🙂")
    async with opened(tmp_path) as store:
        assert await store.choice(who) == Choice("senet", 3, "боевики 🙂")
        await store.choose_category(who, None)
        assert await store.choice(who) == Choice("senet", 3, None)


async def test_the_model_holds_everywhere_and_the_rest_for_one_chat(
    tmp_path: Path, who: Who
) -> None:
    elsewhere = IDENTITY.who(Sender("telegram", USER_ID, "another chat"))
    somebody = IDENTITY.who(Sender("telegram", "another person", CHAT_ID))
    async with opened(tmp_path) as store:
        await store.choose_model(who, "senet")
        await store.choose_top(who, 3)
        assert await store.choice(elsewhere) == Choice("senet")
        assert await store.choice(somebody) == Choice()


async def test_history_is_newest_first_and_ends_with_the_days_it_is_kept(
    tmp_path: Path, who: Who
) -> None:
    clock = Clock()
    async with opened(tmp_path, clock=clock, days=30) as store:
        for name in ("Grace Hopper", "فيروز", "Eileen Collins"):
            await store.remember(who, a_match(store, name))
            clock.now += 10 * DAY_S
        names = [match.person for match in await store.history(who)]
        assert names == ["Eileen Collins", "فيروز", "Grace Hopper"]
        assert [match.person for match in await store.history(who, 1)] == ["Eileen Collins"]
        clock.now += DAY_S
        assert [match.person for match in await store.history(who)] == names[:2]
        assert await store.sweep() == 1
        assert await store.sweep() == 0
    async with opened(tmp_path, clock=clock, days=5) as store:
        assert await store.history(who) == ()
    assert _count(tmp_path, "past_match") == 0


async def test_no_days_keep_no_history_and_delete_what_was_kept(tmp_path: Path, who: Who) -> None:
    async with opened(tmp_path) as store:
        await store.remember(who, a_match(store))
    async with opened(tmp_path, days=0) as store:
        await store.remember(who, a_match(store))
        assert await store.history(who) == ()
    assert _count(tmp_path, "past_match") == 0


async def test_export_holds_everything_and_forgetting_leaves_nothing(
    tmp_path: Path, who: Who
) -> None:
    elsewhere = IDENTITY.who(Sender("telegram", USER_ID, "another chat"))
    somebody = IDENTITY.who(Sender("telegram", "another person", CHAT_ID))
    async with opened(tmp_path) as store:
        await store.choose_model(who, "senet")
        await store.choose_top(who, 3)
        await store.choose_category(elsewhere, "film")
        await store.remember(who, a_match(store))
        await store.remember(somebody, a_match(store, "Eileen Collins"))
        exported = json.loads(json.dumps(await store.export(who)))
        assert exported["choices"] == {"model": "senet"}
        assert sorted(map(str, exported["choices_by_chat"])) == [
            "{'category': 'film'}",
            "{'top': 3}",
        ]
        assert exported["matches"] == [
            {
                "person": "Grace Hopper",
                "score": 51.2,
                "model": "dlib",
                "time": "2027-01-15T08:00:00Z",
            }
        ]
        await store.forget(who)
        empty = {"choices": {}, "choices_by_chat": [], "matches": []}
        assert await store.export(who) == empty
        assert await store.export(elsewhere) == empty
        assert len((await store.export(somebody))["matches"]) == 1
    assert _count(tmp_path, "past_match") == 1
    assert _count(tmp_path, "chat_choice") == 0


async def test_the_files_say_nothing_without_the_key(tmp_path: Path, who: Who) -> None:
    """Neither ids nor names nor models, not in the log nor among deleted pages either."""
    async with opened(tmp_path) as store:
        for number in range(200):
            await store.remember(who, a_match(store, f"Grace Hopper {number}"))
        await store.choose_model(who, "senet")
        await store.choose_category(who, "bollywood")
        for name, content in _files(tmp_path):
            for word in (USER_ID, CHAT_ID, "Hopper", "senet", "bollywood", "telegram", "dlib"):
                assert word.encode() not in content, (name, word)
        rows = _rows(tmp_path, "SELECT sealed FROM past_match")
        await store.forget(who)
        for name, content in _files(tmp_path):
            assert not any(sealed in content for (sealed,) in rows), name
    if sys.platform != "win32":
        mode = stat.S_IMODE((tmp_path / "lookalike.db").stat().st_mode)
        assert mode == 0o600


async def test_another_secret_is_refused(tmp_path: Path, who: Who) -> None:
    async with opened(tmp_path) as store:
        await store.choose_model(who, "senet")
    with pytest.raises(BadSettings, match="another secret key"):
        async with opened(tmp_path, identity=Identity(b"b" * 32)):
            pass
    async with opened(tmp_path) as store:
        assert (await store.choice(who)).model == "senet"


async def test_a_row_moved_to_another_person_does_not_open(tmp_path: Path, who: Who) -> None:
    other = IDENTITY.who(Sender("telegram", "another person", CHAT_ID))
    async with opened(tmp_path) as store:
        await store.choose_model(who, "senet")
    with sqlite3.connect(tmp_path / "lookalike.db") as connection:
        connection.execute("UPDATE user_choice SET user_key = ?", (other.user.hex(),))
    connection.close()
    async with opened(tmp_path) as store:
        with pytest.raises(SetupProblem, match="sealed elsewhere"):
            await store.choice(other)


def test_what_was_sealed_opens_only_as_it_was() -> None:
    key = b"k" * 32
    sealed = seal(key, "table", {"a": "ü"})
    assert unseal(key, "table", sealed) == {"a": "ü"}
    assert seal(key, "table", {"a": "ü"}) != sealed
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for spoilt in (changed, sealed[:5], b""):
        with pytest.raises(SetupProblem):
            unseal(key, "table", spoilt)
    with pytest.raises(SetupProblem):
        unseal(key, "another", sealed)


async def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    people = [IDENTITY.who(Sender("web", str(number), "c")) for number in range(20)]
    async with opened(tmp_path) as store:
        await asyncio.gather(
            *(store.remember(who, a_match(store)) for who in people for _ in range(5)),
            *(store.choose_top(who, 1 + number % 10) for number, who in enumerate(people)),
            *(store.choose_category(who, "film") for who in people),
            *(store.choose_model(who, "dlib") for who in people),
        )
        for number, who in enumerate(people):
            assert await store.choice(who) == Choice("dlib", 1 + number % 10, "film")
            assert len(await store.history(who)) == 5


async def test_several_processes_may_open_it_at_once(tmp_path: Path) -> None:
    """Each brings the tables up to date; none fails."""

    async def once() -> None:
        async with opened(tmp_path):
            pass

    await asyncio.gather(*(once() for _ in range(5)))


async def test_the_migrations_make_the_tables_of_the_code(tmp_path: Path) -> None:
    """Alembic finds no difference between the migrated database and bot/tables.py."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    async with opened(tmp_path):
        pass
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'lookalike.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": migrations.version_table("store")}
        )
        assert migrations.current("store", connection) == migrations.head("store")
        assert compare_metadata(context, StoreTables.metadata) == []
    engine.dispose()


async def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "lookalike.db") as connection:
        connection.execute("UPDATE alembic_version_store SET version_num = 'store_9999'")
    connection.close()
    with pytest.raises(SetupProblem, match="newer version"):
        async with opened(tmp_path):
            pass


async def test_a_damaged_database_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "lookalike.db").write_bytes(b"no database at all " * 100)
    with pytest.raises(BadSettings, match="does not answer"):
        async with opened(tmp_path):
            pass


async def test_a_database_that_is_gone_means_try_later(tmp_path: Path, who: Who) -> None:
    async with opened(tmp_path) as store:
        with sqlite3.connect(tmp_path / "lookalike.db") as connection:
            connection.execute("DROP TABLE user_choice")
        connection.close()
        with pytest.raises(TryLater) as problem:
            await store.choice(who)
    assert who.user.hex() not in str(problem.value)


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        (None, "sqlite+aiosqlite"),
        ("sqlite:////tmp/x.db", "sqlite+aiosqlite"),
        ("postgresql://u:p@h/d", "postgresql+psycopg"),
        ("postgresql+psycopg://u:p@h/d", "postgresql+psycopg"),
    ],
)
def test_a_url_gets_a_driver_for_asyncio(tmp_path: Path, url: str | None, driver: str) -> None:
    assert database_url(url, tmp_path).drivername == driver


async def test_a_url_that_cannot_be_used_is_a_sentence_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="SQLAlchemy"):
        database_url("secret-password", tmp_path)
    for url in ("postgresql://u:secret-password@h/d", "nosuch://u:secret-password@h/d"):
        with pytest.raises(BadSettings) as problem:
            async with Store.open(database_url(url, tmp_path), IDENTITY):
                pass
        assert "secret-password" not in str(problem.value)


def _files(home: Path) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in home.iterdir()]


def _rows(home: Path, query: str) -> list[tuple[bytes]]:
    connection = sqlite3.connect(home / "lookalike.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def _count(home: Path, table: str) -> int:
    return len(_rows(home, f"SELECT 1 FROM {table}"))
