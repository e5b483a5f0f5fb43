"""Which of the words that sources use for a gender mean a woman, and which a man.

The catalogue keeps what the source says (Wikidata's property P21, or a list of people). Whoever
is said to be something else, or nothing, is found by every search that does not ask for it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MEN", "WOMEN"]

# Lower case. Wikidata's items Q6581072 and Q6581097 arrive as "female" and "male", every other
# item under its English label; the rest is what people write in lists.
WOMEN: Final = frozenset({"female", "woman", "f", "w", "trans woman", "cisgender woman", "girl"})
MEN: Final = frozenset({"male", "man", "m", "trans man", "cisgender man", "boy"})
