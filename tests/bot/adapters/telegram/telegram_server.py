"""A Bot API server of the tests' own: HTTP on loopback, strict by the documents.

``BotApi`` is what a bot talks to; ``telegram_people`` is what people do. Faults are made to order:
``api.fail("sendPhoto", status=502)``, ``api.drop("sendPhoto")``, ``api.flood("sendPhoto", 1)``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
from aiohttp import web
from multipart_form import FORM, read_form
from telegram_rules import (
    CHAT_ACTIONS,
    MB,
    NOT_BY_DEFAULT,
    UPDATE_KINDS,
    Refusal,
    bad_request,
    check_caption,
    check_commands,
    check_film,
    check_keyboard,
    check_parameters,
    check_photo,
    check_text,
    parse,
    utf16,
)

JSON = dict[str, Any]

# What a message can be about, and what of it has a caption.
CONTENTS = {"text", "photo", "animation", "document"}
MEDIA = {"media": CONTENTS - {"text"}}


@dataclass
class Call:
    """A request that the bot made."""

    method: str
    parameters: JSON
    files: dict[str, bytes]
    at: float
    status: int = 0
    answer: JSON = field(default_factory=dict)


@dataclass
class Chat:
    """What the server knows about a chat."""

    description: JSON
    messages: dict[int, JSON] = field(default_factory=dict)
    outgoing: asyncio.Queue[tuple[str, JSON]] = field(default_factory=asyncio.Queue)
    blocked: bool = False
    started: bool = True
    topics_closed: set[int] = field(default_factory=set)
    forbids_media: bool = False


@dataclass
class File:
    """A file that Telegram holds."""

    content: bytes
    path: str


# Those of one bot rise for ever, whatever runs of it there are.
_UPDATE_IDS = itertools.count(870_000_000)


class BotApi:
    """The server. Use as an asynchronous context manager."""

    def __init__(self, token: str = "") -> None:
        self.token = token or f"{secrets.randbelow(10**9) + 10**9}:{secrets.token_urlsafe(26)}"
        self.me: JSON = {
            "id": int(self.token.split(":")[0]),
            "is_bot": True,
            "first_name": "Lookalike",
            "username": "lookalike_test_bot",
            "can_join_groups": True,
            "can_read_all_group_messages": False,
            "supports_inline_queries": False,
            "supports_guest_queries": True,
        }
        self.calls: list[Call] = []
        self.chats: dict[int, Chat] = {}
        self.files: dict[str, File] = {}
        self.folder = ""  # of a server in local mode
        self.decodes = True  # the photos that it is sent; that takes longer than all else it does
        self.menus: dict[tuple[str, str], list[JSON]] = {}
        self.toasts: dict[str, JSON] = {}
        self.queries: dict[str, float] = {}
        self.query_lives_s = 15.0
        self.guests: dict[str, asyncio.Future[JSON]] = {}
        self.inline: dict[str, JSON] = {}
        self.webhook: JSON = {}
        self.doors: Iterator[list[str]] | None = None  # where a balancer posts the next update
        self.updates: list[JSON] = []
        self.confirmed = 0
        self.delivered: list[int] = []
        self.slow_s: dict[str, float] = defaultdict(float)
        self.turned_away = 0
        self.away, self.back = "", asyncio.Event()
        self._faults: dict[str, deque[Callable[[web.Request], None]]] = defaultdict(deque)
        self._garbled: dict[str, deque[str | None]] = defaultdict(deque)
        self._ids = itertools.count(1000)
        self._news = asyncio.Event()
        self._allowed = UPDATE_KINDS - NOT_BY_DEFAULT
        self._poll = 0
        self._posting: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=60 * MB)
        app.router.add_route("*", "/bot{token:[^/]+}/{method}", self._answer)
        app.router.add_get("/file/bot{token:[^/]+}/{path:.+}", self._download)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await self._site.start()
        self._poster = aiohttp.ClientSession()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._posting:
            task.cancel()
        await asyncio.gather(*self._posting, return_exceptions=True)
        await self._poster.close()
        await self._runner.cleanup()

    # What a test may order

    def fail(self, method: str, *, status: int, times: int = 1) -> None:
        """Answers as a broken gateway does: a status and a page that is no JSON."""

        def fault(_request: web.Request) -> None:
            raise web.HTTPOk(text="<html>broken</html>") if status == 200 else _http(status)

        self._faults[method].extend([fault] * times)

    def refuse(self, method: str, status: int, description: str, **parameters: int) -> None:
        """Answers with an error of the API."""

        def fault(_request: web.Request) -> None:
            raise Refusal(status, description, parameters)

        self._faults[method].append(fault)

    def flood(self, method: str, retry_after: int, *, times: int = 1) -> None:
        """Answers 429 and checks that the bot waits."""

        def fault(_request: web.Request) -> None:
            description = f"Too Many Requests: retry after {retry_after}"
            raise Refusal(429, description, {"retry_after": retry_after})

        self._faults[method].extend([fault] * times)

    def drop(self, method: str, *, times: int = 1) -> None:
        """Closes the connection without an answer."""

        def fault(request: web.Request) -> None:
            assert request.transport
            request.transport.abort()
            raise web.HTTPOk  # which can't be sent any more

        self._faults[method].extend([fault] * times)

    def garble(self, method: str, answer: str | None) -> None:
        """Does what is asked, and then says that, or, for None, closes the connection."""
        self._garbled[method].append(answer)

    def called(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    # What people do arrives here

    def push(self, kind: str, content: JSON) -> int:
        """Queues an update, or posts it to the webhook."""
        update_id = next(_UPDATE_IDS)
        if kind not in self._allowed:
            return update_id
        self.updates.append({"update_id": update_id, kind: content})
        self._news.set()
        if self.webhook.get("url"):
            task = asyncio.ensure_future(self._post_update(self.updates[-1]))
            self._posting.add(task)
            task.add_done_callback(self._posting.discard)
        return update_id

    async def _post_update(self, update: JSON) -> None:
        headers = {"X-Telegram-Bot-Api-Secret-Token": self.webhook.get("secret_token", "")}
        doors = next(self.doors) if self.doors else [self.webhook["url"]]
        for url in doors:
            while True:
                async with self._poster.post(url, json=update, headers=headers) as response:
                    if response.ok:
                        break
                await asyncio.sleep(0.1)
        self.updates.remove(update)

    def new_id(self) -> int:
        return next(self._ids)

    def hold(self, content: bytes, folder: str, suffix: str) -> str:
        """Keeps a file; returns its id."""
        file_id = f"AgACAgIAAxk{secrets.token_urlsafe(30)}"
        self.files[file_id] = File(content, f"{folder}/file_{self.new_id()}{suffix}")
        return file_id

    # HTTP

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        parameters, files = await _read(request)
        if self.away:  # "fails", "hangs" until it is back, or "drops" connections
            self.turned_away += 1
            if self.away == "fails":
                return web.Response(status=502)
            if self.away == "hangs":
                await self.back.wait()
            assert request.transport
            request.transport.abort()
            return web.Response()
        call = Call(method, parameters, files, time.monotonic())
        self.calls.append(call)
        if self.slow_s[method]:
            await asyncio.sleep(self.slow_s[method])
        try:
            self._check_token(request.match_info["token"])
            if self._faults[method]:
                self._faults[method].popleft()(request)
            attached = set(re.findall(r"attach://(\w+)", json.dumps(parameters)))
            check_parameters(method, set(parameters) | (set(files) - attached))
            name = re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", method)
            result = await getattr(self, f"_{name}")(parameters, files)
            status, body = 200, {"ok": True, "result": result}
        except Refusal as refusal:
            status = refusal.status
            body = {"ok": False, "error_code": status, "description": refusal.description}
            if refusal.parameters:
                body["parameters"] = refusal.parameters
        call.status = status
        call.answer = body
        if self._garbled[method]:
            garbage = self._garbled[method].popleft()
            if garbage is None and request.transport:
                request.transport.abort()
            return web.Response(text=garbage or "", content_type="application/json")
        return web.json_response(body, status=status)

    async def _download(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(Call("download", dict(request.match_info), {}, time.monotonic()))
        if self.slow_s["download"]:
            await asyncio.sleep(self.slow_s["download"])
        if self._faults["download"]:
            self._faults["download"].popleft()(request)
        for file in self.files.values():
            if (
                request.match_info["token"] == self.token
                and file.path == request.match_info["path"]
            ):
                return web.Response(body=file.content, content_type="application/octet-stream")
        raise web.HTTPNotFound

    def _check_token(self, token: str) -> None:
        if token != self.token:
            raise Refusal(401, "Unauthorized")

    # Methods

    async def _get_me(self, _given: JSON, _files: JSON) -> JSON:
        return self.me

    async def _get_updates(self, given: JSON, _files: JSON) -> list[JSON]:
        if self.webhook.get("url"):
            raise Refusal(409, "Conflict: can't use getUpdates method while webhook is active")
        self._allow(given)
        offset, limit = int(given.get("offset", 0)), int(given.get("limit", 100))
        if not 1 <= limit <= 100:
            raise bad_request("limit must be between 1 and 100")
        self._poll = poll = self._poll + 1
        self.updates = [item for item in self.updates if item["update_id"] >= offset]
        self.confirmed = max(self.confirmed, offset - 1)
        until = time.monotonic() + int(given.get("timeout", 0))
        while not self.updates and (left_s := until - time.monotonic()) > 0:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), left_s)
            except TimeoutError:
                break
            if poll != self._poll:
                raise Refusal(409, "Conflict: terminated by other getUpdates request")
        found = self.updates[:limit]
        self.delivered += [update["update_id"] for update in found]
        return found

    def _allow(self, given: JSON) -> None:
        if kinds := given.get("allowed_updates"):
            if unknown := set(kinds) - UPDATE_KINDS:
                raise bad_request(f"unknown update type {min(unknown)}")
            self._allowed = frozenset(kinds)

    async def _set_webhook(self, given: JSON, _files: JSON) -> bool:
        self._allow(given)
        self.webhook = given
        return True

    async def _delete_webhook(self, given: JSON, _files: JSON) -> bool:
        self.webhook = {}
        if given.get("drop_pending_updates"):
            self.updates.clear()
        return True

    async def _get_file(self, given: JSON, _files: JSON) -> JSON:
        file = self.files.get(given["file_id"])
        if file is None:
            raise bad_request("wrong file_id or the file is temporarily unavailable")
        if len(file.content) > 20 * MB:
            raise bad_request("file is too big")
        return {
            "file_id": given["file_id"],
            "file_unique_id": given["file_id"][-12:],
            "file_size": len(file.content),
            "file_path": f"{self.folder}/photo.jpg" if self.folder else file.path,
        }

    async def _send_message(self, given: JSON, _files: JSON) -> JSON:
        return self._sent(given, {"text": check_text(str(given["text"]))})

    async def _send_photo(self, given: JSON, files: dict[str, bytes]) -> JSON:
        content = {"photo": self._photo(given.get("photo"), files, "photo"), **_about(given)}
        if self._chat(given).forbids_media:
            raise bad_request("not enough rights to send photos to the chat")
        return self._sent(given, content)

    async def _send_animation(self, given: JSON, files: dict[str, bytes]) -> JSON:
        content = {**self._animation(given, given.get("animation"), files), **_about(given)}
        if self._chat(given).forbids_media:
            raise bad_request("not enough rights to send animations to the chat")
        return self._sent(given, content)

    async def _send_document(self, given: JSON, files: dict[str, bytes]) -> JSON:
        if "document" not in files:
            raise bad_request("there is no document in the request")
        if self._chat(given).forbids_media:
            raise bad_request("not enough rights to send documents to the chat")
        content = files["document"]
        file_id = self.hold(content, "documents", "")
        document = {"file_id": file_id, "file_unique_id": file_id[-12:], "file_size": len(content)}
        return self._sent(given, {"document": document, **_caption(given)})

    async def _edit_message_text(self, given: JSON, _files: JSON) -> JSON | bool:
        return self._edited(given, {"text": check_text(str(given.get("text", "")))}, needs="text")

    async def _edit_message_caption(self, given: JSON, _files: JSON) -> JSON | bool:
        return self._edited(given, _caption(given), needs="media")

    async def _edit_message_media(self, given: JSON, files: dict[str, bytes]) -> JSON | bool:
        media = given["media"]
        if media.get("type") not in {"photo", "animation"}:
            raise bad_request("this server edits photos and animations only")
        if given.get("inline_message_id") and str(media["media"]).startswith("attach://"):
            raise bad_request("a new file can't be uploaded for an inline message")
        if media["type"] == "animation":
            moving = self._animation(media, media["media"], files)
            return self._edited(given, {**moving, **_about(media)})
        photo = self._photo(media["media"], files, "")
        return self._edited(given, {"photo": photo, **_about(media)})

    async def _edit_message_reply_markup(self, given: JSON, _files: JSON) -> JSON | bool:
        return self._edited(given, {})

    async def _delete_message(self, given: JSON, _files: JSON) -> bool:
        if self._chat(given).messages.pop(int(given["message_id"]), None) is None:
            raise bad_request("message to delete not found")
        return True

    async def _forward_message(self, given: JSON, _files: JSON) -> JSON:
        original = self.chats[int(given["from_chat_id"])].messages.get(int(given["message_id"]))
        if original is None:
            raise bad_request("message to forward not found")
        chat, media = self._chat(given), {"photo", "document", "video", "text", "caption"}
        copy = {key: value for key, value in original.items() if key in media}
        copy |= {"message_id": self.new_id(), "chat": chat.description, "from": self.me, "date": 1}
        copy["forward_origin"] = {"type": "user", "sender_user": original["from"], "date": 1}
        chat.messages[copy["message_id"]] = copy
        return copy

    async def _answer_callback_query(self, given: JSON, _files: JSON) -> bool:
        if utf16(str(given.get("text", ""))) > 200:
            raise bad_request("MESSAGE_TOO_LONG")
        made = self.queries.pop(given["callback_query_id"], None)
        if made is None or time.monotonic() - made > self.query_lives_s:
            raise bad_request(
                "query is too old and response timeout expired or query ID is invalid"
            )
        self.toasts[given["callback_query_id"]] = given
        return True

    async def _send_chat_action(self, given: JSON, _files: JSON) -> bool:
        if given["action"] not in CHAT_ACTIONS:
            raise bad_request("wrong parameter action in request")
        self._chat(given)
        return True

    async def _answer_guest_query(self, given: JSON, _files: JSON) -> JSON:
        waiting = self.guests.get(given["guest_query_id"])
        if waiting is None or waiting.done():
            raise bad_request("GUEST_QUERY_ID_INVALID")
        result = given["result"]
        if not result.get("id") or len(str(result["id"]).encode()) > 64:
            raise bad_request("RESULT_ID_INVALID")
        if result["type"] == "photo" and result.get("photo_file_id") not in self.files:
            raise bad_request("wrong remote file identifier specified")
        if result["type"] == "mpeg4_gif" and result.get("mpeg4_file_id") not in self.files:
            raise bad_request("wrong remote file identifier specified")
        if result["type"] == "article":
            check_text(result["input_message_content"]["message_text"])
        check_caption(result.get("caption", ""))
        if "reply_markup" in result:
            check_keyboard(result["reply_markup"])
        inline_id = secrets.token_urlsafe(20)
        kinds = {"photo": "photo", "mpeg4_gif": "animation"}
        self.inline[inline_id] = {kinds.get(result["type"], "text"): ""}
        waiting.set_result({**result, "inline_message_id": inline_id})
        return {"inline_message_id": inline_id}

    async def _set_my_commands(self, given: JSON, _files: JSON) -> bool:
        check_commands(given["commands"])
        scope = given.get("scope", {"type": "default"})["type"]
        self.menus[scope, given.get("language_code", "")] = given["commands"]
        return True

    # Messages

    def _chat(self, given: JSON) -> Chat:
        chat = self.chats.get(int(given["chat_id"]))
        if chat is None:
            raise bad_request("chat not found")
        if chat.blocked:
            raise Refusal(403, "Forbidden: bot was blocked by the user")
        if not chat.started:
            raise Refusal(403, "Forbidden: bot can't initiate conversation with a user")
        return chat

    def _photo(self, given: Any, files: dict[str, bytes], name: str) -> list[JSON]:
        if isinstance(given, str) and given.startswith("attach://"):
            name = given.removeprefix("attach://")
        elif given is not None:
            if given not in self.files:
                raise bad_request("wrong remote file identifier specified")
            return photo_sizes(given, *check_photo(self.files[given].content))
        if name not in files:
            raise bad_request("there is no photo in the request")
        size = check_photo(files[name], whole=self.decodes)
        return photo_sizes(self.hold(files[name], "photos", ".jpg"), *size)

    def _animation(self, told: JSON, given: Any, files: dict[str, bytes]) -> JSON:
        """As Telegram tells of one: the field ``document`` is set, too."""
        name = str(given).removeprefix("attach://") if given is not None else "animation"
        if name in files:
            check_film(files[name])
            given = self.hold(files[name], "animations", ".mp4")
        elif given not in self.files:
            raise bad_request("wrong remote file identifier specified")
        file = {"file_id": given, "file_unique_id": given[-12:], "mime_type": "video/mp4"}
        measures = {side: int(told.get(side, 0)) for side in ("width", "height", "duration")}
        return {"animation": {**file, **measures}, "document": file}

    def _sent(self, given: JSON, content: JSON) -> JSON:
        chat = self._chat(given)
        message: JSON = {
            "message_id": self.new_id(),
            "date": int(time.time()),
            "chat": chat.description,
            "from": self.me,
            **content,
        }
        thread = given.get("message_thread_id")
        if thread is not None:
            if thread in chat.topics_closed:
                raise bad_request("message thread not found")
            message |= {"message_thread_id": thread, "is_topic_message": True}
        if reply := given.get("reply_parameters"):
            original = chat.messages.get(int(reply["message_id"]))
            if original is None and not reply.get("allow_sending_without_reply"):
                raise bad_request("message to be replied not found")
            if original is not None:
                message["reply_to_message"] = without_reply(original)
        if "reply_markup" in given:
            check_keyboard(given["reply_markup"])
            message["reply_markup"] = given["reply_markup"]
        chat.messages[message["message_id"]] = message
        chat.outgoing.put_nowait(("sent", message))
        return message

    def _edited(self, given: JSON, content: JSON, *, needs: str = "") -> JSON | bool:
        if "reply_markup" in given:
            check_keyboard(given["reply_markup"])
        if inline_id := given.get("inline_message_id"):
            if inline_id not in self.inline:
                raise bad_request("MESSAGE_ID_INVALID")
            if needs and not MEDIA.get(needs, {needs}) & self.inline[inline_id].keys():
                raise bad_request(f"there is no {needs} in the message to edit")
            self.inline[inline_id] |= content
            return True
        chat = self._chat(given)
        old = chat.messages.get(int(given["message_id"]))
        if old is None:
            raise bad_request("message to edit not found")
        if needs and not MEDIA.get(needs, {needs}) & old.keys():
            raise bad_request(f"there is no {needs} in the message to edit")
        new = {key: value for key, value in old.items() if key not in {"reply_markup", "caption"}}
        replaced = content.keys() & CONTENTS
        if replaced:
            new = {key: value for key, value in new.items() if key not in CONTENTS}
        if "caption" in old and not replaced:
            new["caption"] = old["caption"]
        new |= content
        if "reply_markup" in given:
            new["reply_markup"] = given["reply_markup"]
        if new == old:
            raise bad_request(
                "message is not modified: specified new message content and reply markup are "
                "exactly the same as a current content and reply markup of the message"
            )
        new["edit_date"] = int(time.time())
        chat.messages[old["message_id"]] = new
        chat.outgoing.put_nowait(("edited", new))
        return new


def photo_sizes(file_id: str, width: int, height: int) -> list[JSON]:
    return [{"file_id": file_id, "file_unique_id": file_id[-12:], "width": width, "height": height}]


def without_reply(message: JSON) -> JSON:
    return {key: value for key, value in message.items() if key != "reply_to_message"}


def _caption(given: JSON) -> JSON:
    caption = check_caption(str(given.get("caption", "")))
    return {"caption": caption} if caption else {}


def _about(given: JSON) -> JSON:
    return _caption(given) | ({"has_media_spoiler": True} if given.get("has_spoiler") else {})


def _http(status: int) -> web.HTTPException:
    problem = web.HTTPException(text="<html>broken gateway</html>", content_type="text/html")
    problem.set_status(status)
    return problem


async def _read(request: web.Request) -> tuple[JSON, dict[str, bytes]]:
    """Parameters from the address, JSON, a form or multipart form data."""
    parameters: JSON = {key: parse(value) for key, value in request.query.items()}
    files: dict[str, bytes] = {}
    kind = request.headers.get("Content-Type", "")
    if kind.startswith("application/json"):
        parameters |= json.loads(await request.text() or "{}")
    elif request.method == "POST":
        fields: dict[str, Any] = {}
        if kind.startswith(FORM):
            fields, files = await read_form(request)
        else:
            fields |= await request.post()
        for key, value in fields.items():
            parameters[key] = value if key in {"text", "caption"} else parse(value)
    return parameters, files
