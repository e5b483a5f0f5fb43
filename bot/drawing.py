"""From matches to the picture of an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bot.pictures.card import CardEntry, draw_card, draw_family_card
from bot.pictures.framing import with_chin
from bot.values import SIDE, SPLIT
from bot.wording import isolate
from engine.types import Box
from gallery.silhouette import is_silhouette

if TYPE_CHECKING:
    from bot.context import Turn
    from bot.looking import Subject
    from bot.values import Animation, MatchAnswer, Picture
    from engine.engine import Engine
    from gallery.records import Match

__all__ = ["draw_answer", "draw_family", "draw_morph"]

# Key of what one match is called for those who can't see it, and several.
ALT_KEYS = {
    SIDE: ("answer.alt", "answer.alt_many"),
    SPLIT: ("style.alt", "style.alt_many"),
}


def draw_answer(
    turn: Turn,
    engine: Engine,
    subject: Subject,
    number: int,
    matches: Sequence[Match],
    answers: Sequence[MatchAnswer],
    style: str,
) -> Picture:
    """The card; with several faces the numbered photo above it. Not for the event loop.

    Args:
        turn: Whose words stand on it.
        engine: Decodes the portraits.
        subject: The photo.
        number: The face that was answered, from 1.
        matches: Best first, at least one.
        answers: The same matches in the asker's words.
        style: ``split``, or both faces side by side; so are those whose portrait lacks a photo.
    """
    entries = [_entry(engine, *pair) for pair in zip(matches, answers, strict=True)]
    if entries[0].silhouette:
        style = SIDE
    picture = draw_card(
        subject.photo(), subject.faces, entries, answered=number - 1, split=style == SPLIT
    )
    return dataclasses.replace(picture, alt=_alt(turn, answers, style))


def draw_family(
    turn: Turn,
    engine: Engine,
    subject: Subject,
    number: int,
    matches: Sequence[Match],
    answers: Sequence[MatchAnswer],
) -> Picture:
    """The woman and the man most alike with the face between them. Not for the event loop.

    Args:
        turn: Whose words stand on it.
        engine: Decodes the portraits.
        subject: The photo.
        number: The face that was answered, from 1.
        matches: Both of them.
        answers: The same in the asker's words.
    """
    first, second = (_entry(engine, *pair) for pair in zip(matches, answers, strict=True))
    picture = draw_family_card(
        subject.photo(),
        subject.faces,
        (first, second),
        answered=number - 1,
        title=turn.say("parents.card"),
    )
    names = (isolate(answer.name) for answer in answers)
    alt = turn.say("parents.alt", **dict(zip(("first", "second"), names, strict=True)))
    return dataclasses.replace(picture, alt=alt)


def draw_morph(
    turn: Turn, engine: Engine, subject: Subject, number: int, match: Match, answer: MatchAnswer
) -> Animation:
    """The face as it becomes its best match. Takes tenths of a second; not for the event loop.

    Args:
        turn: Whose words stand on it.
        engine: Decodes the portrait.
        subject: The photo.
        number: The face that was answered, from 1.
        match: The best.
        answer: The same in the asker's words.
    """
    from bot.pictures.morph import make_morph

    face = subject.faces[number - 1]
    sight = (subject.photo().pixels, with_chin(face.landmarks, face.box))
    alt = turn.say("morph.alt", name=isolate(answer.name), score=round(answer.score))
    return make_morph(sight, _entry(engine, match, answer), alt=alt)


def _alt(turn: Turn, answers: Sequence[MatchAnswer], style: str) -> str:
    one, many = ALT_KEYS[style]
    if len(answers) == 1:
        (best,) = answers
        return turn.say(one, name=isolate(best.name), score=round(best.score))
    return turn.say(many, names=", ".join(isolate(one.name) for one in answers))


def _entry(engine: Engine, match: Match, answer: MatchAnswer) -> CardEntry:
    portrait = match.portrait
    jpeg = portrait.thumbnail.read_bytes()
    pixels = engine.decode(jpeg).pixels
    # The settings may make decoding reduce even a thumbnail.
    scale, box = pixels.shape[1] / portrait.width_px, portrait.box
    landmarks = portrait.landmarks * scale
    return CardEntry(
        portrait=pixels,
        portrait_landmarks=landmarks.astype(np.float32),
        name=answer.name,
        score=answer.score,
        word=answer.word,
        credit=answer.credit,
        portrait_box=Box(box.x * scale, box.y * scale, box.w * scale, box.h * scale),
        silhouette=is_silhouette(jpeg),
    )
