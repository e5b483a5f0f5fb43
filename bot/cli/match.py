"""`lookalike match`: a photo in, the people its faces resemble out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.cli.main import Context, common
from bot.values import SIDE, SPLIT, STYLES
from engine.errors import GalleryMissing, NoFace, NotAnImage, WeightsCorrupt, WeightsMissing

if TYPE_CHECKING:
    from bot.settings import Settings
    from bot.values import Picture
    from engine.engine import Engine
    from engine.types import Face, Photo
    from gallery.gallery import Gallery
    from gallery.records import Match
    from gallery.scores.ensemble import Ensemble

__all__ = [
    "Answer",
    "answer_photo",
    "command",
    "draw_answer",
    "spoken_model",
]

STANDIN = "dlib"
BEST = "best"  # gallery.scores.ensemble.BEST, without what importing that would cost `--help`


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What was found in one photo.

    Attributes:
        model: Backbone that answered, or ``best``.
        photo: Decoded, perhaps reduced.
        faces: Those asked for, largest first.
        numbers: Their numbers in the photo, from 1.
        matches: One tuple per face, best first.
        ms: Milliseconds by step: decode, detect, embed, search, total.
    """

    model: str
    photo: Photo
    faces: tuple[Face, ...]
    numbers: tuple[int, ...]
    matches: tuple[tuple[Match, ...], ...]
    ms: dict[str, float]


def spoken_model(settings: Settings, engine: Engine, gallery: Gallery) -> tuple[str, str | None]:
    """Which backbone answers where none was asked for, and why it is not the configured one.

    The configured one if its weights are here and the gallery was built with it, else dlib.
    """
    wanted = settings.default_model
    if wanted == STANDIN:
        return wanted, None
    try:
        space = engine.backbone(wanted).space
    except (WeightsMissing, WeightsCorrupt) as problem:
        return STANDIN, str(problem)
    if space not in gallery.spaces():
        return STANDIN, f"run `lookalike gallery build --model {wanted}` to search with it"
    return wanted, None


def answer_photo(
    engine: Engine,
    gallery: Gallery,
    data: bytes,
    *,
    model: str,
    top: int,
    face: int | None = None,
    category: str | None = None,
    ensemble: Ensemble | None = None,
) -> Answer:
    """The matches of the faces in a photo.

    Args:
        engine: Decodes, detects, embeds.
        gallery: Is searched.
        data: The bytes of a picture.
        model: Backbone that answers.
        top: Matches per face, at least 1.
        face: Number of the one face meant, from 1, largest first; None: all that are large
            enough to be compared.
        category: Search among these people only.
        ensemble: Backbones that answer together, in place of ``model``.

    Raises:
        PhotoProblem: If there is no picture, no face, no face of that number, or none that is
            large enough.
        SetupProblem: If the backbone or the gallery is not ready.
    """
    from engine.engine import comparable

    models = ensemble.backbones if ensemble else (model,)
    for name in models:
        engine.load(name)  # no part of what one photo costs
    ms: dict[str, float] = {}
    with _timed(ms, "decode"):
        photo = engine.decode(data)
    with _timed(ms, "detect"):
        found = engine.detect(photo)
    large = comparable(found)
    if face is not None:
        if face > len(large):
            raise NoFace(f"there is no face number {face}: the photo has {len(large)}")
        large = (large[face - 1],)
    for space in [engine.backbone(name).space for name in models]:
        gallery.index(space)  # opening it is no part of a search
        gallery.calibration(space)
    sightings = [(photo, one) for one in large]
    with _timed(ms, "embed"):
        embeddings = [engine.embed(sightings, name) for name in models]
    with _timed(ms, "search"):
        matches = tuple(
            gallery.fused_matches(ensemble, one, top, category=category)
            if ensemble
            else gallery.top_matches(one[0], top, category=category)
            for one in zip(*embeddings, strict=True)
        )
    ms["total"] = sum(ms.values())
    numbers = (face,) if face is not None else tuple(range(1, len(large) + 1))
    return Answer(model, photo, large, numbers, matches, ms)


def draw_answer(engine: Engine, answer: Answer, *, style: str = SIDE) -> Picture:
    """The card of the largest face; with several faces, below the photo with numbered boxes.

    Args:
        engine: Decodes the portraits.
        answer: What to draw.
        style: One of ``bot.values.STYLES``; faces turned too far aside for a split face
            are drawn side by side.
    """
    from bot.pictures.card import CardEntry, draw_card
    from bot.pictures.split import suits
    from bot.text import credit_of, word_key
    from bot.wording import Wording

    say = Wording.load().text
    entries = []
    for match in answer.matches[0]:
        portrait = match.portrait
        pixels = engine.decode(portrait.thumbnail.read_bytes()).pixels
        scale = pixels.shape[1] / portrait.width_px  # the settings may reduce a thumbnail, too
        entries.append(
            CardEntry(
                portrait=pixels,
                portrait_landmarks=(portrait.landmarks * scale).astype("float32"),
                name=match.person.name,
                score=match.score,
                word=say(word_key(match.score)),
                credit=credit_of(portrait, say("answer.unknown_author")),
                portrait_box=portrait.box if scale == 1 else None,
            )
        )
    fits = suits(answer.faces[0].landmarks, entries[0].portrait_landmarks)
    return draw_card(answer.photo, answer.faces, entries, split=style == SPLIT and fits)


@contextlib.contextmanager
def _timed(ms: dict[str, float], step: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        ms[step] = (time.perf_counter() - started) * 1000


def _read(path: Path, max_bytes: int) -> bytes:
    """The bytes of a photo, one more than allowed at most, so that decoding refuses it."""
    try:
        if path == Path("-"):
            return sys.stdin.buffer.read(max_bytes + 1)
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as problem:
        raise NotAnImage(f"{path} can't be read: {problem.strerror}") from problem


def _write(path: Path, jpeg: bytes) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(jpeg)
        temporary.replace(path)
    except OSError as problem:
        raise click.FileError(str(path), problem.strerror) from problem


def _checked_category(gallery: Gallery, category: str | None) -> str | None:
    if category is None or category == "all":
        return None
    known: Sequence[str] = gallery.categories()
    for name in known:
        if name.casefold() == category.casefold():
            return name
    there = ", ".join(known) or "none yet"
    raise GalleryMissing(
        f"nobody in the gallery is in the category {category!r}; there are {there}"
    )


@click.command(short_help="Find the lookalikes of the faces in a photo.")
@click.argument("photo", type=click.Path(path_type=Path))
@click.option(
    "--model",
    type=click.Choice(("resnet", "senet", "dlib", BEST)),
    help="Backbone that answers (default: the configured one, dlib until it is ready); best: "
    "several together, where this gallery shows that they are better than each alone.",
)
@click.option("--top", type=click.IntRange(1, 100), default=1, help="Matches per face.")
@click.option("--face", type=click.IntRange(1), help="Only this face, counted from the largest.")
@click.option("--category", help="Search among these people only.")
@click.option("--card", type=click.Path(path_type=Path), help="Write the answer as a picture.")
@click.option(
    "--style",
    type=click.Choice(STYLES),
    default=SIDE,
    help="How the card shows the two: side by side, or as one face of two halves.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@common
@click.pass_obj
def command(
    context: Context,
    photo: Path,
    model: str | None,
    top: int,
    face: int | None,
    category: str | None,
    card: Path | None,
    style: str,
    as_json: bool,
) -> None:
    """Find the lookalikes of the faces in PHOTO (a file, or - for standard input)."""
    from bot.app import open_engine, open_gallery
    from bot.cli.match_words import as_record, words

    settings = context.settings()
    data = _read(photo, settings.photo.max_bytes)
    engine = open_engine(settings)
    with contextlib.closing(open_gallery(settings)) as gallery:
        why = ensemble = None
        if model == BEST:
            from bot.models import find_ensemble

            ensemble = find_ensemble(engine, gallery)
        elif model is None:
            model, why = spoken_model(settings, engine, gallery)
        category = _checked_category(gallery, category)
        answer = answer_photo(
            engine,
            gallery,
            data,
            model=model,
            top=top,
            face=face,
            category=category,
            ensemble=ensemble,
        )
        if card is not None:
            _write(card, draw_answer(engine, answer, style=style).jpeg)
    if as_json:
        click.echo(json.dumps(as_record(answer, photo), ensure_ascii=False, indent=2))
    else:
        for line in words(answer):
            click.echo(line)
        if card is not None:
            click.echo(f"Card: {card.absolute()}")
    if why is not None:
        click.echo(f"{settings.default_model} is not ready, so {STANDIN} answered: {why}", err=True)
