"""Discord's REST API and gateway as a server of the tests' own, on loopback.

Strict where the documents are (https://docs.discord.com/developers): the token on every call, one
first response within three seconds, content of 2000 characters, five rows of five buttons, custom
ids of 100, names and descriptions of commands, message content only where a bot without the
message-content intent gets it. Faults are made to order:
``discord.fail("PATCH", "@original", 502)``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
import zlib
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
from aiohttp import web
from multipart_form import FORM, read_form

JSON = dict[str, Any]
Link = tuple[web.WebSocketResponse, Any]  # and what compresses for it

TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4.Gabcde.this-is-the-secret-part-of-the-token"
DIRECT_ID = "501"
APP_ID, BOT_ID, GUILD_ID, OWNER_ID = "900", "901", "800", "700"
FIRST_RESPONSE_S = 3.0
EPOCH_MS = 1_420_070_400_000  # of snowflakes (docs: Reference)
LOCALES = {"es-ES", "es-419", "hi", "ru"}


@dataclass
class Interaction:
    """An interaction and what the bot made of it."""

    payload: JSON
    sent_at: float
    deferred: JSON | None = None
    taken_back: bool = False
    messages: list[JSON] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, count: int = 1, timeout_s: float = 20) -> JSON:
        """The last of at least ``count`` messages made for the interaction."""
        async with asyncio.timeout(timeout_s):
            while len(self.messages) < count:
                self.news.clear()
                await self.news.wait()
        return self.messages[-1]


class Discord:
    """The server; ``async with Discord() as discord``."""

    def __init__(self) -> None:
        self.commands: list[JSON] | None = None
        self.syncs = 0
        self.identifies: list[JSON] = []
        self.resumes = 0
        self.interactions: dict[str, Interaction] = {}
        self.channel_messages: asyncio.Queue[JSON] = asyncio.Queue()
        self.typing: list[str] = []
        self.violations: list[str] = []
        self.handshakes_to_refuse = 0
        self.sessions_known = True
        self.accepted_token = TOKEN
        self.away = False  # whether every call is refused, while the gateway stays
        self.refused = Counter[str]()  # calls meanwhile
        self._files: dict[str, bytes] = {}
        self._messages: dict[str, JSON] = {}
        self._nonces: dict[str, JSON] = {}
        self._faults: defaultdict[tuple[str, str], deque[JSON]] = defaultdict(deque)
        self._ids = itertools.count(int(time.time() * 1000 - EPOCH_MS) << 22)
        self._sequence = itertools.count(1)
        self.links: list[Link] = []  # every connection there was; the last is told what happens
        self.connected = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=50_000_000)
        app.router.add_get("/gateway", self._gateway)
        app.router.add_route("*", "/api/v10/{path:.*}", self._rest)
        app.router.add_get("/cdn/{path:.*}", self._cdn)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        self.settings = {
            "token": TOKEN,
            "api_url": f"{self.base}/api/v10",
            "gateway_url": f"ws://127.0.0.1:{port}/gateway",
            "cdn_url": f"{self.base}/cdn",
        }
        return self

    async def __aexit__(self, *_: object) -> None:
        for socket, _ in self.links:
            if not socket.closed:
                await socket.close()
        await self._runner.cleanup()
        assert not self.violations, self.violations

    # What people do

    def id(self) -> str:
        """A new snowflake."""
        return str(next(self._ids))

    def attachment(
        self, data: bytes, name: str = "photo.jpg", kind: str | None = "image/jpeg"
    ) -> JSON:
        """A file that Discord holds."""
        number = self.id()
        self._files[f"attachments/{number}/{name}"] = data
        url = f"{self.base}/cdn/attachments/{number}/{name}"
        found: JSON = {"id": number, "filename": name, "size": len(data), "url": url}
        found |= {"proxy_url": url, "content_type": kind}
        return found

    def avatar(self, user: JSON, data: bytes) -> None:
        """Gives somebody a picture."""
        user["avatar"] = "0123456789abcdef0123456789abcdef"
        self._files[f"avatars/{user['id']}/{user['avatar']}.png"] = data

    def user(self, name: str = "ann") -> JSON:
        """A person."""
        return {
            "id": self.id(),
            "username": name,
            "discriminator": "0",
            "global_name": name.title(),
            "avatar": None,
        }

    async def slash(
        self,
        user: JSON,
        name: str,
        /,
        *,
        locale: str = "en-GB",
        guild: bool = False,
        **options: object,
    ) -> Interaction:
        """Somebody uses a slash command; an attachment is passed as what ``attachment`` made."""
        resolved: JSON = {"attachments": {}}
        given: list[JSON] = []
        for key, value in options.items():
            if isinstance(value, dict):
                resolved["attachments"][value["id"]] = value
                given.append({"name": key, "type": 11, "value": value["id"]})
            else:
                kind = 4 if isinstance(value, int) else 3
                given.append({"name": key, "type": kind, "value": value})
        data = {"id": "1", "name": name, "type": 1, "options": given, "resolved": resolved}
        return await self._interact(user, 2, data, locale=locale, guild=guild)

    async def types(self, user: JSON, name: str, option: str, typed: str) -> list[JSON]:
        """Somebody types into an option of a slash command; the choices that the bot offers."""
        given = [{"name": option, "type": 3, "value": typed, "focused": True}]
        data = {"id": "1", "name": name, "type": 1, "options": given}
        interaction = await self._interact(user, 4, data)
        async with asyncio.timeout(10):
            while interaction.deferred is None:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.01)
        choices: list[JSON] = interaction.deferred["data"]["choices"]
        return choices

    async def message_menu(self, user: JSON, message: JSON) -> Interaction:
        """Somebody opens "Find lookalike" on a message."""
        target = message["id"]
        data = {"id": "2", "name": "Find lookalike", "type": 3, "target_id": target}
        data["resolved"] = {"messages": {target: message}}
        return await self._interact(user, 2, data, guild=True)

    async def user_menu(self, user: JSON, target: JSON) -> Interaction:
        """Somebody opens "Lookalike of this avatar" on a person."""
        data = {"id": "3", "name": "Lookalike of this avatar", "type": 2}
        data["target_id"] = target["id"]
        data["resolved"] = {"users": {target["id"]: target}}
        return await self._interact(user, 2, data)

    async def press(
        self, user: JSON, message: JSON, label: str, *, guild: bool = False
    ) -> Interaction:
        """Somebody presses the button with that label."""
        buttons = [button for row in message["components"] for button in row["components"]]
        button = next(button for button in buttons if button["label"] == label)
        data = {"custom_id": button["custom_id"], "component_type": 2}
        return await self._interact(user, 3, data, guild=guild, message=message)

    async def say(
        self,
        user: JSON,
        text: str,
        *attachments: JSON,
        guild: bool = False,
        replies_to: JSON | None = None,
        resolved: bool = True,
        heard: bool = True,
    ) -> JSON:
        """Somebody writes a message; in a server the bot reads it only if it is mentioned.

        Where it is not ``heard``, no bot is connected.
        """
        message = self._message(user, text, "500" if guild else DIRECT_ID, attachments)
        if guild:
            message["guild_id"] = GUILD_ID
            message["member"] = {"roles": [], "joined_at": None, "deaf": False, "mute": False}
            message["member"]["flags"] = 0
        if replies_to is not None:
            message["type"] = 19
            message["message_reference"] = {
                "message_id": replies_to["id"],
                "channel_id": replies_to["channel_id"],
            }
            if resolved:
                message["referenced_message"] = {
                    k: v for k, v in replies_to.items() if k != "bytes"
                }
        if f"<@{BOT_ID}>" in text:
            message["mentions"] = [self._bot_user()]
        elif guild:
            message |= {"content": "", "attachments": []}  # no message-content intent
        if heard:
            await self.dispatch("MESSAGE_CREATE", message)
        return message

    def forget(self, interaction: Interaction) -> None:
        """Drops what came of an interaction, so that thousands of them fit into memory."""
        for key in (interaction.payload["id"], interaction.payload["token"]):
            self.interactions.pop(key, None)
        for message in interaction.messages:
            self._messages.pop(message["id"], None)
            for file in message["attachments"]:
                self._files.pop(f"attachments/{file['id']}/{file['filename']}", None)

    def fail(self, method: str, path: str, status: int, *, times: int = 1, **more: Any) -> None:
        """Lets the next calls to a path that contains this text fail; status 0 drops them.

        With ``garbage`` a call does what it should, and is answered with that text.
        """
        for _ in range(times):
            self._faults[method, path].append({"status": status, **more})

    async def dispatch(self, event: str, data: JSON) -> None:
        """Sends an event over the gateway."""
        await asyncio.wait_for(self.connected.wait(), 20)
        await self._send({"op": 0, "t": event, "s": next(self._sequence), "d": data})

    async def reconnect(self) -> None:
        """Tells the bot to connect anew, as Discord does now and then."""
        self.connected.clear()
        await self._send({"op": 7, "d": None})

    async def hang_up(self) -> None:
        """Drops the connection."""
        self.connected.clear()
        await self.links[-1][0].close(code=1000)

    async def _interact(
        self,
        user: JSON,
        kind: int,
        data: JSON,
        *,
        locale: str = "en-GB",
        guild: bool = False,
        message: JSON | None = None,
    ) -> Interaction:
        number = self.id()
        channel = "500" if guild else "501"
        payload: JSON = {
            "id": number,
            "application_id": APP_ID,
            "type": kind,
            "token": f"interaction-token-{number}",
            "version": 1,
            "data": data,
            "channel_id": channel,
            "channel": {"id": channel, "type": 0 if guild else 1},
            "locale": locale,
            "app_permissions": "0",
            "entitlements": [],
            "authorizing_integration_owners": {"1": user["id"]},
            "context": 0 if guild else 1,
            "attachment_size_limit": 10 * 1024 * 1024,
        }
        if guild:
            payload["guild_id"], payload["guild_locale"] = GUILD_ID, "en-US"
            payload["guild"] = {"id": GUILD_ID, "features": [], "locale": "en-US"}
            member: JSON = {"user": user, "roles": [], "joined_at": "2026-01-01T00:00:00+00:00"}
            payload["member"] = member | {
                "permissions": "0",
                "deaf": False,
                "mute": False,
                "flags": 0,
            }
        else:
            payload["user"] = user
        if message is not None:
            payload["message"] = {k: v for k, v in message.items() if k != "bytes"}
        interaction = Interaction(payload, time.monotonic())
        self.interactions[number] = interaction
        self.interactions[payload["token"]] = interaction
        await asyncio.wait_for(self.connected.wait(), 20)
        interaction.sent_at = time.monotonic()
        await self.dispatch("INTERACTION_CREATE", payload)
        return interaction

    # The gateway

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        if self.handshakes_to_refuse:
            self.handshakes_to_refuse -= 1
            return web.Response(status=503)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        compressed = request.query.get("compress") == "zlib-stream"
        link = socket, zlib.compressobj() if compressed else None
        self.links.append(link)
        await self._send({"op": 10, "d": {"heartbeat_interval": 41_250}}, link)
        async for frame in socket:
            if frame.type is not aiohttp.WSMsgType.TEXT:
                break
            await self._gateway_heard(link, json.loads(frame.data))
        return socket

    async def _gateway_heard(self, link: Link, heard: JSON) -> None:
        op, data = heard["op"], heard["d"]
        if op == 1:
            await self._send({"op": 11}, link)
        elif op == 2:
            self.identifies.append(data)
            if data["token"] != self.accepted_token:
                await link[0].close(code=4004, message=b"Authentication failed.")
                return
            if data["intents"] & (1 << 15):
                self.violations.append("the bot asks for the message-content intent")
            await self._ready(link)
        elif op == 6 and not self.sessions_known:
            await self._send({"op": 9, "d": False}, link)
        elif op == 6:
            self.resumes += 1
            await self._send({"op": 0, "t": "RESUMED", "s": next(self._sequence), "d": {}}, link)
            self.connected.set()

    async def _ready(self, link: Link) -> None:
        ready: JSON = {"v": 10, "user": self._bot_user(), "session_id": "session"}
        ready |= {"guilds": [{"id": GUILD_ID, "unavailable": True}]}
        ready["application"] = {"id": APP_ID, "flags": 0}
        if "shard" in self.identifies[-1]:
            ready["shard"] = self.identifies[-1]["shard"]
        ready["resume_gateway_url"] = self.settings["gateway_url"]
        await self._send({"op": 0, "t": "READY", "s": next(self._sequence), "d": ready}, link)
        everyone = {"id": GUILD_ID, "name": "@everyone", "permissions": "0", "position": 0}
        everyone |= {"color": 0, "hoist": False, "managed": False, "mentionable": False}
        channel = {"id": "500", "type": 0, "name": "general", "position": 0}
        guild: JSON = {"id": GUILD_ID, "name": "Friends", "owner_id": OWNER_ID, "emojis": []}
        guild |= {"roles": [everyone], "channels": [channel | {"permission_overwrites": []}]}
        guild |= {"members": [], "threads": [], "voice_states": [], "presences": []}
        guild |= {"features": [], "stickers": [], "member_count": 2, "large": False}
        guild |= {"preferred_locale": "en-US", "verification_level": 0, "premium_tier": 0}
        guild |= {"default_message_notifications": 0, "explicit_content_filter": 0}
        guild |= {"mfa_level": 0, "nsfw_level": 0, "unavailable": False, "afk_timeout": 300}
        guild |= {"system_channel_flags": 0, "stage_instances": [], "guild_scheduled_events": []}
        await self._send(
            {"op": 0, "t": "GUILD_CREATE", "s": next(self._sequence), "d": guild}, link
        )
        self.connected.set()

    async def _send(self, frame: JSON, link: Link | None = None) -> None:
        socket, deflate = link or self.links[-1]
        text = json.dumps(frame)
        if deflate is None:
            await socket.send_str(text)
            return
        packed = deflate.compress(text.encode()) + deflate.flush(zlib.Z_SYNC_FLUSH)
        await socket.send_bytes(packed)

    # REST

    async def _cdn(self, request: web.Request) -> web.Response:
        fault = self._fault("GET", request.path)
        if fault is not None and fault.get("hangs"):
            fault["hangs"].set()
            await fault.get("until", asyncio.Event()).wait()
        elif fault is not None:
            return web.Response(status=fault["status"])
        data = self._files.get(request.match_info["path"])
        return web.Response(status=404) if data is None else web.Response(body=data)

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        body, files = await _read(request)
        if request.method == "GET":
            body = dict(request.query)
        fault = self._fault(request.method, request.path)
        if fault is not None and "garbage" not in fault:
            if fault["status"] == 0 and request.transport is not None:
                request.transport.close()
            headers = {"Content-Type": "application/json", **fault.get("headers", {})}
            body = json.dumps(fault.get("body", {"message": "fault", "code": 0})).encode()
            return web.Response(status=fault["status"] or 500, body=body, headers=headers)
        path = request.match_info["path"]
        if self.away:
            self.refused[f"{request.method} {path}"] += 1
            return web.Response(status=503)
        needs_token = not path.startswith(("interactions/", "webhooks/"))
        if needs_token and request.headers.get("Authorization") != f"Bot {self.accepted_token}":
            return _json({"message": "401: Unauthorized", "code": 0}, 401)
        for pattern, answer in self._routes():
            found = re.fullmatch(pattern, f"{request.method} {path}")
            if found:
                answered: web.Response = answer(body, files, *found.groups())
                if fault is not None:
                    answered.body = fault["garbage"].encode()
                return answered
        self.violations.append(f"unknown call {request.method} {path}")
        return _json({"message": "404: Not Found", "code": 0}, 404)

    def _routes(self) -> list[tuple[str, Any]]:
        return [
            (r"GET users/@me", lambda *_: _json(self._bot_user())),
            (r"GET gateway/bot", self._gateway_bot),
            (r"GET oauth2/applications/@me", lambda *_: _json(self._application())),
            (r"PUT applications/900/commands", self._put_commands),
            (r"POST interactions/(\d+)/([^/]+)/callback", self._callback),
            (r"PATCH webhooks/900/([^/]+)/messages/@original", self._edit_original),
            (r"DELETE webhooks/900/([^/]+)/messages/@original", self._delete_original),
            (r"POST webhooks/900/([^/]+)", self._follow_up),
            (r"POST users/@me/channels", self._open_direct_channel),
            (r"POST channels/(\d+)/messages", self._post_message),
            (r"GET channels/(\d+)/messages/(\d+)", self._get_message),
            (r"GET channels/(\d+)/messages", self._get_messages),
            (r"POST channels/(\d+)/typing", self._type),
        ]

    def _gateway_bot(self, *_: object) -> web.Response:
        limit = {"total": 1000, "remaining": 999, "reset_after": 14_400_000, "max_concurrency": 1}
        url = self.settings["gateway_url"]
        return _json({"url": url, "shards": 1, "session_start_limit": limit})

    def _put_commands(self, body: Any, _files: JSON) -> web.Response:
        for command in body:
            kind = command.get("type", 1)
            if kind == 1:
                self._check(re.fullmatch(r"[-_\w]{1,32}", command["name"]), "name of a command")
                self._check(1 <= len(command["description"]) <= 100, "description of a command")
            for locale in command.get("description_localizations") or {}:
                self._check(locale in LOCALES, f"locale {locale}")
            for option in command.get("options", []):
                self._check(len(option["description"]) <= 100, "description of an option")
        menus = [command for command in body if command.get("type", 1) != 1]
        self._check(len(menus) <= 5, "at most five menus")
        self.syncs += 1
        self.commands = [
            {"id": self.id(), "application_id": APP_ID, "version": "1", "description": ""} | command
            for command in body
        ]
        return _json(self.commands)

    def _callback(self, body: Any, files: JSON, number: str, token: str) -> web.Response:
        interaction = self.interactions.get(number)
        late = interaction and time.monotonic() - interaction.sent_at > FIRST_RESPONSE_S
        if interaction is None or late or interaction.payload["token"] != token:
            return _json({"message": "Unknown interaction", "code": 10062}, 404)
        if interaction.deferred is not None:
            message = "Interaction has already been acknowledged."
            return _json({"message": message, "code": 40060}, 400)
        interaction.deferred = body
        resource = {"type": body["type"]}
        if body["type"] == 4:
            self._made(interaction, body["data"], files)
            message = interaction.messages[-1].items()
            resource["message"] = {k: v for k, v in message if k != "bytes"}
        described = {"id": number, "type": interaction.payload["type"]}
        return _json({"interaction": described, "resource": resource})

    def _edit_original(self, body: JSON, files: JSON, token: str) -> web.Response:
        interaction = self.interactions.get(token)
        if interaction is None or interaction.deferred is None:
            return _json({"message": "Unknown Webhook", "code": 10015}, 404)
        return self._made(interaction, body, files)

    def _delete_original(self, _body: JSON, _files: JSON, token: str) -> web.Response:
        self.interactions[token].taken_back = True
        return web.Response(status=204)

    def _open_direct_channel(self, body: JSON, _files: JSON) -> web.Response:
        recipient = self.user() | {"id": body["recipient_id"]}
        return _json({"id": DIRECT_ID, "type": 1, "recipients": [recipient]})

    def _follow_up(self, body: JSON, files: JSON, token: str) -> web.Response:
        interaction = self.interactions.get(token)
        if interaction is None or interaction.deferred is None:
            return _json({"message": "Unknown Webhook", "code": 10015}, 404)
        if pressed := interaction.payload.get("message"):
            place = {"message_id": pressed["id"], "channel_id": pressed["channel_id"]}
            body["message_reference"] = place
        return self._made(interaction, body, files)

    def _made(self, interaction: Interaction, body: JSON, files: JSON) -> web.Response:
        self._check_message(body, files)
        channel = interaction.payload["channel_id"]
        message = self._from_bot(body, files, channel)
        interaction.messages.append(message)
        interaction.news.set()
        return _json({k: v for k, v in message.items() if k != "bytes"})

    def _post_message(self, body: JSON, files: JSON, channel: str) -> web.Response:
        self._check_message(body, files)
        nonce = body.get("nonce")
        if nonce in self._nonces:  # enforce_nonce: the message that was made before
            return _json({k: v for k, v in self._nonces[nonce].items() if k != "bytes"})
        message = self._from_bot(body, files, channel)
        if body.get("enforce_nonce"):
            self._nonces[nonce] = message
        self.channel_messages.put_nowait(message)
        return _json({k: v for k, v in message.items() if k != "bytes"})

    def _get_message(self, _body: Any, _files: JSON, _channel: str, number: str) -> web.Response:
        found = self._messages.get(number)
        if found is None:
            return _json({"message": "Unknown Message", "code": 10008}, 404)
        return _json(found)

    def _get_messages(self, query: JSON, _files: JSON, channel: str) -> web.Response:
        self._check(1 <= int(query["limit"]) <= 100, "limit of a channel's messages")
        there = [one for one in self._messages.values() if one["channel_id"] == channel]
        there = [one for one in there if int(one["id"]) > int(query["after"])]
        return _json([*reversed(there[: int(query["limit"])])])

    def _type(self, _body: Any, _files: JSON, channel: str) -> web.Response:
        self.typing.append(channel)
        return web.Response(status=204)

    def _check_message(self, body: JSON, files: JSON) -> None:
        self._check(len((body.get("content") or "").encode("utf-16-le")) <= 4000, "content")
        self._check(bool(body.get("content") or files or body.get("components")), "empty message")
        rows = body.get("components") or []
        self._check(len(rows) <= 5, "rows of buttons")
        for row in rows:
            self._check(1 <= len(row["components"]) <= 5, "buttons in a row")
            for item in row["components"]:
                self._check(1 <= len(item["custom_id"]) <= 100, "custom id")
                self._check(1 <= len(item.get("label", "x")) <= 80, "label")
        allowed = body.get("allowed_mentions", {})
        self._check(allowed.get("parse") == [], "mentions must be off")
        self._check(all(len(data) <= 10 * 1024 * 1024 for data in files.values()), "file size")

    def _check(self, holds: object, what: str) -> None:
        if not holds:
            self.violations.append(what)

    def _from_bot(self, body: JSON, files: JSON, channel: str) -> JSON:
        described = body.get("attachments") or [{} for _ in files]
        attachments = []
        for about, data in zip(described, files.values(), strict=False):
            made = self.attachment(data, about.get("filename", "file"))
            made["description"] = about.get("description")
            attachments.append(made)
        message = self._message(self._bot_user(), body.get("content") or "", channel, attachments)
        message["components"] = body.get("components") or []
        message["flags"] = body.get("flags", 0)
        if body.get("message_reference"):
            message["message_reference"] = body["message_reference"]
        return message | {"bytes": list(files.values())}

    def _message(self, user: JSON, text: str, channel: str, attachments: Any) -> JSON:
        message: JSON = {
            "id": self.id(),
            "channel_id": channel,
            "author": user,
            "content": text,
            "timestamp": "2026-11-22T12:00:00.000000+00:00",
            "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False,
            "mentions": [],
            "mention_roles": [],
            "attachments": list(attachments),
            "embeds": [],
            "pinned": False,
            "type": 0,
            "components": [],
        }
        self._messages[message["id"]] = message
        return message

    def _bot_user(self) -> JSON:
        user: JSON = {"id": BOT_ID, "username": "lookalike", "discriminator": "0"}
        return user | {"avatar": None, "bot": True, "global_name": None}

    def _application(self) -> JSON:
        owner = {"id": OWNER_ID, "username": "owner", "discriminator": "0", "avatar": None}
        application: JSON = {"id": APP_ID, "name": "Lookalike", "icon": None, "description": ""}
        application |= {"bot_public": True, "bot_require_code_grant": False, "owner": owner}
        return application | {"verify_key": "0" * 64, "team": None, "flags": 0, "summary": ""}

    def _fault(self, method: str, path: str) -> JSON | None:
        for (wanted, part), faults in self._faults.items():
            if wanted == method and part in path and faults:
                return faults.popleft()
        return None


async def _read(request: web.Request) -> tuple[Any, dict[str, bytes]]:
    if request.headers.get("Content-Type", "").startswith(FORM):
        fields, files = await read_form(request)
        return json.loads(fields.get("payload_json", "{}")), files
    raw = await request.read()
    return (json.loads(raw) if raw else {}), {}


def _json(content: Any, status: int = 200) -> web.Response:
    # discord.py reads a body as JSON only under exactly this type.
    headers = {"Content-Type": "application/json"}
    return web.Response(status=status, body=json.dumps(content).encode(), headers=headers)
