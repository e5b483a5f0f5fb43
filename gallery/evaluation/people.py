"""What is known of the people in an evaluation: category, country, gender.

It comes from the folders, from the gallery's catalogue, and from a file people.csv, which the
person who evaluates may write; what the file says counts most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from engine.errors import SetupProblem
from gallery.records import Person, folded
from gallery.sources.folder import PEOPLE_FILE, person_name, read_table, scan

__all__ = ["KINDS", "PEOPLE_FILE", "Known", "known_of", "read_table", "spelled"]

KINDS: Final = ("category", "country", "gender")
_LONGEST: Final = 60  # characters of a label; longer ones are cut


@dataclass(frozen=True, slots=True)
class Known:
    """Labels of people.

    Attributes:
        labels: By kind (one of ``KINDS``), then by the person's name: what is said of them.
        sources: Where labels came from, as phrases.
        strangers: Names in the file that are nobody's here.
    """

    labels: Mapping[str, Mapping[str, tuple[str, ...]]]
    sources: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()


def known_of(folder: Path, file: Path | None = None, catalogue: Iterable[Person] = ()) -> Known:
    """What is known of the people in a folder.

    Args:
        folder: Arranged as for `lookalike gallery add`.
        file: CSV with the columns person and any of category, country and gender; several
            categories of one person are parted by semicolons or stand in several lines. None:
            people.csv in the folder, if there is one.
        catalogue: People of a gallery; the first of a name counts.

    Raises:
        SetupProblem: If the folder or file can't be read, or the file has none of the columns.
    """
    portraits = scan(folder).portraits
    found = {portrait.person.name: portrait.person for portrait in portraits}
    labels: dict[str, dict[str, tuple[str, ...]]] = {kind: {} for kind in KINDS}
    sources = []
    for portrait in portraits:
        # The folders above the person's; portrait.person also has what people.csv says.
        _add(labels["category"], portrait.person.name, PurePosixPath(portrait.origin).parts[:-2])
    if any(labels["category"].values()):
        sources.append("the folders")
    if _from_catalogue(labels, found, catalogue):
        sources.append("the gallery")
    strangers: tuple[str, ...] = ()
    file = file or (folder / PEOPLE_FILE if (folder / PEOPLE_FILE).is_file() else None)
    if file is not None:
        strangers = _from_file(labels, found, file)
        sources.append(f"the file {file.name}")
    return Known(labels, tuple(sources), strangers)


def _from_catalogue(
    labels: dict[str, dict[str, tuple[str, ...]]],
    found: Mapping[str, object],
    catalogue: Iterable[Person],
) -> bool:
    """Adds what a gallery says; whether it said anything."""
    wanted = {folded(name): name for name in found}
    told = False
    for person in catalogue:
        name = wanted.pop(folded(person.name), None)
        if name is None:
            continue
        for kind, values in (
            ("category", person.categories),
            ("country", (person.country,)),
            ("gender", (person.gender,)),
        ):
            told = _add(labels[kind], name, [value for value in values if value]) or told
    return told


def _from_file(
    labels: dict[str, dict[str, tuple[str, ...]]], found: Mapping[str, object], file: Path
) -> tuple[str, ...]:
    """Puts what the file says in place of what was known, and adds its categories.

    Returns:
        The names nobody has.
    """
    rows = read_table(file)
    if not rows or not any("person" in row for row in rows):
        raise SetupProblem(
            f"{file} needs the column person and any of category, country and gender, named in "
            "its first line"
        )
    wanted = {folded(name): name for name in found}
    unknown = []
    told: dict[str, dict[str, tuple[str, ...]]] = {kind: {} for kind in KINDS}
    for row in rows:
        if "person" not in row:
            continue
        name = wanted.get(folded(person_name(row["person"])))
        if name is None:
            unknown.append(row["person"])
            continue
        for kind in KINDS:
            _add(told[kind], name, row.get(kind, "").split(";"))
    for name, categories in told.pop("category").items():
        _add(labels["category"], name, categories)
    for kind, said in told.items():
        labels[kind] |= said
    return tuple(unknown)


def _add(labels: dict[str, tuple[str, ...]], name: str, values: Iterable[str]) -> bool:
    """Adds labels to a person's, each once whatever its case; whether there was any."""
    given = [" ".join(value.split())[:_LONGEST] for value in values]
    given = [value for value in given if value]
    if given:
        both = {value.casefold(): value for value in (*given, *labels.get(name, ()))}
        labels[name] = tuple(both.values())
    return bool(given)


def spelled(labels: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Labels in lower case -> as most people's are spelled."""
    spellings: dict[str, Counter[str]] = {}
    for values in labels.values():
        for value in values:
            spellings.setdefault(value.casefold(), Counter())[value] += 1
    return {key: counter.most_common(1)[0][0] for key, counter in spellings.items()}
