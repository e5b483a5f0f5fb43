"""`lookalike models`: which backbones there are, fetching their weights, checking them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from bot.cli import main as cli
from bot.cli.output import download_bar, print_table, say, wrapped
from engine.backbones import BACKBONES, BackboneRecord, find_record, weights
from engine.errors import SetupProblem, WeightsCorrupt, WeightsMissing

if TYPE_CHECKING:
    from bot.settings import Settings


_names = click.Choice(list(BACKBONES))


@click.group(cls=cli.Group)
def models() -> None:
    """List, download and verify backbones."""


@models.command("list")
def list_models(context: cli.Context) -> None:
    """Show every backbone, where it comes from and whether it can be used."""
    entries = [_entry(record, context.settings) for record in BACKBONES.values()]
    entries += _together(context)
    context.finish(entries, partial(_print_entries, entries))


@models.command(json="")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=_names)
@click.option("--again", is_flag=True, help="Fetch anew, and trust what comes.")
@click.option("--yes", is_flag=True, help="Accept the terms without being asked.")
def download(context: cli.Context, *, names: Sequence[str], again: bool, yes: bool) -> None:
    """Fetch the weights of backbones, after showing their terms."""
    for name in dict.fromkeys(names):
        _download(find_record(name), context.settings, again=again, yes=yes)


@models.command(json="")
@click.argument("names", metavar="[NAME]...", nargs=-1, type=_names)
def verify(context: cli.Context, *, names: Sequence[str]) -> None:
    """Check weights: hash, layers, shapes, values, and whether they tell people apart.

    Without a NAME: every backbone whose weights are here.
    """
    problems: list[SetupProblem] = []
    for name in dict.fromkeys(names or BACKBONES):
        try:
            _verify(name, context.settings)
        except WeightsMissing as problem:
            if names:
                problems.append(problem)
            else:
                say(f"{name}: not downloaded")
        except SetupProblem as problem:
            say(f"{name}: can't be used")
            problems.append(problem)
    if problems:
        for earlier in problems[:-1]:
            say(f"lookalike: {earlier}", err=True)
        raise problems[-1]


def _entry(record: BackboneRecord, settings: Settings) -> dict[str, Any]:
    path = sha256 = reason = None
    state = "ready"
    try:
        path = weights.installed(record.name, settings.models_folder)
        sha256 = weights.checked_sha256(record.name, path)
    except WeightsMissing as problem:
        state, reason = "missing", str(problem)
    except WeightsCorrupt as problem:
        state, reason = "damaged", str(problem)
    names = ("name", "title", "dimensions", "bundled", "size_bytes", "licence", "training_data")
    entry = {name: getattr(record, name) for name in (*names, "source")}
    return {**entry, "state": state, "reason": reason, "path": path and str(path), "sha256": sha256}


def _together(context: cli.Context) -> list[dict[str, Any]]:
    """The entry of several backbones together; none before there is a gallery."""
    from bot.app import has_gallery

    if not has_gallery(context.settings):
        return []
    from bot.models import display_name, why_not
    from bot.text import Wording
    from gallery.scores.ensemble import BEST

    with context.gallery() as gallery:
        trial = gallery.trial()
        built = {space.backbone for space in gallery.spaces()}
    ensemble = trial.offered if trial else None
    entry: dict[str, Any] = {
        "name": BEST,
        "title": display_name(ensemble) if ensemble else "several of them together",
        "state": "ready" if ensemble else "not offered",
        "reason": None,
        "trial": trial.to_json() if trial else None,
    }
    if ensemble is None:
        entry["reason"] = why_not(trial, built, Wording.load().text)
    return [entry]


def _print_entries(entries: Sequence[dict[str, Any]]) -> None:
    rows = []
    for entry in entries:
        size = f"{entry['size_bytes'] / 1e6:.0f} MB" if entry.get("size_bytes") else ""
        dimensions = str(entry.get("dimensions", ""))
        rows.append((entry["name"], entry["title"], dimensions, size, entry["state"]))
    print_table(("model", "network", "vector", "weights", "state"), rows)
    for entry in entries:
        if "licence" in entry:
            about = f"{entry['licence']}. Learned from {entry['training_data']}."
        elif (about := entry["reason"]) is None:
            trial = entry["trial"]
            shares = (
                f"{name} {100 * one['rank_1']:.1f} and {100 * one['tar']:.1f} %"
                for name, one in trial["figures"].items()
            )
            about = (
                f"tried on {trial['people']} people of this gallery on {trial['date']}: found "
                f"first, and told from all but 1 in 1,000 strangers: {', '.join(shares)}."
            )
        say()
        wrapped(f"{entry['name']}: {about}")
        if entry["reason"] and "licence" in entry:
            say(f"  {entry['reason']}")


def _download(record: BackboneRecord, settings: Settings, *, again: bool, yes: bool) -> None:
    name, folder = record.name, settings.models_folder
    if record.bundled:
        path = weights.installed(name, folder)
        weights.checked_sha256(name, path)
        say(f"{name} comes with the package {record.package}: nothing to download")
        return
    if not again and _entry(record, settings)["state"] == "ready":
        say(f"{name} is there already: {weights.installed(name, folder)}")
        return
    size = f", about {record.size_bytes / 1e6:.0f} MB" if record.size_bytes else ""
    say(f"{name}: {record.title}{size}")
    for heading, words in (
        ("from", settings.models.base_url),
        ("published", record.source),
        ("licence", record.licence),
        ("training data", record.training_data),
    ):
        wrapped(words, f"  {heading}: ".ljust(18), " " * 18)
    if not yes and not sys.stdin.isatty():
        raise SetupProblem("nobody is here to accept these terms: run it again with --yes")
    if not yes:
        click.confirm("Download?", default=True, abort=True)
    with download_bar(name) as progress:
        path = weights.download(
            name, folder, base_url=settings.models.base_url, progress=progress, again=again
        )
    say(f"{name} is ready: {path}")
    say(f"SHA-256 {weights.recorded_sha256(path)}")


def _verify(name: str, settings: Settings) -> None:
    sha256, same, strangers = weights.verify(name, settings.models_folder)
    say(f"{name}: sound, SHA-256 {sha256}")
    say(f"  tells people apart: same person >= {same:.3f}, strangers <= {strangers:.3f}")
