"""`vidpipe demo`: draws action videos, runs extract, train and predict on them, and shows the result."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vidpipe.config import ExtractConfig, TrainConfig
from vidpipe.datasets.store_labels import label_store
from vidpipe.datasets.streams import open_streams
from vidpipe.demo.annotations import write_demo_annotations
from vidpipe.demo.videos import join_videos, write_demo_videos
from vidpipe.execution.progress import ExtractProgress
from vidpipe.records import LabeledVideo, Prediction, Segment, Timeline
from vidpipe.runs.plots import Filmstrip, plot_filmstrips
from vidpipe.stages.extract import ExtractSummary, extract
from vidpipe.stages.predict import predict
from vidpipe.stages.timeline import predict_timelines
from vidpipe.stages.train import TrainResult, train
from vidpipe.timeline.page import write_page
from vidpipe.timeline.score import TimelineScores, score_timelines
from vidpipe.timeline.strip import write_strip
from vidpipe.video.files import find_videos
from vidpipe.video.reader import read_frames
from vidpipe.video.sampling import uniform_indices

__all__ = ["DemoResult", "TimelineResult", "run_demo"]

logger = logging.getLogger(__name__)

EXTRACT = ExtractConfig(backbone="efficientnet_lite0,flow")
NUM_JOINED = 16
"""Test videos in the long video."""
TRAIN = TrainConfig(refit=False)
"""The default; without a second fit, so that the metrics and the predictions shown are of the same classifier."""


@dataclass(frozen=True)
class DemoResult:
    """The results of the demo."""

    summary: ExtractSummary
    trained: TrainResult
    test_videos: tuple[LabeledVideo, ...]
    predictions: dict[str, Prediction]
    """Of the test videos, by id."""
    picture: Path
    """The file that shows test videos with their predictions."""
    timeline: "TimelineResult"
    """Of some test videos that are joined."""


@dataclass(frozen=True)
class TimelineResult:
    """The timeline of the demo's long video."""

    truth: Timeline
    predicted: Timeline
    scores: TimelineScores
    picture: Path
    """The file that shows the true segments above the predicted ones."""
    page: Path
    """The page that plays the video beside its segments."""


def run_demo(
    folder: Path,
    *,
    num_groups: int,
    annotations: bool = False,
    on_progress: Callable[[ExtractProgress], None] = lambda progress: None,
) -> DemoResult:
    """Run the pipeline end to end in a folder: videos/, features/, run/ and demo.png; long.mp4 and its timeline.

    Args:
        folder: where to write; files of an earlier demo are replaced.
        num_groups: figures and scenes to draw; each gives a video of every action.
        annotations: also write annotations.json: where the figures are, as COCO JSON.
        on_progress: called with the progress of the extraction.

    Returns:
        The results.
    """
    for name in ("videos", "features", "run"):
        shutil.rmtree(folder / name, ignore_errors=True)
    logger.info("1. drawing videos")
    labels = write_demo_videos(folder / "videos", num_groups=num_groups)
    if annotations:
        write_demo_annotations(folder / "annotations.json", num_groups=num_groups)
    logger.info("2. extracting features")
    summary = extract(find_videos([folder / "videos"]), folder / "features", config=EXTRACT, on_progress=on_progress)
    logger.info("3. training the classifier, and the baseline that ignores the order of frames")
    stores = open_streams([folder / "features"], usage="vidpipe train STORE")
    videos = label_store(next(iter(stores.values())), labels)
    trained = train(stores, videos, folder / "run", config=TRAIN, overwrite=True)
    logger.info("4. predicting the test videos")
    test = trained.split.test
    test_ids = {video.video_id for video in test}
    files = [video for video in find_videos([folder / "videos"]) if video.id in test_ids]
    predictions = {p.video_id: p for p in predict(trained.run, files, top=3, store=stores)}
    picture = folder / "demo.png"
    plot_filmstrips(picture, list(_filmstrips(folder / "videos", test, predictions)))
    logger.info("5. finding the actions in a long video")
    timeline = _find_actions(folder, trained, test)
    return DemoResult(summary, trained, test, predictions, picture, timeline)


def _find_actions(folder: Path, trained: TrainResult, test: Sequence[LabeledVideo]) -> TimelineResult:
    """Join some test videos, and find them again."""
    chosen = [test[index] for index in np.random.default_rng(0).permutation(len(test))[:NUM_JOINED]]
    spans = join_videos([folder / "videos" / video.video_id for video in chosen], folder / "long.mp4")
    truth = _true_timeline(spans, [video.label for video in chosen])
    (predicted,) = predict_timelines(trained.run, find_videos([folder / "long.mp4"]))
    picture, page = folder / "timeline.png", folder / "timeline.html"
    write_strip([predicted], picture, truth=[truth], curves=False)
    write_page([predicted], {predicted.video_id: folder / "long.mp4"}, page, truth=[truth])
    return TimelineResult(truth, predicted, score_timelines([truth], [predicted]), picture, page)


def _true_timeline(spans: Sequence[tuple[float, float]], labels: Sequence[str]) -> Timeline:
    """The timeline of `long.mp4`: neighbours of one label are one segment."""
    segments: list[Segment] = []
    for (start, stop), label in zip(spans, labels, strict=True):
        if segments and segments[-1].label == label:
            segments[-1] = replace(segments[-1], stop_seconds=stop)
        else:
            segments.append(Segment(start, stop, label))
    return Timeline("long.mp4", tuple(segments), spans[-1][1])


def _filmstrips(
    folder: Path, test: Sequence[LabeledVideo], predictions: dict[str, Prediction], num_frames: int = 8
) -> Iterator[Filmstrip]:
    """One filmstrip per class, of a test video."""
    for video in {video.label: video for video in test}.values():
        _, frames = read_frames(
            folder / video.video_id, lambda reader: uniform_indices(reader.info.num_frames, num_frames)
        )  # (T, H, W, 3)
        prediction = predictions[video.video_id]
        yield Filmstrip(video.label, frames, prediction.labels, prediction.probabilities)
