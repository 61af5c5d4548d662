"""Fine-tuning beside frozen features: accuracy over folds by group, seconds, and what more clips change.

    python -m benchmarks.finetuning SCRATCH interaction --num-frames 8 --epochs 6
    python -m benchmarks.finetuning SCRATCH fight --num-frames 8 --epochs 6 --shares 0.25,0.5,1
    python -m benchmarks.finetuning SCRATCH figures --num-frames 1 --input-size 64 --head mean --shares 1,0.5,0.2,0.1

Each fold trains a run on its training and validation videos, or on a share of their groups, fine-tunes the backbone's
last stage, and tests both on the videos of other groups. The frames are decoded once for all folds, into SCRATCH.
"figures" are drawn people in four poses, which no photograph resembles.
"""

import csv
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import vidpipe
from benchmarks.__main__ import machine
from benchmarks.clips import labelled_sets
from benchmarks.from_scratch import write_poses
from vidpipe.config import DEFAULT_HEAD, LabelsConfig
from vidpipe.datasets.splits import SUBSETS, Split, make_folds
from vidpipe.datasets.store_labels import label_store_splits
from vidpipe.records import LabeledVideo
from vidpipe.runs.fine_tuning import compare_top1
from vidpipe.stages.finetune import FinetuneResult

VAL_FRACTION = 0.2


@dataclass
class Predictions:
    """Whether the videos of all folds were recognised."""

    frozen: list[bool] = field(default_factory=list)
    fine_tuned: list[bool] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    """By the backbone that the run keeps: the better one on the validation set."""
    groups: list[str] = field(default_factory=list)
    num_training: list[int] = field(default_factory=list)
    """Clips to learn from in each fold."""
    seconds: list[float] = field(default_factory=list)
    """Of training in each fold."""

    def add(self, result: FinetuneResult) -> None:
        """Add a fold."""
        scores = {backbone: by_subset["test"].correct.tolist() for backbone, by_subset in result.scores.items()}
        self.frozen += scores["frozen"]
        self.fine_tuned += scores["fine-tuned"]
        self.kept += scores[result.fine_tuning.kept]
        self.groups += result.scores["frozen"]["test"].dataset.units
        self.num_training.append(len(result.split.train))
        self.seconds.append(result.fine_tuning.seconds)

    def cells(self) -> list[str]:
        """Return cells of a row: clips, the two accuracies, the one that is kept, the difference, seconds."""
        pair = compare_top1(np.array(self.frozen), np.array(self.fine_tuned), self.groups)
        interval = "too few groups" if pair.interval is None else "{:+.3f} to {:+.3f}".format(*pair.interval)
        return [
            f"{np.mean(self.num_training):.0f}",
            f"{pair.frozen:.3f}",
            f"{pair.fine_tuned:.3f}",
            f"{np.mean(self.kept):.3f}",
            f"{pair.difference:+.3f} ({interval})",
            f"{np.mean(self.seconds):.0f}",
        ]


def find_set(name: str, scratch: Path, num_groups: int) -> Path:
    """Return the labels file of a data set; its videos are in the same folder."""
    if name != "figures":
        return labelled_sets(scratch)[name]
    videos = scratch / "figures"
    videos.mkdir(parents=True, exist_ok=True)
    return write_poses(videos, {"train": num_groups}, seed=0)


def take_share(split: Split, share: float) -> Split:
    """Return a split with a share of the groups to learn from and to validate on; the test videos stay."""

    def take(videos: Sequence[LabeledVideo]) -> tuple[LabeledVideo, ...]:
        groups = sorted({video.unit for video in videos})
        np.random.default_rng(0).shuffle(groups)
        kept = set(groups[: max(1, round(share * len(groups)))])
        return tuple(video for video in videos if video.unit in kept)

    return replace(split, train=take(split.train), val=take(split.val))


def write_labels(split: Split, path: Path) -> Path:
    """Write a split as a labels file."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("video", "label", "split", "group"))
        for subset in SUBSETS:
            table.writerows((one.video_id, one.label, subset, one.group) for one in split[subset])
    return path


def tune_fold(split: Split, name: str, videos: Path, arguments: Namespace) -> FinetuneResult:
    """Train a run on a fold, and fine-tune it."""
    folder = arguments.scratch
    labels = write_labels(split, folder / f"{name}.csv")
    run = folder / f"{name}_run"
    vidpipe.train(folder / "features", run, labels=labels, head=arguments.head, refit=False, overwrite=True)
    return vidpipe.finetune(
        run,
        videos,
        folder / f"{name}_tuned",
        cache=folder / "frames",
        epochs=arguments.epochs,
        unfreeze=arguments.unfreeze,
        lr=arguments.lr,
        head_lr=arguments.head_lr,
        overwrite=True,
    )


def main(arguments: Namespace) -> None:
    """Measure, and print a row for each fold and one for each share of the training groups."""
    labels = find_set(arguments.name, arguments.scratch, arguments.groups)
    videos, store = labels.parent, arguments.scratch / "features"
    vidpipe.extract(
        videos,
        store,
        backbone=arguments.backbone,
        num_frames=arguments.num_frames,
        input_size=arguments.input_size,
        device="cpu",
    )
    opened = vidpipe.FeatureStore.open(store)
    (labelled,) = label_store_splits({arguments.backbone: opened}, LabelsConfig(labels=str(labels)))
    folds = make_folds(labelled, arguments.folds, VAL_FRACTION, seed=0)[: arguments.first]
    print("| share | clips to learn from | frozen | fine-tuned | kept | difference (95 % CI) | training a fold, s |")
    print("|---" * 7 + "|")
    for share in map(float, arguments.shares.split(",")):
        found = Predictions()
        for number, split in enumerate(folds, start=1):
            started = time.monotonic()
            result = tune_fold(take_share(split, share), f"fold{number}_{share:g}", videos, arguments)
            found.add(result)
            print(_fold_line(number, share, result, time.monotonic() - started), file=sys.stderr, flush=True)
        print(f"| {share:g} | {' | '.join(found.cells())} |", flush=True)
    print(f"\n{machine()}")


def _fold_line(number: int, share: float, result: FinetuneResult, seconds: float) -> str:
    found = result.fine_tuning
    assert found.test is not None
    return (
        f"fold {number}, share {share:g}: {found.test.num_videos} videos, frozen {found.test.frozen:.3f}, fine-tuned "
        f"{found.test.fine_tuned:.3f}, {found.kept} kept, best epoch {found.best_epoch} of {found.num_epochs}, "
        f"{found.seconds:.0f} of {seconds:.0f} s"
    )


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path, help="a folder for features, frames and runs")
    parser.add_argument("name", help="the data set: interaction, fight, figures; demo where there are no real clips")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--first", type=int, help="test only this number of folds")
    parser.add_argument("--shares", default="1", help="of the groups to learn from, such as 0.25,0.5,1")
    parser.add_argument("--groups", type=int, default=100, help="figures to draw")
    parser.add_argument("--num-frames", type=int, default=16)
    parser.add_argument("--input-size", type=int)
    parser.add_argument("--head", default=DEFAULT_HEAD)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--head-lr", type=float, default=3e-5)
    parser.add_argument("--unfreeze", default="1")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    main(parser.parse_args())
