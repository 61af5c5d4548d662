"""`vidpipe demo`: draws action videos, runs extract, train and predict on them, and shows the result."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidpipe.config import ExtractConfig, TrainConfig
from vidpipe.datasets.store_labels import label_store
from vidpipe.datasets.streams import open_streams
from vidpipe.demo.videos import write_demo_videos
from vidpipe.records import LabeledVideo, Prediction
from vidpipe.runs.plots import Filmstrip, plot_filmstrips
from vidpipe.stages.extract import ExtractProgress, ExtractSummary, extract
from vidpipe.stages.predict import predict
from vidpipe.stages.train import TrainResult, train
from vidpipe.video.files import find_videos
from vidpipe.video.reader import read_frames
from vidpipe.video.sampling import uniform_indices

__all__ = ["DemoResult", "run_demo"]

logger = logging.getLogger(__name__)

EXTRACT = ExtractConfig(backbone="efficientnet_lite0,flow")
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


def run_demo(
    folder: Path, *, num_groups: int, on_progress: Callable[[ExtractProgress], None] = lambda progress: None
) -> DemoResult:
    """Run the pipeline end to end in a folder: videos/, features/, run/ and demo.png.

    Args:
        folder: where to write; files of an earlier demo are replaced.
        num_groups: figures and scenes to draw; each gives a video of every action.
        on_progress: called with the progress of the extraction.

    Returns:
        The results.
    """
    for name in ("videos", "features", "run"):
        shutil.rmtree(folder / name, ignore_errors=True)
    logger.info("1. drawing videos")
    labels = write_demo_videos(folder / "videos", num_groups=num_groups)
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
    return DemoResult(summary, trained, test, predictions, picture)


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
