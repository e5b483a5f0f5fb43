"""The page of the web chat: photos and choices go in, answers are listed newest first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from fastapi import Request as HttpRequest
from nicegui import app, events, ui

from bot.adapters.web.answers import AnswerList
from bot.text import style_key
from bot.values import STYLES, Attachment, Limits, Reply, Request, Sender

if TYPE_CHECKING:
    from bot.conversation import Conversation
    from bot.values import Choices

__all__ = ["Page"]

LIMITS = Limits(buttons_per_row=8, button_rows=8, label_chars=60, whispers=True)
EVERYBODY = ""
CSS = """
:root { --accent: #5b54d6; }
.body--dark { --accent: #a29bff; }
body { font-size: 1.05rem; }
.nicegui-content { padding: .5rem; gap: 0; }
.title { font-size: 1.7rem; font-weight: 700; line-height: 1.2; }
.page { max-width: 70rem; margin: 0 auto; width: 100%; }
.drop { border: 2px dashed color-mix(in srgb, currentColor 35%, transparent); border-radius: 1rem;
  width: 100%; padding: 1.6rem 1rem; text-align: center; cursor: pointer; background: none;
  color: inherit; font: inherit; transition: border-color .15s, background .15s; }
.drop:hover, .drop:focus-visible, .drop.over { border-color: var(--accent);
  background: color-mix(in srgb, var(--accent) 9%, transparent); outline: none; }
.away { position: absolute !important; width: 1px; height: 1px; overflow: hidden; opacity: 0;
  pointer-events: none; }
.pair { display: flex; gap: .75rem; align-items: stretch; width: 100%; }
.pair figure { margin: 0; min-width: 0; flex: 1 1 0; display: flex; flex-direction: column; }
.pair .frame { position: relative; margin: auto; }
.pair img { display: block; max-width: 100%; max-height: 24rem; border-radius: .75rem; }
.film { display: block; width: auto; height: auto; max-width: 100%; max-height: 75vh;
  margin: auto; border-radius: .75rem; }
.box { position: absolute; border: 3px solid #fff; outline: 2px solid var(--accent);
  border-radius: .4rem; pointer-events: none; }
.credit { font-size: .8rem; opacity: .75; }
.said { white-space: pre-wrap; overflow-wrap: anywhere; }
.score { font-variant-numeric: tabular-nums; font-weight: 700; font-size: 1.5rem;
  white-space: nowrap; }
.name { font-size: 1.35rem; font-weight: 600; line-height: 1.25; overflow-wrap: anywhere; }
@media (max-width: 40rem) { .pair img { max-height: 16rem; } }
"""


class Page:
    """Builds the page for every browser that asks for it.

    Args:
        conversation: Answers.
        upload_bytes: Largest photo that is taken.
        alone: Whether to say how to add a platform's token.
    """

    def __init__(self, conversation: Conversation, *, upload_bytes: int, alone: bool) -> None:
        self._conversation = conversation
        self._upload_bytes = upload_bytes
        self._alone = alone
        script = resources.files("bot.adapters.web").joinpath("page.js")
        self._script = script.read_text(encoding="utf-8")

    async def build(self, request: HttpRequest) -> None:
        """One browser's page; called by NiceGUI for each visit."""
        tag = request.headers.get("accept-language", "").split(",")[0].split(";")[0].strip()
        visitor = str(app.storage.browser["id"])
        sender = Sender("web", user_id=visitor, chat_id=visitor, language=tag or None)
        visit = Slot(self._conversation, sender, self._upload_bytes)
        ui.add_css(CSS)
        ui.add_head_html(f"<script>{self._script}</script>")
        language = self._conversation.wording.language(tag)
        ui.run_javascript(f"document.documentElement.lang = {language!r}")
        await visit.build(alone=self._alone)


class Slot:
    """One browser's page and what happens on it."""

    def __init__(self, conversation: Conversation, sender: Sender, upload_bytes: int) -> None:
        self._conversation = conversation
        self._sender = sender
        self._upload_bytes = upload_bytes
        self._answers: AnswerList | None = None
        self._refreshing = False
        self._menus: dict[str, ui.select] = {}

    def say(self, key: str, **details: object) -> str:
        """A sentence in the visitor's language."""
        return self._conversation.wording.text(key, self._sender.language, **details)

    async def build(self, *, alone: bool) -> None:
        """Header, the place for photos, menus, the list of answers."""
        self._header()
        choices = await self._conversation.choices(self._sender)
        with (
            ui.element("div").classes("page"),
            ui.row().classes("w-full no-wrap max-md:flex-wrap items-start gap-6 p-2"),
        ):
            with ui.column().classes("w-full md:w-80 md:shrink-0 gap-3"):
                self._photos()
                self._choices(choices)
                self._command()
                if alone:
                    self._token_help()
            with ui.column().classes("w-full grow min-w-0 gap-4"):
                self._answers = AnswerList(self.say, self._press)
                self._answers.greet(self.say("web.greeting"))

    def _header(self) -> None:
        dark = ui.dark_mode(value=None)
        with ui.element("header").classes("page"), ui.row().classes("items-center w-full p-2"):
            ui.icon("theater_comedy", size="2.2rem").style("color: var(--accent)")
            with ui.element("h1").classes("title"):
                ui.label("Lookalike")
            ui.space()
            for icon, value in (("light_mode", False), ("dark_mode", True)):
                label = self.say(f"web.{icon}")
                button = ui.button(icon=icon, on_click=lambda value=value: dark.set_value(value))
                button.props["aria-label"] = label
                button.props("flat round").tooltip(label)

    def _photos(self) -> None:
        uploader = ui.upload(
            multiple=True,
            auto_upload=True,
            max_file_size=self._upload_bytes,
            max_files=10,
            on_multi_upload=self._uploaded,
            on_rejected=self._rejected,
        )
        uploader.classes("away").props('accept="image/*,.heic,.heif,.avif" tabindex="-1"')
        uploader.props["aria-hidden"] = "true"
        self._uploader = uploader
        with ui.element("button").classes("drop").props('type="button"') as drop:
            ui.icon("add_a_photo", size="2.6rem")
            ui.label(self.say("web.drop")).classes("text-lg font-medium")
            ui.label(self.say("web.drop_more")).classes("credit")
        camera = ui.button(self.say("web.camera"), icon="photo_camera", on_click=self._camera)
        camera.props("outline no-caps").classes("w-full")
        ui.on("lookalike_no_picture", lambda: self._toast(self.say("error.not_an_image")))
        ui.run_javascript(f"lookalike.start({uploader.id}, {drop.id})")

    def _choices(self, choices: Choices) -> None:
        models = {model.name: f"{model.title} ({model.state})" for model in choices.models}
        categories = {EVERYBODY: self.say("category.all")}
        categories |= {category: category for category in choices.categories}
        options: dict[str, tuple[dict[Any, str], Any]] = {
            "model": (models, choices.model),
            "category": (categories, choices.category or EVERYBODY),
            "top": ({number: str(number) for number in range(1, 11)}, choices.top),
            "style": ({style: self.say(style_key(style)) for style in STYLES}, choices.style),
        }
        for command, (values, value) in options.items():
            menu = ui.select(values, value=value, label=self.say(f"web.{command}"))
            menu.props("outlined dense").classes("w-full")
            menu.on_value_change(self._chosen(command))
            self._menus[command] = menu

    def _command(self) -> None:
        box = ui.input(label=self.say("web.command"), placeholder="/help")
        box.props("outlined dense clearable").classes("w-full")

        async def send() -> None:
            text = (box.value or "").strip()
            if text:
                box.value = ""
                name, _, arguments = text.removeprefix("/").partition(" ")
                await self._ask(Request(self._sender, name.lower(), arguments.strip()), said=text)

        box.on("keydown.enter", send)

    def _token_help(self) -> None:
        with ui.expansion(self.say("web.tokens_title"), icon="hub").classes("w-full"):
            ui.label(self.say("web.no_token")).classes("said")
            ui.code(
                '[telegram]\ntoken = "..."   # @BotFather\n\n'
                '[discord]\ntoken = "..."    # discord.com/developers',
                language="toml",
            ).classes("w-full")

    async def _uploaded(self, event: events.MultiUploadEventArguments) -> None:
        files = [await file.read() for file in event.files]
        self._uploader.reset()
        photos = tuple(_attachment(data) for data in files)
        await self._ask(Request(self._sender, photos=photos), uploads=files)

    def _rejected(self) -> None:
        megabytes = self._upload_bytes // 1_000_000
        self._toast(self.say("web.rejected", megabytes=megabytes))

    async def _camera(self) -> None:
        with ui.dialog() as dialog, ui.card().classes("items-center"):
            video = ui.element("video").props("autoplay playsinline muted")
            video.style("max-width:100%;max-height:60vh;border-radius:.75rem;transform:scaleX(-1)")
            with ui.row():
                ui.button(self.say("web.shoot"), icon="photo_camera", on_click=dialog.close).on(
                    "click", js_handler=f"() => lookalike.shoot({video.id})"
                )
                ui.button(self.say("web.cancel"), on_click=dialog.close).props("flat")
        dialog.on("hide", js_handler="() => setTimeout(() => lookalike.closeCamera(), 1000)")
        dialog.open()
        opened = await ui.run_javascript(f"return lookalike.openCamera({video.id})", timeout=60)
        if not opened:
            dialog.close()
            self._toast(self.say("web.no_camera"))

    def _chosen(self, command: str) -> events.Handler[events.ValueChangeEventArguments[Any]]:
        async def choose(event: events.ValueChangeEventArguments[Any]) -> None:
            if self._refreshing:
                return
            arguments = str(event.value) or "all"
            request = Request(self._sender, command, arguments)
            reply = await self._conversation.answer(request, LIMITS)
            self._toast(reply.notice or reply.text)

        return choose

    async def _press(self, action: str, photos: Sequence[bytes]) -> Reply:
        attachments = tuple(_attachment(data) for data in photos)
        request = Request(self._sender, photos=attachments, action=action)
        reply = await self._conversation.answer(request, LIMITS)
        await self._refresh()
        return reply

    async def _ask(
        self, request: Request, *, uploads: Sequence[bytes] = (), said: str = ""
    ) -> None:
        assert self._answers is not None
        entry = self._answers.begin(uploads=uploads, said=said)
        reply = await self._conversation.answer(request, LIMITS)
        await entry.show(reply)
        await self._refresh()

    async def _refresh(self) -> None:
        """Menus follow what was chosen by a command or button, and models that became ready."""
        choices = await self._conversation.choices(self._sender)
        self._refreshing = True
        try:
            models = {model.name: f"{model.title} ({model.state})" for model in choices.models}
            self._menus["model"].set_options(models, value=choices.model)
            self._menus["category"].set_value(choices.category or EVERYBODY)
            self._menus["top"].set_value(choices.top)
            self._menus["style"].set_value(choices.style)
            await asyncio.sleep(0)
        finally:
            self._refreshing = False

    def _toast(self, text: str) -> None:
        with contextlib.suppress(RuntimeError):  # the page was closed meanwhile
            ui.notify(text, multi_line=True, timeout=6000, position="top")


def _attachment(data: bytes) -> Attachment:
    async def fetch() -> bytes:
        return data

    return Attachment(fetch=fetch, size_bytes=len(data))
