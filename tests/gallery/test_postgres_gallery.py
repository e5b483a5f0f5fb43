"""A gallery on PostgreSQL: its tables, its pictures, its lock, and what is told of a bad server."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from PIL import Image
from postgres_server import LOCKED_PASSWORD, PostgresServer, name_of

from engine.engine import Engine
from engine.errors import BadSettings, Busy, GalleryCorrupt, SetupProblem, TryLater
from engine.types import Space
from gallery.add import add_folder
from gallery.build import build, remove
from gallery.database import address, changing, connect_server, masked, told
from gallery.gallery import Gallery
from gallery.scores import prior
from gallery.tables import METADATA
from migrations import alembic_config, current, head, upgrade, version_table

Variant = Callable[[int], bytes]


@pytest.fixture
def shared(postgres_url: str, tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.open(tmp_path / "one machine", postgres_url) as gallery:
        yield gallery


@pytest.fixture
def elsewhere(postgres_url: str, tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.open(tmp_path / "another machine", postgres_url) as gallery:
        yield gallery


@pytest.fixture
def people(tmp_path: Path, variant: Variant) -> Path:
    root = tmp_path / "people"
    for number in range(5):
        path = root / ("Grace_Hopper", "Eileen_Collins")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(variant(number))
    return root


def probe(engine: Engine, content: bytes, gallery: Gallery) -> list[str]:
    """Who is found for a photo, nearest first."""
    photo = engine.decode(content)
    (query,) = engine.embed([(photo, engine.detect(photo)[0])], "dlib")
    return [match.person.name for match in gallery.top_matches(query, 5)]


def execute(gallery: Gallery, statement: str) -> None:
    with gallery.transaction() as changes:
        changes.run(sa.text(statement))


def test_migrations_make_the_tables_of_the_models_beside_the_stores(postgres_url: str) -> None:
    database = connect_server(postgres_url)
    with changing(database) as connection:
        for room in ("store", "gallery"):
            upgrade(room, connection)
            assert current(room, connection) == head(room)
    ours = METADATA.tables
    with database.connect() as connection:
        options = {
            "version_table": version_table("gallery"),
            "compare_type": lambda _context, column, *_: (
                False if column.name == "value" else None
            ),  # a pgvector
            "include_name": lambda name, kind, _: kind != "table" or name in ours,
            # On PostgreSQL alone a vector tells whose it is.
            "include_object": lambda one, name, *_: (
                str(one) != "portrait_vector.person_id"
                and not str(name).endswith(("_owner", "vector_portrait_id", "portrait_person_id"))
            ),
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, METADATA) == []
    with changing(database) as connection:
        from alembic import command

        config = alembic_config("gallery")
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert not sa.inspect(connection).has_table("person_vector")
        upgrade("gallery", connection)
        assert current("gallery", connection) == head("gallery")
    database.dispose()


def test_many_may_open_an_empty_database_at_once(postgres_url: str, tmp_path: Path) -> None:
    def opened(number: int) -> int:
        with Gallery.open(tmp_path / str(number), postgres_url) as gallery:
            return gallery.stats().people

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(opened, range(6))) == [0] * 6


def test_what_one_machine_changes_others_see_at_once(
    shared: Gallery, elsewhere: Gallery, engine: Engine, people: Path, variant: Variant
) -> None:
    photo = variant(6)
    assert add_folder(shared, engine, people, backbones=["dlib"]).added == 5
    assert probe(engine, photo, elsewhere) == ["Grace Hopper", "Eileen Collins"]
    again = add_folder(elsewhere, engine, people, backbones=["dlib"])
    assert (again.added, again.unchanged) == (0, 5)
    hopper = shared.find_person("Grace Hopper")
    assert hopper is not None
    assert remove(shared, hopper) == 3
    assert probe(engine, photo, elsewhere) == ["Eileen Collins"]
    for table in ("thumbnail", "portrait_vector"):
        query = sa.text(f"SELECT count(*) FROM {table}")
        with shared.reading() as connection:
            assert connection.scalar(query) == 2
    report = build(shared, engine, "dlib")
    assert (report.swept, dict(report.embedded), report.dropped) == (0, {}, [])
    assert elsewhere.stats() == shared.stats()
    assert shared.size_bytes() > 100_000


def test_one_process_writes_at_a_time(
    shared: Gallery, elsewhere: Gallery, engine: Engine, people: Path
) -> None:
    with shared.writing():
        with pytest.raises(Busy, match="another `lookalike gallery` command"):
            add_folder(elsewhere, engine, people, backbones=["dlib"])
        with shared.reading(), elsewhere.reading():
            pass
    assert add_folder(elsewhere, engine, people, backbones=["dlib"]).added == 5


def test_thumbnails_are_shared_and_nothing_is_written_here(
    shared: Gallery, elsewhere: Gallery, engine: Engine, people: Path
) -> None:
    add_folder(shared, engine, people, backbones=["dlib"])
    (person, *_) = elsewhere.people()
    portraits = elsewhere.portraits(person.id)
    for portrait in portraits:
        with Image.open(io.BytesIO(elsewhere.thumbnail(portrait))) as image:
            assert image.size == (portrait.width_px, portrait.height_px)
        assert elsewhere.thumbnail(portrait) == shared.thumbnail(portrait)
    assert not elsewhere.folder.exists()
    remove(shared, person)
    assert elsewhere.photo(portraits[0]) is None


def test_build_mends_what_somebody_broke_in_the_database(
    shared: Gallery, engine: Engine, people: Path, variant: Variant
) -> None:
    add_folder(shared, engine, people, backbones=["dlib"])
    (space,) = shared.spaces()
    for damage in (
        "DELETE FROM person_vector WHERE person_id = 1",
        "DELETE FROM portrait_vector WHERE portrait_id = 2",
    ):
        execute(shared, damage)
        report = build(shared, engine, "dlib")
        assert report.embedded == {"dlib": 5}
        assert len(shared.embedded(space)) == 5
        assert len(probe(engine, variant(6), shared)) == 2
    older = Space(space.backbone, "0" * 64, space.recipe, space.dimensions)
    execute(
        shared,
        f"INSERT INTO space SELECT '{older.id}', backbone, '{'0' * 64}', recipe, dimensions, 1, 0 "
        "FROM space",
    )
    assert len(shared.stats().vectors) == 2
    build(shared, engine, "dlib")
    assert tuple(shared.stats().vectors) == (space,)


def test_scores_are_learned_and_a_damaged_calibration_is_noticed(
    shared: Gallery, elsewhere: Gallery, engine: Engine, people: Path
) -> None:
    add_folder(shared, engine, people, backbones=["dlib"])
    (space,) = shared.spaces()
    elsewhere.refresh()
    learned = elsewhere.calibration(space)
    assert learned.to_json() != prior(space).to_json()
    assert shared.calibration(space).to_json() == learned.to_json()
    execute(shared, "UPDATE calibration SET content = '{}'")
    elsewhere.refresh()
    with pytest.raises(GalleryCorrupt, match=r"calibration of dlib-.* is damaged: run"):
        elsewhere.calibration(space)
    build(shared, engine, "dlib")
    elsewhere.refresh()
    assert elsewhere.calibration(space).to_json() == learned.to_json()


def test_names_are_sorted_and_as_long_as_in_a_folder(shared: Gallery, tmp_path: Path) -> None:
    """By code point whatever the server's locale, and PostgreSQL cuts nothing off."""
    from gallery.records import FoundPerson

    names = ["Zoë", "aaron", "Ärzte", "Ann Lee", "Ann-Lee", "Annlee", "宮崎 駿", "x" * 3000]
    orders = []
    with Gallery.open(tmp_path / "own") as own:
        for gallery in (shared, own):
            with gallery.transaction() as changes:
                for number, name in enumerate(names):
                    changes.add_person(FoundPerson(f"Q{number}", name, ("kind " * 60,)))
            orders.append([person.name for person in gallery.people()])
            assert gallery.find_person("zoe") is not None
    assert orders[0] == orders[1]
    assert set(orders[0]) == set(names)


def test_a_database_that_cannot_be_used_is_a_sentence_without_the_password(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    name = name_of(postgres_url)
    postgres.run("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    nowhere = "postgresql://me:secret-password@127.0.0.1:1/x?connect_timeout=2"
    for url, kind, sentence in (
        (nowhere, TryLater, "does not answer"),
        ("postgresql://me:secret-password@/x?host=/nowhere", TryLater, "does not answer"),
        (postgres.locked_url(name, "secret-password"), BadSettings, "refuses the connection"),
        (postgres.url("nosuch", password="secret-password"), BadSettings, "refuses"),
        (postgres.locked_url(name), BadSettings, "does not let this user write"),
        (postgres.url("latin"), BadSettings, "its encoding is LATIN1"),
        ("sqlite:////tmp/secret-password.db", BadSettings, "must begin with postgresql://"),
        ("secret-password", BadSettings, "not an address"),
    ):
        with pytest.raises(kind, match=sentence) as problem:
            Gallery.open(tmp_path / "gallery", url)
        shown = repr(problem.value) + repr(problem.value.__cause__) + str(problem.value)
        assert LOCKED_PASSWORD not in shown
        assert "secret-password" not in shown.replace("/tmp/secret-password.db", "")


def test_a_server_without_a_usable_pgvector_says_what_to_do(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    name = name_of(postgres_url)
    postgres.run("GRANT ALL ON SCHEMA public TO locked", name)
    with pytest.raises(BadSettings, match="let a superuser run `CREATE EXTENSION vector`"):
        Gallery.open(tmp_path, postgres.locked_url(name))
    postgres.run("CREATE EXTENSION vector", name)
    with Gallery.open(tmp_path, postgres.locked_url(name)) as gallery:
        assert LOCKED_PASSWORD not in gallery.place
        assert gallery.place.startswith("postgresql://locked:***@/")
    postgres.run("UPDATE pg_extension SET extversion = '0.4.4' WHERE extname = 'vector'", name)
    with pytest.raises(BadSettings, match=r"pgvector 0\.4\.4, which is too old"):
        Gallery.open(tmp_path, postgres_url)
    database = connect_server(postgres_url)
    with database.connect() as connection, pytest.raises(sa.exc.DBAPIError) as problem:
        connection.execute(sa.text("CREATE EXTENSION nosuchvector"))
    missing = type(problem.value.orig)('extension "vector" is not available')
    sentence = str(told(missing, "postgresql://x"))
    database.dispose()
    assert sentence.startswith("the database postgresql://x has no pgvector: install it")


def test_a_copy_that_can_only_be_read_serves_and_refuses_changes(
    shared: Gallery,
    postgres: PostgresServer,
    postgres_url: str,
    engine: Engine,
    people: Path,
    variant: Variant,
) -> None:
    add_folder(shared, engine, people, backbones=["dlib"])
    name = name_of(postgres_url)
    postgres.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    postgres.cut(name)
    with Gallery.open(shared.folder, postgres_url) as reader:
        assert len(probe(engine, variant(6), reader)) == 2
        with pytest.raises(BadSettings, match="can only be read: name the primary"):
            remove(reader, reader.people()[0])
        assert len(reader.people()) == 2


def test_a_newer_gallery_is_refused(shared: Gallery, postgres_url: str, tmp_path: Path) -> None:
    execute(shared, "UPDATE alembic_version_gallery SET version_num = 'gallery_9999'")
    with pytest.raises(SetupProblem, match="newer version"):
        Gallery.open(tmp_path, postgres_url)


def test_an_address_is_shown_without_its_passwords() -> None:
    for url in (
        "postgres://me:s%3Acret@host:5433/db?sslmode=require",
        "postgresql://me@host:5433/db?password=s%3Acret&sslmode=require",
        "postgresql+psycopg://me@host:5433/db?sslpassword=s%3Acret&sslmode=require",
    ):
        shown = masked(address(url, "gallery.url"))
        assert "cret" not in shown
        assert shown.startswith("postgresql://me")
        assert "@host:5433/db?sslmode=require" in shown


@pytest.mark.parametrize("package", ["pgvector", "psycopg"])
def test_a_missing_package_is_named_with_how_to_get_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BadSettings, match=rf"{package}: run `pip install 'lookalike\[postgres\]'`"):
        Gallery.open(tmp_path, "postgresql://me@host/db")
