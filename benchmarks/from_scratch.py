"""What networks learn from random weights: `vidpipe finetune` on drawn figures.

    python -m benchmarks.from_scratch FOLDER [--networks lenet5,resnet18]

Each clip is one frame of a figure of the demo in one of four poses: walking, squatting, with raised arms, jumping. The
figures and scenes of the test clips are new to the network.
"""

import argparse
import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import vidpipe
from tests.media import write_frames
from vidpipe.demo.figures import draw, pose
from vidpipe.demo.videos import demo_groups


@dataclass(frozen=True)
class Recipe:
    """How a network learns; chosen by the validation clips."""

    input_size: int
    lr: float
    """Adam moves each weight by about this much a step, so networks whose weights begin larger need more."""
    epochs: int


RECIPES = {
    "lenet5": Recipe(32, 3e-3, 40),
    "alexnet": Recipe(64, 1e-3, 20),
    "vgg16_bn": Recipe(32, 1e-3, 12),
    "googlenet": Recipe(32, 1e-3, 15),
    "resnet18": Recipe(32, 1e-3, 12),
    "densenet121": Recipe(64, 3e-3, 16),
    "se_resnet50": Recipe(32, 3e-3, 20),
    "xception": Recipe(64, 3e-3, 10),
    "efficientnet_b0": Recipe(64, 1e-2, 20),
    "efficientnet_lite0": Recipe(64, 1e-2, 20),
}
HEAD_LR = 1e-3
NUM_FIGURES = {"train": 60, "val": 15, "test": 75}
POSES = {
    "walk_right": (0.0, 1.0),
    "squat_down": (0.8, 1.0),
    "raise_arms": (0.8, 1.0),
    "wave_then_jump": (0.7, 0.8),
}
"""By action, from when to when in its course, as shares."""


def write_poses(folder: Path, num_figures: Mapping[str, int] = NUM_FIGURES, *, seed: int) -> Path:
    """Draw a clip of one frame of each pose for each figure of each subset, and return the labels file."""
    rng = np.random.default_rng(seed)
    rows = []
    subsets = [subset for subset, number in num_figures.items() for _ in range(number)]
    for group, subset in zip(demo_groups(len(subsets), seed), subsets, strict=True):
        for action, (start, stop) in POSES.items():
            name = f"{action}_{group.name}.mp4"
            picture = draw(group.figure, group.scene, pose(action, rng.uniform(start, stop)))
            if not (folder / name).exists():
                write_frames(folder / name, [np.asarray(picture)])
            rows.append((name, action, subset, group.name))
    labels = folder / "labels.csv"
    with labels.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("video", "label", "split", "group"), *rows])
    return labels


def main() -> None:
    """Train each network, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", default=",".join(RECIPES))
    parser.add_argument("--seed", type=int, default=0, help="of figures, order and changes")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    videos = given.folder / "poses"
    videos.mkdir(parents=True, exist_ok=True)
    labels = write_poses(videos, seed=given.seed)
    print(
        "| network | parameters | input | lr | epochs (best) | random | trained | difference (95 % CI) | processor s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for network in given.networks.split(","):
        print(_row(network, videos, labels, given), flush=True)


def _row(network: str, videos: Path, labels: Path, given: argparse.Namespace) -> str:
    folder, recipe = given.folder / network, RECIPES[network]
    vidpipe.extract(
        videos,
        folder / "features",
        backbone=network,
        weights="random",
        input_size=recipe.input_size,
        crop="whole",
        num_frames=1,
        engine="torch",
    )
    vidpipe.train(folder / "features", folder / "run", labels=labels, head="mean", overwrite=True)
    started = time.process_time()
    result = vidpipe.finetune(
        folder / "run",
        videos,
        folder / "trained",
        overwrite=True,
        unfreeze="all",
        batch_norm="train",
        lr=recipe.lr,
        lr_decay=1.0,
        head_lr=HEAD_LR,
        epochs=recipe.epochs,
        patience=recipe.epochs,
        batch_size=16,
        ema=0.9,
        crop_scale=0.8,
        seed=given.seed,
        threads=given.threads,
    )
    seconds, found = time.process_time() - started, result.fine_tuning
    assert found.test is not None
    assert found.test.interval is not None
    low, high = found.test.interval
    return (
        f"| `{network}` | {found.num_parameters / 1e6:.2f} M | {recipe.input_size} | {recipe.lr:g} | "
        f"{found.num_epochs} ({found.best_epoch}) | {found.test.frozen:.2f} | {found.test.fine_tuned:.2f} | "
        f"{found.test.difference:+.2f} ({low:+.2f} to {high:+.2f}) | {seconds:.0f} |"
    )


if __name__ == "__main__":
    main()
