"""The whole pipeline on the real clips of ../shared/data; skipped where they are not."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.commands import run
from vidpipe.features.store import FeatureStore

pytestmark = pytest.mark.real_clips

TWO = ("--backbone", "efficientnet_lite0", "--backbone", "flow")


def test_odd_files_are_read_as_ffmpeg_reads_them_or_fail_with_a_reason(shared_data: Path, tmp_path: Path) -> None:
    with (shared_data / "edge" / "expected.tsv").open() as stream:
        expected = list(csv.DictReader(stream, delimiter="\t"))
    result = run("extract", shared_data / "edge", "-o", tmp_path / "stores", *TWO)
    assert result.exit_code == 3, result.output
    store, motion = (FeatureStore.open(tmp_path / "stores" / name) for name in ("efficientnet_lite0", "flow"))
    for one in (store, motion):
        one.verify()
    assert list(motion) == list(store)
    assert [failure.video_id for failure in motion.failures] == [failure.video_id for failure in store.failures]
    found = {
        video_id: (info.num_frames, info.width, info.height) for video_id in store for info in [store.info(video_id)]
    }
    videos = [row for row in expected if row["frames"] != "0"]
    assert found == {row["file"]: (int(row["frames"]), int(row["width"]), int(row["height"])) for row in videos}
    assert {failure.video_id for failure in store.failures} == {row["file"] for row in expected if row["frames"] == "0"}
    for sequence in store.sequences():
        assert len(sequence) == min(16, sequence.info.num_frames)
        assert np.all(np.diff(sequence.pts_seconds) > 0)


def test_surveillance_clips_from_files_to_labels(shared_data: Path, tmp_path: Path) -> None:
    clips, labels = shared_data / "clips" / "fight", shared_data / "clips" / "fight" / "labels.csv"
    stores, run_path = tmp_path / "stores", tmp_path / "run"

    extracted = run("extract", clips, "-o", stores, *TWO)
    assert extracted.exit_code == 0, extracted.output
    opened = FeatureStore.open(stores / "efficientnet_lite0")
    assert len(opened) == 200
    assert all(sequence.features.shape == (16, 1280) for sequence in opened.sequences())

    trained = run("train", stores, "-o", run_path, "--labels", labels, "--no-refit")
    assert trained.exit_code == 0, trained.output
    assert "groups from the labels: 31 groups" in trained.stdout

    evaluation = json.loads(run("evaluate", run_path, stores, "--labels", labels, "--format", "json").stdout)
    assert evaluation["num_videos"] >= 30
    assert evaluation["top1"] == json.loads((run_path / "metrics.json").read_text())["test"]["fusion"]["top1"]

    predicted = run("predict", run_path, shared_data / "clips" / "interaction" / "kick", "--format", "json")
    assert predicted.exit_code == 0, predicted.output
    rows = [json.loads(line) for line in predicted.stdout.splitlines()]
    assert len(rows) == 10
    assert all(row["status"] == "ok" and len(row["predictions"]) == 2 for row in rows)
