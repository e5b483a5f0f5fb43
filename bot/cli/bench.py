"""`lookalike bench`: how fast this machine answers, beside the published packages."""

from __future__ import annotations

import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot.cli.main import Context, common

if TYPE_CHECKING:
    from bot.benchmark import Timing

__all__ = ["command", "ratios"]

BACKBONES = ("resnet", "senet", "dlib")


def ratios(timings: list[Timing]) -> dict[str, dict[str, float]]:
    """Per backbone: how many times faster each step is, and the whole over the bare network."""
    result: dict[str, dict[str, float]] = {}
    for ours in timings:
        if ours.pipeline != "lookalike":
            continue
        row = {}
        if ours.forward:
            row["whole_over_forward"] = ours.whole / ours.forward
        for theirs in timings:
            if theirs.pipeline == "published" and theirs.backbone == ours.backbone:
                for step in ("detect", "embed", "search", "whole"):
                    row[f"{step}_times_faster"] = getattr(theirs, step) / getattr(ours, step)
        result[ours.backbone] = row
    return result


@click.command(short_help="Measure speed, side by side with the published packages.")
@click.option("--model", "models", multiple=True, type=click.Choice(BACKBONES), help="Only these.")
@click.option(
    "--photos",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of photos to measure with (default: the bundled portraits).",
)
@click.option("--repetitions", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--alone", is_flag=True, help="Leave the published packages out.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@common
@click.pass_obj
def command(
    context: Context,
    models: tuple[str, ...],
    photos: Path | None,
    repetitions: int,
    alone: bool,
    as_json: bool,
) -> None:
    """Measure milliseconds per photo, medians over photos and repetitions.

    The published recipe (package mtcnn, keras-vggface `predict`, a loop of cosine_similarity over
    10,000 people) runs on the same photos in the same run where the extra tensorflow is installed.
    """
    from bot.benchmark import measure, sample_photos

    there = all(find_spec(name) is not None for name in ("tensorflow", "tf_keras", "mtcnn"))
    samples = sample_photos(photos)
    timings = measure(
        context.settings(),
        models or BACKBONES,
        samples,
        published=there and not alone,
        repetitions=repetitions,
        say=lambda text: click.echo(text + " ...", err=True),
    )
    if as_json:
        rows: dict[str, Any] = {
            "photos": len(samples),
            "timings": [dataclasses.asdict(timing) for timing in timings],
            "ratios": ratios(timings),
        }
        click.echo(json.dumps(rows, indent=2))
        return
    _table(timings)
    if not there and not alone:
        click.echo('For the comparison: pip install "lookalike[tensorflow]"', err=True)


def _table(timings: list[Timing]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    title = "Milliseconds per photo with one face, 10,000 people"
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("", "model", "decode", "detect", "embed", "search", "whole", "network"):
        words = heading in {"", "model"}
        table.add_column(heading, justify="left" if words else "right", no_wrap=words)
    for timing in timings:
        name = f"{timing.backbone} ({timing.precision})" + ("*" if timing.made_up_weights else "")
        cells = (
            timing.decode,
            timing.detect,
            timing.embed,
            timing.search,
            timing.whole,
            timing.forward,
        )
        table.add_row(timing.pipeline, name, *("" if ms is None else f"{ms:,.1f}" for ms in cells))
    console = Console()
    console.print(table)
    if any(timing.made_up_weights for timing in timings):
        console.print("* with made-up weights: they decide nothing about speed")
    for backbone, row in ratios(timings).items():
        parts = [
            f"{name.removesuffix('_times_faster')} {ratio:,.0f} times faster"
            for name, ratio in row.items()
            if name.endswith("_times_faster")
        ]
        over = row.get("whole_over_forward")
        if over is not None:
            parts.append(f"a whole photo takes {over:.2f} times its network alone")
        console.print(f"{backbone}: " + ", ".join(parts))
