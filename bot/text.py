"""The words of an answer, and how a reply is made to fit the platform's limits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bot.values import SIDE, SPLIT, Button, Limits, MatchAnswer, Reply
from bot.wording import isolate, plain
from engine.types import Concern

if TYPE_CHECKING:
    from bot.context import Found, Turn
    from gallery.records import Match, Portrait
    from gallery.scores.ensemble import MemberScore

__all__ = [
    "CONCERNS",
    "STYLE_KEYS",
    "WORDS",
    "caption",
    "credit_of",
    "fit",
    "match_answers",
    "numbers",
    "shorten",
    "shown_model",
    "style_key",
    "utf16_length",
    "word_key",
]

# Lowest score -> what it is called. Strangers reach 75 once in 10,000 pairs and the same person 95
# in the median (gallery/scores); so the last words are kept for what chance alone hardly makes.
WORDS = (
    (93.0, "word.same"),
    (82.0, "word.twins"),
    (70.0, "word.family"),
    (55.0, "word.clear"),
    (45.0, "word.some"),
    (30.0, "word.hint"),
    (float("-inf"), "word.hardly"),
)

# A million strangers: beyond it the number says more about the law fitted to the tail than about
# people.
RAREST = 1_000_000

CONCERNS = {Concern.BLURRED: "answer.blurred", Concern.TURNED: "answer.turned"}


def word_key(score: float) -> str:
    """Key of what a score is called."""
    return next(key for least, key in WORDS if score >= least)


def credit_of(portrait: Portrait, unknown_author: str) -> str:
    """Author and licence on one line; "" if neither is known."""
    parts = [plain(part) for part in (portrait.author, portrait.licence) if part]
    if portrait.licence and not portrait.author:
        parts = [unknown_author, *parts]
    return ", ".join(parts)


def match_answers(turn: Turn, matches: Sequence[Match]) -> tuple[MatchAnswer, ...]:
    """The matches in the asker's words."""
    unknown = turn.say("answer.unknown_author")
    return tuple(
        MatchAnswer(
            rank=rank,
            name=plain(match.person.name),
            score=match.score,
            word=turn.say(word_key(match.score)),
            cosine=match.cosine,
            one_in=match.one_in,
            member_scores=match.member_scores,
            categories=match.person.categories,
            credit=credit_of(match.portrait, unknown),
            credit_url=match.portrait.source_url,
            portrait=match.thumbnail,
        )
        for rank, match in enumerate(matches, 1)
    )


def caption(turn: Turn, found: Found) -> str:
    """What stands under a picture: names, scores, model, category, whose photos, doubts."""
    question, answers, faces = found.question, found.answers, found.photo.faces
    model, category = question.model, question.category
    lines = []
    if len(faces) > 1:
        lines.append(turn.say("answer.face", number=question.number, count=len(faces)))
    if question.parents:
        lines.append(turn.say("parents.title"))
    key = "answer.best" if question.parents or len(answers) == 1 else "answer.ranked"
    for answer in answers:
        name, score = isolate(answer.name), round(answer.score)
        lines.append(turn.say(key, rank=answer.rank, name=name, score=score, word=answer.word))
    lines.append(turn.say("answer.model", model=shown_model(model, answers[0].member_scores)))
    if question.wanted != model:
        lines.append(turn.say("answer.fallback", wanted=question.wanted, model=model))
    if category is not None:
        lines.append(turn.say("answer.category", category=isolate(category)))
    lines += _credits(turn, answers, by_name=question.parents)
    concerns = faces[question.number - 1].concerns
    lines += [turn.say(key) for concern, key in CONCERNS.items() if concern in concerns]
    return "\n".join(lines)


def shown_model(model: str, member_scores: Sequence[MemberScore]) -> str:
    """The model's name, and those of the models behind it: ``best (senet + dlib)``."""
    backbones = " + ".join(one.backbone for one in member_scores)
    return f"{model} ({backbones})" if member_scores else model


def _credits(turn: Turn, answers: Sequence[MatchAnswer], *, by_name: bool) -> list[str]:
    credited = [answer for answer in answers if answer.credit]
    if not credited:
        return []
    if by_name:
        listed = [f"{isolate(answer.name)}: {isolate(answer.credit)}" for answer in credited]
        return [turn.say("answer.credits", credit="; ".join(listed))]
    if len(answers) == 1:
        return [turn.say("answer.credit", credit=isolate(answers[0].credit))]
    known = {isolate(answer.credit) for answer in credited}
    if len(known) == 1 and len(credited) == len(answers):
        return [turn.say("answer.credits", credit=known.pop())]
    listed = [f"{answer.rank}. {isolate(answer.credit)}" for answer in credited]
    return [turn.say("answer.credits", credit="; ".join(listed))]


def numbers(turn: Turn, answers: Sequence[MatchAnswer], model: str) -> str:
    """The raw numbers behind an answer: a line per match, and one per model of several."""
    lines = []
    for answer in answers:
        of_one, of_several = ("line", "fused") if answer.name else ("compared", "fused_compared")
        lines.append(
            turn.say(
                f"numbers.{of_several if answer.member_scores else of_one}",
                name=isolate(answer.name),
                score=f"{answer.score:.1f}",
                cosine=f"{answer.cosine:.4f}",
                model=model,
                strangers=_roughly(turn, answer.one_in),
            )
        )
        lines += [
            turn.say(
                "numbers.part",
                model=part.backbone,
                score=f"{part.score:.1f}",
                cosine=f"{part.cosine:.4f}",
            )
            for part in answer.member_scores
        ]
    return "\n".join(lines)


def _roughly(turn: Turn, one_in: float) -> str:
    """Two digits of it, and no further than the law of the tail was ever seen to hold."""
    if one_in > RAREST:
        return f">{turn.number(RAREST)}"
    digits = max(0, math.floor(math.log10(max(1.0, one_in))) - 1)
    return turn.number(max(1, round(one_in / 10**digits) * 10**digits))


ELLIPSIS = "…"
_FIRST_STRONG_ISOLATE = "\N{FIRST STRONG ISOLATE}"
_POP_ISOLATE = "\N{POP DIRECTIONAL ISOLATE}"
NOTICE_CHARS = 200


def utf16_length(text: str) -> int:
    """Length as Telegram and Discord count it: UTF-16 code units."""
    return len(text) + sum(character > "\uffff" for character in text)


def shorten(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis, in at most that many UTF-16 code units.

    What a reader sees as one character is never cut, nor is a directional isolate left open.
    """
    if utf16_length(text) <= most:
        return text
    import regex

    room = most - utf16_length(ELLIPSIS)
    kept: list[str] = []
    open_isolates = 0
    for grapheme in regex.findall(r"\X", text):
        opened = open_isolates + grapheme.count(_FIRST_STRONG_ISOLATE)
        opened = max(0, opened - grapheme.count(_POP_ISOLATE))
        # Each isolate that is still open needs one more unit to be closed.
        if utf16_length(grapheme) + opened - open_isolates > room:
            break
        room -= utf16_length(grapheme) + opened - open_isolates
        open_isolates = opened
        kept.append(grapheme)
    if most < 1:
        return ""
    return "".join(kept).rstrip() + ELLIPSIS + _POP_ISOLATE * open_isolates


def fit(reply: Reply, limits: Limits) -> Reply:
    """The same reply within the limits: longest lines shortened, least important buttons left out.

    A picture, animation or document that is too large is left out, and the text stays.
    """
    picture, document, animation = reply.picture, reply.document, reply.animation
    if picture is not None and (
        len(picture.jpeg) > limits.picture_bytes
        or picture.width_px + picture.height_px > limits.picture_width_plus_height_px
    ):
        picture = None
    if document is not None and len(document.content) > limits.document_bytes:
        document = None
    if animation is not None and len(animation.content) > limits.animation_bytes:
        animation = None
    carried = picture or document or animation
    most = limits.caption_chars if carried else limits.text_chars
    return dataclasses.replace(
        reply,
        text=_fit_lines(reply.text, most),
        picture=picture,
        document=document,
        animation=animation,
        buttons=_fit_buttons(reply.buttons, limits),
        notice=None if reply.notice is None else shorten(reply.notice, NOTICE_CHARS),
    )


def _fit_lines(text: str, most: int) -> str:
    """Shortens the longest lines alike until the text fits; then cuts its end."""
    if utf16_length(text) <= most:
        return text
    lines = text.split("\n")
    # The largest line length at which the whole fits, found by halving.
    short, long = 24, max(map(utf16_length, lines))
    while short < long:
        middle = (short + long + 1) // 2
        if utf16_length("\n".join(shorten(line, middle) for line in lines)) <= most:
            short = middle
        else:
            long = middle - 1
    return shorten("\n".join(shorten(line, short) for line in lines), most)


def _fit_buttons(
    rows: tuple[tuple[Button, ...], ...], limits: Limits
) -> tuple[tuple[Button, ...], ...]:
    fitting: list[tuple[Button, ...]] = []
    for row in rows:
        usable = [
            dataclasses.replace(button, label=shorten(button.label, limits.label_chars))
            for button in row
            if len(button.action.encode()) <= limits.action_bytes
        ]
        fitting += [
            tuple(usable[start : start + limits.buttons_per_row])
            for start in range(0, len(usable), limits.buttons_per_row)
        ]
    return tuple(fitting[: limits.button_rows])


# Key of what a style is called, and of what is said when it is chosen.
STYLE_KEYS = {
    SIDE: ("style.side", "style.chosen_side"),
    SPLIT: ("style.split", "style.chosen_split"),
}


def style_key(style: str | None) -> str:
    """Key of what a style is called; none, or one of a newer program, counts as the default."""
    return STYLE_KEYS.get(style or SIDE, STYLE_KEYS[SIDE])[0]
