"""The catalogue's database: made, migrated, refused."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import gallery.database as gallery_database
from engine.errors import BadSettings, Busy, GalleryCorrupt, SetupProblem
from gallery.database import changing, connect, migrate
from gallery.gallery import Gallery
from gallery.tables import METADATA, REVISION
from migrations import alembic_config, current, head, upgrade, version_table


def test_migrations_make_the_tables_of_the_models(tmp_path: Path) -> None:
    database = connect(tmp_path / "a.db")
    migrate(database)
    with database.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": version_table("gallery"), "compare_type": True}
        )
        assert compare_metadata(context, METADATA) == []
    database.dispose()


def test_checks_and_foreign_keys_are_those_of_the_models(tmp_path: Path) -> None:
    """Alembic does not compare these."""
    migrated, declared = connect(tmp_path / "a.db"), connect(tmp_path / "b.db")
    migrate(migrated)
    METADATA.create_all(declared)
    found = []
    for database in (migrated, declared):
        inspector = sa.inspect(database)
        tables = sorted(set(inspector.get_table_names()) - {version_table("gallery")})
        found.append(
            [
                (
                    table,
                    sorted(
                        (c["name"], re.sub(r"\s", "", c["sqltext"]))
                        for c in inspector.get_check_constraints(table)
                    ),
                    sorted(
                        (k["name"], k["referred_table"], k["options"].get("ondelete"))
                        for k in inspector.get_foreign_keys(table)
                    ),
                    "AUTOINCREMENT" in _ddl(database, table),
                )
                for table in tables
            ]
        )
        database.dispose()
    assert found[0] == found[1]
    assert len(found[0]) == 12


def _ddl(database: sa.Engine, table: str) -> str:
    with database.connect() as connection:
        query = sa.text("SELECT sql FROM sqlite_master WHERE name = :name")
        return str(connection.scalar(query, {"name": table}))


@pytest.mark.parametrize("room", ["gallery", "store"])
def test_the_head_read_from_file_names_is_alembics(room: str) -> None:
    assert room in ("gallery", "store")
    scripts = ScriptDirectory.from_config(alembic_config(room))
    assert scripts.get_heads() == [head(room)]


def test_a_database_can_be_taken_back_and_forth(tmp_path: Path) -> None:
    from alembic import command

    database = connect(tmp_path / "a.db")
    migrate(database)
    with changing(database) as connection:
        config = alembic_config("gallery")
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert set(sa.inspect(database).get_table_names()) == {version_table("gallery")}
    migrate(database)
    with database.connect() as connection:
        assert current("gallery", connection) == head("gallery")
        assert connection.scalar(sa.select(REVISION.c.number)) == 0
    database.dispose()


def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    Gallery.open(tmp_path).close()
    with sqlite3.connect(tmp_path / "gallery.db") as raw:
        raw.execute("UPDATE alembic_version_gallery SET version_num = 'gallery_9999'")
    raw.close()
    with pytest.raises(SetupProblem, match="update lookalike"):
        Gallery.open(tmp_path)


def test_a_half_finished_migration_leaves_nothing(tmp_path: Path) -> None:
    database = connect(tmp_path / "a.db")

    def fail() -> None:
        with changing(database) as connection:
            upgrade("gallery", connection)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert sa.inspect(database).get_table_names() == []
    migrate(database)
    database.dispose()


def test_an_open_gallery_needs_no_alembic(tmp_path: Path) -> None:
    Gallery.open(tmp_path).close()
    script = (
        "import sys; from pathlib import Path; from gallery.gallery import Gallery\n"
        "Gallery.open(Path(sys.argv[1])).close(); print('alembic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_several_processes_may_make_a_gallery_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from gallery.gallery import Gallery\n"
        "print('ready', flush=True); input()\n"
        "gallery = Gallery.open(Path(sys.argv[1])); print(gallery.stats().people)\n"
        "gallery.close()"
    )
    folder = tmp_path / "new"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert answers == ["0"] * 3


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gallery.db").write_bytes(b"no database at all, but long enough" * 40)
    with pytest.raises(GalleryCorrupt, match="damaged"):
        Gallery.open(tmp_path)


def test_a_home_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadSettings, match="--home"):
        Gallery.open(tmp_path / "file" / "gallery")


def test_a_database_that_cannot_be_opened_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "gallery.db").mkdir()
    with pytest.raises(BadSettings, match="can't be used"):
        Gallery.open(tmp_path)


def test_a_gallery_that_another_program_locks_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some patience; whoever waits longer than that is told."""
    monkeypatch.setattr(gallery_database, "_BUSY_TIMEOUT_S", 0.05)
    with Gallery.open(tmp_path) as gallery:
        other = sqlite3.connect(tmp_path / "gallery.db", isolation_level=None)
        with contextlib.closing(other):
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Busy, match="another program has locked"), gallery.transaction():
                pass
            assert gallery.people() == ()  # reading goes on
    other = sqlite3.connect(tmp_path / "gallery.db", isolation_level=None)
    with contextlib.closing(other):
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Busy, match="another program has locked"):
            Gallery.open(tmp_path)
    with Gallery.open(tmp_path) as gallery:
        assert gallery.people() == ()


def test_foreign_keys_are_checked(tmp_path: Path) -> None:
    database = connect(tmp_path / "a.db")
    migrate(database)
    statement = sa.text("INSERT INTO person_category (person_id, category_id) VALUES (1, 1)")
    with pytest.raises(sa.exc.IntegrityError), changing(database) as connection:
        connection.execute(statement)
    database.dispose()
