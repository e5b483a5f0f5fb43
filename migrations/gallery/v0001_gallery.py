"""All tables of the gallery; on PostgreSQL with pgvector, too.

The tables are those of gallery/tables.py as they are: no release has other ones yet. The next
version has to write down here what they are now.
"""  # noqa: INP001 - Alembic loads versions by their path

import sqlalchemy as sa
from alembic import op

from gallery.tables import METADATA, REVISION

revision = "gallery_0001"
down_revision = None

# Vectors of people, by which they are searched: derived (gallery/search/pgvector.py).
_PERSON_VECTOR = """
CREATE TABLE person_vector (
    person_id integer NOT NULL REFERENCES person ON DELETE CASCADE,
    space_id varchar(100) NOT NULL REFERENCES space ON DELETE CASCADE,
    portraits integer NOT NULL,
    sum_norm double precision NOT NULL,
    nearness double precision NOT NULL,
    vector vector NOT NULL,
    PRIMARY KEY (person_id, space_id)
)
"""

# Whose portrait it is stands beside the vector, too: the portraits of some people then lie in an
# index side by side, where a look-up of each took twice the time. The key keeps both the same, in
# place of that of the portrait alone; by its index a person's portraits are found.
_OWNERS = """
DROP INDEX ix_portrait_person_id;
ALTER TABLE portrait ADD CONSTRAINT uq_portrait_owner UNIQUE (person_id, id);
ALTER TABLE portrait_vector DROP CONSTRAINT fk_portrait_vector_portrait_id,
    ADD COLUMN person_id integer NOT NULL,
    ADD CONSTRAINT fk_portrait_vector_owner FOREIGN KEY (portrait_id, person_id)
        REFERENCES portrait (id, person_id) ON UPDATE CASCADE ON DELETE CASCADE;
CREATE INDEX ix_portrait_vector_owner ON portrait_vector (space_id, person_id)
"""


def upgrade() -> None:
    """Creates the tables."""
    connection = op.get_bind()
    METADATA.create_all(connection)
    connection.execute(sa.insert(REVISION).values(id=1, number=0))
    if connection.dialect.name == "postgresql":
        from pgvector.sqlalchemy import Vector

        # Told to SQLAlchemy in the tables, it would load the dialect at every start.
        op.drop_index("ix_portrait_vector_space_id")
        op.execute(
            "CREATE UNIQUE INDEX ix_portrait_vector_space_id ON portrait_vector (space_id, row) "
            "WHERE row IS NOT NULL"
        )
        op.execute("CREATE EXTENSION IF NOT EXISTS vector")
        op.alter_column("portrait_vector", "value", type_=Vector(), postgresql_using="NULL::vector")
        # JPEG does not shrink.
        op.execute("ALTER TABLE thumbnail ALTER COLUMN jpeg SET STORAGE EXTERNAL")
        op.execute(_PERSON_VECTOR)
        op.execute(_OWNERS)


def downgrade() -> None:
    """Drops the tables; the extension stays, for others may use it."""
    op.execute("DROP TABLE IF EXISTS person_vector")
    METADATA.drop_all(op.get_bind())
