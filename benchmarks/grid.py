"""The whole picture in place of the centre crop, and cells of the picture, on both real data sets, by cross-validation.

    python -m benchmarks.grid            the table of RESULTS.md
    python -m benchmarks.grid STORES     with existing stores STORES/centre/fight, STORES/centre_cells/fight, …

Fight: 5 folds by source video. Interaction: one sequence left out at a time.
"""

import logging
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.clips import labelled_sets
from benchmarks.heads import NEURAL, STREAMS, LabelledSet
from vidpipe.config import ExtractConfig, TrainConfig
from vidpipe.features.store import FeatureStore
from vidpipe.stages.extract import extract
from vidpipe.video.files import find_videos

SEEDS = (0, 1, 2)
GRID = 2
STATISTICS = TrainConfig(head="statistics", calibrate=False, device="cpu")
ATTENTION = replace(NEURAL, head="attention")
VIEWS: Mapping[str, tuple[str, ExtractConfig]] = {
    "centre": ("centre crop", ExtractConfig(backbone="efficientnet_lite0")),
    "whole": ("whole picture", ExtractConfig(backbone="efficientnet_lite0", crop="whole")),
    "centre_cells": (f"centre crop, {GRID} × {GRID} cells", ExtractConfig(backbone="efficientnet_lite0", grid=GRID)),
    "whole_cells": (
        f"whole picture, {GRID} × {GRID} cells",
        ExtractConfig(backbone="efficientnet_lite0", crop="whole", grid=GRID),
    ),
}
"""By name of a folder of stores."""


def load_sets(folder: Path, config: ExtractConfig) -> list[LabelledSet]:
    """Return the data sets seen in one way; extract them unless the folder has their stores."""
    sets = []
    for name, labels in labelled_sets(folder).items():
        extract(find_videos([labels.parent]), folder / name, config=config)
        sets.append(LabelledSet(name, {STREAMS[0]: FeatureStore.open(folder / name)}, labels))
    return sets


def row(view: str, config: TrainConfig, sets: Sequence[LabelledSet]) -> str:
    """Return top-1 on each data set: its mean over the seeds, and the mean deviation between folds."""
    cells = []
    for labelled in sets:
        found = [labelled.validate(replace(config, seed=seed)).estimate(config.head) for seed in SEEDS]
        mean, deviation = np.mean([(estimate.mean, estimate.deviation or 0) for estimate in found], axis=0)
        cells.append(f"{mean:.3f} ± {deviation:.3f}")
    line = f"| {VIEWS[view][0]} | {config.head} | {' | '.join(cells)} |"
    print(line, flush=True)
    return line


def rows(view: str, stores: Path) -> list[str]:
    """Measure the heads that see what this view shows."""
    config = VIEWS[view][1]
    sets = load_sets(stores / view, config)
    return [row(view, head, sets) for head in ((ATTENTION,) if config.grid > 1 else (STATISTICS, ATTENTION))]


def run(stores: Path | None = None) -> str:
    """Measure, and return a section of RESULTS.md."""
    warnings.simplefilter("ignore")
    logging.getLogger("vidpipe").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        folder = stores or Path(scratch)
        names = list(labelled_sets(folder))
        lines = [line for view in VIEWS for line in rows(view, folder)]
    table = [f"| the model sees | head | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}", *lines]
    about = (
        f"efficientnet_lite0, uniform 16; top-1, mean over {len(SEEDS)} seeds, ± deviation between the folds. fight: 5 "
        "folds by source video; interaction: one sequence left out at a time. The head `statistics` sees the same "
        "features with cells as without."
    )
    return f"## The whole picture, and cells (`python -m benchmarks.grid`)\n\n{about}\n\n" + "\n".join(table)


if __name__ == "__main__":
    print(run(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
