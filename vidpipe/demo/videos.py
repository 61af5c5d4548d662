"""Small labelled videos, drawn rather than downloaded. Only the order of the frames distinguishes their actions.

The actions come in pairs, such as `raise_arms` and `lower_arms` (the table is in `vidpipe.demo.figures`). The two
videos of a pair hold the very same pictures, one from first to last, the other from last to first:

    raise_arms_g01.mp4    a b c d e f g
    lower_arms_g01.mp4    g f e d c b a

So a classifier of single frames, or of the mean of their features, can at best find the correct pair and guess within
it: half of the videos. Everything else that could reveal the order is kept out:

- The videos of a group differ only in the action. Figure, scene, frame size, frame rate and length are drawn at random
  per group, so file and metadata reveal nothing about the action.
- Each frame is a key frame with the same quantiser, coded independently of its neighbours: the decoded pictures of a
  pair are equal to the last bit, and no coding artefact grows along the video.
- The number of frames is odd. Then T frames sampled uniformly, floor((i + 0.5) * num_frames / T) for i in [0, T), are
  the same pictures in both videos of a pair for every T: no product is a whole number, which would round differently
  in the reversed video.

All videos of a group are in one subset, so the figures and scenes of the test videos are new to the model.

The place of a walking figure must survive a backbone that averages over the picture. It does, because all scenes have
something tall and square at the left, and something green at the right that hides the figure's legs.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from vidpipe.demo.figures import ACTIONS, Figure, Joints, Scene, draw, pose, random_figure, random_scene
from vidpipe.errors import UsageError

__all__ = ["Group", "demo_groups", "join_videos", "write_demo_videos"]

FRAME_SIZES = ((192, 144), (224, 168), (256, 192), (320, 240), (240, 192), (320, 180))
"""(width, height) in pixels; even numbers, as yuv420p needs."""
FRAME_RATES = (10, 12, 15, 20, 24, 25, 30)
"""Frames per second."""
DURATION_SECONDS = (1.5, 4.0)
NUM_FRAMES = (24, 60)
"""The least and the most: 16 samples stay distinct, and writing stays fast."""
TRAIN_SHARE, VAL_SHARE = 0.60, 0.15
INTRA_ONLY = {"preset": "veryfast", "g": "1", "qp": "22"}
"""Options of libx264: each frame is a key frame, and no rate control changes its quality."""
JOINED_SIZE = (320, 240)
JOINED_TICKS = 600
"""A second of a joined video: the duration of a frame at each of `FRAME_RATES` is a whole number of ticks."""


@dataclass(frozen=True)
class Group:
    """The properties that the videos of a group share: all but the action."""

    name: str
    split: str
    figure: Figure
    scene: Scene
    frames_per_second: int
    num_frames: int
    """Odd."""

    def joints(self, action: str) -> list[Joints]:
        """Return the figure's joints in each frame of its video of an action."""
        return [pose(action, i / (self.num_frames - 1)) for i in range(self.num_frames)]

    def video(self, action: str) -> str:
        """Return the path of the video of an action, relative to the folder of all."""
        return f"{action}/{action}_{self.name}.mp4"


def write_demo_videos(folder: Path, *, num_groups: int = 17, seed: int = 0) -> Path:
    """Write `<action>/<action>_gNN.mp4` for each action and group, and a labels file that lists them.

    Args:
        folder: created if it does not exist; videos of the same names in it are replaced.
        num_groups: figures and scenes to draw, at least 3; about 60 % of the groups are for training, 15 % for
            validation and 25 % for testing. A group has `len(ACTIONS)` videos.
        seed: the same seed gives the same files.

    Returns:
        The path of `labels.csv` in the folder: columns `video` (relative to the folder, with `/`), `label`, `split`,
        `group`. It is written last.

    Raises:
        UsageError: fewer than 3 groups.
    """
    rows = []
    for group in demo_groups(num_groups, seed):
        _write_group(folder, group)
        rows += [(group.video(action), action, group.split, group.name) for action in ACTIONS]
    labels_path = folder / "labels.csv"
    with labels_path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("video", "label", "split", "group"))
        writer.writerows(sorted(rows))
    return labels_path


def demo_groups(num_groups: int, seed: int) -> Iterator[Group]:
    """Draw the figures and scenes of the demo's videos.

    Args:
        num_groups: at least 3.
        seed: the same seed gives the same groups.

    Yields:
        The groups.

    Raises:
        UsageError: fewer than 3 groups.
    """
    if num_groups < 3:
        raise UsageError(f"num_groups must be at least 3, one per subset; got {num_groups}")
    for number, split in enumerate(_splits(num_groups), start=1):
        yield _random_group(number, split, seed)


def _splits(num_groups: int) -> list[str]:
    """The subset of each group: first training, then validation, then test."""
    num_val = max(1, round(VAL_SHARE * num_groups))
    num_train = min(round(TRAIN_SHARE * num_groups), num_groups - num_val - 1)
    return ["train"] * num_train + ["val"] * num_val + ["test"] * (num_groups - num_train - num_val)


def _random_group(number: int, split: str, seed: int) -> Group:
    """Return a group of random properties: in a room if its number is even, in a garden if it is odd."""
    rng = np.random.default_rng([seed, number])
    width, height = FRAME_SIZES[int(rng.integers(len(FRAME_SIZES)))]
    frames_per_second = FRAME_RATES[int(rng.integers(len(FRAME_RATES)))]
    num_frames = int(np.clip(frames_per_second * rng.uniform(*DURATION_SECONDS), *NUM_FRAMES))
    return Group(
        name=f"g{number:02d}",
        split=split,
        figure=random_figure(rng),
        scene=random_scene(width, height, rng, indoors=number % 2 == 0),
        frames_per_second=frames_per_second,
        num_frames=num_frames | 1,
    )


def _write_group(folder: Path, group: Group) -> None:
    """Write the videos of a group."""
    picture = cache(partial(draw, group.figure, group.scene))  # the second video of a pair has the same pictures
    for action in ACTIONS:
        path = folder / group.video(action)
        path.parent.mkdir(parents=True, exist_ok=True)
        _encode([picture(joints) for joints in group.joints(action)], path, group.frames_per_second)


def _encode(pictures: Sequence[Image.Image], path: Path, frames_per_second: int) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=frames_per_second, options=INTRA_ONLY)
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # the videos are too small to gain from several threads
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode())


def join_videos(videos: Sequence[Path], out: Path) -> list[tuple[float, float]]:
    """Write one video that shows others one after the other, each at its own frame rate and scaled to one size.

    Args:
        videos: of `write_demo_videos`.
        out: the file, `.mp4`; it is replaced.

    Returns:
        The start and stop of each, in seconds.
    """
    spans, ticks = [], 0
    with av.open(out, "w") as container:
        stream = container.add_stream("libx264", options=INTRA_ONLY)
        stream.width, stream.height = JOINED_SIZE
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, JOINED_TICKS)
        for video in videos:
            first = ticks
            for picture, duration in _pictures(video):
                padded = np.asarray(ImageOps.pad(picture, JOINED_SIZE))
                frame = av.VideoFrame.from_ndarray(padded, format="rgb24")
                frame.pts, frame.duration, frame.time_base = ticks, duration, Fraction(1, JOINED_TICKS)
                container.mux(stream.encode(frame))
                ticks += duration
            spans.append((first / JOINED_TICKS, ticks / JOINED_TICKS))
        container.mux(stream.encode())
    return spans


def _pictures(video: Path) -> Iterator[tuple[Image.Image, int]]:
    """Yield the pictures of a video, each with its duration in ticks."""
    with av.open(video) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        duration = round(JOINED_TICKS / stream.average_rate)
        for frame in container.decode(stream):
            yield Image.fromarray(frame.to_ndarray(format="rgb24")), duration
