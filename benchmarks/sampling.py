"""Which frames? Samplings compared: frames and seconds a video, and the accuracy of an LSTM and of the default.

    python -m benchmarks.sampling              the table of docs/sampling.md
    python -m benchmarks.sampling STORES       with the stores that an earlier run left in STORES

efficientnet_lite0 and flow. Fight: 5 folds by source video. Interaction: one sequence left out at a time.
"""

import logging
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vidpipe
from benchmarks.clips import labelled_sets
from vidpipe.features.streams import find_stores

BACKBONES = "efficientnet_lite0,flow"
SAMPLINGS: Mapping[str, Mapping[str, Any]] = {
    "8 of the video": {"sampling": "uniform", "num_frames": 8},
    "16 of the video": {"sampling": "uniform", "num_frames": 16},
    "32 of the video": {"sampling": "uniform", "num_frames": 32},
    "2 a second": {"sampling": "fps", "fps": 2.0},
    "4 a second": {"sampling": "fps", "fps": 4.0},
    "8 a second": {"sampling": "fps", "fps": 8.0},
    "4 a scene": {"sampling": "scene", "num_frames": 4},
}
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "fight": {"folds": 5},
    "interaction": {"leave_one_group_out": True},
    "demo": {"folds": 5},
}
COLUMNS = {"LSTM on frames": "efficientnet_lite0/lstm", "linear on frames": "efficientnet_lite0/statistics"}
"""Members of the default classifier by column; the last column is the whole."""


def run(stores: Path | None = None) -> str:
    """Measure, and return a section of RESULTS.md."""
    warnings.simplefilter("ignore")
    logging.getLogger("vidpipe").setLevel(logging.ERROR)
    lines = [
        f"| set | frames | a video | seconds a video | {' | '.join(COLUMNS)} | default |",
        f"|---|---|---|---|---|{'---|' * len(COLUMNS)}",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for name, labels in labelled_sets(Path(scratch)).items():
            for description, sampling in SAMPLINGS.items():
                folder = (stores or Path(scratch)) / f"{name}_{description.replace(' ', '_')}"
                lines.append(f"| {name} | {description} | {_row(name, labels, sampling, folder, Path(scratch))} |")
                print(lines[-1], file=sys.stderr, flush=True)
    return (
        "## Which frames? (`benchmarks/sampling.py`)\n\n"
        f"{BACKBONES.replace(',', ' and ')}, one decode; top-1 in cross-validation ± deviation between the folds "
        "(fight: 5 folds by source video; interaction: one sequence left out at a time). Seconds a video: decoding and "
        "both backbones, without start-up.\n\n" + "\n".join(lines)
    )


def _row(name: str, labels: Path, sampling: Mapping[str, Any], folder: Path, scratch: Path) -> str:
    summary = vidpipe.extract(labels.parent, folder, backbone=BACKBONES, device="cpu", **sampling)
    seconds = f"{summary.seconds / summary.num_stored:.2f}" if summary.num_stored else "stored before"
    store = find_stores(folder).stores[0]
    num_frames = sum(map(len, store.sequences())) / len(store)
    protocol = {**PROTOCOLS[name], "device": "cpu"}
    trained = vidpipe.train(folder, scratch / "run", labels=str(labels), overwrite=True, **protocol)
    found = trained.cross_validation
    assert found is not None
    cells = [found.estimate(member).short for member in (*COLUMNS.values(), found.heads[0])]
    return " | ".join([f"{num_frames:.0f}", seconds, *cells])


if __name__ == "__main__":
    print(run(*map(Path, sys.argv[1:])))
