"""What a folder of people says of them besides their photos: names, and the file people.csv.

The file has a line for each person and the columns ``person`` (the name, or the folder's name)
and any of ``category``, ``country``, ``gender`` and ``wikidata_id``. Several categories are parted
by semicolons or stand in several lines.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Final

from engine.errors import SetupProblem
from gallery.names import folded
from gallery.people_file import read_table
from gallery.sources import FoundPerson, FoundPortrait

__all__ = ["described", "person_name"]

# As long as the catalogue's columns (gallery/tables.py).
_LONGEST: Final = {"country": 100, "gender": 50, "category": 200}
_NUMBER_AT_END = re.compile(r"(?:[\s._-]+\d+|\s*\(\d+\))$")
_WIKIDATA_ID = re.compile(r"Q[1-9]\d{0,15}")


def person_name(folder_name: str) -> str:
    """The name that a person's folder stands for.

    ``Grace_Hopper`` and ``Grace Hopper 02`` both stand for Grace Hopper.
    """
    readable = os.fsencode(folder_name).decode("utf-8", "replace")
    name = " ".join(unicodedata.normalize("NFC", readable).replace("_", " ").split())
    return _NUMBER_AT_END.sub("", name) or name


def described(
    portraits: Sequence[FoundPortrait], file: Path
) -> tuple[list[FoundPortrait], tuple[str, ...]]:
    """The portraits, their people completed by what the file says; and whom nobody knows.

    Case, accents and underscores of names don't matter. The file's categories are added to those
    of the folders.

    Args:
        portraits: Of a folder.
        file: CSV; semicolons and tabs serve as well as commas.

    Returns:
        The portraits in the same order; the file's names that are nobody's.

    Raises:
        SetupProblem: If it can't be read, has none of the columns, or a Wikidata id in it is none.
    """
    rows = read_table(file)
    if not any("person" in row for row in rows):
        raise SetupProblem(
            f"{file} needs the column person and any of category, country, gender and "
            "wikidata_id, named in its first line"
        )
    said: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if "person" in row:
            said.setdefault(folded(person_name(row["person"])), []).append(row)
    completed = [
        replace(
            portrait,
            person=reduce(
                partial(_completed, file=file),
                said.get(folded(portrait.person.name), []),
                portrait.person,
            ),
        )
        for portrait in portraits
    ]
    known = {folded(portrait.person.name) for portrait in portraits}
    return completed, tuple(said[name][0]["person"] for name in said if name not in known)


def _completed(person: FoundPerson, row: dict[str, str], file: Path) -> FoundPerson:
    wikidata_id = row.get("wikidata_id", "").upper() or person.wikidata_id
    if wikidata_id is not None and not _WIKIDATA_ID.fullmatch(wikidata_id):
        raise SetupProblem(
            f"{file}: the wikidata_id of {person.name} should be like Q42, not {wikidata_id}"
        )
    categories = [
        " ".join(part.split())[: _LONGEST["category"]]
        for part in row.get("category", "").split(";")
    ]
    return replace(
        person,
        categories=tuple(dict.fromkeys([*person.categories, *filter(None, categories)])),
        country=row.get("country", "")[: _LONGEST["country"]] or person.country,
        gender=row.get("gender", "")[: _LONGEST["gender"]] or person.gender,
        wikidata_id=wikidata_id,
    )
