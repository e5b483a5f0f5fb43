"""A real PostgreSQL server with pgvector, from the package pgserver."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from gallery.gallery import Gallery

__all__ = ["PostgresServer", "name_of"]

LOCKED_USER, LOCKED_PASSWORD = "locked", "s3cret:/@word"


class PostgresServer:
    """Starts on construction, in a folder of its own; ``stop`` removes it.

    Raises:
        Exception: Whatever keeps it from starting.
    """

    def __init__(self) -> None:
        # Short, because a socket's path may not have more than about 100 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="lookalike-pg-"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs warns where there is no login session
            import pgserver

            self._server: Any = pgserver.get_server(self.folder / "data", cleanup_mode="stop")
        self._numbers = count(1)
        self._template: str | None = None
        for setting in ("fsync = off", "synchronous_commit = off", "full_page_writes = off"):
            self.run(f"ALTER SYSTEM SET {setting}")
        self.run(f"CREATE ROLE {LOCKED_USER} LOGIN PASSWORD '{LOCKED_PASSWORD}'")
        rules = self.folder / "data" / "pg_hba.conf"
        rules.write_text(f"local all {LOCKED_USER} scram-sha-256\n{rules.read_text()}")
        self.run("SELECT pg_reload_conf()")

    def stop(self) -> None:
        """Ends the server."""
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """One statement as superuser; its rows, if it has any."""
        url = self._server.get_uri(database)
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def fresh(self, template: str = "template1") -> str:
        """The URL of a new, empty database, or of a copy."""
        name = f"test{next(self._numbers)}"
        # Half the processor time of the usual strategy, which is for templates in use.
        self.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self.url(name)

    def gallery(self) -> str:
        """The URL of a new database with an empty gallery, whose tables were made once."""
        if self._template is None:
            url = self.fresh()
            with Gallery.open(self.folder / "gallery", url):
                self._template = name_of(url)
        return self.fresh(self._template)

    def url(self, database: str, *, user: str = "postgres", password: str = "") -> str:
        """Of a database of that name."""
        socket = quote(str(self._server.get_postmaster_info().socket_dir), safe="")
        return f"postgresql://{user}:{quote(password, safe='')}@/{database}?host={socket}"

    def locked_url(self, database: str, password: str = LOCKED_PASSWORD) -> str:
        """For a user without rights, who is asked for a password."""
        return self.url(database, user=LOCKED_USER, password=password)

    def cut(self, database: str) -> int:
        """Ends every connection to a database, as a restart would; how many there were."""
        rows = self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        )
        return len(rows)


def name_of(url: str) -> str:
    """The database that a URL names."""
    return url.partition("@/")[2].partition("?")[0]
