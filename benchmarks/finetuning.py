"""Fine-tuning beside frozen features: accuracy over folds by group, and seconds.

    python -m benchmarks.finetuning SCRATCH interaction --folds 3 --num-frames 8 --epochs 5

Each fold trains a run on its training and validation videos, fine-tunes the backbone's last stage, and tests both on
the videos of other groups. The frames are decoded once for all folds, into SCRATCH.
"""

import csv
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np

import vidpipe
from benchmarks.__main__ import machine
from benchmarks.clips import labelled_sets
from vidpipe.config import LabelsConfig
from vidpipe.datasets.splits import SUBSETS, Split, make_folds
from vidpipe.datasets.store_labels import label_store_splits
from vidpipe.runs.fine_tuning import compare_top1
from vidpipe.stages.finetune import FinetuneResult

VAL_FRACTION = 0.2


def write_labels(split: Split, path: Path) -> Path:
    """Write a split as a labels file."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("video", "label", "split", "group"))
        for subset in SUBSETS:
            table.writerows((one.video_id, one.label, subset, one.group) for one in split[subset])
    return path


def tune_fold(split: Split, number: int, videos: Path, arguments: Namespace) -> FinetuneResult:
    """Train a run on a fold, and fine-tune it."""
    folder = arguments.scratch
    labels = write_labels(split, folder / f"fold{number}.csv")
    run = folder / f"run{number}"
    vidpipe.train(folder / "features", run, labels=labels, refit=False, overwrite=True)
    return vidpipe.finetune(
        run,
        videos,
        folder / f"tuned{number}",
        cache=folder / "frames",
        epochs=arguments.epochs,
        unfreeze=arguments.unfreeze,
        overwrite=True,
        on_epoch=lambda epoch: print(f"fold {number}: {epoch}", flush=True),
    )


def main(arguments: Namespace) -> None:
    """Measure, and print a row for each fold and one for all."""
    labels = labelled_sets(arguments.scratch)[arguments.name]
    videos, store = labels.parent, arguments.scratch / "features"
    vidpipe.extract(videos, store, backbone=arguments.backbone, num_frames=arguments.num_frames, device="cpu")
    opened = vidpipe.FeatureStore.open(store)
    (labelled,) = label_store_splits({arguments.backbone: opened}, LabelsConfig(labels=str(labels)))
    correct: dict[str, list[bool]] = {"frozen": [], "fine-tuned": []}
    groups: list[str] = []
    print("| fold | videos | frozen | fine-tuned | kept | epochs | training, s | all, s |\n" + "|---" * 8 + "|")
    folds = make_folds(labelled, arguments.folds, VAL_FRACTION, seed=0)
    for number, split in enumerate(folds[: arguments.first or len(folds)], start=1):
        started = time.monotonic()
        result = tune_fold(split, number, videos, arguments)
        for backbone, scores in result.scores.items():
            correct[backbone] += scores["test"].correct.tolist()
        groups += result.scores["frozen"]["test"].dataset.units
        found = result.fine_tuning
        assert found.test is not None
        tops = f"{found.test.frozen:.3f} | {found.test.fine_tuned:.3f}"
        epochs = f"{found.num_epochs} (best {found.best_epoch})"
        seconds = f"{found.seconds:.0f} | {time.monotonic() - started:.0f}"
        print(f"| {number} | {found.test.num_videos} | {tops} | {found.kept} | {epochs} | {seconds} |", flush=True)
    pair = compare_top1(np.array(correct["frozen"]), np.array(correct["fine-tuned"]), groups)
    interval = "too few groups" if pair.interval is None else "{:+.3f} to {:+.3f}".format(*pair.interval)
    print(
        f"all {pair.num_videos} videos: frozen {pair.frozen:.3f}, fine-tuned {pair.fine_tuned:.3f}, difference "
        f"{pair.difference:+.3f} (95 % CI {interval})\n\n{machine()}"
    )


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path, help="a folder for features, frames and runs")
    parser.add_argument("name", help="the data set: interaction, fight; demo where there are no real clips")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--first", type=int, help="test only this number of folds")
    parser.add_argument("--num-frames", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--unfreeze", default="1")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    main(parser.parse_args())
