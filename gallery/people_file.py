"""The file people.csv, which says what is known of the people in a folder of photos."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Final

from engine.errors import SetupProblem

__all__ = ["PEOPLE_FILE", "read_table"]

PEOPLE_FILE: Final = "people.csv"


def read_table(file: Path) -> list[dict[str, str]]:
    """The lines of a CSV file by column name in lower case; empty cells are left out.

    Semicolons and tabs serve as well as commas.

    Raises:
        SetupProblem: If it can't be read.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)  # a comma unless there is none
        lines = io.StringIO(text, newline="")
        rows = list(csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True))
    except OSError as problem:
        raise SetupProblem(f"the file {file} can't be read: {problem.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as problem:
        raise SetupProblem(f"the file {file} is no CSV text: {problem}") from None
    return [
        {
            (name or "").strip().lower(): cell.strip()
            for name, cell in row.items()
            if isinstance(cell, str) and cell.strip()
        }
        for row in rows
    ]
