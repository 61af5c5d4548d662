"""Is it worth detecting people? Each kind of `--regions`, alone and with flow of whole pictures, by cross-validation.

    python -m benchmarks.regions            the table of RESULTS.md
    python -m benchmarks.regions STORES     keeps the stores in STORES, and uses what is there

Fight: 5 folds by source video, 3 seeds. Interaction: one sequence left out at a time. The detectors are the networks
beside the checkout; without them there is no table.
"""

import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.clips import SHARED_DATA, labelled_sets
from vidpipe.config import ExtractConfig, TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.datasets.splits import make_folds
from vidpipe.datasets.store_labels import label_store
from vidpipe.features.store import FeatureStore
from vidpipe.stages.extract import extract
from vidpipe.training.cross_validation import cross_validate
from vidpipe.training.threads import DEFAULT_NUM_THREADS, use_threads
from vidpipe.video.files import find_videos

BACKBONE = "efficientnet_lite0"
NUM_FOLDS: Mapping[str, int | None] = {"fight": 5, "interaction": None}
SEEDS: Mapping[str, tuple[int, ...]] = {"fight": (0, 1, 2), "interaction": (0,)}
FILES: Mapping[str, str] = {
    "centernet": "centernet_coco.onnx",
    "movenet": "movenet_multipose.onnx",
    "person_mask": "person_mask.onnx",
}
SEEN: Mapping[str, tuple[str, str, str]] = {
    "whole pictures": ("whole", "", BACKBONE),
    "people, by centernet": ("people", "centernet", BACKBONE),
    "people, by movenet": ("people", "movenet", BACKBONE),
    "tracks, by centernet": ("tracks", "centernet", BACKBONE),
    "mask, by person_mask": ("mask", "person_mask", BACKBONE),
    "background, by person_mask": ("background", "person_mask", BACKBONE),
    "pose, by movenet": ("whole", "movenet", "pose"),
}
"""Regions, detector and backbone, by what the backbone sees."""
FLOW = ("whole", "", "flow")


def open_extracted(labels: Path, path: Path, regions: str, detector: str, backbone: str) -> FeatureStore:
    """Extract a set, unless that is done."""
    weights = str(SHARED_DATA / "models" / FILES[detector]) if detector else "default"
    config = ExtractConfig(backbone=backbone, regions=regions, detector=detector or None, detector_weights=weights)
    extract(find_videos([labels.parent]), path, config=config)
    return FeatureStore.open(path)


def top1(name: str, stores: Mapping[str, FeatureStore], labels: Path) -> str:
    """Return the cross-validated top-1 of the linear head on all streams."""
    videos = label_store(next(iter(stores.values())), labels)
    dataset = SequenceDataset(stores, videos, tuple(sorted({video.label for video in videos})))
    splits = [(seed, split) for seed in SEEDS[name] for split in make_folds(videos, NUM_FOLDS[name], 0.0, seed=seed)]
    with use_threads(DEFAULT_NUM_THREADS):
        found = cross_validate(dataset, splits, TrainConfig(head="statistics", device="cpu"))
    return found.estimate(found.heads[0]).short


def measure(name: str, labels: Path, scratch: Path) -> Iterator[str]:
    """Yield a row of the table for each thing that the backbone sees."""
    flow = open_extracted(labels, scratch / name / "flow", *FLOW)
    yield f"| {name} | flow alone | {top1(name, {'flow': flow}, labels)} | |"
    for seen, settings in SEEN.items():
        store = open_extracted(labels, scratch / name / seen.replace(", by ", "_"), *settings)
        alone, both = top1(name, {"seen": store}, labels), top1(name, {"seen": store, "flow": flow}, labels)
        yield f"| {name} | {seen} | {alone} | {both} |"


def run(scratch: Path | None = None) -> str:
    """Measure, and return a section of RESULTS.md."""
    warnings.simplefilter("ignore")
    logging.getLogger("vidpipe").setLevel(logging.ERROR)
    lines = ["| set | the backbone sees | alone | with flow |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as temporary:
        for name, labels in labelled_sets(Path(temporary)).items():
            for line in measure(name, labels, scratch or Path(temporary)):
                lines.append(line)
                print(line, file=sys.stderr, flush=True)
    return (
        "## What the backbone sees (`benchmarks/regions.py`)\n\n"
        f"{BACKBONE}, uniform 16, the linear head (`--head statistics`); flow of whole pictures; top-1 ± deviation "
        "between the folds.\n\n" + "\n".join(lines)
    )


if __name__ == "__main__":
    print(run(*map(Path, sys.argv[1:])))
