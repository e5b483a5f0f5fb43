"""`lookalike demo`: a first answer on a sample photo, with nothing to prepare."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.cli.main import Context, common
from engine.errors import GalleryMissing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bot.cli.match import Answer
    from gallery.progress import Report
    from gallery.records import FoundPortrait

__all__ = ["as_sent_in_a_chat", "command"]

MODEL = "dlib"

_TURN_DEGREES = 7.0
_KEPT = 0.8  # of either side
_LONG_SIDE_PX = 420
_QUALITY = 60


def as_sent_in_a_chat(data: bytes) -> bytes:
    """A picture as people pass it on: held askew, cropped, made smaller, compressed again.

    Args:
        data: A picture file.

    Returns:
        A JPEG file, the same for the same picture.
    """
    import cv2
    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    height, width = pixels.shape[:2]
    scale = _LONG_SIDE_PX / (_KEPT * max(width, height))
    size = (round(_KEPT * width * scale), round(_KEPT * height * scale))
    # Portraits have their face in the upper half: less is cut there.
    matrix = cv2.getRotationMatrix2D((width / 2, height / 3), _TURN_DEGREES, scale)
    matrix[:, 2] += (size[0] / 2 - width / 2, size[1] * 0.4 - height / 3)
    askew = cv2.warpAffine(pixels, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(askew, np.uint8)).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


@click.command(short_help="Show a first answer on a sample photo.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where the card goes (default: HOME/answer.jpg)."
)
@common
@click.pass_obj
def command(context: Context, out: Path | None) -> None:
    """Fill the gallery with two public-domain portraits and find the lookalike of a photo."""
    from bot.app import open_engine, open_gallery
    from bot.cli.match import answer_photo, draw_answer
    from gallery.add import add
    from gallery.sources.bundled import bundled_portraits, what_is_missing

    settings = context.settings()
    engine = open_engine(settings)
    found = bundled_portraits()
    sample = settings.home / "sample.jpg"
    card = out or settings.home / "answer.jpg"
    with contextlib.closing(open_gallery(settings)) as gallery:
        report = add(gallery, engine, found, backbones=(MODEL,), total=len(found))
        _check(report)
        original = found[-1]
        photo = as_sent_in_a_chat(original.read(settings.photo.max_bytes))
        answer = answer_photo(engine, gallery, photo, model=MODEL, top=2)
        picture = draw_answer(engine, answer)
    _write(sample, photo)
    _write(card, picture.jpeg)
    for line in _story(found, what_is_missing(), sample, answer, card):
        click.echo(line)


def _check(report: Report) -> None:
    if not report.added and not report.unchanged:
        reasons = "; ".join(f"{one.photo}: {one.reason}" for one in report.rejected)
        raise GalleryMissing(f"the starter gallery could not be made: {reasons}")


def _write(path: Path, jpeg: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg)
    except OSError as problem:
        raise click.FileError(str(path), problem.strerror) from problem


def _story(
    found: Sequence[FoundPortrait],
    missing: str | None,
    sample: Path,
    answer: Answer,
    card: Path,
) -> Iterator[str]:
    """What was done, in plain words."""
    from bot.cli.match_words import words

    yield "Starter gallery:"
    for portrait in found:
        yield f"   {portrait.person.name} (photo: {portrait.author}, {portrait.licence})"
    if missing:
        yield f"   {missing}"
    yield ""
    yield (
        f"Sample photo: the portrait of {found[-1].person.name}, held askew, cropped and saved "
        "small, as a chat would"
    )
    yield f"   {sample.absolute()}"
    yield ""
    yield "The answer:"
    for line in words(answer):
        yield f"   {line}"
    yield ""
    yield f"The answer as a picture: {card.absolute()}"
    yield ""
    home = sample.parent.absolute()
    yield "Next, a photo and people of your own:"
    yield f"   lookalike --home {home} match PHOTO --card answer.jpg"
    yield f"   lookalike --home {home} gallery add FOLDER   (a folder of photos per person)"
