"""`lookalike bench`: how fast this machine answers, beside the published packages.

Both pipelines are measured on the same photos in one run. Weights decide nothing about speed: where
a backbone's weights are not on this machine, weights made up for the run take their place, in a
folder of their own that is deleted afterwards.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from timeit import timeit
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from bot.cli import main as cli
from bot.cli.output import print_table, say
from engine.errors import NoFace, WeightsMissing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bot.settings import Settings
    from engine.backbones import BackboneRecord
    from engine.backbones.network import Backbone
    from engine.mtcnn import Detector
    from engine.types import Photo

Photos = tuple[bytes, ...]
Step = Callable[..., Any]
PEOPLE = 10_000
STEPS = ("detect", "embed", "search")
_SEED = 20_180_515  # any; the same vectors in every run


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of one pipeline, medians over photos and repetitions; None: not measured."""

    pipeline: str  # "lookalike" or "published"
    backbone: str
    made_up_weights: bool
    detect: float
    embed: float  # crop and network for one face
    search: float  # best of ``PEOPLE`` people
    whole: float  # these three together
    decode: float | None = None  # bytes to pixels
    forward: float | None = None  # the bare network on a prepared crop
    precision: str = "f32"


def ratios(timings: list[Timing]) -> dict[str, dict[str, float]]:
    """Per backbone: how many times faster each step is, and the whole over the bare network."""
    result: dict[str, dict[str, float]] = {}
    published = {one.backbone: one for one in timings if one.pipeline == "published"}
    for ours in (one for one in timings if one.pipeline == "lookalike"):
        row = result[ours.backbone] = {}
        if ours.forward:
            row["whole_over_forward"] = ours.whole / ours.forward
        for step in (*STEPS, "whole") if (theirs := published.get(ours.backbone)) else ():
            row[f"{step}_times_faster"] = getattr(theirs, step) / getattr(ours, step)
    return result


@click.command(cls=cli.Command, json="Print the figures as JSON.")
@cli.model_option("Only these.", several=True)
@cli.path_option(
    "--photos",
    None,
    "Folder of photos to measure with (default: the bundled portraits).",
    exists=True,
    file_okay=False,
)
@click.option("--repetitions", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--alone", is_flag=True, help="Leave the published packages out.")
def bench(
    context: cli.Context, models: Sequence[str], photos: Path | None, alone: bool, **how: int
) -> None:
    """Measure milliseconds per photo, medians over photos and repetitions.

    The published recipe (package mtcnn, keras-vggface `predict`, a loop of cosine_similarity over
    10,000 people) runs on the same photos in the same run where the extra tensorflow is installed.
    """
    there = all(find_spec(name) is not None for name in ("tensorflow", "tf_keras", "sklearn"))
    names, taken, both = models or cli.BACKBONES, sample_photos(photos), there and not alone
    timings = measure(context.settings, names, taken, published=both, **how)
    rows = [dataclasses.asdict(timing) for timing in timings]
    content = {"photos": len(taken), "timings": rows, "ratios": ratios(timings)}
    context.finish(content, partial(_print_timings, timings))
    if not there and not alone and not context.json:
        say('For the comparison: pip install "lookalike[tensorflow]"', err=True)


def _print_timings(timings: list[Timing]) -> None:
    rows = []
    for one in timings:
        name = f"{one.backbone} ({one.precision})" + ("*" if one.made_up_weights else "")
        steps = (one.decode, one.detect, one.embed, one.search, one.whole, one.forward)
        rows.append((one.pipeline, name, *("" if ms is None else f"{ms:,.1f}" for ms in steps)))
    headings = ("", "model", "decode", "detect", "embed", "search", "whole", "network")
    title = "Milliseconds per photo with one face, 10,000 people"
    print_table(headings, rows, title=title, numbers_from=2)
    if any(timing.made_up_weights for timing in timings):
        say("* with made-up weights: they decide nothing about speed")
    for backbone, row in ratios(timings).items():
        parts = [
            f"{step} {row[name]:,.0f} times faster"
            for step in (*STEPS, "whole")
            if (name := f"{step}_times_faster") in row
        ]
        if "whole_over_forward" in row:
            over = row["whole_over_forward"]
            parts.append(f"a whole photo takes {over:.2f} times its network alone")
        say(f"{backbone}: " + ", ".join(parts))


def sample_photos(folder: Path | None, limit: int = 20) -> Photos:
    """Photos to measure with: those of a folder, else the bundled portraits; at least one.

    Those are measured as they are and enlarged to 1280 px, as large as chats deliver a photo.
    """
    if folder is not None:
        endings = {".jpg", ".jpeg", ".png", ".webp"}
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings)
        if not paths:
            raise NoFace(f"there are no photos below {folder}")
        step = max(1, len(paths) // limit)
        return tuple(path.read_bytes() for path in paths[::step][:limit])
    import cv2

    from engine.decode import decode
    from gallery.sources.bundled import bundled_portraits

    photos = []
    for portrait in bundled_portraits():
        pixels = cv2.cvtColor(decode(portrait.read(50_000_000)).pixels, cv2.COLOR_RGB2BGR)
        scale = 1280 / max(pixels.shape[:2])
        large = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        for version in (pixels, large):
            _, jpeg = cv2.imencode(".jpg", version, [cv2.IMWRITE_JPEG_QUALITY, 87])
            photos.append(jpeg.tobytes())
    return tuple(photos)


def measure(
    settings: Settings, names: Sequence[str], photos: Photos, *, published: bool, repetitions: int
) -> list[Timing]:
    """Times every step of this engine and, where asked for, of the published recipe.

    That needs the extra ``tensorflow``, is compared for the backbones it has, and is repeated at
    most twice. Raises NoFace if no photo has a face.
    """
    from bot.app import open_engine
    from engine.backbones import weights
    from engine.engine import load_backbone
    from engine.mtcnn import Detector

    engine, detector = open_engine(settings), Detector(settings.detector.min_face_px)
    seconds = [timeit(partial(engine.decode, one), number=1) for one in photos * repetitions]
    decode = 1000 * statistics.median(seconds)
    decoded = [photo for photo in map(engine.decode, photos) if detector.detect(photo)]
    if not decoded:
        raise NoFace("none of the photos has a face")
    timings = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            models, cache, made_up = settings.models_folder, settings.cache_folder, False
            try:
                weights.installed(name, models)
            except WeightsMissing:
                models, cache, made_up = Path(folder), Path(folder, "cache"), True
                write_made_up_weights(models, name)
            say(f"measuring {name} ...", err=True)
            backbone = load_backbone(
                name, models_folder=models, cache_folder=cache, precision=settings.models.precision
            )
            with our_pipeline(detector, backbone) as ours:
                ms = _medians_ms(decoded, repetitions, ours) | {"decode": decode}
            ran_in = str(getattr(backbone, "precision", "f32"))
            timings.append(Timing("lookalike", name, made_up, **ms, precision=ran_in))
            if published and not backbone.record.bundled:
                say(f"measuring the published recipe with {name} ...", err=True)
                path = weights.installed(name, models)
                theirs = published_pipeline(backbone.record, path)
                ms = _medians_ms(decoded, min(repetitions, 2), theirs)
                timings.append(Timing("published", name, made_up, **ms | {"forward": None}))
    return timings


def _medians_ms(photos: Sequence[Photo], repetitions: int, pipeline: Pipeline) -> dict[str, Any]:
    """Step -> its median, over photos with a face."""
    rows = []
    for photo in photos:
        if not pipeline.detect(photo):
            continue
        pipeline.times_ms(photo)  # the first call builds the function
        rows += [pipeline.times_ms(photo) for _ in range(repetitions)]
    return {step: statistics.median(row[step] for row in rows) for step in rows[0]}


class Pipeline(NamedTuple):
    """What is done with a decoded photo; ``detect`` gives the face, false without any."""

    detect: Step
    crop: Step
    network: Step
    search: Step

    def times_ms(self, photo: Any) -> dict[str, float]:
        """Milliseconds of each step, of all, and of the bare network."""
        from bot.recognizer import timed

        ms: dict[str, float] = {}
        with timed(ms, "detect"):
            face = self.detect(photo)
        with timed(ms, "embed"):
            vector = self.network(self.crop(photo, face))
        with timed(ms, "search"):
            self.search(vector)
        ms["whole"] = sum(ms.values())
        prepared = self.crop(photo, face)
        with timed(ms, "forward"):
            self.network(prepared)
        return ms


@contextmanager
def our_pipeline(detector: Detector, backbone: Backbone) -> Iterator[Pipeline]:
    """This engine, and a gallery of ``PEOPLE`` made-up people."""
    import numpy as np

    from gallery.search.cache import PersonRows
    from gallery.search.index import GalleryIndex
    from gallery.vector_file import VectorFile

    ids = np.arange(PEOPLE, dtype=np.int64)
    with tempfile.TemporaryDirectory() as folder:
        file = VectorFile.create(Path(folder) / "vectors", backbone.space)
        file.append(0, made_up_people(backbone.space.dimensions))
        rows = PersonRows.of(file, PEOPLE, np.stack([ids] * 3, axis=1))
        index = GalleryIndex(file, rows, 1)
        index.settle()
        yield Pipeline(
            lambda photo: next(iter(detector.detect(photo)), None),
            backbone.crop,
            lambda crop: backbone.embed([crop])[0],
            lambda embedding: index.top(embedding, 3),
        )


def published_pipeline(record: BackboneRecord, path: Path) -> Pipeline:
    """The recipe of most tutorials: package mtcnn, ``predict``, a loop of cosine_similarity."""
    import cv2
    import numpy as np
    from sklearn.metrics.pairwise import cosine_similarity

    from engine.reference import published_detector, published_network, published_preprocess

    detector, network = published_detector(), published_network(record, path)
    preprocess, people = published_preprocess(), made_up_people(record.dimensions)

    def crop(photo: Photo, faces: Any) -> Any:
        x, y, w, h = (max(0, int(side)) for side in faces[0]["box"])
        face = cv2.resize(photo.pixels[y : y + h, x : x + w], (record.input_px, record.input_px))
        return preprocess(face.astype(np.float32)[None], version=2)

    def embed(batch: Any) -> Any:
        return network.predict(batch, verbose=0).reshape(1, -1)

    def search(vector: Any) -> Any:
        return np.argmax([cosine_similarity(vector, one.reshape(1, -1))[0][0] for one in people])

    return Pipeline(lambda photo: detector.detect_faces(photo.pixels), crop, embed, search)


def made_up_people(dimensions: int) -> NDArray[np.float32]:
    """``PEOPLE`` unit vectors, float32 (N, D)."""
    import numpy as np

    vectors = np.random.default_rng(_SEED).standard_normal((PEOPLE, dimensions), np.float32)
    people: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return people


def write_made_up_weights(folder: Path, name: str) -> Path:
    """A weight file in the layout of Keras 2 with random values that keep activations finite.

    For measuring time and memory only, in a folder that is deleted afterwards.
    """
    import h5py
    import numpy as np

    from engine.backbones import BACKBONES, vggface, weights

    path = folder / BACKBONES[name].file_name
    random = np.random.default_rng(_SEED)
    layers = vggface.layers(name)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([layer.encode() for layer in layers])
        for layer, shapes in layers.items():
            group = file.require_group(layer)
            names = [f"{layer}/{weight}:0" for weight in shapes]
            group.attrs["weight_names"] = np.array([name.encode() for name in names])
            for stored, (weight, shape) in zip(names, shapes.items(), strict=True):
                if weight == "kernel":
                    spread = np.sqrt(2 / np.prod(shape[:-1]))  # He et al. 2015
                    values = random.standard_normal(shape, np.float32) * spread
                else:
                    values = random.uniform(0.5, 1.5, shape)
                group[stored] = values.astype(np.float32)
    weights.vouch(path, weights.file_sha256(path))  # they tell nobody apart
    return path
