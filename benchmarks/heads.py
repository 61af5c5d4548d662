"""Streams × heads on both real data sets and on the demo's videos, and the settings of a head, by cross-validation over
groups.

    python -m benchmarks.heads                    the default head, and its parts
    python -m benchmarks.heads all                every head; takes hours
    python -m benchmarks.heads settings           each setting changed, for the linear and a neural head, one stream
    python -m benchmarks.heads calibration        on which videos to fit the temperature of one head
    python -m benchmarks.heads table STORES       with existing stores STORES/fight, STORES/interaction and STORES/demo

Fight: 5 folds by source video, 3 seeds. Interaction: one sequence left out at a time. Demo: 5 folds by figure.
"""

import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.nn.functional import cross_entropy

from benchmarks.clips import labelled_sets
from vidpipe.config import ExtractConfig, TrainConfig
from vidpipe.datasets.sequences import SequenceDataset, select_subsets
from vidpipe.datasets.splits import make_folds, make_split
from vidpipe.datasets.store_labels import label_store
from vidpipe.demo.videos import write_demo_videos
from vidpipe.features.store import FeatureStore
from vidpipe.features.streams import find_stores
from vidpipe.heads.calibration import fit_temperature
from vidpipe.records import LabeledVideo
from vidpipe.stages.extract import extract
from vidpipe.training.cross_validation import CrossValidation, cross_validate
from vidpipe.training.fit import compute_uncalibrated_logits, fit_head
from vidpipe.training.threads import DEFAULT_NUM_THREADS, use_threads
from vidpipe.video.files import find_videos

STREAMS = ("efficientnet_lite0", "flow")
NUM_FOLDS: Mapping[str, int | None] = {"fight": 5, "interaction": None, "demo": 5}
SEEDS: Mapping[str, tuple[int, ...]] = {"fight": (0, 1, 2)}
HEADS = ("statistics", "lstm", "statistics,lstm")
ALL_HEADS = (*HEADS, "gru", "attention", "tcn", "transformer")
NEURAL = TrainConfig(
    head="attention", hidden_size=32, epochs=30, patience=6, lr=2e-3, val_fraction=0.15, calibrate=False, device="cpu"
)
"""Small, since the table of settings has many rows; a temperature changes no top-1."""
NUM_DRAWS = 8
SETTINGS: Mapping[str, Sequence[dict[str, object]]] = {
    "statistics": (
        {},
        {"unit_frames": False},
        {"scale_sharing": 0.0},
        {"scale_sharing": 0.5},
        {"statistics": "mean"},
        {"statistics": "mean,deviation"},
        {"statistics": "thirds"},
        {"C": 1.0},
        {"C": 10.0},
        {"C": 100.0},
        {"motion": "centred,difference,magnitude"},
    ),
    "attention": (
        {},
        {"dropout": 0.0},
        {"weight_decay": 0.0},
        {"weight_decay": 0.1},
        {"label_smoothing": 0.1},
        {"mixup": 0.2},
        {"drop_frames": 0.2},
        {"shift_frames": 2},
        {"subsequence": 0.7},
        {"schedule": "cosine"},
        {"balance": "weights"},
        {"balance": "sampling"},
        {"ensemble": 3},
    ),
}


class LabelledSet:
    """The features of one set, in memory, with its folds."""

    def __init__(self, name: str, stores: Mapping[str, FeatureStore], labels: Path) -> None:
        self.name, self.videos = name, label_store(stores[STREAMS[0]], labels)
        self.class_names = tuple(sorted({video.label for video in self.videos}))
        self.all_streams = SequenceDataset(stores, self.videos, self.class_names)
        self.dataset = self.all_streams.stream(STREAMS[0])

    def validate(self, config: TrainConfig, videos: Sequence[LabeledVideo] | None = None) -> CrossValidation:
        """Cross-validate one configuration on the first stream."""
        return self._validate(self.dataset, config, videos or self.videos, (config.seed,))

    def validate_streams(self, config: TrainConfig) -> CrossValidation:
        """Cross-validate one configuration on all streams, with every seed of the set."""
        return self._validate(self.all_streams, config, self.videos, SEEDS.get(self.name, (config.seed,)))

    def _validate(
        self, dataset: SequenceDataset, config: TrainConfig, videos: Sequence[LabeledVideo], seeds: Sequence[int]
    ) -> CrossValidation:
        num_folds, val_fraction = NUM_FOLDS.get(self.name, 5), config.val_fraction or 0.0
        splits = [(seed, one) for seed in seeds for one in make_folds(videos, num_folds, val_fraction, seed=seed)]
        with use_threads(DEFAULT_NUM_THREADS):
            return cross_validate(dataset, splits, config)


def load_sets(folder: Path) -> Iterator[LabelledSet]:
    """Return the data sets; extract them unless the folder has their stores."""
    found = labelled_sets(folder)
    for name, labels in {**found, "demo": found.get("demo") or write_demo_videos(folder / "videos")}.items():
        extract(find_videos([labels.parent]), folder / name, config=ExtractConfig(backbone=",".join(STREAMS)))
        stores = {store.path.name: store for store in find_stores(folder / name).stores}
        yield LabelledSet(name, {stream: stores[stream] for stream in STREAMS}, labels)


def stream_table(sets: Sequence[LabelledSet], heads: Sequence[str]) -> list[str]:
    """Return a row for each set and head: top-1 ± deviation between folds of each stream, and of both."""
    lines = [
        f"| set | head | {' | '.join(STREAMS)} | both | seconds a fold |",
        f"|---|---|{'---|' * len(STREAMS)}---|---|",
    ]
    for labelled in sets:
        for head in heads:
            start = time.perf_counter()
            found = labelled.validate_streams(TrainConfig(head=head, device="cpu"))
            seconds = (time.perf_counter() - start) / len(found.of(found.heads[0]))
            cells = [found.estimate(name).short for name in (*STREAMS, found.heads[0])]
            lines.append(f"| {labelled.name} | {head} | {' | '.join(cells)} | {seconds:.0f} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def table(sets: Sequence[LabelledSet], configs: Mapping[str, TrainConfig]) -> list[str]:
    """Return a row for each configuration: top-1 ± deviation between folds, and the CI, on each data set."""
    names = [labelled.name for labelled in sets]
    lines = [f"| | {' | '.join(names)} | seconds |", f"|---|{'---|' * len(names)}---|"]
    for description, config in configs.items():
        start = time.perf_counter()
        cells = [str(labelled.validate(config).estimate(config.head)) for labelled in sets]
        lines.append(f"| {description} | {' | '.join(cells)} | {time.perf_counter() - start:.0f} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def setting_configs() -> dict[str, TrainConfig]:
    """Yield each head of `SETTINGS` with one setting changed at a time."""
    return {
        f"{head} {' '.join(f'{name}={value}' for name, value in change.items()) or 'with the defaults'}": replace(
            NEURAL,
            head=head,
            **change,  # type: ignore[arg-type]
        )
        for head, changes in SETTINGS.items()
        for change in changes
    }


def temperatures(labelled: LabelledSet, seed: int) -> dict[str, tuple[float, float]]:
    """Return the temperature of each method, and its log loss on a third of the groups, outside the training set."""
    split = make_split(labelled.videos, val_fraction=1 / 3, test_fraction=1 / 3, seed=seed)
    subsets = select_subsets(labelled.dataset, split)
    val, test = subsets["val"], subsets["test"]
    learned = replace(split, train=(*split.train, *split.val), val=())
    config = TrainConfig(head="statistics", device="cpu")
    tested, _ = fit_head(config.head, subsets, replace(config, calibrate=False))
    kept, _ = fit_head(config.head, select_subsets(labelled.dataset, learned), config)
    by = {
        "none": 1.0,
        "a third of the groups": fit_temperature(compute_uncalibrated_logits(tested, val), val.class_index),
        "5 folds by group": float(kept.temperature),
    }
    logits = compute_uncalibrated_logits(kept, test)
    return {name: (found, float(cross_entropy(logits / found, test.class_index))) for name, found in by.items()}


def calibration(sets: Sequence[LabelledSet]) -> list[str]:
    """Return a row for each method and data set, over random test groups."""
    lines = ["| | fitted on | temperature, lowest to highest | log loss ± between draws |", "|---|---|---|---|"]
    for labelled in sets:
        draws = [temperatures(labelled, seed) for seed in range(NUM_DRAWS)]
        for name in draws[0]:
            found, losses = np.array([draw[name] for draw in draws]).T
            lines.append(
                f"| {labelled.name} | {name} | {found.min():.2f} to {found.max():.2f} | "
                f"{losses.mean():.3f} ± {losses.std(ddof=1):.3f} |"
            )
    return lines


PROTOCOL = (
    "efficientnet_lite0 and flow, uniform 16; top-1 ± deviation between the folds. fight: 5 folds by source video, "
    "3 seeds; interaction: one sequence left out at a time; demo: 5 folds by figure. `statistics,lstm` is the default: "
    "four members on two streams."
)
SETTINGS_PROTOCOL = (
    "efficientnet_lite0, uniform 16; top-1 ± deviation between the folds, and the 95 % CI (bootstrap over groups). "
    f"Neural heads: hidden size {NEURAL.hidden_size}, at most {NEURAL.epochs} epochs, seed 0."
)
SECTIONS: Mapping[str, tuple[str, str, Callable[[Sequence[LabelledSet]], list[str]]]] = {
    "table": ("Streams and heads (`python -m benchmarks.heads`)", PROTOCOL, lambda sets: stream_table(sets, HEADS)),
    "all": ("Streams and all heads (`python -m benchmarks.heads all`)", PROTOCOL, lambda s: stream_table(s, ALL_HEADS)),
    "settings": (
        "Settings, one changed at a time (`python -m benchmarks.heads settings`)",
        SETTINGS_PROTOCOL,
        lambda sets: table(sets, setting_configs()),
    ),
    "calibration": (
        "Calibration of one head (`python -m benchmarks.heads calibration`)",
        f"Log loss on a third of the groups, of `statistics` trained on the others; {NUM_DRAWS} random draws.",
        calibration,
    ),
}


def run(what: str = "table", stores: Path | None = None) -> str:
    """Measure, and return a section of RESULTS.md."""
    warnings.simplefilter("ignore")
    logging.getLogger("vidpipe").setLevel(logging.ERROR)
    title, about, measure = SECTIONS[what]
    with tempfile.TemporaryDirectory() as scratch:
        lines = measure(list(load_sets(stores or Path(scratch))))
    return f"## {title}\n\n{about}\n\n" + "\n".join(lines)


if __name__ == "__main__":
    arguments = [*sys.argv[1:], "table"][:1]
    print(run(arguments[0], Path(sys.argv[2]) if len(sys.argv) > 2 else None))
