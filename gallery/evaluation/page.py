"""An evaluation report as one HTML file that needs nothing else: no network, no other files."""

from __future__ import annotations

import base64
import contextlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engine.engine import Engine
from engine.errors import BadSettings, PhotoProblem
from engine.types import Box, Photo
from gallery.evaluation.report import FARS, PROMISES, RANKS, Column, EvaluationReport, advice

if TYPE_CHECKING:
    from markupsafe import Markup
    from numpy.typing import NDArray

    from gallery.evaluation.evidence import Share
    from gallery.evaluation.groups import Gap

__all__ = ["check_place", "cut_around", "picture", "render", "save"]

_TEMPLATE: Final = "page.html"
_EDGE_PX: Final = 160
_AROUND: Final = 2.0  # edge of what is shown, in edges of the face
_QUALITY: Final = 82
_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_NAMED: Final = 12  # photos without a face, and people left out, that are named
_MEASURES: Final = {
    "accuracy": "Accuracy of pairs",
    "rank_1": "Right person first",
    "strangers_30": "Strangers who score 30 or more",
}
_SMALL_GROUPS: Final = 40
_DASH: Final = "\N{EN DASH}"
_SIGN: Final = "\N{NO-BREAK SPACE}%"


def render(report: EvaluationReport, engine: Engine, *, command: str) -> str:
    """The report as HTML.

    Args:
        report: What came of it.
        engine: Decodes the photos that are shown.
        command: What repeats it.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from gallery.evaluation import charts

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "share": _share,
        "between": _between,
        "number": _number,
        "commands": _commands,
        "listed": _listed,
    }
    shown: dict[Path, str | None] = {}

    def source(file: Path) -> str | None:
        if file not in shown:
            shown[file] = picture(engine, file, report.boxes.get(file))
        return shown[file]

    def drawn(chart: Callable[..., str], *arguments: object) -> Markup:
        return Markup(chart(*arguments))  # noqa: S704 - our own drawing, words within are escaped

    columns = report.columns
    return environment.get_template(_TEMPLATE).render(
        report=report,
        columns=columns,
        advice=advice(columns),
        fars=FARS,
        ranks=[k for k in RANKS if k <= max(len(c.evidence.lineup.people) for c in columns)],
        promises=PROMISES,
        roc=drawn(charts.roc, columns),
        rank_curve=drawn(charts.ranks, columns),
        promise_chart=drawn(charts.promises, columns),
        distributions=[
            (
                column,
                drawn(charts.cosines, column),
                drawn(charts.scores, column),
                _distribution(column),
            )
            for column in columns
        ],
        quantiles=_QUANTILES,
        gap_sentence=_gap_sentence,
        source=source,
        command=command,
        named=_NAMED,
        small_groups=_SMALL_GROUPS,
        count_shown=lambda: sum(value is not None for value in shown.values()),
    )


def check_place(file: Path) -> None:
    """Finds out before the long work whether a file can be written there; makes its folder.

    Raises:
        BadSettings: If it can't.
    """
    if file.is_dir():
        raise BadSettings(f"{file} is a folder: give --html the name of a file in it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = _beside(file)
        beside.touch()
        beside.unlink()
    except OSError as problem:
        raise BadSettings(f"the file {file} can't be written: {problem.strerror}") from None


def save(page: str, file: Path) -> None:
    """Writes a page so that the file is whole or not there.

    Raises:
        BadSettings: If it can't be written.
    """
    beside = _beside(file)
    try:
        beside.write_text(page, encoding="utf-8", errors="replace")
        beside.replace(file)
    except OSError as problem:
        raise BadSettings(f"the file {file} can't be written: {problem.strerror}") from None
    finally:
        with contextlib.suppress(OSError):  # where it could not be made
            beside.unlink(missing_ok=True)


def picture(engine: Engine, file: Path, box: Box | None) -> str | None:
    """The face in a photo with what is around it, as a data URI; None if it is gone.

    Args:
        engine: Decodes it.
        file: Where it is.
        box: Of the face, in pixels of the decoded photo; None shows the middle.
    """
    import cv2

    try:
        photo = engine.decode(file.read_bytes())
    except (OSError, PhotoProblem):
        return None
    cut = cut_around(photo, box)
    edge = min(_EDGE_PX, cut.shape[0])
    small = cv2.resize(cut, (edge, edge), interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    if not done:
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode('ascii')}"


def cut_around(photo: Photo, box: Box | None) -> NDArray[np.uint8]:
    """A square around the face, moved and reduced so that it lies within the photo."""
    least = min(photo.width_px, photo.height_px)
    x, y = box.centre if box else (photo.width_px / 2, photo.height_px / 2)
    edge = min(least, max(1, round(_AROUND * max(box.w, box.h))) if box else least)
    left = round(min(max(x - edge / 2, 0), photo.width_px - edge))
    top = round(min(max(y - edge / 2, 0), photo.height_px - edge))
    return photo.pixels[top : top + edge, left : left + edge]


def _beside(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}.part")


def _distribution(column: Column) -> list[tuple[str, list[float], list[float]]]:
    """Who, cosines at ``_QUANTILES``, scores at these."""
    evidence = column.evidence
    strangers = [evidence.strangers.quantile(share) for share in _QUANTILES]
    rows = [
        ("strangers", strangers),
        ("same person", np.quantile(evidence.found.own, _QUANTILES).tolist()),
        ("best stranger", np.quantile(evidence.found.best, _QUANTILES).tolist()),
    ]
    return [(who, cosines, evidence.calibration.scores(cosines).tolist()) for who, cosines in rows]


def _gap_sentence(gap: Gap) -> str:
    """How far best and worst are apart, and whether that is more than chance."""
    if gap.best_value == gap.worst_value:
        return f"{_MEASURES[gap.measure]}: {_percent(gap.best_value)} in every group."
    of = round(gap.chance * (gap.divisions + 1))
    found = (
        f"{_MEASURES[gap.measure]}: {_percent(gap.best_value)} for {gap.best}, "
        f"{_percent(gap.worst_value)} for {gap.worst}."
    )
    tries = f"{of:,} of {gap.divisions + 1:,} random divisions of the same people"
    if gap.exceeds_chance:
        return f"{found} More than chance: only {tries} have a gap this wide."
    return f"{found} Not more than chance: {tries} have a gap this wide."


def _percent(value: float) -> str:
    if not math.isfinite(value):
        return _DASH
    digits = 1 if value >= 0.1 or value == 0 else 2 if value >= 0.005 else 3
    return f"{value:.{digits}%}".replace("%", _SIGN)


def _share(share: Share) -> str:
    return _percent(share.value)


def _between(share: Share) -> str:
    low, high = _percent(share.low), _percent(share.high)
    return f"{low.removesuffix(_SIGN)}{_DASH}{high}" if share.of else ""


def _commands(sentence: str) -> Markup:
    """A sentence in which what stands between backticks is set as a command."""
    from markupsafe import Markup

    parts = sentence.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part
        for place, part in enumerate(parts)
    )


def _listed(words: Sequence[str]) -> str:
    """``one, two and three``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _number(value: Any, digits: int = 0) -> str:
    return f"{value:,.{digits}f}" if math.isfinite(value) else _DASH
