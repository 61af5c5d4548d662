"""Training, evaluating and predicting over several streams, from drawn videos."""

import json
import shutil
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.commands import run
from tests.media import moving_square, write_frames
from tests.pages import Page
from vidpipe.features.maintenance import drop
from vidpipe.features.store import FeatureStore
from vidpipe.runs.run import Run
from vidpipe.training import checkpoints

CPU = ("--device", "cpu")
TINY = ("--hidden-size", 4, "--epochs", 2, *CPU)
STREAMS = ["lenet5", "flow"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 videos of a square that moves right or left, their stores, and a run with the default heads."""
    folder = tmp_path_factory.mktemp("streams")
    for number in range(12):
        for label in ("left", "right"):
            frames = moving_square(number, to_the_right=label == "right")
            write_frames(folder / "videos" / label / f"{number}.mp4", frames)
    backbones = ("--backbone", ",".join(STREAMS), "--num-frames", 4, "--workers", 1, *CPU)
    assert run("extract", folder / "videos", "-o", folder / "features", *backbones).exit_code == 0
    trained = run("train", folder / "features", "-o", folder / "run", "--no-refit", *TINY)
    assert trained.exit_code == 0, trained.output
    return folder


@pytest.fixture
def features(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder / "features", tmp_path / "features")


def test_a_folder_of_stores_is_trained_on_as_a_whole(folder: Path) -> None:
    found = Run.open(folder / "run")
    assert list(found.keys) == STREAMS
    names = [member.member.name for member in found.members]
    assert names == ["lenet5/statistics", "flow/statistics", "lenet5/lstm", "flow/lstm"]
    assert [member.weight for member in found.members] == pytest.approx([4 / 3, 4 / 3, 2 / 3, 2 / 3])
    assert set(found.evaluations["test"]) == {"fusion", *names, *STREAMS, "mean"}
    assert {(row.stream, row.head) for row in found.history} == {
        (n, h) for n in STREAMS for h in ("statistics", "lstm")
    }


def test_streams_can_be_chosen_and_given_one_by_one(folder: Path, tmp_path: Path) -> None:
    options = ("--head", "statistics", *CPU)
    chosen = run("train", folder / "features", "-o", tmp_path / "a", "--streams", "flow", *options)
    assert chosen.exit_code == 0, chosen.output
    given = run("train", folder / "features/flow", folder / "features/lenet5", "-o", tmp_path / "b", *options)
    assert given.exit_code == 0, given.output
    assert (list(Run.open(tmp_path / "a").keys), list(Run.open(tmp_path / "b").keys)) == (["flow"], STREAMS)


def test_a_prediction_from_a_file_is_that_from_the_stores(folder: Path) -> None:
    command = ("predict", folder / "run", folder / "videos", "--format", "json", "--top", 2, *CPU)
    fresh, stored = (
        [json.loads(line) for line in run(*command, *more).stdout.splitlines()]
        for more in ((), ("--store", folder / "features"))
    )
    assert len(fresh) == len(stored) == 24
    for one, other in zip(fresh, stored, strict=True):
        assert (one["video"], one["label"]) == (other["video"], other["label"])
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)


def test_an_evaluation_is_of_all_streams(folder: Path) -> None:
    result = run("evaluate", folder / "run", folder / "features", "--format", "json", *CPU)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["top1"] == Run.open(folder / "run").evaluations["test"]["fusion"].top1
    assert set(found["parts"]) == {f"{n}/{h}" for n in STREAMS for h in ("statistics", "lstm")} | set(STREAMS)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--streams", "flw"), "unknown stream 'flw'; did you mean 'flow'?"),
        (("--fusion", "late", "--streams", "flow", "--head", "lstm"), "leave --fusion out, or train on another stream"),
        (("--fusion", "early", "--head", "lstm"), "use --fusion late, or add --head statistics"),
    ],
)
def test_what_does_not_go_together_is_named_with_the_remedy(
    folder: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    result = run("train", folder / "features", "-o", tmp_path / "run", *more, *CPU)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_stream_given_twice_is_refused(folder: Path, tmp_path: Path) -> None:
    result = run("train", folder / "features", folder / "features/flow", "-o", tmp_path / "run", *CPU)
    assert result.exit_code == 2
    assert "the stream flow is given twice" in result.stderr


@pytest.mark.parametrize("name", ["fusion", "mean", "without flow"])
def test_a_stream_with_a_name_of_the_metrics_is_refused(features: Path, tmp_path: Path, name: str) -> None:
    (features / "lenet5").rename(features / name)
    result = run("train", features, "-o", tmp_path / "run", *CPU)
    assert result.exit_code == 2
    assert f"a stream cannot be called {name}" in result.stderr
    assert "rename the folder, for example to lenet5" in result.stderr


def test_a_video_that_one_stream_lacks_is_named_and_can_be_left_out(features: Path, tmp_path: Path) -> None:
    drop(FeatureStore.open(features / "flow"), ["left/3.mp4"])
    options = ("-o", tmp_path / "run", "--head", "statistics", *CPU)
    refused = run("train", features, *options)
    assert refused.exit_code != 0
    assert "left/3.mp4" in refused.stderr
    assert "flow" in refused.stderr
    assert "--skip-missing" in refused.stderr
    taken = run("train", features, *options, "--skip-missing")
    assert taken.exit_code == 0, taken.output
    assert len(Run.open(tmp_path / "run").splits) == 23


def test_an_interrupted_training_of_several_members_continues_to_the_same_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    command = ("train", folder / "features", *TINY)
    assert run(*command, "-o", tmp_path / "whole").exit_code == 0
    real, written = checkpoints.MemberJournal._write, list[str]()

    def interrupted(journal: checkpoints.MemberJournal, state: object) -> None:
        real(journal, state)  # type: ignore[arg-type]
        written.append(journal._member.name)
        if written.count("flow/lstm") == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.MemberJournal, "_write", interrupted)
        stopped = run(*command, "-o", tmp_path / "parts")
    assert stopped.exit_code != 0
    assert {"lenet5/lstm", "flow/lstm"} <= set(written)
    resumed = run(*command, "-o", tmp_path / "parts", "--resume")
    assert resumed.exit_code == 0, resumed.output
    for name in ("model.safetensors", "history.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_early_fusion_of_mean_features_has_a_baseline_beside_it(folder: Path, tmp_path: Path) -> None:
    options = ("--head", "mean", "--fusion", "early", "--test-fraction", 0.3, *CPU)
    result = run("train", folder / "features", "-o", tmp_path / "run", *options)
    assert result.exit_code == 0, result.output
    found = Run.open(tmp_path / "run")
    assert (found.classifier, set(found.evaluations["test"])) == ("fusion", {"fusion", "mean"})
    both, alone = (
        len(member.heads) for fusion in found.load_classifiers(torch.device("cpu")) for member in fusion.fitted.values()
    )
    assert (both, alone) == (2, 1)


@pytest.mark.parametrize(("is_found", "sentence"), [(False, "These are the default"), (True, "The weights were found")])
def test_the_report_shows_streams_heads_and_their_weights(
    folder: Path, tmp_path: Path, is_found: bool, sentence: str
) -> None:
    copied = shutil.copytree(folder / "run", tmp_path / "run")
    document = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(document | {"has_found_weights": is_found}))
    result = run("report", copied, "--videos", folder / "videos", "-o", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    page, found = Page(tmp_path / "page.html"), Run.open(copied)
    rows = {line[0]: line[1:3] for line in page.tables["parts"][1:]}
    weights = {one.member.name: f"{one.weight:.3f}" for one in found.members}
    tested = found.evaluations["test"]
    assert rows == {name: [weights.get(name, "–"), f"{tested[name].top1:.3f}"] for name in tested if name != "mean"}
    assert sentence in page.text
    assert all(f"backbone of {name}" in page.text for name in STREAMS)


def test_frames_in_the_report_of_motion_alone_have_the_pictures_proportions(folder: Path, tmp_path: Path) -> None:
    ids = [f"{label}/{number}.mp4" for number in range(12) for label in ("left", "right")]
    wrong = "".join(f"{video},{'ab'[number // 2 % 2]}\n" for number, video in enumerate(ids))
    (tmp_path / "labels.csv").write_text(f"video,label\n{wrong}")
    options = ("--labels", tmp_path / "labels.csv", "--streams", "flow", "--head", "mean", "--folds", 2, *CPU)
    assert run("train", folder / "features", "-o", tmp_path / "run", *options).exit_code == 0
    assert run("report", tmp_path / "run", "--videos", folder / "videos", "-o", tmp_path / "page.html").exit_code == 0
    attributes = Page(tmp_path / "page.html").attributes
    uris = [value for tag, name, value in attributes if (tag, name) == ("img", "src")]
    frame = np.asarray(Image.open(BytesIO(b64decode(uris[2].partition(",")[2]))).convert("L"))
    bright = frame > (int(frame.min()) + int(frame.max())) / 2
    height, width = bright.any(axis=1).sum(), bright.any(axis=0).sum()
    assert height == pytest.approx(width, abs=3)


def test_the_direction_of_motion_is_in_the_flow(folder: Path) -> None:
    """A square that moves right and one that moves left differ in flow, whatever the frames show."""
    store = FeatureStore.open(folder / "features/flow")
    means = {
        label: np.stack([store[i].features.mean(0) for i in store if i.startswith(label)])
        for label in ("left", "right")
    }
    between = np.linalg.norm(means["left"].mean(0) - means["right"].mean(0))
    within = max(np.linalg.norm(one - one.mean(0), axis=1).mean() for one in means.values())
    assert between > within
