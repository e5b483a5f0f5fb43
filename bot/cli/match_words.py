"""What `lookalike match` says: an answer in words, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bot.cli.match import Answer
    from gallery.records import Match

__all__ = ["as_record", "words"]


def words(answer: Answer) -> Iterator[str]:
    """The answer in words, line by line."""
    from bot.text import credit_of, word_key
    from bot.wording import Wording

    say = Wording.load().text
    several = len(answer.faces) > 1
    for number, face, matches in zip(answer.numbers, answer.faces, answer.matches, strict=True):
        if several:
            yield f"Face {number}:"
        for rank, match in enumerate(matches, 1):
            bar = "█" * round(match.score / 5)
            place = f"{rank}. " if len(matches) > 1 else ""
            word = say(word_key(match.score))
            yield f"{place}{match.person.name}  {bar:░<20}  {match.score:.0f}/100, {word}"
            credit = credit_of(match.portrait, say("answer.unknown_author"))
            yield f"   {_cosines(match)}" + (f"; photo: {credit}" if credit else "")
        for concern in face.concerns:
            yield f"   (the face is {concern})"
    yield f"Model {_model(answer)}, {answer.ms['total']:.0f} ms"


def _cosines(match: Match) -> str:
    if not match.member_scores:
        return f"cosine {match.cosine:.3f}"
    return ", ".join(
        f"{part.backbone} {part.score:.0f} (cosine {part.cosine:.3f})"
        for part in match.member_scores
    )


def _model(answer: Answer) -> str:
    from bot.text import shown_model

    return shown_model(answer.model, answer.matches[0][0].member_scores)


def as_record(answer: Answer, path: Path) -> dict[str, Any]:
    """The answer as printed with ``--json``; boxes in pixels of the photo in that file."""
    scale = answer.photo.source_size_px[0] / answer.photo.width_px
    faces = []
    for face, matches in zip(answer.faces, answer.matches, strict=True):
        box = (face.box.x, face.box.y, face.box.w, face.box.h)
        faces.append(
            {
                "box": [round(side * scale, 1) for side in box],
                "confidence": round(face.confidence, 4),
                "concerns": [str(concern) for concern in face.concerns],
                "matches": [_match_json(match) for match in matches],
            }
        )
    ms = {step: round(value, 2) for step, value in answer.ms.items()}
    return {"model": answer.model, "photo": str(path), "faces": faces, "ms": ms}


def _match_json(match: Match) -> dict[str, Any]:
    portrait = match.portrait
    return {
        "person": match.person.name,
        "category": ", ".join(match.person.categories) or None,
        "cosine": None if match.member_scores else round(match.cosine, 6),
        "score": round(match.score, 2),
        "one_in": round(match.one_in, 1),
        "backbones": {
            part.backbone: {"cosine": round(part.cosine, 6), "score": round(part.score, 2)}
            for part in match.member_scores
        },
        "portrait": str(portrait.thumbnail),
        "license": portrait.licence,
        "author": portrait.author,
    }
