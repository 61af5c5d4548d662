"""Are explanations right? What the largest shares are worth, and how much of the heat lies on people.

    python -m benchmarks.explain               the table of RESULTS.md

Test videos of a run with the default classifier on efficientnet_lite0 (whole pictures) and flow, not refitted. Deletion
(Petsiuk et al. 2018): frames, or squares of the picture, are taken away, those with the largest shares first, and the
margin of the predicted label is computed again; insertion: they alone are kept. Frames are taken out of the sequence.
Squares are blurred, the same ones in all frames: squares that change from frame to frame would be motion themselves.
The people's boxes are MoveNet's.
"""

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

import vidpipe
from benchmarks.clips import SHARED_DATA
from vidpipe.backbones.frozen import FrozenNetwork
from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.stream import Stream
from vidpipe.explain.explanation import ExplainedVideo
from vidpipe.features.streams import find_stores
from vidpipe.heads.fusion import Fusion
from vidpipe.runs.run import Run

IMAGE = "efficientnet_lite0"
SEED = 0
SHARES = (0.25, 0.5)
"""Of the frames or squares that are taken away, or kept."""
BLUR_PIXELS = 12
MIN_PERSON_SCORE = 0.3
MOVENET = SHARED_DATA / "models/movenet_multipose.onnx"
Order = NDArray[np.int64]
Margin = Callable[[Order], float]
"""The margin with some frames, or squares, alone."""


def run() -> str:
    """Measure, and return a section of RESULTS.md."""
    warnings.simplefilter("ignore")
    logging.getLogger("vidpipe").setLevel(logging.ERROR)
    lines = ["| set | what | clips | all | largest away | random away | largest kept | random kept |", "|---" * 8 + "|"]
    boxes = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("fight", "interaction"):
            measured = list(_clips(SHARED_DATA / "clips" / name, Path(scratch) / name))
            for kind in ("frames", "squares"):
                rows = np.array([one[kind] for one in measured if kind in one])
                cells = " | ".join(f"{value:+.2f}" for value in rows.mean(axis=0))
                lines.append(f"| {name} | {kind} | {len(rows)} | {cells} |")
                print(lines[-1], file=sys.stderr, flush=True)
            heat, area = np.nanmean([one["people"] for one in measured], axis=0)
            boxes.append(f"{name} {heat:.0%} of the heat on {area:.0%} of the picture")
    return (
        "## Explanations (`benchmarks/explain.py`)\n\n"
        "Margin of the predicted label on test clips, with the default classifier on "
        f"{IMAGE} (whole pictures) and flow; mean over {', '.join(f'{share:.0%}' for share in SHARES)} of the frames, "
        "or of the 7 × 7 squares of each frame of the image stream, taken away or kept.\n\n"
        + "\n".join(lines)
        + f"\n\nHeat for the label that lies in the boxes of people, of {IMAGE}: {'; '.join(boxes)}.\n"
    )


def _clips(videos: Path, folder: Path) -> Iterator[Mapping[str, Any]]:
    """Measure each test video."""
    vidpipe.extract(videos, folder / "features", backbone=f"{IMAGE},flow", crop="whole", device="cpu")
    options: dict[str, Any] = {"labels": str(videos / "labels.csv"), "seed": SEED, "refit": False, "device": "cpu"}
    trained = vidpipe.train(folder / "features", folder / "run", **options).run
    tested = [videos / row.video for row in trained.splits if row.split == "test"]
    judge = _Judge(trained)
    for explained in vidpipe.explanations(trained, tested, device="cpu", workers=1):
        assert isinstance(explained, ExplainedVideo)
        yield judge.measure(explained, find_stores(folder / "features").stores)


class _Judge:
    """Computes margins of a run's classifier for altered videos."""

    def __init__(self, run: Run) -> None:
        self._fusion: Fusion = run.load_classifiers(torch.device("cpu"))[0]
        self._class_names = run.class_names
        stream = Stream.of_key(run.keys[IMAGE], weights="default", owner="")
        self._backbone: FrozenNetwork = load_backbone(stream.spec, weights=stream.weights, device="cpu")
        self._movenet = onnxruntime.InferenceSession(str(MOVENET))
        self._random = np.random.default_rng(0)

    def measure(self, explained: ExplainedVideo, stores: Any) -> Mapping[str, Any]:
        """Return the margins with frames and squares taken away or kept, and the heat on people."""
        by_name = {stream.name: stream for stream in explained.explanation.streams}
        index = self._class_names.index(explained.explanation.label)
        pictures, places = explained.pictures[IMAGE], by_name[IMAGE].places
        assert places is not None
        flow = next(store for store in stores if store.key.backbone == "flow")
        streams = {
            IMAGE: self._features(pictures),
            "flow": torch.from_numpy(flow[self._id(flow, explained)].features).float(),
        }

        def with_frames(kept: Order) -> float:
            return self._margin({name: rows[np.sort(kept)] for name, rows in streams.items()}, index)

        def with_squares(kept: Order) -> float:
            seen = _keep_squares(pictures, kept, places.shape[1:])
            return self._margin({**streams, IMAGE: self._features(seen)}, index)

        squares = np.argsort(-places.sum(axis=0).ravel())
        measured: dict[str, Any] = {}
        if len(set(map(len, streams.values()))) == 1:  # the frames of both streams can be taken away together
            by_frame = np.sum([stream.shares for stream in by_name.values()], axis=0)
            measured["frames"] = self._curves(with_frames, np.argsort(-by_frame))
        return {
            **measured,
            "squares": self._curves(with_squares, squares),
            "people": self._on_people(pictures, places),
        }

    @staticmethod
    def _id(store: Any, explained: ExplainedVideo) -> str:
        return next(str(video_id) for video_id in store.ids if explained.video.path.as_posix().endswith(video_id))

    def _features(self, pictures: NDArray[np.uint8]) -> Tensor:
        with torch.inference_mode():
            return torch.cat([self._backbone(torch.from_numpy(batch)) for batch in np.array_split(pictures, 2)])

    def _margin(self, streams: Mapping[str, Tensor], index: int) -> float:
        with torch.inference_mode():
            logits = self._fusion({name: (rows[None], torch.tensor([len(rows)])) for name, rows in streams.items()})[0]
        return float(logits[index] - logits.mean())

    def _curves(self, margin: Margin, order: Order) -> list[float]:
        """All, then the mean over `SHARES`: the largest away, random ones away, the largest kept, random ones kept."""
        columns: list[list[float]] = [[], [], [], []]
        count = len(order)
        for share in SHARES:
            size = max(1, min(count - 1, round(share * count)))
            shuffled = self._random.permutation(order)
            kept = order[size:], shuffled[size:], order[:size], shuffled[:size]
            for column, one in zip(columns, kept, strict=True):
                column.append(margin(one))
        return [margin(order), *(float(np.mean(column)) for column in columns)]

    def _on_people(self, pictures: NDArray[np.uint8], places: NDArray[np.float64]) -> tuple[float, float]:
        """The share of the heat for the label in the boxes of people, and their share of the pictures."""
        heat, inside = np.clip(places, 0, None), np.zeros(places.shape)
        size = places.shape[1]
        for number, picture in enumerate(pictures):
            image = Image.fromarray(picture.transpose(1, 2, 0)).resize((256, 256))
            people = self._movenet.run(None, {"input": np.asarray(image, np.int32)[None]})[0][0]
            covered = np.zeros((256, 256))
            for top, left, bottom, right, score in people[:, 51:]:
                if score >= MIN_PERSON_SCORE:
                    y0, y1, x0, x1 = np.clip(256 * np.array([top, bottom, left, right]), 0, 256).astype(int)
                    covered[y0:y1, x0:x1] = 1
            cells = np.asarray(Image.fromarray(covered.astype(np.float32)).resize((size, size), Image.Resampling.BOX))
            inside[number] = cells
        if not inside.any() or not heat.any():
            return np.nan, np.nan
        return float((heat * inside).sum() / heat.sum()), float(inside.mean())


def _keep_squares(pictures: NDArray[np.uint8], kept: Order, grid: tuple[int, ...]) -> NDArray[np.uint8]:
    """Blur the squares of each picture (T, 3, H, W) that are not kept, (n,)."""
    seen = np.empty_like(pictures)
    mask = np.zeros(grid, np.uint8)
    mask.ravel()[kept] = 255
    for number, picture in enumerate(pictures):
        sharp = Image.fromarray(picture.transpose(1, 2, 0))
        blurred = sharp.filter(ImageFilter.GaussianBlur(BLUR_PIXELS))
        large = Image.fromarray(mask).resize(sharp.size, Image.Resampling.NEAREST)
        seen[number] = np.asarray(Image.composite(sharp, blurred, large)).transpose(2, 0, 1)
    return seen


if __name__ == "__main__":
    print(run())
