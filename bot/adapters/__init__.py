"""One module per platform; each translates updates to requests and replies to messages.

The composition root makes an adapter as ``Adapter(conversation, section, cache_folder=...)``,
where ``section`` is the platform's own part of the settings, and runs all of them in one
``TaskGroup``. The modules import their SDK at the top and are imported only when they are used.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, runtime_checkable

__all__ = ["Adapter"]


@runtime_checkable
class Adapter(Protocol):
    """A front end.

    Attributes:
        name: Such as ``"telegram"``; used in the log.
    """

    name: str

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set, finishes or tells what is in flight, then returns.

        A network failure is retried for ever with growing pauses, at the very first connection
        too. Returning before ``stop`` is set ends the program.

        Raises:
            BadToken: If the platform refuses the token.
            SetupProblem: If something else is wrong that only the operator can mend.
        """
