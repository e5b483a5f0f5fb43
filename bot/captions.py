"""The words of an answer: names, scores, what a score is called, credits, raw numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bot.reply import MatchAnswer
from bot.wording import isolate, plain
from engine.types import Concern, Face

if TYPE_CHECKING:
    from bot.turn import Turn
    from gallery.ensemble import Part
    from gallery.records import Match, Portrait

__all__ = [
    "CONCERNS",
    "WORDS",
    "caption",
    "credit_of",
    "footnotes",
    "match_answers",
    "numbers",
    "shown_model",
    "word_key",
]

# Lowest score -> what it is called. By product.md strangers reach 50 once in 10,000 pairs and the
# same person 90 in the median; so the last words are kept for what chance alone hardly makes.
WORDS = (
    (86.0, "word.same"),
    (70.0, "word.twin"),
    (58.0, "word.striking"),
    (48.0, "word.strong"),
    (38.0, "word.clear"),
    (28.0, "word.family"),
    (18.0, "word.hint"),
    (float("-inf"), "word.stretch"),
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
            parts=match.parts,
            categories=match.person.categories,
            credit=credit_of(match.portrait, unknown),
            credit_url=match.portrait.source_url,
            portrait=match.portrait.thumbnail,
        )
        for rank, match in enumerate(matches, 1)
    )


def caption(
    turn: Turn,
    answers: Sequence[MatchAnswer],
    *,
    model: str,
    wanted: str,
    category: str | None,
    face: Face,
    number: int,
    count: int,
) -> str:
    """What stands under the card.

    Args:
        turn: Who asks, in which language.
        answers: Best first, at least one.
        model: Backbone that answered.
        wanted: Backbone that was asked for.
        category: The category searched; None for all.
        face: The face that was answered.
        number: Its number, from 1.
        count: How many faces there are.
    """
    lines = []
    if count > 1:
        lines.append(turn.say("answer.face", number=number, count=count))
    if len(answers) == 1:
        best = answers[0]
        lines.append(
            turn.say(
                "answer.best", name=isolate(best.name), score=round(best.score), word=best.word
            )
        )
    else:
        lines += [
            turn.say(
                "answer.ranked",
                rank=answer.rank,
                name=isolate(answer.name),
                score=round(answer.score),
                word=answer.word,
            )
            for answer in answers
        ]
    lines += footnotes(
        turn,
        _credits(turn, answers),
        model=model,
        parts=answers[0].parts,
        wanted=wanted,
        category=category,
        face=face,
    )
    return "\n".join(lines)


def footnotes(
    turn: Turn,
    sources: Sequence[str],
    *,
    model: str,
    wanted: str,
    category: str | None,
    face: Face,
    parts: Sequence[Part] = (),
) -> list[str]:
    """The lines below names and scores: model, category, whose photos they are, doubts.

    Args:
        turn: Who asks, in which language.
        sources: Lines that say whose photos they are.
        model: Backbone that answered.
        wanted: Backbone that was asked for.
        category: The category searched; None for all.
        face: The face that was answered.
        parts: What each model says, where several answered together.
    """
    lines = [turn.say("answer.model", model=shown_model(model, parts))]
    if wanted != model:
        lines.append(turn.say("answer.fallback", wanted=wanted, model=model))
    if category is not None:
        lines.append(turn.say("answer.category", category=isolate(category)))
    lines += sources
    lines += [turn.say(key) for concern, key in CONCERNS.items() if concern in face.concerns]
    return lines


def shown_model(model: str, parts: Sequence[Part]) -> str:
    """The model's name, and those of the models behind it: ``best (senet + dlib)``."""
    return f"{model} ({' + '.join(part.backbone for part in parts)})" if parts else model


def _credits(turn: Turn, answers: Sequence[MatchAnswer]) -> list[str]:
    known = {answer.rank: isolate(answer.credit) for answer in answers if answer.credit}
    if not known:
        return []
    if len(answers) == 1:
        return [turn.say("answer.credit", credit=next(iter(known.values())))]
    if len(set(known.values())) == 1 and len(known) == len(answers):
        return [turn.say("answer.credits", credit=next(iter(known.values())))]
    listed = "; ".join(f"{rank}. {credit}" for rank, credit in known.items())
    return [turn.say("answer.credits", credit=listed)]


def numbers(turn: Turn, answers: Sequence[MatchAnswer], model: str) -> str:
    """The raw numbers behind an answer: a line per match, and one per model of several."""
    lines = []
    for answer in answers:
        of_one, of_several = ("line", "fused") if answer.name else ("compared", "fused_compared")
        lines.append(
            turn.say(
                f"numbers.{of_several if answer.parts else of_one}",
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
            for part in answer.parts
        ]
    return "\n".join(lines)


def _roughly(turn: Turn, one_in: float) -> str:
    """Two digits of it, and no further than the law of the tail was ever seen to hold."""
    if one_in > RAREST:
        return f">{turn.number(RAREST)}"
    digits = max(0, math.floor(math.log10(max(1.0, one_in))) - 1)
    return turn.number(max(1, round(one_in / 10**digits) * 10**digits))
