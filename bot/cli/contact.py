"""Asks the person at the terminal whom Wikimedia can reach about this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from engine.errors import BadSettings

if TYPE_CHECKING:
    from bot.settings import Settings
    from gallery.gallery import Gallery

__all__ = ["ask_before_running", "ask_for_contact"]

_WHY = (
    "Wikimedia asks whoever fetches pictures for a contact, to be told of problems. It goes into "
    "the requests to Wikimedia and nowhere else."
)
_QUESTION = "Your e-mail address or web page"


def ask_for_contact(settings: Settings, gallery: Gallery) -> None:
    """Asks until there is an answer, if nobody has given one and somebody is there."""
    from bot.background import contact_of

    if contact_of(settings, gallery) is None and sys.stdin.isatty():
        click.echo(_WHY, err=True)
        while not _remembered(gallery, click.prompt(_QUESTION, err=True)):
            pass


def ask_before_running(settings: Settings) -> None:
    """Asks once in the life of a gallery, if the starter gallery needs it and somebody is there.

    Enter alone means no; then the bot runs with whom it has.
    """
    if not settings.gallery.starter or not sys.stdin.isatty():
        return
    from bot.background import STARTER_PEOPLE, contact_of, decline, declined, starter_wanted
    from bot.cli.gallery_opening import opened

    with opened(settings) as gallery:
        if (
            contact_of(settings, gallery) is not None
            or declined(gallery)
            or not starter_wanted(gallery)
        ):
            return
        click.echo(
            f"The gallery is nearly empty. About {STARTER_PEOPLE} famous people can be fetched "
            f"from Wikimedia in the background. {_WHY}",
            err=True,
        )
        while True:
            answer = click.prompt(
                f"{_QUESTION} (Enter: don't fetch)", default="", show_default=False, err=True
            )
            if not answer.strip():
                decline(gallery)
                return
            if _remembered(gallery, answer):
                return


def _remembered(gallery: Gallery, answer: str) -> bool:
    """Keeps an answer that can be used, and says why not otherwise."""
    from bot.background import remember_contact

    try:
        remember_contact(gallery, answer)
    except BadSettings as problem:
        click.echo(str(problem), err=True)
        return False
    return True
