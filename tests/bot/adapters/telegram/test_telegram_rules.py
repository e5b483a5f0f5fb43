"""The tests' Bot API server against the documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from telegram_rules import METHODS, UPDATE_KINDS, entities

DOCUMENTS = (
    Path(__file__).resolve().parents[4] / ".." / "shared" / "specs" / "telegram-bot-api.json"
)


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    """The machine-readable description of the Bot API; not part of the repository."""
    if not DOCUMENTS.is_file():
        pytest.skip("the description of the Bot API is not on this machine")
    found: dict[str, Any] = json.loads(DOCUMENTS.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("method", METHODS)
def test_parameters_are_those_of_the_documents(documents: dict[str, Any], method: str) -> None:
    """Names, and which of them are required."""
    fields = documents["methods"][method].get("fields", [])
    required, optional = (set(names.split()) for names in METHODS[method])
    assert required == {field["name"] for field in fields if field["required"]}
    assert optional == {field["name"] for field in fields if not field["required"]}


def test_update_kinds_are_those_of_the_documents(documents: dict[str, Any]) -> None:
    """Every kind that a bot may ask for."""
    fields = {field["name"] for field in documents["types"]["Update"]["fields"]}
    assert fields - {"update_id"} == UPDATE_KINDS


def test_entities_count_utf_16_units() -> None:
    """As Telegram counts them: an emoji is two."""
    assert entities("\N{GRINNING FACE} @some_bot /top@some_bot 3") == [
        {"type": "bot_command", "offset": 13, "length": 13},
        {"type": "mention", "offset": 3, "length": 9},
    ]
