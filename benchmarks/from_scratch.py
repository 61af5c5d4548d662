"""What networks learn from random weights: `vidpipe finetune` on drawn figures.

    python -m benchmarks.from_scratch FOLDER [--networks lenet5,resnet18] [--epochs 8] [--groups 100]

Each clip is one frame of a figure of the demo in one of four poses: walking, squatting, with raised arms, jumping. The
figures and scenes of the test clips are new to the network.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np

import vidpipe
from tests.media import write_frames
from vidpipe.demo.figures import draw, pose
from vidpipe.demo.videos import demo_groups

NETWORKS = (
    *("lenet5", "alexnet", "resnet18", "googlenet", "efficientnet_lite0", "efficientnet_b0", "densenet121"),
    *("se_resnet50", "xception", "vgg16_bn"),
)
DEFAULT_SIZE = 32
INPUT_SIZE = {"alexnet": 64}
"""AlexNet's five steps of halving leave nothing of 32 pixels."""
POSES = {
    "walk_right": (0.0, 1.0),
    "squat_down": (0.8, 1.0),
    "raise_arms": (0.8, 1.0),
    "wave_then_jump": (0.7, 0.8),
}
"""By action, from when to when in its course, as shares."""


def write_poses(folder: Path, *, num_groups: int, seed: int) -> Path:
    """Draw a clip of one frame of each pose for each figure, and return the labels file."""
    rng = np.random.default_rng(seed)
    rows = []
    for group in demo_groups(num_groups, seed):
        for action, (start, stop) in POSES.items():
            name = f"{action}_{group.name}.mp4"
            picture = draw(group.figure, group.scene, pose(action, rng.uniform(start, stop)))
            if not (folder / name).exists():
                write_frames(folder / name, [np.asarray(picture)])
            rows.append((name, action, group.split, group.name))
    labels = folder / "labels.csv"
    with labels.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("video", "label", "split", "group"), *rows])
    return labels


def main() -> None:
    """Train each network, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--groups", type=int, default=100, help="figures: 60 of 100 to learn from, 25 to test")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    videos = given.folder / "poses"
    videos.mkdir(parents=True, exist_ok=True)
    labels = write_poses(videos, num_groups=given.groups, seed=given.seed)
    print("| network | input | parameters | epochs (best) | random | trained | difference (95 % CI) | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for network in given.networks.split(","):
        print(_row(network, videos, labels, given), flush=True)


def _row(network: str, videos: Path, labels: Path, given: argparse.Namespace) -> str:
    folder, size = given.folder / network, INPUT_SIZE.get(network, DEFAULT_SIZE)
    vidpipe.extract(
        videos,
        folder / "features",
        backbone=network,
        weights="random",
        input_size=size,
        crop="whole",
        num_frames=1,
        engine="torch",
    )
    vidpipe.train(folder / "features", folder / "run", labels=labels, head="mean", overwrite=True)
    started = time.perf_counter()
    result = vidpipe.finetune(
        folder / "run",
        videos,
        folder / "trained",
        overwrite=True,
        unfreeze="all",
        batch_norm="train",
        lr=given.lr,
        lr_decay=1.0,
        head_lr=given.lr,
        epochs=given.epochs,
        patience=given.epochs,
        batch_size=16,
        ema=0.9,
        crop_scale=0.8,
        seed=given.seed,
    )
    found = result.fine_tuning
    assert found.test is not None
    interval = "–" if found.test.interval is None else "{:+.2f} to {:+.2f}".format(*found.test.interval)
    return (
        f"| `{network}` | {size} | {found.num_parameters / 1e6:.2f} M | {found.num_epochs} ({found.best_epoch}) | "
        f"{found.test.frozen:.2f} | {found.test.fine_tuned:.2f} | {interval} | {time.perf_counter() - started:.0f} |"
    )


if __name__ == "__main__":
    main()
