"""Replies as Discord's messages."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import discord

from bot.values import Button, Limits, Reply

__all__ = ["LIMITS", "Courier", "insist", "view_of"]

log = logging.getLogger(__name__)
T = TypeVar("T")

# https://docs.discord.com/developers/resources/message: content 2000; components 5 x 5.
LIMITS = Limits(
    text_chars=2000,
    caption_chars=2000,
    picture_bytes=10 * 1024 * 1024,
    document_bytes=10 * 1024 * 1024,
    animation_bytes=10 * 1024 * 1024,
    action_bytes=100,
    buttons_per_row=5,
    button_rows=5,
    label_chars=80,
    whispers=True,
)
MOST_OPTIONS = 25
ALT_CHARS = 1024
PAUSES_S = (0.5, 2.0, 5.0)
SERVER_ERRORS = 500
TOO_MANY = 429
LONGEST_WAIT_S = 60.0


class Courier:
    """Sends replies; what can be delivered is, what can't is logged without a name."""

    async def respond(self, interaction: discord.Interaction[Any], reply: Reply) -> None:
        """Puts the reply in the place of the deferred response, or of the pressed message."""

        async def send() -> None:
            await interaction.edit_original_response(
                content=reply.text or None,
                attachments=_files(reply),
                view=view_of(reply.buttons),
                allowed_mentions=discord.AllowedMentions.none(),
            )

        await _deliver(send)

    async def follow_up(self, interaction: discord.Interaction[Any], reply: Reply) -> None:
        """Sends the reply as a message of its own; a notice and a private one for one alone."""
        alone = reply.private or reply.notice is not None

        async def send() -> None:
            await interaction.followup.send(
                content=reply.text or reply.notice or "",
                files=_files(reply),
                view=view_of(reply.buttons) or discord.utils.MISSING,
                ephemeral=alone,
                allowed_mentions=discord.AllowedMentions.none(),
            )

        await _deliver(send)

    async def reply(self, message: discord.Message, reply: Reply) -> None:
        """Replies to the asking message, or into its channel where it is gone."""

        async def send(*, to_message: bool) -> None:
            reference = message.to_reference(fail_if_not_exists=False) if to_message else None
            await message.channel.send(
                content=reply.text or None,
                files=_files(reply),
                view=view_of(reply.buttons) or discord.utils.MISSING,
                reference=reference or discord.utils.MISSING,
                mention_author=False,
                allowed_mentions=discord.AllowedMentions.none(),
            )

        try:
            await insist(lambda: send(to_message=True))
        except discord.NotFound:
            log.info("discord: an answer had nowhere to go")
        except discord.Forbidden:
            # Without permission to read the history a message can't be replied to.
            await _deliver(lambda: send(to_message=False))
        except (discord.HTTPException, aiohttp.ClientError, OSError) as problem:
            log.warning("discord: not delivered", extra={"fault": type(problem).__name__})


async def insist(call: Callable[[], Awaitable[T]], *, attempts: int = 1 + len(PAUSES_S)) -> T:
    """The result of a call; again after a limit, a failure of the server or of the network.

    discord.py does that for most calls; it raises a 429 that comes from the network in between,
    and gives up after five failures in a row.
    """
    for attempt in range(attempts):
        try:
            return await call()
        except discord.HTTPException as problem:
            if problem.status != TOO_MANY and problem.status < SERVER_ERRORS:
                raise
            if attempt + 1 == attempts:
                raise
            wait_s = _retry_after_s(problem) or PAUSES_S[attempt]
        except (aiohttp.ClientError, OSError, TimeoutError):
            if attempt + 1 == attempts:
                raise
            wait_s = PAUSES_S[attempt]
        await asyncio.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def view_of(rows: tuple[tuple[Button, ...], ...]) -> discord.ui.View | None:
    """Rows of buttons; a menu where they are more than Discord shows; None where there are none.

    The view is stopped at once: what is pressed comes as an event, also after a restart, and the
    library need not remember every message.
    """
    if not rows:
        return None
    view = discord.ui.View(timeout=None)
    buttons = [button for row in rows for button in row]
    if len(rows) > LIMITS.button_rows or any(len(row) > LIMITS.buttons_per_row for row in rows):
        options = [
            discord.SelectOption(label=button.label[:100], value=button.action)
            for button in buttons[:MOST_OPTIONS]
        ]
        view.add_item(discord.ui.Select(custom_id="choose", options=options))
    else:
        for number, row in enumerate(rows):
            for button in row:
                item: discord.ui.Button[discord.ui.View] = discord.ui.Button(
                    label=button.label[:80], custom_id=button.action, row=number
                )
                view.add_item(item)
    view.stop()
    return view


def _files(reply: Reply) -> list[discord.File]:
    """Made anew for every attempt: sending reads them to their end."""
    if reply.picture:
        picture = io.BytesIO(reply.picture.jpeg)
        return [
            discord.File(
                picture, filename="lookalike.jpg", description=reply.picture.alt[:ALT_CHARS]
            )
        ]
    if reply.animation:
        film = io.BytesIO(reply.animation.content)
        alt = reply.animation.alt[:ALT_CHARS]
        return [discord.File(film, filename=reply.animation.filename, description=alt)]
    if reply.document:
        content = io.BytesIO(reply.document.content)
        return [discord.File(content, filename=reply.document.filename)]
    return []


async def _deliver(send: Callable[[], Awaitable[object]]) -> None:
    try:
        await insist(send)
    except (discord.NotFound, discord.Forbidden):
        log.info("discord: an answer had nowhere to go")
    except (discord.HTTPException, aiohttp.ClientError, OSError) as problem:
        log.warning("discord: not delivered", extra={"fault": type(problem).__name__})


def _retry_after_s(problem: discord.HTTPException) -> float | None:
    header = problem.response.headers.get("Retry-After")
    try:
        return min(max(float(header), 0.0), LONGEST_WAIT_S) if header else None
    except ValueError:
        return None
