"""Test accuracy of the default head and of the mean-feature baseline, split by group, over several seeds."""

import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.clips import labelled_sets
from vidpipe.config import ExtractConfig, TrainConfig
from vidpipe.datasets.store_labels import label_store
from vidpipe.features.store import FeatureStore
from vidpipe.stages.extract import extract
from vidpipe.stages.train import train
from vidpipe.video.files import find_videos

SEEDS = range(5)


def run() -> str:
    """Measure, and return a section of RESULTS.md."""
    lines = ["| set | head | top-1 on the test set | macro F1 |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        for name, labels in labelled_sets(Path(scratch)).items():
            lines += [_row(name, head, scores) for head, scores in _scores(name, labels, Path(scratch)).items()]
    return (
        "## Accuracy (`benchmarks/accuracy.py`)\n\n"
        "efficientnet_lite0, uniform 16, `vidpipe train` with its defaults; a fifth of the groups is the test set, "
        f"drawn for each of {len(SEEDS)} seeds; mean ± deviation over the seeds.\n\n" + "\n".join(lines)
    )


def _scores(name: str, labels: Path, folder: Path) -> dict[str, list[tuple[float, float]]]:
    """(top-1, macro F1) of each seed, by head."""
    extract(find_videos([labels.parent]), folder / name, config=ExtractConfig(backbone="efficientnet_lite0"))
    store = FeatureStore.open(folder / name)
    scores: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for seed in SEEDS:
        result = train(store, label_store(store, labels), folder / f"{name}_{seed}", config=TrainConfig(seed=seed))
        for head, evaluation in result.evaluations["test"].items():
            scores[head].append((evaluation.top1, evaluation.macro_f1))
    return scores


def _row(name: str, head: str, scores: list[tuple[float, float]]) -> str:
    cells = [
        f"{mean:.2f} ± {deviation:.2f}"
        for mean, deviation in zip(np.mean(scores, 0), np.std(scores, 0, ddof=1), strict=True)
    ]
    return f"| {name} | {head} | {' | '.join(cells)} |"
