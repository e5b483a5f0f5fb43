"""Delivers replies as Telegram messages: within its limits, its rates, and despite failures."""

import asyncio
import contextlib
import io
import json
import logging
import math
import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
import telegram
from telegram import InputMediaAnimation, InputMediaPhoto, Message
from telegram.error import BadRequest, ChatMigrated, NetworkError, RetryAfter, TelegramError
from telegram.ext import AIORateLimiter
from telegram.request import BaseRequest, RequestData

from bot.adapters import backoff_s, retry
from bot.text import shorten, utf16_length
from bot.values import Animation, Limits, Reply, Rows

log = logging.getLogger(__name__)
T = TypeVar("T")
JSON = dict[str, Any]
Media = InputMediaPhoto | InputMediaAnimation | None
Send = Callable[..., Awaitable[Message]]

# The library warns at every 429 until its coming way to tell time spans is chosen
# (python-telegram-bot 22.2, telegram.error.RetryAfter).
os.environ.setdefault("PTB_TIMEDELTA", "true")

# The rest is what ``Limits`` says without a platform (https://core.telegram.org/bots/api:
# sendMessage, sendPhoto, sendDocument, sendAnimation, InlineKeyboardButton). Three buttons side by
# side are as many as a phone shows with their words.
TELEGRAM_LIMITS = Limits(buttons_per_row=3, button_rows=10, patient=False)
# How long a failing delivery is retried, and how long one attempt may take.
PATIENCE_S, ATTEMPT_S = 1800.0, 120.0
READ_S = 20.0
NO_ANSWER, MOST_GARBAGE = "no answer of the Bot API", 1
TWINS_WITHIN = 4  # messages; in private chats those of other chats are numbered between
ANY_URL = httpx.URL("http://localhost")  # to read one takes longer than to make a form
IS_JSON = {"Content-Type": "application/json"}
MOST_AT_ONCE_BYTES = 2**19
# Of what was sent; the library takes half its time to read them.
KNOWN = ("from", "reply_to_message", "reply_markup")
# What the library raises where Telegram has done something, and says nobody knows what of it.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
# Nobody waits longer than this for an answer; Telegram names hours after gross abuse.
LONGEST_RATE_LIMIT_S = 600.0
MOST_RATE_LIMITS, WORDS_PAUSE_S = 10, 0.02
# Shown for a moment only: worth nothing once it would have to wait.
MOMENTARY = frozenset({"sendChatAction", "answerCallbackQuery", "deleteMessage"})
PICTURE_NAME = "lookalike.jpg"
# What a closed topic or a lost question is refused with.
MISPLACED = re.compile("thread|topic|repl", re.IGNORECASE)
NO_PREVIEW = telegram.LinkPreviewOptions(is_disabled=True)


class ChatRateLimiter(AIORateLimiter):
    """The library's rate limiter, but one chat's flood control never makes another chat wait.

    ``AIORateLimiter`` stops every request after a 429. Telegram counts per chat as a rule, so here
    only that chat waits, and its answer is delivered afterwards. What is shown for a moment only
    (the typing sign) neither counts as a message nor is repeated. Words, as refusals are, wait
    until no picture waits.
    """

    __slots__ = ("_pictures", "_words")

    def __init__(self) -> None:
        super().__init__(max_retries=0)
        self._pictures, self._words = 0, asyncio.Lock()

    # The library calls it by keywords.
    async def process_request(self, *, endpoint: str, **call: Any) -> Any:  # type: ignore[override]
        """Sends a request when the limits allow it, again after each 429.

        Raises RetryAfter after the last repetition, or for a pause that nobody would wait for.
        """
        if endpoint in MOMENTARY:
            return await asyncio.create_task(call["callback"](*call["args"], **call["kwargs"]))

        def pause_s(problem: Exception, failures: int) -> float | None:
            asked_s = seconds_asked(problem) if isinstance(problem, RetryAfter) else math.inf
            if failures > MOST_RATE_LIMITS or asked_s > LONGEST_RATE_LIMIT_S:
                return None
            log.info("telegram: %s has to wait %.0f s", endpoint, asked_s)
            return asked_s + 0.1

        waits, callback = endpoint != "sendMessage", call["callback"]

        def leave() -> None:
            nonlocal waits
            self._pictures -= waits
            waits = False

        async def begin(*args: Any, **kwargs: Any) -> Any:
            leave()
            return await callback(*args, **kwargs)

        send = partial(super().process_request, endpoint=endpoint, **call | {"callback": begin})
        if not waits and self._base_limiter:
            async with self._words:
                while self._pictures or not self._base_limiter.has_capacity():  # noqa: ASYNC110
                    await asyncio.sleep(WORDS_PAUSE_S)
        self._pictures += waits
        try:
            return await retry(send, pause_s)
        finally:
            leave()


class Sender:
    """Delivers replies.

    A network failure is retried with growing pauses: what then arrived twice is deleted where that
    can be told. Where Telegram's answers to a picture stay garbage it is sent as words. Somebody
    who blocked the bot gets nothing, and that is no error.
    """

    def __init__(self, bot: telegram.Bot) -> None:
        self._bot = bot

    async def send(self, place: JSON, reply: Reply) -> Message | None:
        """Sends a reply; returns the message, or None if nothing could be delivered."""
        more: JSON = {"api_kwargs": keyboard(reply.buttons)}
        text = _sendable(reply.text or reply.notice or "")
        try:
            for upload in _uploads(self._bot, reply):
                caption = _sendable(reply.text)
                try:
                    return await self._insert(place, partial(upload, caption=caption, **more))
                except NetworkError as problem:
                    if problem.message == NO_ANSWER:
                        break
                    if not isinstance(problem, BadRequest):
                        raise
                    log.info("telegram: a file is refused: %s", problem)
            if text:
                more["link_preview_options"] = NO_PREVIEW
                return await self._insert(place, partial(self._bot.send_message, text=text, **more))
        except TelegramError as problem:
            log.info("telegram: an answer can't be delivered: %s", _why(problem))
        return None

    async def replace(self, message: Message, place: JSON, reply: Reply) -> Message | None:
        """Puts a reply in the place of a message, or sends it where that can't be done.

        Returns the message that carries the reply; None if nothing could be delivered.
        """
        hidden = reply.spoiler or bool(message.has_media_spoiler)
        media = _media(reply, caption=_sendable(reply.text), has_spoiler=hidden)
        is_text = bool(message.text) and media is None
        limit = TELEGRAM_LIMITS.text_chars if is_text else TELEGRAM_LIMITS.caption_chars
        if reply.document or utf16_length(reply.text) > limit:
            return await self.send(place, reply)
        target = {"chat_id": message.chat.id, "message_id": message.message_id}
        try:
            edited = await self._edit(target, reply, media, is_text=is_text)
        except (BadRequest, ChatMigrated) as problem:
            if "not modified" in problem.message.lower():
                return message
            return await self.send(place, reply)
        except TelegramError as problem:
            log.info("telegram: a message can't be changed: %s", _why(problem))
            return None
        return edited if isinstance(edited, Message) else message

    async def _edit(
        self, target: JSON, reply: Reply, media: Media, *, is_text: bool
    ) -> Message | bool:
        bot, text = self._bot, _sendable(reply.text)
        edit: Callable[..., Awaitable[Message | bool]]
        if media:
            edit = partial(bot.edit_message_media, media=media)
        elif not text:
            edit = bot.edit_message_reply_markup
        elif is_text:
            edit = partial(bot.edit_message_text, text=text, link_preview_options=NO_PREVIEW)
        else:
            caption = shorten(text, TELEGRAM_LIMITS.caption_chars)
            edit = partial(bot.edit_message_caption, caption=caption)
        return await _deliver(partial(edit, **target, api_kwargs=keyboard(reply.buttons)))

    async def _insert(self, place: JSON, send: Send) -> Message:
        """Sends a message; once more as a plain one where it is refused as a reply in a topic."""
        for attempt in count():
            try:
                return await _deliver(partial(send, **place), place.get("reply_parameters"))
            except ChatMigrated as problem:
                if attempt > 1:
                    raise
                place = {"chat_id": problem.new_chat_id}
            except BadRequest as problem:
                if attempt or not MISPLACED.search(problem.message):
                    raise
                place = {"chat_id": place["chat_id"]}
        raise AssertionError("unreachable")

    # Guest mode (Bot API 10.0): the bot is named in a chat that it is not a member of.
    #
    # Its answer there is one inline message, and those carry only pictures that Telegram holds
    # already (https://core.telegram.org/bots/api#editmessagemedia). So the picture is uploaded to
    # the asker's private chat, without a sound, and deleted there at once. Somebody who never
    # started the bot has no such chat and gets the answer in words.

    async def answer_guest(self, query_id: str, asker_id: int | None, reply: Reply) -> str | None:
        """Answers a guest message; returns the inline message's id, or None if it can't be."""
        if reply.silent:
            return None
        text = _sendable(reply.text or reply.notice or "") or "…"
        content = telegram.InputTextMessageContent(text, link_preview_options=NO_PREVIEW)
        more: JSON = {"api_kwargs": keyboard(reply.buttons)}
        title = text.splitlines()[0][:64]
        results: list[telegram.InlineQueryResult]
        results = [telegram.InlineQueryResultArticle("1", title, content, **more)]
        async with self._uploaded(asker_id, reply) as uploaded:
            if uploaded:
                more["caption"] = shorten(_sendable(reply.text), TELEGRAM_LIMITS.caption_chars)
                picture: telegram.InlineQueryResult
                if uploaded.animation:
                    film_id = uploaded.animation.file_id
                    picture = telegram.InlineQueryResultCachedMpeg4Gif("1", film_id, **more)
                else:
                    photo_id = uploaded.photo[-1].file_id
                    picture = telegram.InlineQueryResultCachedPhoto(
                        "1", photo_id, PICTURE_NAME, **more
                    )
                results.insert(0, picture)
            for result in results:
                answer = partial(self._bot.answer_guest_query, query_id, result)
                try:
                    return (await _deliver(answer)).inline_message_id
                except BadRequest:
                    continue  # words are taken where a picture is not
                except TelegramError as problem:
                    log.info("telegram: a guest's answer can't be delivered: %s", _why(problem))
                    break
        return None

    async def replace_inline(self, inline_message_id: str, asker_id: int, reply: Reply) -> None:
        """Puts a reply in the place of an inline message."""
        target = {"inline_message_id": inline_message_id}
        async with self._uploaded(asker_id, reply) as uploaded:
            caption = shorten(_sendable(reply.text), TELEGRAM_LIMITS.caption_chars)
            media = _media(reply, uploaded, caption=caption) if uploaded else None
            try:
                if media:
                    await self._edit(target, reply, media, is_text=False)
                elif caption:
                    try:
                        await self._edit(target, reply, None, is_text=False)
                    except BadRequest:  # it is a message without a picture
                        await self._edit(target, reply, None, is_text=True)
            except TelegramError as problem:
                log.info("telegram: a guest's answer can't be changed: %s", type(problem).__name__)

    @contextlib.asynccontextmanager
    async def _uploaded(self, asker_id: int | None, reply: Reply) -> AsyncIterator[Message | None]:
        """The reply's picture or film in the asker's private chat while the block runs.

        None where there is none, or no way to send it.
        """
        uploaded = None
        if asker_id is not None and (reply.picture or reply.animation):
            upload = _uploads(self._bot, reply)[0]
            try:
                uploaded = await upload(chat_id=asker_id, disable_notification=True)
            except (telegram.error.Forbidden, BadRequest):
                pass  # never started, or blocked
            except TelegramError as problem:
                log.info("telegram: a picture can't be uploaded: %s", type(problem).__name__)
        try:
            yield uploaded
        finally:
            if uploaded:
                with contextlib.suppress(TelegramError):
                    await uploaded.delete()


def connections(base_url: str) -> aiohttp.ClientSession:
    """A pool of connections to a Bot API server, through a proxy where the environment names one.

    By aiohttp: httpx, which the library uses otherwise, takes twice the processor time.
    """
    url, paths = urlsplit(base_url), ssl.get_default_verify_paths()
    # The system's authorities, which aiohttp knows, or else certifi's, which take 50 ms to read.
    known = paths.cafile or (paths.capath and any(Path(paths.capath).iterdir()))
    proxies = {} if proxy_bypass(url.hostname or "") else getproxies()
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=256, ssl=bool(known) or httpx.create_ssl_context()),
        timeout=_timeout(READ_S),
        headers={"User-Agent": BaseRequest.USER_AGENT},
        cookie_jar=aiohttp.DummyCookieJar(),
        # Found once: aiohttp would read the environment and .netrc before each request.
        proxy=proxies.get(url.scheme, proxies.get("all")),
    )


def _timeout(read_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(ATTEMPT_S, sock_connect=10, sock_read=read_s)


class ApiRequest(BaseRequest):
    """Requests; an answer that is none of the Bot API (a gateway's page) is a network failure."""

    read_timeout = READ_S

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self.client = client

    async def initialize(self) -> None:
        """Whoever made the client opens and closes it."""

    shutdown = initialize

    async def do_request(  # type: ignore[override] # the library calls it by keywords
        self, url: str, method: str, request_data: RequestData | None = None, **given: Any
    ) -> tuple[int, bytes]:
        """Status and body of an answer; raises NetworkError, or TimedOut."""
        read_s, options = given.get("read_timeout"), JSON()
        if request_data and (files := request_data.multipart_data):
            # aiohttp would make a stream of each field: a millisecond for a picture.
            form = httpx.Request(method, ANY_URL, data=request_data.json_parameters, files=files)
            content_type, content = form.headers["Content-Type"], form.read()
            # What is large is sent in pieces, the rest with its header.
            body = content if len(content) <= MOST_AT_ONCE_BYTES else io.BytesIO(content)
            options = {"data": body, "headers": {"Content-Type": content_type}}
        elif request_data and request_data.parameters:
            options = {"data": json.dumps(request_data.parameters).encode(), "headers": IS_JSON}
        options["timeout"] = _timeout(read_s if isinstance(read_s, float) else READ_S)
        asking = self.client.request(method, url, allow_redirects=False, **options)
        try:
            async with asking as response:
                return response.status, await response.read()
        except TimeoutError as problem:
            raise telegram.error.TimedOut from problem
        except (aiohttp.ClientError, OSError) as problem:
            raise NetworkError(type(problem).__name__) from problem

    @staticmethod
    def parse_json_payload(payload: bytes) -> JSON:
        """See the library; raises NetworkError."""
        with contextlib.suppress(ValueError):
            answer = json.loads(payload)
            if isinstance(answer, dict) and ("result" in answer or answer.get("ok") is False):
                if isinstance(sent := answer.get("result"), dict):
                    for known in KNOWN:
                        sent.pop(known, None)
                return answer
        raise NetworkError(NO_ANSWER)


async def _deliver(
    call: Callable[[], Awaitable[T]], answers: telegram.ReplyParameters | None = None
) -> T:
    """The result of a request, which is repeated while the network fails."""
    until, failed = time.monotonic() + PATIENCE_S, 0

    async def deliver() -> T:
        try:
            return await call()
        except UNREADABLE as problem:
            raise TelegramError("unreadable") from problem

    def pause_s(problem: Exception, failures: int) -> float | None:
        nonlocal failed
        failed = failures
        if not isinstance(problem, NetworkError) or isinstance(problem, BadRequest):
            return None
        if problem.message == NO_ANSWER and failures > MOST_GARBAGE:
            return None  # each may have been delivered
        wait_s = backoff_s(failures, 0.5, 15.0)
        return wait_s if time.monotonic() + wait_s <= until else None

    done = await retry(deliver, pause_s)
    if failed and isinstance(done, Message) and done.photo and not done.edit_date:
        await _delete_twin(done, answers.message_id if answers else 0)
    return done


async def _delete_twin(sent: Message, asked: int) -> None:
    """Deletes what stands before a picture and says the same: it had arrived the first time.

    What a message holds only a forwarded copy tells, which makes no sound and is deleted at once.
    """
    here, bot = sent.chat.id, sent.get_bot()
    for one in range(sent.message_id - 1, max(asked, sent.message_id - TWINS_WITHIN), -1):
        with contextlib.suppress(TelegramError, *UNREADABLE):
            copy = await bot.forward_message(here, here, one, disable_notification=True)
            await copy.delete()
            author = getattr(copy.forward_origin, "sender_user", None)
            if author and author.id == bot.id and copy.photo and copy.caption == sent.caption:
                await bot.delete_message(here, one)
                return


def _why(problem: TelegramError) -> str:
    # A BadRequest's message is Telegram's for developers and holds no id.
    cause = type(problem.__cause__ or problem).__name__
    return problem.message if isinstance(problem, (BadRequest, ChatMigrated)) else cause


def _uploads(bot: telegram.Bot, reply: Reply) -> list[Send]:
    """How to send the file of a reply: as what it is, then as a plain file if that is refused."""
    if document := reply.document:
        return [partial(bot.send_document, document=document.content, filename=document.filename)]
    send: Send
    if picture := reply.picture:
        content, name = picture.jpeg, PICTURE_NAME
        send = partial(bot.send_photo, photo=content)
    elif film := reply.animation:
        content, name = film.content, film.filename
        send = partial(bot.send_animation, animation=content, **_measures(film))
    else:
        return []
    return [
        partial(send, filename=name, has_spoiler=reply.spoiler),
        partial(bot.send_document, document=content, filename=name),
    ]


def _media(reply: Reply, uploaded: Message | None = None, **more: Any) -> Media:
    """The picture or film of a reply, or what Telegram holds of it, to be put into a message."""
    if picture := reply.picture:
        photo = uploaded.photo[-1].file_id if uploaded else picture.jpeg
        return InputMediaPhoto(photo, filename=PICTURE_NAME, **more)
    if film := reply.animation:
        held = uploaded.animation if uploaded else None
        content = held.file_id if held else film.content
        return InputMediaAnimation(content, filename=film.filename, **_measures(film), **more)
    return None


def _measures(film: Animation) -> JSON:
    """Known beforehand, so that a chat shows the frame while the film still loads."""
    duration_s = max(1, round(film.duration_s))
    return {"width": film.width_px, "height": film.height_px, "duration": duration_s}


def keyboard(rows: Rows) -> JSON | None:
    """The buttons as Telegram takes them; None where there are none."""
    # As they are: the library makes 18 attributes of each, and JSON of those.
    buttons = [[{"text": one.label, "callback_data": one.action} for one in row] for row in rows]
    buttons = [row for row in buttons if row]
    return {"reply_markup": {"inline_keyboard": buttons}} if buttons else None


def _sendable(text: str) -> str:
    """The text stripped; what is no character (a lone surrogate) becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").strip()


def seconds_asked(problem: RetryAfter) -> float:
    """Seconds that Telegram asks to wait."""
    asked = problem.retry_after
    return asked.total_seconds() if isinstance(asked, timedelta) else float(asked)
