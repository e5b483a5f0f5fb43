"""The gallery's tables: the same in a folder (SQLite), on PostgreSQL and in a pack (SQLite).

What no row mentions does not exist. A vector is written to its space's file first (append, fsync),
then one transaction here makes it count (commit).
"""

from typing import Any, Final

import sqlalchemy as sa

# Constraints carry names so that they can be altered.
METADATA: Final = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _text(usual_chars: int) -> sa.String:
    """SQLite does not mind a longer text; PostgreSQL would, and would sort by its locale."""
    return sa.String(usual_chars).with_variant(sa.Text(collation="C"), "postgresql")


def _given(name: str, kind: Any, *rules: Any, **options: Any) -> sa.Column[Any]:
    """A column that every row has a value of."""
    return sa.Column(name, kind, *rules, nullable=False, **options)


def _of(table: str, kind: Any = sa.Integer, **options: Any) -> sa.Column[Any]:
    """The id of a row of another table, with which this one goes."""
    row = sa.ForeignKey(f"{table}.id", ondelete="CASCADE")
    return _given(f"{table}_id", kind, row, **options)


# Somebody; ids are never given twice, because vectors and histories remember them.
PEOPLE: Final = sa.Table(
    "person",
    METADATA,
    _given("id", sa.Integer, primary_key=True),
    _given("key", _text(400)),
    _given("name", _text(400)),
    _given("folded_name", _text(800), index=True),
    sa.Column("wikidata_id", _text(20), index=True),
    sa.Column("country", _text(100)),
    sa.Column("gender", _text(50)),
    sa.Column("fame", sa.Integer),
    sa.UniqueConstraint("key"),
    sqlite_autoincrement=True,
)
# A kind of people, such as film.
CATEGORIES: Final = sa.Table(
    "category",
    METADATA,
    _given("id", sa.Integer, primary_key=True),
    _given("name", _text(200)),
    sa.UniqueConstraint("name"),
)
# Who belongs where; a person may belong to many categories.
MEMBERS: Final = sa.Table(
    "person_category",
    METADATA,
    _of("person", primary_key=True),
    _of("category", primary_key=True, index=True),
)
# One picture of one person; one without a row in ``thumbnail`` has no photo. ``sha256`` is of the
# original file's bytes. Coordinates are thumbnail pixels; ``landmarks`` is five pairs (x, y).
PORTRAITS: Final = sa.Table(
    "portrait",
    METADATA,
    _given("id", sa.Integer, primary_key=True),
    _of("person", index=True),
    _given("sha256", sa.String(64)),
    _given("width_px", sa.Integer),
    _given("height_px", sa.Integer),
    _given("landmarks", sa.JSON),
    *(_given(f"box_{side}", sa.Double) for side in "xywh"),
    sa.Column("author", _text(1000)),
    sa.Column("licence", _text(200)),
    sa.Column("licence_url", _text(1000)),
    sa.Column("source_url", _text(2000)),
    sa.UniqueConstraint("sha256"),
    sa.CheckConstraint("width_px > 0 AND height_px > 0", name="size"),
    sqlite_autoincrement=True,
)
# A picture that was looked at and not taken, so that it need not be looked at again.
REJECTIONS: Final = sa.Table(
    "rejection",
    METADATA,
    _given("sha256", sa.String(64), primary_key=True),
    _given("reason", _text(40)),
    _given("screening", sa.Integer),
)
# The photo that is kept of a portrait, a JPEG of the portrait's size.
THUMBNAILS: Final = sa.Table(
    "thumbnail",
    METADATA,
    _of("portrait", primary_key=True, autoincrement=False),
    _given("jpeg", sa.LargeBinary),
)
# Somebody who asked to be removed, so that no source brings them back.
BANNED: Final = sa.Table(
    "banned",
    METADATA,
    _given("key", _text(400), primary_key=True),
    _given("name", _text(400)),
    _given("folded_name", _text(800)),
    sa.Column("wikidata_id", _text(20)),
)
# One embedding space. ``generation`` is the number of the file that holds its vectors,
# ``row_count`` how many rows of that file have ever counted; what follows them is overwritten. On
# PostgreSQL ``generation`` rises with every change of the space's vectors, and ``row_count`` is how
# many there are.
SPACES: Final = sa.Table(
    "space",
    METADATA,
    _given("id", sa.String(100), primary_key=True),
    _given("backbone", sa.String(50)),
    _given("weights_sha256", sa.String(64)),
    *(_given(name, sa.Integer) for name in ("recipe", "dimensions", "generation", "row_count")),
    sa.CheckConstraint("row_count >= 0", name="row_count"),
)
# A portrait's unit vector in a space. In a folder ``row`` is its row of the space's file
# (gallery/vector_file.py). On PostgreSQL ``value`` is a pgvector beside which ``person_id`` stands
# (migrations/gallery/v0001_gallery.py); in a pack ``value`` is little-endian float32.
# A row of the file that is named here by nothing is dead; `gallery build` drops it.
VECTORS: Final = sa.Table(
    "portrait_vector",
    METADATA,
    _of("portrait", primary_key=True, autoincrement=False),
    _of("space", sa.String(100), primary_key=True),
    sa.Column("row", sa.Integer),
    sa.Column("value", sa.LargeBinary),
    # Readers ask for the rows that are new since they last looked.
    sa.Index(
        "ix_portrait_vector_space_id",
        "space_id",
        "row",
        unique=True,
        sqlite_where=sa.text("row IS NOT NULL"),
    ),
)
# What was learned of a space's scores, as JSON (see gallery/scores).
CALIBRATIONS: Final = sa.Table(
    "calibration",
    METADATA,
    _of("space", sa.String(100), primary_key=True),
    _given("content", _text(100_000)),
)
# What was found out about the gallery as a whole, such as whether an ensemble helps.
FINDINGS: Final = sa.Table(
    "finding",
    METADATA,
    _given("name", sa.String(40), primary_key=True),
    _given("content", sa.JSON),
)
# One row, whose number rises with every change: readers compare it to theirs.
REVISION: Final = sa.Table(
    "revision",
    METADATA,
    _given("id", sa.Integer, primary_key=True),
    _given("number", sa.Integer),
    sa.CheckConstraint("id = 1", name="single"),
)
