"""The commands as a user types them: what they print where, their exit codes, and one clear line for each mistake."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from tests.commands import LITE0, run
from tests.media import moving_square, write_frames, write_sound, write_video
from vidpipe.backbones.table import BACKBONES
from vidpipe.features.store import FeatureStore


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen small videos in two folders, and one file that is none."""
    folder = tmp_path_factory.mktemp("cli") / "videos"
    for number in range(8):
        write_frames(folder / "right" / f"{number}.mp4", moving_square(number, to_the_right=True))
        write_frames(folder / "left" / f"{number}.mp4", moving_square(number, to_the_right=False))
    (folder / "left" / "broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def extracted(videos: Path) -> tuple[Path, Result]:
    store = videos.parent / "features"
    return store, run("extract", videos, "-o", store, "--num-frames", 4, *LITE0)


@pytest.fixture(scope="module")
def trained(extracted: tuple[Path, Result]) -> tuple[Path, Result]:
    run_path = extracted[0].parent / "run"
    quick = ("--epochs", 3, "--hidden-size", 8, "--device", "cpu")
    return run_path, run("train", extracted[0], "-o", run_path, *quick)


def test_extract_stores_what_it_can_and_names_what_it_cannot(extracted: tuple[Path, Result]) -> None:
    store, result = extracted
    assert result.exit_code == 3
    assert "16 videos stored (64 frames" in result.stdout
    assert "0 were there already, 1 failed" in result.stdout
    assert "left/broken.mp4" in result.stderr
    assert "not a media file" in result.stderr
    opened = FeatureStore.open(store)
    assert len(opened) == 16
    assert opened["right/3.mp4"].features.shape == (4, 1280)
    assert [failure.video_id for failure in opened.failures] == ["left/broken.mp4"]


def test_extract_again_skips_what_is_there(extracted: tuple[Path, Result], videos: Path) -> None:
    result = run("extract", videos / "right", "-o", videos.parent / "again", "--num-frames", 4, *LITE0)
    assert result.exit_code == 0
    result = run("extract", videos / "right", "-o", videos.parent / "again", "--num-frames", 4, *LITE0)
    assert "0 videos stored" in result.stdout
    assert "8 were there already, 0 failed" in result.stdout


def test_a_store_with_other_settings_is_refused_and_untouched(extracted: tuple[Path, Result], videos: Path) -> None:
    before = {path: path.read_bytes() for path in extracted[0].rglob("*") if path.is_file()}
    result = run("extract", videos, "-o", extracted[0], "--num-frames", 5, *LITE0)
    assert result.exit_code == 1
    message = (
        "holds efficientnet_lite0 features, sampled uniform, 4 frames; you asked for efficientnet_lite0 features, "
    )
    assert message + "sampled uniform, 5 frames; " in result.stderr
    assert before == {path: path.read_bytes() for path in extracted[0].rglob("*") if path.is_file()}


def test_train_says_what_it_did_and_reports_the_baseline(trained: tuple[Path, Result]) -> None:
    run_path, result = trained
    assert result.exit_code == 0, result.output
    assert "2 classes" in result.stdout
    assert "no groups: each video is its own group" in result.stdout
    assert "test  fusion top-1" in result.stdout
    assert "test  mean   top-1" in result.stdout
    assert (
        "weights: efficientnet_lite0/statistics 1.33, efficientnet_lite0/lstm 0.67 (the default ones)" in result.stdout
    )
    assert (run_path / "run.json").exists()


@pytest.mark.slow
def test_train_over_folds_prints_the_estimate_and_warns(extracted: tuple[Path, Result], tmp_path: Path) -> None:
    folds = ("--folds", 2, "--group-by", r"(\d+)\.mp4", "--device", "cpu")
    result = run("train", extracted[0], "-o", tmp_path / "run", *folds)
    assert result.exit_code == 0, result.output
    assert "folds fusion top-1" in result.stdout
    assert "(95 % CI " in result.stdout
    assert "\ntest " not in result.stdout
    assert "are too few to calibrate" in result.stderr
    assert "warning: only 8 groups" in result.stderr


def test_train_says_what_does_not_go_together(extracted: tuple[Path, Result], tmp_path: Path) -> None:
    for arguments, message in (
        (("--split", "all"), "official lists of UCF101"),
        (("--motion", "centered"), "did you mean 'centred'?"),
        (
            ("--group-by", "camera"),
            "labels from folders have no columns, and as a regular expression it matches nothing",
        ),
        (("--ensemble", 2, "--head", "statistics"), "the same for every seed"),
    ):
        result = run("train", extracted[0], "-o", tmp_path / "run", *arguments)
        assert result.exit_code != 0
        assert message in result.stderr


def test_train_does_not_replace_a_run_unasked(trained: tuple[Path, Result], extracted: tuple[Path, Result]) -> None:
    result = run("train", extracted[0], "-o", trained[0])
    assert result.exit_code == 1
    assert "--overwrite" in result.stderr
    result = run("train", extracted[0], "-o", trained[0], "--resume")
    assert "this training is done" in result.stderr


def test_evaluate_prints_a_table_or_one_json_object_and_draws_a_picture(
    trained: tuple[Path, Result], extracted: tuple[Path, Result], tmp_path: Path
) -> None:
    result = run("evaluate", trained[0], extracted[0])
    assert result.exit_code == 1
    assert "all of these 16 videos were used for training or model selection" in result.stderr
    assert run("train", extracted[0], "-o", tmp_path / "run", "--no-refit", "--head", "mean").exit_code == 0
    result = run("evaluate", tmp_path / "run", extracted[0], "--plot", tmp_path / "confusion.png")
    assert result.exit_code == 0, result.output
    assert "precision  recall" in result.stdout
    assert "used for training or model selection" in result.stderr
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    evaluation = json.loads(run("evaluate", tmp_path / "run", extracted[0], "--format", "json").stdout)
    assert {"top1", "top5", "macro_f1", "num_videos", "per_class", "confusion"} <= set(evaluation)
    assert np.sum(evaluation["confusion"]) == evaluation["num_videos"]
    assert [row["label"] for row in evaluation["per_class"]] == ["left", "right"]


def test_predict_gives_one_json_object_a_video_and_goes_on_after_a_bad_one(
    trained: tuple[Path, Result], videos: Path
) -> None:
    result = run("predict", trained[0], videos / "left", "--format", "json", "--device", "cpu", "--workers", 1)
    assert result.exit_code == 3
    rows = {row["video"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert set(rows) == {*(f"{number}.mp4" for number in range(8)), "broken.mp4"}
    assert rows["broken.mp4"]["status"] == "failed"
    assert rows["broken.mp4"]["predictions"] == []
    assert "not a media file" in rows["broken.mp4"]["error"]
    good = rows["0.mp4"]
    assert (good["status"], good["error"]) == ("ok", None)
    assert sum(entry["probability"] for entry in good["predictions"]) == pytest.approx(1)
    assert {entry["label"] for entry in good["predictions"]} == {"left", "right"}


def test_predict_leaves_out_what_exclude_names(
    trained: tuple[Path, Result], extracted: tuple[Path, Result], videos: Path
) -> None:
    options = ("--exclude", "left", "--exclude", "[2-9].mp4", "--store", extracted[0], "--format", "json")
    result = run("predict", trained[0], videos, *options)
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["video"] for line in result.stdout.splitlines()] == ["right/0.mp4", "right/1.mp4"]


def test_predict_from_a_store_agrees_with_predict_from_the_video(
    trained: tuple[Path, Result], extracted: tuple[Path, Result], videos: Path
) -> None:
    files = [videos / "left" / "0.mp4", videos / "right" / "0.mp4"]
    cold = run("predict", trained[0], *files, "--format", "csv", "--device", "cpu")
    warm = run("predict", trained[0], *files, "--format", "csv", "--device", "cpu", "--store", extracted[0])
    assert cold.exit_code == warm.exit_code == 0, cold.output + warm.output
    tables = [
        sorted(
            (row["video"], row["label"], round(float(row["probability"]), 4))
            for row in csv.DictReader(io.StringIO(text))
        )
        for text in (cold.stdout, warm.stdout)
    ]
    assert tables[0] == tables[1]
    assert [row[0] for row in tables[0]] == ["left/0.mp4", "right/0.mp4"]


def test_info_describes_a_store_a_run_and_a_video(
    trained: tuple[Path, Result], extracted: tuple[Path, Result], videos: Path
) -> None:
    store = json.loads(run("info", extracted[0], "--format", "json").stdout)
    assert (store["kind"], store["videos"], store["frames"], store["failed"]) == ("store", 16, 64, 1)
    trained_run = json.loads(run("info", trained[0], "--format", "json").stdout)
    assert (trained_run["kind"], trained_run["class_names"]) == ("run", ["left", "right"])
    video = json.loads(run("info", videos / "left" / "0.mp4", "--format", "json").stdout)
    assert (video["kind"], video["num_frames"], video["width"], video["height"]) == ("video", 12, 96, 64)
    assert "num frames" in run("info", videos / "left" / "0.mp4").stdout


def test_backbones_lists_them_all() -> None:
    rows = [json.loads(line) for line in run("backbones", "--format", "json").stdout.splitlines()]
    assert [row["name"] for row in rows] == list(BACKBONES)
    here = [row["name"] for row in rows if row["here"]]
    assert {"lenet5", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"} <= set(here)
    lite0 = next(row for row in rows if row["name"] == "efficientnet_lite0")
    assert (lite0["dim"], lite0["input_size"], lite0["top1"]) == (1280, [224, 224], 75.1)
    assert lite0["poolings"] == ["avg", "max"]
    assert lite0["parameters"] == 4_652_008 - 1000 * (1280 + 1)  # timm's own figure, without the classifier
    table = run("backbones").stdout
    assert all(f"\n{name} " in table for name in BACKBONES)


def test_backbones_describes_those_named() -> None:
    shown = run("backbones", "dinov2_small", "timm/test_vit.r160_in1k").stdout
    assert "facebookresearch/dinov2, linear probe" in shown
    assert "https://huggingface.co/timm/test_vit.r160_in1k/resolve/main/model.safetensors" in shown
    assert run("backbones", "resnet5").exit_code == 2


def test_an_option_wins_over_the_config_file_and_that_over_the_default(videos: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        '[extract]\nbackbone = "efficientnet_lite0"\nnum_frames = 2\ndevice = "cpu"\n[train]\nepochs = 1\n'
    )
    for more, expected in (((), 2), (("--num-frames", 3), 3)):
        store = tmp_path / f"store{expected}"
        result = run("extract", videos / "left" / "0.mp4", "-o", store, "--config", config, *more)
        assert result.exit_code == 0, result.output
        assert FeatureStore.open(store).key.sampling == {"method": "uniform", "num_frames": expected}
        assert FeatureStore.open(store).key.backbone == "efficientnet_lite0"


def test_quiet_prints_results_only(extracted: tuple[Path, Result], videos: Path) -> None:
    result = run("extract", videos / "right", "-o", videos.parent / "quiet", "--num-frames", 4, "--quiet", *LITE0)
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1


def _nothing(folder: Path) -> list[object]:
    return ["extract", folder / "nowhere", "-o", folder / "s"]


def _no_videos(folder: Path) -> list[object]:
    (folder / "empty").mkdir()
    return ["extract", folder / "empty", "-o", folder / "s"]


def _empty_csv(folder: Path) -> list[object]:
    (folder / "list.csv").touch()
    return ["extract", folder / "list.csv", "-o", folder / "s"]


def _wrong_column(folder: Path) -> list[object]:
    (folder / "list.csv").write_text("title\na.mp4\n")
    return ["extract", folder / "list.csv", "-o", folder / "s"]


def _unknown_backbone(folder: Path) -> list[object]:
    return ["extract", write_video(folder / "a.mp4", 2), "-o", folder / "s", "--backbone", "resnet5"]


def _wrong_pooling(folder: Path) -> list[object]:
    return ["extract", write_video(folder / "a.mp4", 2), "-o", folder / "s", "--backbone", "clip_b32", "--pool", "max"]


def _in_both_libraries(folder: Path) -> list[object]:
    return ["extract", write_video(folder / "a.mp4", 2), "-o", folder / "s", "--backbone", "densenet161"]


def _unknown_config_key(folder: Path) -> list[object]:
    (folder / "c.toml").write_text("[extract]\nbackbon = 'resnet50'\n")
    return ["extract", write_video(folder / "a.mp4", 2), "-o", folder / "s", "--config", folder / "c.toml"]


def _wrong_parameter(folder: Path) -> list[object]:
    return ["extract", write_video(folder / "a.mp4", 2), "-o", folder / "s", "--fps", 2]


def _no_store(folder: Path) -> list[object]:
    return ["train", folder, "-o", folder / "r"]


def _no_run(folder: Path) -> list[object]:
    return ["predict", folder, write_video(folder / "a.mp4", 2)]


def _unknown_command(folder: Path) -> list[object]:
    return ["extrakt", folder]


def _neither(folder: Path) -> list[object]:
    return ["info", folder]


def _no_video_inside(folder: Path) -> list[object]:
    return ["info", write_sound(folder / "a.wav")]


@pytest.mark.parametrize(
    ("make", "exit_code", "message"),
    [
        (_nothing, 2, "no such file or folder"),
        (_no_videos, 1, "no videos in this folder"),
        (_empty_csv, 1, "empty; the first line of a table names its columns"),
        (_wrong_column, 1, "missing column 'video'; found: title"),
        (_unknown_backbone, 2, "unknown backbone 'resnet5'; did you mean 'resnet50'?"),
        (
            _wrong_pooling,
            2,
            "--pool max does not go with clip_b32, whose feature is made from its class token; --pool token",
        ),
        (_in_both_libraries, 2, "--backbone timm/densenet161 or --backbone torchvision/densenet161"),
        (_unknown_config_key, 2, "unknown key 'backbon'; did you mean 'backbone'?"),
        (_wrong_parameter, 2, "--fps goes with --sampling fps"),
        (_no_store, 1, "no feature store"),
        (_no_run, 1, "no run"),
        (_unknown_command, 2, "unknown command 'extrakt'; did you mean 'extract'?"),
        (_neither, 1, "neither a feature store"),
        (_no_video_inside, 1, "no video stream"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy_and_leaves_nothing(
    tmp_path: Path, make: Callable[[Path], list[object]], exit_code: int, message: str
) -> None:
    result = run(*make(tmp_path))
    assert result.exit_code == exit_code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error")]) == 1
    assert not (tmp_path / "s").exists()
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,label\nright/0.mp4,r\nleft/0.mp4,l\nright/1.mp4,r\nleft/1.mp4,l\nno/where.mp4,r\n", "no/where.mp4"),
        ("video,label\nright/0.mp4,r\nleft/0.mp4,l\nright/1.mp4,r\n", "only one video: l"),
        ("video,label\nright/0.mp4,r\nright/1.mp4,r\n", "at least two classes"),
        ("title,label\nright/0.mp4,r\n", "missing column 'video'"),
        ("", "empty"),
    ],
)
def test_labels_that_do_not_fit_are_reported(
    extracted: tuple[Path, Result], tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "labels.csv").write_text(text)
    result = run("train", extracted[0], "-o", tmp_path / "run", "--labels", tmp_path / "labels.csv")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


def test_a_label_of_a_video_that_failed_is_no_mistake(extracted: tuple[Path, Result], tmp_path: Path) -> None:
    rows = [f"{side}/{number}.mp4,{side}" for side in ("left", "right") for number in range(8)]
    (tmp_path / "labels.csv").write_text("\n".join(["video,label", *rows, "left/broken.mp4,left"]))
    result = run(
        "train",
        extracted[0],
        "-o",
        tmp_path / "run",
        "--labels",
        tmp_path / "labels.csv",
        "--epochs",
        1,
        "--device",
        "cpu",
    )
    assert result.exit_code == 0, result.output
    assert "left/broken.mp4" in result.stderr


def test_a_run_whose_backbone_is_unknown_is_reported(
    trained: tuple[Path, Result], videos: Path, tmp_path: Path
) -> None:
    for path in trained[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    document = (tmp_path / "run.json").read_text().replace("efficientnet_lite0", "efficientnet_lite9")
    (tmp_path / "run.json").write_text(document)
    result = run("predict", tmp_path, videos / "left" / "0.mp4")
    assert result.exit_code == 1
    assert "did you mean 'efficientnet_lite" in result.stderr


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", 40)
    (tmp_path / "videos").mkdir()
    for number in range(1000):
        os.link(video, tmp_path / "videos" / f"{number}.mp4")
    folders = (str(tmp_path / "videos"), "-o", str(tmp_path / "s"))
    command = [sys.executable, "-m", "vidpipe", "extract", *folders, *LITE0]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore Ctrl-C
    )
    with process:
        assert process.stderr is not None
        assert any(re.search("[1-9][0-9]* of 1000 videos", line) for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "The same command continues from there" in stderr
    assert "Traceback" not in stderr
    store = FeatureStore.open(tmp_path / "s")
    assert 0 < len(store) < 1000
    assert f"{len(store)} of 1000 videos stored in" in stderr
    store.verify()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = run("train", tmp_path, "-o", tmp_path / "r", "--debug")
    assert "Traceback" in result.stderr
    assert result.exit_code == 1
