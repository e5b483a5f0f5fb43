"""The few rules of the Bot API (10.1) that the tests' server enforces.

Names and limits are those of https://core.telegram.org/bots/api; the wording of refusals is what
api.telegram.org answers.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

MB = 1_000_000

_WHERE = "business_connection_id message_thread_id direct_messages_topic_id"
_SEND = (
    f"{_WHERE} disable_notification protect_content allow_paid_broadcast message_effect_id "
    "suggested_post_parameters reply_parameters reply_markup"
)
_FORWARD = "message_thread_id direct_messages_topic_id message_effect_id suggested_post_parameters"
_EDIT = "business_connection_id chat_id message_id inline_message_id reply_markup"
_CAPTION = "caption parse_mode caption_entities show_caption_above_media"

# Method -> (required parameters, optional parameters).
METHODS: dict[str, tuple[str, str]] = {
    "getMe": ("", ""),
    "getUpdates": ("", "offset limit timeout allowed_updates"),
    "setWebhook": (
        "url",
        "certificate ip_address max_connections allowed_updates drop_pending_updates secret_token",
    ),
    "deleteWebhook": ("", "drop_pending_updates"),
    "getFile": ("file_id", ""),
    "sendMessage": ("chat_id text", f"{_SEND} parse_mode entities link_preview_options"),
    "sendPhoto": ("chat_id photo", f"{_SEND} {_CAPTION} has_spoiler"),
    "sendDocument": (
        "chat_id document",
        f"{_SEND} caption parse_mode caption_entities thumbnail disable_content_type_detection",
    ),
    "sendAnimation": (
        "chat_id animation",
        f"{_SEND} {_CAPTION} has_spoiler duration width height thumbnail",
    ),
    "editMessageText": (
        "",
        f"{_EDIT} text parse_mode entities link_preview_options rich_message",
    ),
    "editMessageCaption": ("", f"{_EDIT} {_CAPTION}"),
    "editMessageMedia": ("media", _EDIT),
    "editMessageReplyMarkup": ("", _EDIT),
    "deleteMessage": ("chat_id message_id", ""),
    "answerCallbackQuery": ("callback_query_id", "text show_alert url cache_time"),
    "sendChatAction": ("chat_id action", "business_connection_id message_thread_id"),
    "answerGuestQuery": ("guest_query_id result", ""),
    "forwardMessage": (
        "chat_id from_chat_id message_id",
        f"{_FORWARD} video_start_timestamp disable_notification protect_content",
    ),
    "setMyCommands": ("commands", "scope language_code"),
}

UPDATE_KINDS = frozenset(
    {"message", "edited_message", "channel_post", "edited_channel_post", "business_connection"}
    | {"business_message", "edited_business_message", "deleted_business_messages"}
    | {"guest_message", "message_reaction", "message_reaction_count", "inline_query"}
    | {"chosen_inline_result", "callback_query", "shipping_query", "pre_checkout_query"}
    | {"purchased_paid_media", "poll", "poll_answer", "my_chat_member", "chat_member"}
    | {"chat_join_request", "chat_boost", "removed_chat_boost", "managed_bot"}
)
# Sent only to bots that ask for them by name.
NOT_BY_DEFAULT = frozenset({"chat_member", "message_reaction", "message_reaction_count"})

CHAT_ACTIONS = frozenset(
    {"typing", "upload_photo", "record_video", "upload_video", "record_voice", "upload_voice"}
    | {"upload_document", "choose_sticker", "find_location", "record_video_note"}
    | {"upload_video_note"}
)


@dataclass
class Refusal(Exception):  # noqa: N818 - an answer of the platform, not a fault of the server
    """An answer with ``ok: false``."""

    status: int
    description: str
    parameters: dict[str, Any] = field(default_factory=dict)


def bad_request(description: str) -> Refusal:
    return Refusal(400, f"Bad Request: {description}")


def check_parameters(method: str, given: set[str]) -> None:
    """Refuses an unknown method, a missing parameter and one that the documents don't know."""
    if method not in METHODS:
        raise Refusal(404, "Not Found")
    required, optional = (set(names.split()) for names in METHODS[method])
    if missing := required - given:
        raise bad_request(f"parameter {min(missing)} is required")
    if unknown := given - required - optional:
        raise bad_request(f"the documents know no parameter {min(unknown)} of {method}")


def utf16(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def check_text(text: str) -> str:
    if not text.strip():
        raise bad_request("message text is empty")
    if utf16(text) > 4096:
        raise bad_request("message is too long")
    return text.strip()


def check_caption(caption: str) -> str:
    if utf16(caption) > 1024:
        raise bad_request("message caption is too long")
    return caption.strip()


def check_photo(content: bytes, *, whole: bool = True) -> tuple[int, int]:
    """Width and height of an uploaded photo; not ``whole``, its header is believed."""
    if len(content) > 10 * MB:
        raise bad_request("file of size above 10 MB is too big for a photo")
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if whole:
                picture.load()
            width, height = picture.size
    except OSError:
        raise bad_request("IMAGE_PROCESS_FAILED") from None
    if width + height > 10_000 or max(width, height) > 20 * min(width, height):
        raise bad_request("PHOTO_INVALID_DIMENSIONS")
    return width, height


def check_film(content: bytes) -> None:
    """Refuses what Telegram would not show as an animation: sound, another codec, no film."""
    import av

    if len(content) > 50 * MB:
        raise Refusal(413, "Request Entity Too Large")
    try:
        with av.open(io.BytesIO(content)) as film:
            (stream,) = film.streams.video
            name = stream.codec_context.name
            shown = next(film.decode(stream), None)
            has_sound = bool(film.streams.audio)
    except (av.FFmpegError, ValueError):
        raise bad_request("wrong file type") from None
    if has_sound or name not in {"h264", "gif"} or shown is None:
        raise bad_request("VIDEO_CONTENT_TYPE_INVALID")
    if name == "h264" and shown.format.name != "yuv420p":
        raise bad_request("VIDEO_CONTENT_TYPE_INVALID")


def check_keyboard(markup: Any) -> None:
    """Refuses an inline keyboard that Telegram would."""
    if not isinstance(markup, dict) or not isinstance(markup.get("inline_keyboard"), list):
        raise bad_request("object expected as reply markup")
    buttons = [button for row in markup["inline_keyboard"] for button in row]
    if len(buttons) > 100 or any(len(row) > 8 for row in markup["inline_keyboard"]):
        raise bad_request("too many inline keyboard buttons")
    for button in buttons:
        if not str(button.get("text", "")).strip():
            raise bad_request("inline keyboard button text must be non-empty")
        data = button.get("callback_data")
        if data is None or set(button) != {"text", "callback_data"}:
            raise bad_request("inline keyboard button type is unknown to this server")
        if not 1 <= len(data.encode()) <= 64:
            raise bad_request("BUTTON_DATA_INVALID")


def check_commands(commands: Any) -> None:
    if not isinstance(commands, list) or len(commands) > 100:
        raise bad_request("too many commands")
    for command in commands:
        if not re.fullmatch(r"[a-z0-9_]{1,32}", command["command"]):
            raise bad_request("BOT_COMMAND_INVALID")
        if not 1 <= len(command["description"]) <= 256:
            raise bad_request("BOT_COMMAND_DESCRIPTION_INVALID")


def entities(text: str) -> list[dict[str, Any]]:
    """The entities that Telegram finds in plain words: commands and mentions."""
    found = []
    for kind, pattern in (
        ("bot_command", r"(?<![\w/])/[A-Za-z0-9_]{1,32}(?:@\w+)?"),
        ("mention", r"(?<![\w/@])@[A-Za-z0-9_]{3,32}"),
    ):
        for match in re.finditer(pattern, text):
            if kind == "mention" and re.search(r"/\w+\Z", text[: match.start()]):
                continue
            offset = utf16(text[: match.start()])
            found.append({"type": kind, "offset": offset, "length": utf16(match[0])})
    return found


def parse(value: str) -> Any:
    """A parameter sent as form data: JSON where it is JSON, else a string."""
    try:
        return json.loads(value)
    except ValueError:
        return value
