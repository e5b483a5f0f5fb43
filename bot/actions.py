"""What a button carries: a verb and its arguments, short and plain enough for every platform.

======== ============================ ====================================================
verb     arguments                    pressed, it
======== ============================ ====================================================
see      token face model top page    answers that face of a remembered photo
raw      token face model top         tells the numbers behind that answer
morph    token face model             makes a film of that face and its best match
parents  token face model             shows the woman and the man most like that face
parents  token face model 1 page      the same in place of the message with the button
rawkin   token face model             tells the numbers behind those two
next     token index                  answers another photo of the album
both     token                        compares the first two photos of the album
pair     token model                  compares two remembered photos with another model
rawpair  token model                  tells the numbers behind that comparison
model    name                         chooses the model
top      number                       chooses how many matches are shown
category tag                          chooses the category with that tag, or ``all``
style    name                         chooses how cards are drawn
twins    what                         takes part (``on``), leaves (``off``) or shows who is alike
forget   answer tag                   deletes everything (``yes``) or nothing (``no``)
======== ============================ ====================================================

``token`` names a remembered photo (``bot.recollections``); once it is forgotten, the rest of the
action is enough to answer again from ``Request.photos``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

__all__ = ["ALL", "Action", "category_tag"]

ALL = "all"
_ALLOWED = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Action:
    """A verb and its arguments; none of them holds a user id."""

    verb: str
    arguments: tuple[str, ...] = ()

    @classmethod
    def of(cls, verb: str, *arguments: str | int) -> Action:
        """An action from its parts."""
        return cls(verb, tuple(str(argument) for argument in arguments))

    @classmethod
    def parse(cls, text: str) -> Action | None:
        """The action in what a platform hands back; None if it is none of ours."""
        if not _ALLOWED.fullmatch(text):
            return None
        verb, *arguments = text.split(":")
        return cls(verb, tuple(arguments))

    def encode(self) -> str:
        """At most 64 bytes of ``[A-Za-z0-9_.:-]``.

        Raises:
            ValueError: If the parts don't fit.
        """
        text = ":".join((self.verb, *self.arguments))
        if not _ALLOWED.fullmatch(text):
            raise ValueError(f"a button can't carry the action {self.verb}")
        return text

    def text(self, position: int) -> str:
        """The argument there, or "" where there is none."""
        return self.arguments[position] if position < len(self.arguments) else ""

    def number(self, position: int, *, least: int = 0, most: int = 10_000) -> int | None:
        """The argument there as a whole number in [least, most]; None if it is none."""
        text = self.text(position)
        if not (text.isascii() and text.isdecimal() and len(text) <= 5):
            return None
        number = int(text)
        return number if least <= number <= most else None


def category_tag(category: str) -> str:
    """A short name for a category that may be long or written in any script."""
    return hashlib.sha256(category.encode()).hexdigest()[:12]
