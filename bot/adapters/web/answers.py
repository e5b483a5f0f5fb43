"""Answers as they stand on the page: both pictures in their own proportions, score bar, buttons."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import cv2
from nicegui import ui

from bot.values import SIDE, Animation, FaceAnswer, MatchAnswer, Reply
from engine.errors import PhotoProblem

if TYPE_CHECKING:
    from bot.adapters.web import Page


PREVIEW_PX = 900  # longer side


class Entry:
    """One photo or command (``said``, else "") on the page, and the answer to it."""

    def __init__(self, page: Page, uploads: Sequence[bytes], said: str) -> None:
        self._page = page
        self._uploads = tuple(uploads)
        self._preview: str | None = None  # data URL of the first photo
        self.card = ui.card().classes("w-full gap-3").mark("answer")
        self.card.move(target_index=0)
        with self.card:
            if said:
                ui.label(said).classes("credit")
            with ui.row().classes("items-center"):
                ui.spinner(size="1.6rem")
                ui.label(page.say("web.looking"))

    async def show(self, reply: Reply) -> None:
        """Puts the reply in the entry's place."""
        preview = None
        if _is_pair(reply, self._uploads):
            self._preview = self._preview or await asyncio.to_thread(self._reencoded)
            preview = self._preview
        self.card.clear()
        with self.card:
            if reply.animation:
                _film(reply.animation)
            elif preview or not reply.picture:
                for answer in reply.answers:
                    self._pair(answer, preview)
            else:
                _image(_data_url(reply.picture.jpeg), reply.picture.alt)
            for answer in reply.answers:
                self._scores(answer)
            if reply.text:
                # Beside an answer the text repeats name and score for those who have it read
                # aloud, and tells which model answered and whose photo it is.
                ui.label(reply.text).classes("said credit" if reply.answers else "said")
            self._buttons(reply)
        if reply.document:
            ui.download(reply.document.content, reply.document.filename)

    def _pair(self, answer: FaceAnswer, preview: str | None) -> None:
        first = answer.matches[0]
        if not preview or not first.portrait:
            return
        with ui.element("div").classes("pair"):
            with ui.element("figure"), ui.element("div").classes("frame"):
                _image(preview, self._page.say("web.you"))
                if answer.box:
                    x, y, w, h = (100 * share for share in answer.box)
                    place = f"left:{x:.2f}%;top:{y:.2f}%;width:{w:.2f}%;height:{h:.2f}%"
                    ui.element("div").classes("box").style(place)
            with ui.element("figure"):
                with ui.element("div").classes("frame"):
                    _image(_data_url(first.portrait()), first.name)
                self._credit(first)

    def _scores(self, answer: FaceAnswer) -> None:
        first, *others = answer.matches
        self._score(first)
        for match in others:
            with ui.element("div").classes("pair"):
                if match.portrait:
                    with ui.element("div").style("flex: 0 0 5rem"):
                        _image(_data_url(match.portrait()), match.name)
                with ui.column().classes("grow gap-0 min-w-0"):
                    self._score(match)
                    self._credit(match)

    def _credit(self, match: MatchAnswer) -> None:
        if not match.credit:
            return
        text = self._page.say("answer.credit", credit=match.credit)
        with ui.element("figcaption" if match.rank == 1 else "div").classes("credit"):
            if match.credit_url and match.credit_url.startswith(("https://", "http://")):
                ui.link(text, match.credit_url, new_tab=True)
            else:
                ui.label(text)

    def _score(self, match: MatchAnswer) -> None:
        with ui.row().classes("items-baseline w-full no-wrap gap-3"):
            if match.name:
                name = f"{match.rank}. {match.name}" if match.rank > 1 else match.name
                ui.label(name).classes("name").props('dir="auto"')
            ui.label(match.word).classes("grow")
            ui.label(f"{match.score:.0f} %").classes("score")
        bar = ui.linear_progress(match.score / 100, show_value=False, size="0.8rem")
        bar.props("rounded").style("color: var(--accent)")
        label = self._page.say("web.score_bar", name=match.name, score=round(match.score))
        bar.props["aria-label"] = label

    def _buttons(self, reply: Reply) -> None:
        for row in reply.buttons:
            with ui.row().classes("gap-2"):
                for button in row:
                    ui.button(button.label, on_click=partial(self._press, button.action)).props(
                        "outline no-caps dense padding='xs md'"
                    )
        if film := reply.animation:
            self._download("web.film", film.content, film.filename, film.media_type)
        if reply.picture:
            self._download("web.card", reply.picture.jpeg, "lookalike.jpg", "image/jpeg")

    def _download(self, key: str, content: bytes, name: str, media_type: str) -> None:
        button = ui.button(self._page.say(key), icon="download").props("flat no-caps dense")
        button.on_click(lambda: ui.download(content, name, media_type))

    async def _press(self, action: str) -> None:
        reply = await self._page.press(action, self._uploads)
        if reply.notice:
            self._page.toast(reply.notice)
        elif reply.replaces:
            await self.show(reply)
        else:
            await self._page.begin(uploads=self._uploads).show(reply)

    def _reencoded(self) -> str | None:
        """The first photo as a JPEG that every browser shows, upright; None if it is none."""
        try:
            pixels = self._page.decode(self._uploads[0]).pixels
        except PhotoProblem:
            return None
        scale = min(1.0, PREVIEW_PX / max(pixels.shape))
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        return _data_url(jpeg.tobytes()) if done else None


def _is_pair(reply: Reply, uploads: Sequence[bytes]) -> bool:
    """Whether the page shows the two pictures themselves, and not the card.

    The card numbers the faces of a group, shows which photo of an album is meant, and makes one
    face of two where that was chosen.
    """
    if len(reply.answers) != 1 or len(uploads) != 1:
        return False
    answer = reply.answers[0]
    return answer.faces == 1 and answer.style == SIDE and answer.matches[0].portrait is not None


def _data_url(content: bytes, media_type: str = "image/jpeg") -> str:
    return f"data:{media_type};base64," + base64.b64encode(content).decode()


def _film(film: Animation) -> None:
    """A film that plays by itself, but not for those who asked their system for less motion."""
    source = _data_url(film.content, film.media_type)
    is_image = film.media_type.startswith("image/")
    shown = ui.element("img" if is_image else "video").classes("film")
    if is_image:
        shown.props["alt"], shown.props["data-film"] = film.alt, source
    else:
        shown.props("loop muted playsinline controls")
        shown.props["aria-label"], shown.props["src"] = film.alt, source
    shown.props["width"], shown.props["height"] = film.width_px, film.height_px
    ui.run_javascript(f"lookalike.play({shown.id})")


def _image(source: str, alt: str) -> None:
    ui.element("img").props.update(src=source, alt=alt)
