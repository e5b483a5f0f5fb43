"""What people do in Telegram, so that a test reads like a script.

``person = Person(api)``; ``chat = person.private_chat()``; ``await chat.send_photo(jpeg)``;
``reply = await chat.reply()``; ``await chat.press(reply, "More matches")``.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps
from telegram_rules import entities
from telegram_server import JSON, BotApi, Chat, photo_sizes, without_reply

_numbers = itertools.count(5_000_000_000)


@dataclass
class Received:
    """A message of the bot as a person sees it."""

    api: BotApi
    kind: str
    message: JSON

    @property
    def id(self) -> int:
        return int(self.message["message_id"])

    @property
    def words(self) -> str:
        return str(self.message.get("text") or self.message.get("caption") or "")

    @property
    def picture(self) -> bytes | None:
        """The JPEG that arrived, or None."""
        photo = self.message.get("photo")
        return self.api.files[photo[-1]["file_id"]].content if photo else None

    @property
    def film(self) -> bytes | None:
        """The animation that arrived, or None."""
        animation = self.message.get("animation")
        return self.api.files[animation["file_id"]].content if animation else None

    @property
    def document(self) -> bytes | None:
        document = self.message.get("document")
        return self.api.files[document["file_id"]].content if document else None

    @property
    def answers_to(self) -> int | None:
        original = self.message.get("reply_to_message")
        return original["message_id"] if original else None

    @property
    def buttons(self) -> dict[str, str]:
        """Label -> what comes back when it is pressed."""
        rows = self.message.get("reply_markup", {}).get("inline_keyboard", [])
        return {button["text"]: button["callback_data"] for row in rows for button in row}


class Person:
    """Somebody with a Telegram account."""

    def __init__(self, api: BotApi, *, language: str | None = "en", **account: Any) -> None:
        self.api = api
        self.account: JSON = {"id": next(_numbers), "is_bot": False, "first_name": "Ada", **account}
        if language:
            self.account["language_code"] = language

    @property
    def id(self) -> int:
        return int(self.account["id"])

    def private_chat(self, *, started: bool = True) -> Talk:
        """The chat between this person and the bot."""
        return Talk(self, {"id": self.id, "type": "private", "first_name": "Ada"}, started=started)


def group(*members: Person, forum: bool = False) -> tuple[Talk, ...]:
    """A supergroup, as each of its members sees it."""
    chat: JSON = {"id": -next(_numbers) - 10**12, "type": "supergroup", "title": "Friends"}
    if forum:
        chat["is_forum"] = True
    return tuple(Talk(member, chat) for member in members)


class Talk:
    """A chat through the eyes of one person."""

    def __init__(self, person: Person, chat: JSON, *, started: bool = True) -> None:
        self.person = person
        self.api = person.api
        self.chat = self.api.chats.setdefault(chat["id"], Chat(chat, started=started))
        self.topic: int | None = None
        self.sender_chat: JSON | None = None
        self.last_update = 0

    @property
    def id(self) -> int:
        return int(self.chat.description["id"])

    # Sending

    async def say(self, words: str, **more: Any) -> int:
        """Writes a message; returns its id."""
        return await self._write({"text": words, "entities": entities(words)}, **more)

    async def send_photo(self, picture: bytes, caption: str = "", **more: Any) -> int:
        """Sends a picture as Telegram does: upright, without EXIF, in several sizes."""
        return await self._write(await self.photo(picture, caption), **more)

    async def photo(self, picture: bytes, caption: str = "") -> JSON:
        """What the message of a picture holds."""
        sizes = await asyncio.to_thread(self._photo_sizes, picture)
        return {"photo": sizes, **_caption(caption)}

    async def send_file(
        self,
        content: bytes,
        name: str,
        media_type: str | None,
        caption: str = "",
        *,
        claimed_size: int | None = None,
        **more: Any,
    ) -> int:
        """Sends a file untouched."""
        file_id = self.api.hold(content, "documents", "")
        document = {
            "file_id": file_id,
            "file_unique_id": file_id[-12:],
            "file_name": name,
            "file_size": claimed_size or len(content),
        }
        if media_type:
            document["mime_type"] = media_type
        return await self._write({"document": document, **_caption(caption)}, **more)

    async def send_album(self, items: Sequence[bytes | JSON], caption: str = "") -> list[int]:
        """Sends pictures and other content as one album, the caption on the first picture.

        All at once: however busy the machine is, there is no pause between them.
        """
        album, contents = secrets.token_hex(8), []
        for item in items:
            if isinstance(item, bytes):
                contents.append(await self.photo(item, caption))
                caption = ""
            else:
                contents.append(item)
        return [await self._write(content, media_group_id=album) for content in contents]

    async def edit_caption(self, message_id: int, words: str) -> None:
        """Changes what stands under a photo."""
        message = self.chat.messages[message_id] | _caption(words) | {"edit_date": int(time.time())}
        self.chat.messages[message_id] = message
        self.last_update = self.api.push("edited_message", message)

    async def send_other(self, **content: Any) -> int:
        """Sends any other kind of message."""
        return await self._write(content)

    async def mention_as_guest(
        self, words: str, *, picture: bytes | None = None, answers: int | None = None
    ) -> JSON:
        """Names the bot in a chat that it is not in; returns the inline result it answers."""
        query_id = f"guest-{secrets.token_hex(8)}"
        waiting: asyncio.Future[JSON] = asyncio.get_running_loop().create_future()
        self.api.guests[query_id] = waiting
        content: JSON = {"text": words, "entities": entities(words)}
        if picture:
            content = {"photo": self._photo_sizes(picture), **_caption(words)}
        message = self._message(content, answers=answers) | {"guest_query_id": query_id}
        self.api.push("guest_message", message)
        return await asyncio.wait_for(waiting, 10)

    async def press(self, received: Received, label: str, *, forgotten: bool = False) -> str:
        """Presses a button; returns the query's id."""
        query_id = f"query-{secrets.token_hex(8)}"
        self.api.queries[query_id] = time.monotonic()
        message = self.chat.messages.get(received.id, received.message)
        if forgotten:
            message = {"chat": self.chat.description, "message_id": received.id, "date": 0}
        self.api.push(
            "callback_query",
            {
                "id": query_id,
                "from": self.person.account,
                "message": message,
                "chat_instance": "7" * 18,
                "data": received.buttons[label],
            },
        )
        return query_id

    async def press_inline(self, result: JSON, label: str) -> str:
        """Presses a button of a guest's answer."""
        query_id = f"query-{secrets.token_hex(8)}"
        self.api.queries[query_id] = time.monotonic()
        rows = result["reply_markup"]["inline_keyboard"]
        data = {button["text"]: button["callback_data"] for row in rows for button in row}[label]
        self.api.push(
            "callback_query",
            {
                "id": query_id,
                "from": self.person.account,
                "inline_message_id": result["inline_message_id"],
                "chat_instance": "7" * 18,
                "data": data,
            },
        )
        return query_id

    async def toast(self, query_id: str, *, within_s: float = 20.0) -> str:
        """What a pressed button was answered with; "" for nothing but the end of waiting."""
        async with asyncio.timeout(within_s):
            while query_id not in self.api.toasts:  # noqa: ASYNC110 - the server has no event
                await asyncio.sleep(0.01)
        return str(self.api.toasts[query_id].get("text", ""))

    # Reading

    async def reply(self, *, within_s: float = 20.0) -> Received:
        """The next message that the bot sends or changes in this chat."""
        kind, message = await asyncio.wait_for(self.chat.outgoing.get(), within_s)
        return Received(self.api, kind, message)

    async def stays_silent(self, for_s: float = 0.4) -> bool:
        """Whether the bot says nothing for so long."""
        await asyncio.sleep(for_s)
        return self.chat.outgoing.empty()

    # How it is done

    def _message(self, content: JSON, *, answers: int | None = None, **more: Any) -> JSON:
        message: JSON = {
            "message_id": self.api.new_id(),
            "date": int(time.time()),
            "chat": self.chat.description,
            "from": self.person.account,
            **content,
            **more,
        }
        if self.sender_chat:
            message["sender_chat"] = self.sender_chat
            message["from"] = {
                "id": 1087968824,
                "is_bot": True,
                "first_name": "Group",
                "username": "GroupAnonymousBot",
            }
        if self.topic is not None:
            message |= {"message_thread_id": self.topic, "is_topic_message": True}
        if answers is not None:
            message["reply_to_message"] = without_reply(self.chat.messages[answers])
        self.chat.messages[message["message_id"]] = message
        return message

    async def _write(self, content: JSON, **more: Any) -> int:
        message = self._message(content, **more)
        if self._reaches_the_bot(message):
            self.last_update = self.api.push("message", message)
        return int(message["message_id"])

    def _reaches_the_bot(self, message: JSON) -> bool:
        """Privacy mode (https://core.telegram.org/bots/features#privacy-mode)."""
        if message["chat"]["type"] == "private" or self.api.me["can_read_all_group_messages"]:
            return True
        words = str(message.get("text") or message.get("caption") or "")
        username = str(self.api.me["username"]).lower()
        answered = message.get("reply_to_message", {}).get("from", {}).get("id")
        return (
            answered == self.api.me["id"]
            or f"@{username}" in words.lower()
            or (words.startswith("/") and "@" not in words.split(maxsplit=1)[0])
        )

    def _photo_sizes(self, picture: bytes) -> list[JSON]:
        found = []
        with Image.open(io.BytesIO(picture)) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGB")
        for edge_px in (90, 320, 800, 1280, 2560):
            if edge_px > 320 and found and max(upright.size) <= found[-1]["edge"]:
                break
            small = upright.copy()
            small.thumbnail((edge_px, edge_px))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=87)
            file_id = self.api.hold(buffer.getvalue(), "photos", ".jpg")
            size = photo_sizes(file_id, *small.size)[0]
            found.append({**size, "file_size": buffer.tell(), "edge": edge_px})
        return [{key: value for key, value in size.items() if key != "edge"} for size in found]


def _caption(words: str) -> JSON:
    return {"caption": words, "caption_entities": entities(words)} if words else {}
