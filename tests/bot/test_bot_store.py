"""Choices and history in a real database, a file or a server: kept, sealed, forgotten."""

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
from postgres_server import PostgresServer, name_of

import migrations
from bot.store import (
    METADATA,
    Choice,
    Identity,
    PastMatch,
    Store,
    Who,
    database_url,
    seal,
    unseal,
)
from bot.values import Sender
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


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> sa.URL:
    """An empty database, of each kind."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    return database_url(url, tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> sa.URL:
    """A database in a file."""
    return database_url(None, tmp_path)


def opened(
    url: sa.URL, *, identity: Identity = IDENTITY, days: int = 30, clock: Clock | None = None
) -> AbstractAsyncContextManager[Store]:
    return Store.open(url, identity, history_days=days, clock=clock or Clock())


def a_match(store: Store, person: str = "Grace Hopper") -> PastMatch:
    return PastMatch(person, 51.25, "dlib", store.now_s())


async def test_choices_survive_a_restart(database: sa.URL, who: Who) -> None:
    async with opened(database) as store:
        assert await store.choice(who) == Choice()
        await store.choose(who, model="senet")
        await store.choose(who, top=3)
        await store.choose(who, category="боевики 🙂")
    async with opened(database) as store:
        assert await store.choice(who) == Choice("senet", 3, "боевики 🙂")
        await store.choose(who, category=None)
        assert await store.choice(who) == Choice("senet", 3, None)


async def test_the_model_holds_everywhere_and_the_rest_for_one_chat(
    database: sa.URL, who: Who
) -> None:
    elsewhere = IDENTITY.who(Sender("telegram", USER_ID, "another chat"))
    somebody = IDENTITY.who(Sender("telegram", "another person", CHAT_ID))
    async with opened(database) as store:
        await store.choose(who, model="senet")
        await store.choose(who, top=3)
        assert await store.choice(elsewhere) == Choice("senet")
        assert await store.choice(somebody) == Choice()


async def test_history_is_newest_first_and_ends_with_the_days_it_is_kept(
    database: sa.URL, who: Who
) -> None:
    clock = Clock()
    async with opened(database, clock=clock, days=30) as store:
        for name in ("Grace Hopper", "فيروز", "Eileen Collins"):
            await store.remember(who, a_match(store, name))
            clock.now += 10 * DAY_S
        names = [match.person for match in await store.history(who)]
        assert names == ["Eileen Collins", "فيروز", "Grace Hopper"]
        assert [match.person for match in await store.history(who, 1)] == ["Eileen Collins"]
        clock.now += DAY_S
        assert [match.person for match in await store.history(who)] == names[:2]
        # Each sweep believes the clock one more day.
        assert [await store.sweep() for _ in range(35)].count(1) == 1
    async with opened(database, clock=clock, days=5) as store:
        assert await store.history(who) == ()
    assert _count(database, "past_match") == 0


async def test_no_days_keep_no_history_and_delete_what_was_kept(database: sa.URL, who: Who) -> None:
    async with opened(database) as store:
        await store.remember(who, a_match(store))
    async with opened(database, days=0) as store:
        await store.remember(who, a_match(store))
        assert await store.history(who) == ()
    assert _count(database, "past_match") == 0


async def test_export_holds_everything_and_forgetting_leaves_nothing(
    database: sa.URL, who: Who
) -> None:
    elsewhere = IDENTITY.who(Sender("telegram", USER_ID, "another chat"))
    somebody = IDENTITY.who(Sender("telegram", "another person", CHAT_ID))
    async with opened(database) as store:
        await store.choose(who, model="senet")
        await store.choose(who, top=3)
        await store.choose(elsewhere, category="film")
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
    assert _count(database, "past_match") == 1
    assert _count(database, "choice") == 1  # when it was swept


async def test_bookmarks_are_of_the_last_day_and_sealed(file: sa.URL) -> None:
    """Of the last hundred places, and of each front end its own."""
    clock = Clock()
    async with opened(file, clock=clock) as store:
        await store.keep("discord", "0/1", 17)
        clock.now += DAY_S - 1
        for number in range(105):
            clock.now += 0.001
            await store.keep("discord", f"{CHAT_ID}/{number}", number)
        assert await store.kept("other") == {}
    async with opened(file, clock=clock) as store:
        found = await store.kept("discord")
        assert len(found) == 100
        assert found[f"{CHAT_ID}/104"] == 104
        clock.now += DAY_S + 1
        assert await store.kept("discord") == {}
    written = b"".join(one.read_bytes() for one in Path(str(file.database)).parent.iterdir())
    assert CHAT_ID.encode() not in written


async def test_updates_are_held_until_they_are_answered_or_old(database: sa.URL) -> None:
    """Whatever is held of one is read by processes after this one."""
    clock, update = Clock(), {"starts": 1, "update": {"from": {"id": int(USER_ID)}}}
    async with opened(database, clock=clock) as store:
        assert await store.keep_all("telegram", {"17": update}, replace=False)
        assert not await store.keep_all("telegram", {"17": {"other": 1}}, replace=False)
        assert await store.keep("telegram", "18", update)
        assert not await store.keep_all("telegram", {"18": None, "19": 5, "20": None})
        assert not await store.keep_all(
            "telegram", {"19": None, "21": 7}, filed="telegram answered"
        )
    clock.now += 3600
    async with opened(database, clock=clock) as store:
        assert await store.kept("telegram") == {"17": update, "18": None, "20": None}
        assert await store.kept("other") == {}
    clock.now += 2 * 3600
    async with opened(database, clock=clock) as store:
        assert await store.kept("telegram") == {}
    assert _count(database, "choice") == 1  # when it was swept


async def test_a_clock_that_is_wrong_for_a_while_costs_no_history(file: sa.URL, who: Who) -> None:
    clock = Clock()
    async with opened(file, clock=clock) as store:
        await store.remember(who, PastMatch("Ada", 71.0, "dlib", store.now_s()))
    for wrong in (60 * DAY_S, 60 * DAY_S, -60 * DAY_S, -60 * DAY_S, -3600):
        clock.now += wrong
        async with opened(file, clock=clock) as store:
            await store.sweep()
        clock.now -= wrong
    async with opened(file, clock=clock) as store:
        assert len(await store.history(who)) == 1
        clock.now += 31 * DAY_S
        for _ in range(31 + 60):  # what is old goes, if later: the clock had been set back
            await store.sweep()
        assert await store.history(who) == ()
    assert _count(file, "past_match") == 0


async def test_the_files_say_nothing_without_the_key(
    file: sa.URL, tmp_path: Path, who: Who
) -> None:
    """Neither ids nor names nor models, not in the log nor among deleted pages either."""
    async with opened(file) as store:
        for number in range(200):
            await store.remember(who, a_match(store, f"Grace Hopper {number}"))
        await store.choose(who, model="senet")
        await store.choose(who, category="bollywood")
        for name, content in _files(tmp_path):
            for word in (USER_ID, CHAT_ID, "Hopper", "senet", "bollywood", "telegram", "dlib"):
                assert word.encode() not in content, (name, word)
        rows = _rows(file, "SELECT sealed FROM past_match")
        assert await store.forget(who)
        for name, content in _files(tmp_path):
            assert not any(sealed in content for (sealed,) in rows), name
        if sys.platform != "win32":
            for one in ("lookalike.db", "lookalike.db-wal", "lookalike.db.lock"):
                assert stat.S_IMODE((tmp_path / one).stat().st_mode) == 0o600


async def test_what_another_program_reads_is_gone_once_it_ends(
    file: sa.URL, tmp_path: Path, who: Who
) -> None:
    """Neither its file nor its log holds what was deleted; until then it is said."""
    async with opened(file) as store:
        await store.remember(who, *(a_match(store) for _ in range(200)))
        rows = _rows(file, "SELECT sealed FROM past_match")
        reader = sqlite3.connect(str(file.database))
        try:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM past_match").fetchone()
            assert not await store.forget(who)
            assert await store.history(who) == ()
            await store.choose(who, top=2)  # nobody waits for the reader
            await store.tidy()
        finally:
            reader.close()
        await store.tidy()
        for name, content in _files(tmp_path):
            assert not any(sealed in content for (sealed,) in rows), name


async def test_another_secret_is_refused(database: sa.URL, who: Who) -> None:
    async with opened(database) as store:
        await store.choose(who, model="senet")
    with pytest.raises(BadSettings, match="another secret key"):
        async with opened(database, identity=Identity(b"b" * 32)):
            pass
    async with opened(database) as store:
        assert (await store.choice(who)).model == "senet"


async def test_a_row_moved_to_another_person_does_not_open(database: sa.URL, who: Who) -> None:
    other = IDENTITY.who(Sender("telegram", "another person", CHAT_ID))
    async with opened(database) as store:
        await store.choose(who, model="senet")
    moved = f"UPDATE choice SET key = '{other.user.hex()}' WHERE key = '{who.user.hex()}'"
    _execute(database, moved)
    async with opened(database) as store:
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


async def test_many_at_once_lose_nothing(database: sa.URL) -> None:
    people = [IDENTITY.who(Sender("web", str(number), "c")) for number in range(20)]
    async with opened(database) as store:
        await asyncio.gather(
            *(store.remember(who, a_match(store)) for who in people for _ in range(5)),
            *(store.choose(who, top=1 + number % 10) for number, who in enumerate(people)),
            *(store.choose(who, category="film") for who in people),
            *(store.choose(who, model="dlib") for who in people),
        )
        for number, who in enumerate(people):
            assert await store.choice(who) == Choice("dlib", 1 + number % 10, "film")
            assert len(await store.history(who)) == 5


async def test_several_processes_may_open_it_at_once(database: sa.URL) -> None:
    """Each brings the tables up to date; none fails."""

    async def once() -> None:
        async with opened(database):
            pass

    await asyncio.gather(*(once() for _ in range(5)))


async def test_the_migrations_make_the_tables_of_the_code(database: sa.URL) -> None:
    """Alembic finds no difference between the migrated database and bot/store.py."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    async with opened(database):
        pass
    engine = _plain(database)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": migrations.version_table("store")}
        )
        assert migrations.current("store", connection) == migrations.head("store")
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


async def test_a_database_of_a_newer_program_is_refused(database: sa.URL) -> None:
    async with opened(database):
        pass
    _execute(database, "UPDATE alembic_version_store SET version_num = 'store_9999'")
    with pytest.raises(SetupProblem, match="newer version"):
        async with opened(database):
            pass


async def test_a_hung_process_that_opens_it_is_a_sentence(
    file: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.store.LOCK_TIMEOUT_S", 0.2)
    script = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); "
    script += "lock.acquire(); print(); input()"
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    command = (sys.executable, "-c", script, f"{file.database}.lock")
    hung = await asyncio.create_subprocess_exec(*command, **pipes)
    assert hung.stdout
    await hung.stdout.readline()
    with pytest.raises(TryLater, match="stop it if it hangs"):
        async with opened(file):
            pass
    hung.kill()
    await hung.wait()
    async with opened(file):
        pass


async def test_a_damaged_database_is_a_sentence(file: sa.URL, tmp_path: Path) -> None:
    (tmp_path / "lookalike.db").write_bytes(b"no database at all " * 100)
    with pytest.raises(BadSettings, match="does not answer"):
        async with opened(file):
            pass


async def test_a_database_that_is_gone_means_try_later(database: sa.URL, who: Who) -> None:
    async with opened(database) as store:
        _execute(database, "DROP TABLE choice")
        with pytest.raises(TryLater) as problem:
            await store.choice(who)
    assert who.user.hex() not in str(problem.value)


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        (None, "sqlite"),
        ("sqlite:////tmp/x.db", "sqlite"),
        ("sqlite+aiosqlite:////tmp/x.db", "sqlite"),
        ("postgresql://u:p@h/d", "postgresql+psycopg"),
        ("postgres://u:p@h/d", "postgresql+psycopg"),
        ("postgresql+psycopg://u:p@h/d", "postgresql+psycopg"),
    ],
)
def test_a_url_gets_a_driver(tmp_path: Path, url: str | None, driver: str) -> None:
    assert database_url(url, tmp_path).drivername == driver


async def test_a_url_that_cannot_be_used_is_a_sentence_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="SQLAlchemy"):
        database_url("secret-password", tmp_path)
    for url, kind in (
        ("postgresql://u:secret-password@nowhere.invalid/d", TryLater),
        ("postgresql://u@nowhere.invalid/d?password=secret-password", TryLater),
        ("nosuch://u:secret-password@h/d", BadSettings),
    ):
        with pytest.raises(kind) as problem:
            async with Store.open(database_url(url, tmp_path), IDENTITY):
                pass
        assert "secret-password" not in str(problem.value)


async def test_a_server_that_refuses_is_a_sentence_without_the_password(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    name = name_of(postgres_url)
    for url, sentence in (
        (postgres.locked_url(name, "secret-password"), "refuses the connection"),
        (postgres.url("nosuch", password="secret-password"), "refuses the connection"),
        (postgres.locked_url(name), "does not let this user write"),
    ):
        with pytest.raises(BadSettings, match=sentence) as problem:
            async with opened(database_url(url, tmp_path)):
                pass
        assert "secret" not in str(problem.value)
        assert "s3cret" not in repr(problem.value)


async def test_a_server_that_was_restarted_is_noticed_by_nobody(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path, who: Who
) -> None:
    """Connections that went stale in the pool are made anew."""
    async with opened(database_url(postgres_url, tmp_path)) as store:
        await store.choose(who, model="senet")
        assert postgres.cut(name_of(postgres_url)) > 0
        assert await store.choice(who) == Choice("senet")


async def test_two_processes_that_change_one_choice_lose_nothing(
    postgres_url: str, tmp_path: Path, who: Who
) -> None:
    """Two stores as in two processes: each has its own connections and its own locks."""
    url = database_url(postgres_url, tmp_path)
    async with opened(url) as one, opened(url) as other:
        for number in range(1, 11):
            name = f"category {number}"
            await asyncio.gather(one.choose(who, top=number), other.choose(who, category=name))
            assert await one.choice(who) == Choice(None, number, name)


def _files(home: Path) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in home.iterdir()]


def _plain(url: sa.URL) -> sa.Engine:
    """For looking at a database from outside."""
    return sa.create_engine(url)


def _execute(url: sa.URL, statement: str) -> None:
    engine = _plain(url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


def _rows(url: sa.URL, query: str) -> list[tuple[bytes]]:
    engine = _plain(url)
    with engine.connect() as connection:
        rows = [(bytes(row[0]),) for row in connection.execute(sa.text(query))]
    engine.dispose()
    return rows


def _count(url: sa.URL, table: str) -> int:
    engine = _plain(url)
    with engine.connect() as connection:
        count = connection.scalar(sa.text(f"SELECT count(*) FROM {table}"))
    engine.dispose()
    return int(count or 0)
