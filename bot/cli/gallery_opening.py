"""What the gallery commands share: options, the open gallery, the backbones to use."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from engine.errors import SetupProblem

if TYPE_CHECKING:
    from bot.settings import Settings
    from engine.engine import Engine
    from gallery.gallery import Gallery

__all__ = ["EXIT_INTERRUPTED", "as_json_option", "models_option", "opened", "usable"]

EXIT_INTERRUPTED: Final = 130  # as shells report a command that Ctrl-C ended

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
models_option = click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Choice(("resnet", "senet", "dlib")),
    help="Backbone; may be given several times (default: every one whose weights are here).",
)


def opened(settings: Settings) -> contextlib.closing[Gallery]:
    """The gallery as configured; closed at the end."""
    from bot.app import open_gallery

    return contextlib.closing(open_gallery(settings))


def usable(engine: Engine, settings: Settings, wanted: Sequence[str]) -> list[str]:
    """The backbones asked for, or every configured one that can be used.

    Raises:
        SetupProblem: If none can.
    """
    if wanted:
        return list(dict.fromkeys(wanted))
    found: list[str] = [
        name for name in settings.models.configured if engine.why_unavailable(name) is None
    ]
    if not found:
        reasons = (engine.why_unavailable(name) for name in settings.models.configured)
        raise SetupProblem("no backbone can be used: " + "; ".join(filter(None, reasons)))
    return found
