"""Delivers replies as Discord messages: within its limits, and despite failures.

What can't be delivered is logged without a name. discord.py repeats most calls itself, but raises a
429 of the network in between, and gives up after five failures in a row; so it is retried here.
"""

import contextlib
import io
import itertools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import aiohttp
import discord

from bot.adapters import backoff_s, retry
from bot.logs import where
from bot.text import fit
from bot.values import Limits, Reply, Rows

log = logging.getLogger(__name__)

# What discord.py raises where Discord or the network fails.
FAILURES = (discord.HTTPException, aiohttp.ClientError, OSError)

# What discord.py stumbles over where Discord took a call, and its answer is garbage.
GARBAGE = (ValueError, LookupError, TypeError, AttributeError)

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
    patient=False,
)
# How long a failing delivery is repeated: as long as an interaction's answer is taken.
PATIENCE_S, LONGEST_PAUSE_S, MOST_GARBAGE = 14 * 60.0, 15.0, 3
LONGEST_RATE_LIMIT_S = 60.0
# "Cannot reply without permission to read message history"
# (https://docs.discord.com/developers/topics/opcodes-and-status-codes, JSON error codes)
NO_HISTORY_CODE = 160002


async def respond(interaction: discord.Interaction[Any], reply: Reply) -> None:
    """Puts the reply in the place of the deferred response, or of the pressed message."""
    if reply.silent:
        with contextlib.suppress(*FAILURES, *GARBAGE):
            await interaction.delete_original_response()
        return
    await _deliver(
        lambda: interaction.edit_original_response(
            content=reply.text or None,
            attachments=_files(reply),
            view=view_of(reply.buttons),
            allowed_mentions=discord.AllowedMentions.none(),
        )
    )


async def follow_up(interaction: discord.Interaction[Any], reply: Reply) -> None:
    """Sends the reply as a message of its own; a notice and a private one for one alone."""
    if reply.silent:
        return
    ephemeral = reply.private or reply.notice is not None
    send = interaction.followup.send
    await _deliver(lambda: send(**_message(reply), ephemeral=ephemeral), again=False)


async def refuse(interaction: discord.Interaction[Any], reply: Reply) -> None:
    """Tells the asker alone, as the first response."""
    send = interaction.response.send_message
    await _deliver(lambda: send(**_message(reply), ephemeral=True), again=False)


async def whisper(interaction: discord.Interaction[Any], reply: Reply) -> None:
    """Tells the asker alone, in the place of a response that was deferred for all to see."""
    with contextlib.suppress(*FAILURES, *GARBAGE):
        await interaction.delete_original_response()
    await follow_up(interaction, reply)


async def write_privately(user: discord.User | discord.Member, reply: Reply) -> bool:
    """Sends a direct message; whether that could be done."""
    nonce = secrets.randbits(63)
    return await _deliver(lambda: user.send(**_message(reply), nonce=nonce))


async def answer_message(message: discord.Message, reply: Reply, say: Callable[[str], str]) -> None:
    """Replies to the asking message, or into its channel where it can't be replied to.

    Where the bot may not attach files, the text goes with a sentence that names the permission.
    """
    if reply.silent:
        return
    reference = message.to_reference(fail_if_not_exists=False)
    as_reply = {"reference": reference, "mention_author": False}
    nonce = secrets.randbits(63)
    shown = [reply]
    if _files(reply):
        sentence = say("discord.no_files")
        text = f"{reply.text}\n{sentence}" if reply.text else sentence
        shown.append(fit(Reply(text, buttons=reply.buttons), LIMITS))

    async def send(one: Reply, more: dict[str, Any]) -> None:
        await message.channel.send(**_message(one), **more, nonce=nonce)

    ways = itertools.product(shown, (as_reply, {}))
    await _deliver(*(partial(send, one, more) for one, more in ways))


async def _deliver(*ways: Callable[[], Awaitable[object]], again: bool = True) -> bool:
    """Whether one of the ways leads there; after a missing permission the next is tried.

    ``again`` says whether sending twice shows one message: by a nonce, or since it is an edit. Then
    it is repeated where Discord's answer is garbage, too, else that counts as delivered.
    """
    until = time.monotonic() + PATIENCE_S
    for send in ways:
        try:
            await retry(send, partial(pause_s, again=again, until=until))
        except FAILURES as problem:
            nowhere = isinstance(problem, (discord.NotFound, discord.Forbidden))
            if not nowhere and getattr(problem, "code", None) != NO_HISTORY_CODE:
                log.warning("discord: not delivered", extra={"fault": type(problem).__name__})
                return False
        except GARBAGE as problem:
            log.warning("discord: an answer can't be read", extra={"fault": where(problem)})
            return True
        else:
            return True
    log.info("discord: an answer had nowhere to go")
    return False


def pause_s(problem: Exception, failures: int, *, again: bool, until: float) -> float | None:
    """For ``retry``, of calls to Discord; those answered by garbage are repeated only ``again``."""
    passing = (*FAILURES, *GARBAGE) if again and failures <= MOST_GARBAGE else FAILURES
    if not isinstance(problem, passing) or time.monotonic() > until:
        return None
    if isinstance(problem, discord.HTTPException):
        if problem.status != 429 and problem.status < 500:
            return None
        asked = problem.response.headers.get("Retry-After", "")
        if asked.replace(".", "", 1).isdecimal():
            return min(float(asked), LONGEST_RATE_LIMIT_S)
    return backoff_s(failures, 0.5, LONGEST_PAUSE_S)


def _message(reply: Reply) -> dict[str, Any]:
    return {
        "content": reply.text or reply.notice or "",
        "files": _files(reply),
        "view": view_of(reply.buttons) or discord.utils.MISSING,
        "allowed_mentions": discord.AllowedMentions.none(),
    }


def _files(reply: Reply) -> list[discord.File]:
    """Made anew for every attempt: sending reads them to their end."""
    if reply.picture:
        content, name, alt = reply.picture.jpeg, "lookalike.jpg", reply.picture.alt
    elif film := reply.animation:
        content, name, alt = film.content, film.filename, film.alt
    elif reply.document:
        return [discord.File(io.BytesIO(reply.document.content), reply.document.filename)]
    else:
        return []
    about = alt[:1024] or None
    return [discord.File(io.BytesIO(content), name, description=about, spoiler=reply.spoiler)]


def view_of(rows: Rows) -> discord.ui.View | None:
    """Rows of buttons; None where there are none.

    The view is stopped at once: what is pressed comes as an event, also after a restart, and the
    library need not remember every message.
    """
    if not rows:
        return None
    view = discord.ui.View(timeout=None)
    for number, row in enumerate(rows):
        for one in row:
            view.add_item(discord.ui.Button(label=one.label, custom_id=one.action, row=number))
    view.stop()
    return view
