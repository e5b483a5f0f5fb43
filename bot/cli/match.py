"""`lookalike match` and `demo`: a photo in, the people its faces resemble out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shlex
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot.background import FALLBACK_MODEL, FEW_PEOPLE, add_bundled_portraits
from bot.cli import main as cli
from bot.cli.output import card_option, people_of, say, write_file
from bot.values import SIDE, SPLIT, STYLES
from engine.errors import GalleryMissing, NoFace, NotAnImage, WeightsCorrupt, WeightsMissing

if TYPE_CHECKING:
    from bot.settings import Settings
    from bot.values import MatchAnswer, Picture
    from engine.engine import Engine
    from engine.types import Face, Photo
    from gallery.gallery import Gallery
    from gallery.records import Match
    from gallery.scores.ensemble import Ensemble

BEST = "best"  # gallery.scores.ensemble.BEST, without what importing that would cost `--help`


@dataclass(frozen=True, slots=True)
class _Answer:
    model: str  # backbone that answered, or "best"
    photo: Photo  # perhaps reduced
    faces: tuple[Face, ...]  # those asked for, largest first
    first: int  # number of the first of them in the photo, from 1
    matches: tuple[tuple[Match, ...], ...]  # per face, best first
    people: int  # among how many it was searched
    ms: dict[str, float]  # by step: decode, detect, embed, search, total


def answering_model(settings: Settings, engine: Engine, gallery: Gallery) -> tuple[str, str | None]:
    """Which backbone answers where none was asked for, and why it is not the configured one."""
    wanted = settings.default_model
    if wanted == FALLBACK_MODEL:
        return wanted, None
    try:
        space = engine.backbone(wanted).space
    except (WeightsMissing, WeightsCorrupt) as problem:
        return FALLBACK_MODEL, str(problem)
    if space not in gallery.spaces():
        return FALLBACK_MODEL, f"run `lookalike gallery build --model {wanted}` to search with it"
    return wanted, None


def answer_photo(
    engine: Engine,
    gallery: Gallery,
    data: bytes,
    model: str,
    ensemble: Ensemble | None = None,
    *,
    top: int,
    face: int | None = None,
    category: str | None = None,
    waits: bool = True,
) -> _Answer:
    """The matches of the faces in a picture file, or of the one of that number."""
    from bot.recognizer import timed
    from engine.engine import comparable

    models = ensemble.backbones if ensemble else (model,)
    for name in models:
        engine.load(name)  # no part of what one photo costs
    ms: dict[str, float] = {}
    photo, found, _ = engine.look(data, step=functools.partial(timed, ms), waits=waits)
    large, first = comparable(found), face or 1
    if first > len(large):
        raise NoFace(f"there is no face number {face}: the photo has {len(large)}")
    if face:
        large = (large[face - 1],)
    for name in models:
        space = engine.backbone(name).space
        gallery.index(space)  # opening it is no part of a search
        gallery.calibration(space)
    with timed(ms, "embed"):
        embeddings = [engine.embed([(photo, one) for one in large], name) for name in models]
    with timed(ms, "search"):
        matches = tuple(
            gallery.fused_matches(ensemble, one, top, category=category)
            if ensemble
            else gallery.top_matches(one[0], top, category=category)
            for one in zip(*embeddings, strict=True)
        )
    ms["total"] = sum(ms.values())
    return _Answer(model, photo, large, first, matches, gallery.size(space, category), ms)


def _draw_answer(engine: Engine, answer: _Answer, style: str = SIDE) -> Picture:
    """The card of the largest face; what makes no split face is drawn side by side."""
    from bot.commands.answers import card_entries
    from bot.pictures.card import can_split, draw_card

    entries = card_entries(engine, answer.matches[0], next(_in_words(answer)))
    split = style == SPLIT and can_split(answer.photo, answer.faces[0], entries[0])
    return draw_card(answer.photo, answer.faces, entries, split=split)


def _in_words(answer: _Answer) -> Iterator[tuple[MatchAnswer, ...]]:
    """The matches of each face."""
    from bot.commands.answers import match_answers
    from bot.text import Wording

    text = Wording.load().text
    for face, matches in zip(answer.faces, answer.matches, strict=True):
        yield match_answers(text, matches, face.concerns)


def _read(path: Path, max_bytes: int) -> bytes:
    """The bytes of a photo, one more than allowed at most, so that decoding refuses it."""
    try:
        with click.open_file(str(path), "rb") as file:
            content: bytes = file.read(max_bytes + 1)
            return content
    except OSError as problem:
        raise NotAnImage(f"{path} can't be read: {problem.strerror}") from problem


def checked_category(gallery: Gallery, category: str | None) -> str | None:
    """The category as the gallery spells it; None for everybody."""
    if category is None or category == "all":
        return None
    known = {name.casefold(): name for name in gallery.categories()}
    if name := known.get(category.casefold()):
        return name
    there = ", ".join(known.values()) or "none yet"
    raise GalleryMissing(
        f"nobody in the gallery is in the category {category!r}; there are {there}"
    )


@click.command(cls=cli.Command, json="Print the answer as JSON.")
@click.argument("photo", type=cli.PATH)
@cli.model_option(
    "Backbone that answers (default: the configured one, dlib until it is ready); best: "
    "several together, where this gallery shows that they are better than each alone.",
    (*cli.BACKBONES, BEST),
)
@click.option("--top", type=click.IntRange(1, 100), default=1, help="Matches per face.")
@click.option("--face", type=click.IntRange(1), help="Only this face, counted from the largest.")
@click.option("--category", help="Search among these people only.")
@card_option("--card", "Write the answer as a picture.")
@click.option("--style", type=click.Choice(STYLES), help="How the card is drawn (default: side).")
def match(
    context: cli.Context, photo: Path, model: str | None, card: Path | None, **how: Any
) -> None:
    """Find the lookalikes of the faces in PHOTO (a file, or - for standard input)."""
    style = how.pop("style")
    if style and not card:
        raise click.UsageError("--style is how the card is drawn: add --card FILE")
    data = _read(photo, context.settings.photo.max_bytes)
    engine = context.engine
    engine.workers = False
    with context.gallery() as gallery:
        add_bundled_portraits(gallery, engine)
        why = ensemble = drawn = None
        if model == BEST:
            from bot.models import find_ensemble

            ensemble = find_ensemble(engine, gallery)
        elif model is None:
            model, why = answering_model(context.settings, engine, gallery)
        how["category"] = checked_category(gallery, how["category"])
        answer = answer_photo(engine, gallery, data, model, ensemble, **how)
        if card is not None:
            drawn = _draw_answer(engine, answer, style or SIDE)
        people = gallery.counts()[0]
    lines = [*_lines(answer)]
    if people < FEW_PEOPLE:
        get = f"`{context.command('gallery download')}` brings famous people"
        lines.append(f"Only {people_of(people)} in the gallery so far: {get}.")
    context.finish(record(answer, photo), lines)
    wanted = context.settings.default_model
    said = context.settings.cache_folder / f"{wanted}-not-ready"  # once in a home is enough
    if why is not None and not said.exists():
        say(f"{wanted} is not ready, so {FALLBACK_MODEL} answered: {why}", err=True)
        with contextlib.suppress(OSError):
            said.touch()
    if card is not None and drawn is not None:  # last: what can't be written costs no answer
        write_file(card, drawn.jpeg)
        if not context.json:
            say(f"Card: {card.absolute()}")


def _lines(answer: _Answer) -> Iterator[str]:
    from bot.text import Wording, rated, shown_model

    found = zip(answer.faces, _in_words(answer), strict=True)
    for number, (face, matches) in enumerate(found, answer.first):
        several = len(answer.faces) > 1
        if several:
            yield f"Face {number}:"
        name = matches[0].name if len(matches) == 1 else ""
        key = "answer.hook_face" if several else "answer.hook"
        yield Wording.load().text(key, count=answer.people, name=name).rstrip()
        for one in matches:
            place = f"{one.rank}. {one.name}  " if len(matches) > 1 else ""
            yield f"{place}{rated(one.score, 20)} {one.word}"
            cosines = ", ".join(
                f"{part.backbone} {part.score:.0f} (cosine {part.cosine:.3f})"
                for part in one.member_scores
            )
            credit = f"photo: {one.credit}" * bool(one.credit)
            told = (one.rarity, cosines or f"cosine {one.cosine:.3f}", credit)
            yield "   " + "; ".join(filter(None, told))
        for concern in face.concerns:
            yield f"   (the face is {concern})"
    model = shown_model(answer.model, answer.matches[0][0].member_scores)
    yield f"Model {model}, {answer.ms['total']:.0f} ms"


def record(answer: _Answer, path: Path) -> dict[str, Any]:
    """The answer as printed with ``--json``; boxes in pixels of the photo in that file."""
    scale = answer.photo.source_size_px[0] / answer.photo.width_px
    start = (*answer.photo.corner_px, 0, 0)
    faces = [
        {
            "box": [round(p + s * scale, 1) for p, s in zip(start, astuple(face.box), strict=True)],
            "confidence": round(face.confidence, 4),
            "concerns": [str(concern) for concern in face.concerns],
            "matches": [
                {
                    "person": match.person.name,
                    "category": ", ".join(match.person.categories) or None,
                    "cosine": None if match.member_scores else round(match.cosine, 6),
                    "score": round(match.score, 2),
                    "one_in": round(match.one_in, 1),
                    "backbones": {
                        part.backbone: {
                            "cosine": round(part.cosine, 6),
                            "score": round(part.score, 2),
                        }
                        for part in match.member_scores
                    },
                    "portrait": match.portrait.id,
                    "source": match.portrait.source_url,
                    "license": match.portrait.licence,
                    "author": match.portrait.author,
                }
                for match in matches
            ],
        }
        for face, matches in zip(answer.faces, answer.matches, strict=True)
    ]
    ms = {step: round(value, 2) for step, value in answer.ms.items()}
    return {"model": answer.model, "photo": str(path), "faces": faces, "ms": ms}


@click.command(cls=cli.Command, json="")
@card_option("--out", "Where the card goes (default: HOME/answer.jpg).")
def demo(context: cli.Context, out: Path | None) -> None:
    """Find who else in the gallery looks like the person of a sample photo."""
    from gallery.sources.bundled import bundled_portraits

    settings, engine, original = context.settings, context.engine, bundled_portraits()[-1]
    sample, card = settings.home / "sample.jpg", out or settings.home / "answer.jpg"
    person = original.person.name
    photo = original.read(settings.photo.max_bytes)
    with context.gallery() as gallery:
        add_bundled_portraits(gallery, engine)
        model, _ = answering_model(context.settings, engine, gallery)
        answer = answer_photo(engine, gallery, photo, model, top=2)
        others = tuple(one for one in answer.matches[0] if one.person.name != person)[:1]
        if not others:
            raise GalleryMissing(f"there is nobody but {person} in the gallery")
        people = answer.people - (gallery.find_person(person) is not None)
        answer = dataclasses.replace(answer, matches=(others,), people=people)
        picture = _draw_answer(engine, answer)
    write_file(sample, photo)
    path, strangers = sample.absolute(), f"{person} and {others[0].person.name} are strangers"
    among = "with two people here, that is all there is to find"
    lines = (
        f"Sample photo: {person} ({original.author}, {original.licence})",
        f"   {path}",
        "",
        "Who else looks like that?",
        *(f"   {line}" for line in _lines(answer)),
        *([f"   {strangers}: {among}."] * (answer.people < 2)),
        "",
        "Next:",
        f"   {context.command(f'match {shlex.quote(str(path))}')}   # with {person} in the search",
        f"   {context.command('match PHOTO --card card.jpg')}   # a photo of your own",
        f"   {context.command('gallery download --limit 200')}   # famous people from Wikimedia",
    )
    context.finish(None, lines)
    write_file(card, picture.jpeg)
    say()
    say(f"The answer as a picture: {card.absolute()}")
