"""Training of detectors on the demo's figures, of which all boxes, masks and joints are known."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import vidpipe
from tests.annotated import write_annotated_figures
from vidpipe.backbones.weights import WeightsFile
from vidpipe.cli import main
from vidpipe.errors import InterruptedTrainingError, LabelsError, UsageError, VidpipeError, WeightsError
from vidpipe.features.store import FeatureStore
from vidpipe.regions.load import load_detector
from vidpipe.regions.table import DETECTORS, find_detector
from vidpipe.regions.trained import TrainedHeader, read_header, write_trained
from vidpipe.regions.training.coco import read_annotations
from vidpipe.regions.training.examples import Examples
from vidpipe.regions.training.fit import Step, _batch_starts
from vidpipe.regions.training.scoring import DetectorScores, score_files
from vidpipe.regions.training.trainers import TRAINERS, Plan

TINY: dict[str, Any] = {"size": 64, "width": 0.0625, "epochs": 2, "weights": "random"}
LIGHT = ("ssdlite", "yolov3", "fcn8s", "unet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`videos/`, three of them, and `annotations.json`."""
    folder = tmp_path_factory.mktemp("figures")
    write_annotated_figures(folder)
    return folder


def train(folder: Path, output: Path, *, detector: str = "yolov3", **settings: Any) -> Any:
    return vidpipe.train_detector(
        folder / "annotations.json", folder / "videos", output, detector=detector, **(TINY | settings)
    )


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """A file of yolov3 after two epochs."""
    train(folder, folder / "mine.safetensors")
    return folder / "mine.safetensors"


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


# Losses


def loss_of(name: str, folder: Path) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return a network in training mode, and what computes its loss on two frames."""
    trainer = TRAINERS[name]
    annotations = read_annotations(folder / "annotations.json")
    annotations = replace(annotations, frames=annotations.frames[:2])
    examples = Examples.read(annotations, folder / "videos", size=96, learned=trainer.learned)
    torch.manual_seed(0)
    width = 0.125 if trainer.has_width else 1.0
    plan = Plan(name, (1,), 96, width, examples.box_sizes(), encoder="mobilenet_v2")
    network = trainer.build(trainer.settings(plan)).train()
    pixels, truths = torch.from_numpy(examples.pictures[:] / np.float32(255)), [examples.truth(0), examples.truth(1)]
    return network, lambda: trainer.loss(network, pixels, truths)


@pytest.mark.parametrize("name", LIGHT)
def test_a_few_steps_on_one_batch_lower_the_loss(name: str, folder: Path) -> None:
    network, compute = loss_of(name, folder)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3 if TRAINERS[name].has_width else 1e-3)
    losses = []
    for _ in range(6):
        optimiser.zero_grad()
        loss = compute()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert min(losses[3:]) < 0.95 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRAINERS if name not in LIGHT])
def test_every_detector_has_a_loss_with_gradients(name: str, folder: Path) -> None:
    network, compute = loss_of(name, folder)
    compute().backward()  # type: ignore[no-untyped-call]
    gradients = [one.grad for one in network.parameters() if one.grad is not None]
    assert len(gradients) > 0.5 * len(list(network.parameters()))
    assert all(one.isfinite().all() for one in gradients)


# A training


def test_a_training_writes_a_file_that_detects_with_its_own_classes(folder: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    result = train(folder, tmp_path / "mine.safetensors", on_step=steps.append)
    header = read_header(result.path)
    assert header is not None
    assert (header.detector, header.classes, header.size) == ("yolov3", {1: "person"}, 64)
    scores = [step.score for step in steps if step.score is not None]
    assert len(scores) == 2
    assert result.scores.boxes.map == max(scores) == scores[result.best_epoch - 1]
    assert result.num_train > result.num_val > 0
    detector = load_detector(find_detector("yolov3"), WeightsFile("x", result.path, "file"), device="cpu")
    (found,) = detector.detect(np.zeros((1, 3, 90, 160), np.uint8))
    assert (found.height, found.width) == (90, 160)
    assert set(found.classes.tolist()) <= {1}


def test_the_same_seed_gives_the_same_detector(folder: Path, tmp_path: Path, trained: Path) -> None:
    again, other = tmp_path / "again.safetensors", tmp_path / "other.safetensors"
    train(folder, again)
    train(folder, other, seed=1)
    first, second, third = (safetensors.torch.load_file(path) for path in (trained, again, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_a_training_stops_when_validation_gets_no_better(folder: Path, tmp_path: Path) -> None:
    epochs: list[int] = []
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.25, 0.9])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidpipe.regions.training.fit._headline", lambda *_: next(scores))
        result = train(
            folder, tmp_path / "a.safetensors", epochs=6, patience=3, on_step=lambda step: epochs.append(step.epoch)
        )
    assert (result.best_epoch, max(epochs)) == (2, 5)


def interrupt_in(epoch: int) -> Any:
    def on_step(step: Step) -> None:
        if step.epoch == epoch:
            raise KeyboardInterrupt

    return on_step


def test_ctrl_c_keeps_the_best_epoch_so_far(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InterruptedTrainingError, match=r"mine.safetensors holds the best epoch so far, 1"):
        train(folder, tmp_path / "mine.safetensors", on_step=interrupt_in(2))
    train(folder, tmp_path / "whole.safetensors", epochs=2)
    assert read_header(tmp_path / "mine.safetensors") == read_header(tmp_path / "whole.safetensors")


def test_ctrl_c_before_the_end_of_an_epoch_leaves_an_older_file(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    with pytest.raises(InterruptedTrainingError, match="nothing is written"):
        train(folder, path, on_step=interrupt_in(1))
    assert not path.exists()
    path.write_bytes(b"older")
    with pytest.raises(InterruptedTrainingError, match="is unchanged"):
        train(folder, path, on_step=interrupt_in(1))
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_training_begins_from_a_trained_file(
    folder: Path, tmp_path: Path, trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "vidpipe"):
        train(folder, tmp_path / "more.safetensors", weights=str(trained), learning_rate=1e-12, epochs=1)
    assert "begins from" in caplog.text
    before, after = (safetensors.torch.load_file(path) for path in (trained, tmp_path / "more.safetensors"))
    assert all(torch.allclose(before[name], after[name], atol=1e-4) for name in before if "running" not in name)


# The commands


def test_the_commands_train_detect_and_score(folder: Path, tmp_path: Path, trained: Path) -> None:
    annotations, videos, found = folder / "annotations.json", folder / "videos", tmp_path / "found.json"
    options = ("--size", "64", "--width", "0.0625", "--epochs", "1", "--weights", "random")
    printed = run("regions", "train", videos, "--annotations", annotations, "--val-annotations", annotations,
                  "--detector", "yolov3", "-o", tmp_path / "a.safetensors", *options)  # fmt: skip
    assert "finds person; learned from" in printed
    weights = ("--detector", "yolov3", "--detector-weights", trained)
    run("regions", "detect", videos, *weights, "--annotations", annotations, "-o", found, "--min-score", "0")
    truth, content = (json.loads(path.read_text(encoding="utf-8")) for path in (annotations, found))
    names = [{(image["file_name"], image["frame_index"]) for image in one["images"]} for one in (truth, content)]
    assert names[0] == names[1]
    scores = json.loads(run("regions", "score", annotations, found, "--format", "json"))
    assert scores == json.loads(json.dumps(score_files(annotations, found).as_dict()))
    assert "AP50" in run("regions", "score", annotations, found)
    run("regions", "detect", videos, *weights, "-o", found, "--every", "7")
    index = [image["frame_index"] for image in json.loads(found.read_text(encoding="utf-8"))["images"]]
    assert set(index) <= {0, 7, 14, 21}


def test_detections_never_replace_annotations(folder: Path, trained: Path) -> None:
    path = folder / "annotations.json"
    before = path.read_bytes()
    arguments = ["regions", "detect", str(folder / "videos"), "-o", str(path), "--detector", "yolov3"]
    result = CliRunner().invoke(main, [*arguments, "--detector-weights", str(trained)])
    assert result.exit_code == 2
    assert "exists and is not COCO JSON of detections" in result.output
    assert path.read_bytes() == before


def test_a_video_that_cannot_be_read_is_reported_and_the_others_are_searched(
    folder: Path, tmp_path: Path, trained: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (video, *_) = sorted((folder / "videos").rglob("*.mp4"))
    arguments = ["regions", "detect", str(tmp_path / "broken.mp4"), str(video), "--detector", "yolov3"]
    arguments += ["--detector-weights", str(trained), "-o", str(tmp_path / "found.json"), "--every", "9"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 3
    assert "broken.mp4: not a media file" in result.output
    images = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["images"]
    assert {Path(image["file_name"]).name for image in images} == {video.name}


@pytest.mark.slow
def test_an_extraction_sees_the_regions_of_a_trained_detector(folder: Path, tmp_path: Path, trained: Path) -> None:
    store = vidpipe.extract(
        folder / "videos", tmp_path / "features", backbone="lenet5", num_frames=2, regions="people",
        detector="yolov3", detector_weights=str(trained), workers=1,
    )  # fmt: skip
    assert store.num_stored == 3
    regions = FeatureStore.open(tmp_path / "features").key.as_dict()["regions"]
    assert regions["detector"] == "yolov3"
    assert len(regions["weights"]) == 64


# What does not fit


def test_weights_of_another_network_are_one_line(folder: Path, tmp_path: Path, trained: Path) -> None:
    with pytest.raises(WeightsError, match="these are weights of yolov3, not of ssdlite"):
        train(folder, tmp_path / "a.safetensors", detector="ssdlite", width=1.0, weights=str(trained))
    with pytest.raises(WeightsError, match="weights of yolov3, not of retinanet; --detector yolov3"):
        load_detector(find_detector("retinanet"), WeightsFile("x", trained, "file"), device="cpu")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"not weights of yolov3: 0 of its \d+ tensors are there"):
        train(folder, tmp_path / "a.safetensors", weights=str(tmp_path / "other.safetensors"))
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"detector": "movenet"}, "movenet cannot be trained: it is an ONNX file, .*; these can: fasterrcnn, "),
        ({"detector": "mtcnn"}, "mtcnn cannot be trained: it is three networks, .*; these can: fasterrcnn, "),
        ({"detector": "yolo3"}, "did you mean 'yolov3'"),
        ({"detector": "ssdlite"}, "--width: ssdlite has one width"),
        ({"size": 100}, "--size 100: a multiple of 32"),
        ({"detector": "yolov3", "encoder": "resnet18"}, "--encoder goes with unet"),
        ({"weights": "none.safetensors"}, "--weights none.safetensors: no such file"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(
    folder: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(folder, tmp_path / "a.safetensors", **settings)


def test_the_detectors_that_cannot_be_trained_are_mtcnn_and_those_of_onnx_files() -> None:
    libraries = {name: spec.library for name, spec in DETECTORS.items() if name not in TRAINERS}
    assert [name for name, library in libraries.items() if library != "onnx"] == ["mtcnn"]


def test_a_file_that_cannot_be_written_is_refused_before_the_training(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        train(folder, tmp_path / "missing" / "a.safetensors")
    with pytest.raises(UsageError, match=r"ends in .safetensors"):
        train(folder, tmp_path / "a.pth")


@pytest.mark.parametrize(("num_examples", "batch_size", "starts"), [(9, 4, [0, 4]), (8, 4, [0, 4]), (10, 4, [0, 4, 8]),
                                                                    (1, 4, [0]), (2, 1, [0, 1])])  # fmt: skip
def test_no_batch_of_several_is_left_with_one_example(num_examples: int, batch_size: int, starts: list[int]) -> None:
    assert list(_batch_starts(num_examples, batch_size)) == starts


def test_masks_that_are_not_annotated_cannot_be_learned(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    content["annotations"][3].pop("segmentation")
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(LabelsError, match=r"frame \d+ of .*: has no mask"):
        vidpipe.train_detector(
            tmp_path / "boxes.json", folder / "videos", tmp_path / "a.safetensors", detector="maskrcnn"
        )


def test_regions_need_a_detector_of_people(folder: Path, tmp_path: Path, trained: Path) -> None:
    header = read_header(trained)
    assert header is not None
    other = TrainedHeader(header.detector, {2: "cat", 3: "dog"}, header.size, header.settings)
    write_trained(tmp_path / "cats.safetensors", safetensors.torch.load_file(trained), other)
    with pytest.raises(VidpipeError, match="finds cat, dog; a detector of the class `person` is needed"):
        vidpipe.extract(
            folder / "videos", tmp_path / "features", backbone="lenet5", regions="people", detector="yolov3",
            detector_weights=str(tmp_path / "cats.safetensors"),
        )  # fmt: skip


# What is learned


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Videos of many figures to learn from, and videos of other figures and backgrounds."""
    folders = tmp_path_factory.mktemp("learned"), tmp_path_factory.mktemp("others")
    actions = ("walk_right", "squat_down", "raise_arms", "wave_then_jump")
    write_annotated_figures(folders[0], num_groups=40, actions=actions, every=8)
    write_annotated_figures(folders[1], num_groups=6, actions=actions, seed=200)
    return folders


def scores_on_other_figures(figures: tuple[Path, Path], tmp_path: Path, name: str, **settings: Any) -> DetectorScores:
    learned, others = figures
    weights = tmp_path / f"{name}.safetensors"
    vidpipe.train_detector(
        learned / "annotations.json", learned / "videos", weights, detector=name, weights="random", **settings
    )
    truth, found = others / "annotations.json", tmp_path / "found.json"
    run("regions", "detect", others / "videos", "--detector", name, "--detector-weights", weights,
        "--annotations", truth, "-o", found)  # fmt: skip
    return score_files(truth, found)


@pytest.mark.slow
def test_a_small_yolov3_finds_figures_that_it_has_not_seen(figures: tuple[Path, Path], tmp_path: Path) -> None:
    scores = scores_on_other_figures(figures, tmp_path, "yolov3", size=160, width=0.125, epochs=16, learning_rate=2e-3)
    assert scores.boxes.ap50 >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("unet", {"size": 160, "width": 0.25, "epochs": 9, "learning_rate": 2e-3, "encoder": "mobilenet_v2"}),
        ("fcn8s", {"size": 256, "width": 0.125, "epochs": 8, "learning_rate": 3e-3}),
    ],
)
def test_a_small_network_covers_figures_that_it_has_not_seen(
    figures: tuple[Path, Path], tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    scores = scores_on_other_figures(figures, tmp_path, name, **settings)
    assert scores.overlap is not None
    assert scores.overlap.dice >= 0.85, scores.overlap
