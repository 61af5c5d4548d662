"""Labels from folders and from CSV files, and how they are matched with the videos of a store."""

import csv
import logging
import time
from pathlib import Path

import pytest

from vidpipe.datasets.labels import first_few, labels_from_folders, read_labels
from vidpipe.errors import LabelsError, UsageError
from vidpipe.records import LabeledVideo

DATA = Path(__file__).parents[2] / "shared" / "data"


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.fixture
def labels_csv(tmp_path: Path) -> Path:
    return write(tmp_path / "labels.csv", "video,label\nwalk/a.mp4,walk\nrun/b.mp4,run\n")


# Folders


def test_the_parent_folder_is_the_label() -> None:
    videos = labels_from_folders(["walk/a.mp4", "set1/run/b.mp4"])
    assert videos == [LabeledVideo("walk/a.mp4", "walk"), LabeledVideo("set1/run/b.mp4", "run")]


def test_ucf101_file_names_in_folders_carry_their_group() -> None:
    (video,) = labels_from_folders(["UCF-101/Archery/v_Archery_g08_c02.avi"])
    assert (video.label, video.group) == ("Archery", "Archery_g08")


def test_videos_in_no_folder_are_counted_and_named_with_the_remedy() -> None:
    with pytest.raises(LabelsError, match=r"4 videos .*: a.mp4, b.mp4, c.mp4 and 1 more; .*--labels FILE.*video,label"):
        labels_from_folders(["a.mp4", "b.mp4", "c.mp4", "d.mp4", "walk/e.mp4"])


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_folders_for_train_val_and_test_around_the_classes_give_the_split(val: str) -> None:
    ids = ["train/walk/a.mp4", "train/set1/run/b.mp4", f"{val}/walk/c.mp4", "test/run/d.mp4"]
    assert labels_from_folders(ids) == [
        LabeledVideo(ids[0], "walk", "train"),
        LabeledVideo(ids[1], "run", "train"),
        LabeledVideo(ids[2], "walk", "val"),
        LabeledVideo(ids[3], "run", "test"),
    ]


@pytest.mark.parametrize(
    "ids",
    [
        ["train/walk/a.mp4", "test/run/b.mp4", "extra/run/c.mp4"],
        ["train/walk/a.mp4", "train/run/b.mp4"],
        ["val/walk/a.mp4", "test/run/b.mp4"],
    ],
)
def test_an_odd_folder_or_no_two_sides_give_no_split(ids: list[str]) -> None:
    assert [video.split for video in labels_from_folders(ids)] == [None] * len(ids)


def test_a_folder_that_gives_the_split_is_no_label() -> None:
    with pytest.raises(LabelsError, match=r"1 video in no folder whose name could be the label: train/a\.mp4; "):
        labels_from_folders(["train/a.mp4", "train/walk/b.mp4", "test/walk/c.mp4"])


# CSV files: what is read


def test_a_csv_gives_label_split_and_group(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "video,label,split,group\na.mp4,walk,train,park\nb.mp4,run,test,street\n")
    assert read_labels(path, video_ids=["a.mp4", "b.mp4"]) == [
        LabeledVideo("a.mp4", "walk", "train", "park"),
        LabeledVideo("b.mp4", "run", "test", "street"),
    ]


def test_labels_may_be_unicode_hold_commas_and_come_from_a_spreadsheet(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", '\ufefflabel, video,\r\n"sauter, courir", été/a.mp4 ,\r\n\r\n漕ぐ,b.mp4,\r\n')
    assert read_labels(path, video_ids=["été/a.mp4", "b.mp4"]) == [
        LabeledVideo("été/a.mp4", "sauter, courir"),
        LabeledVideo("b.mp4", "漕ぐ"),
    ]


def test_empty_optional_cells_mean_nothing_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "video,label,split,group\na.mp4,walk,,\nb.mp4,run\n")
    videos = read_labels(path, video_ids=["a.mp4", "b.mp4"])
    assert videos == [LabeledVideo("a.mp4", "walk"), LabeledVideo("b.mp4", "run")]


@pytest.mark.parametrize("spelling", ["val", "valid", "validation", "validate", "Val"])
def test_every_usual_spelling_of_val_is_val(tmp_path: Path, spelling: str) -> None:
    path = write(tmp_path / "labels.csv", f"video,label,split\na.mp4,walk,{spelling}\n")
    assert read_labels(path, video_ids=["a.mp4"])[0].split == "val"


def test_columns_that_are_not_read_are_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "labels.csv", "video,label,gruop\na.mp4,walk,park\n")
    assert read_labels(path, video_ids=["a.mp4"])[0].group is None
    assert "not read: gruop; known: video,label,split,group" in caplog.text


def test_a_kinetics_csv_names_files_by_clip_and_groups_them_by_source(tmp_path: Path) -> None:
    path = write(
        tmp_path / "validate.csv",
        "label,youtube_id,time_start,time_end,split,is_cc\n"
        "testifying,---QUuC4vJs,84,94,validate,0\n"
        '"air drumming",_dbcJuKJQNs,0,10,train,1\n',
    )
    ids = ["val/---QUuC4vJs_000084_000094.mp4", "air drumming/_dbcJuKJQNs_000000_000010.webm"]
    assert read_labels(path, video_ids=ids) == [
        LabeledVideo(ids[0], "testifying", "val", "---QUuC4vJs"),
        LabeledVideo(ids[1], "air drumming", "train", "_dbcJuKJQNs"),
    ]


@pytest.mark.parametrize("name", ["fight", "interaction"])
def test_the_real_label_files_are_read_row_by_row(name: str) -> None:
    path = DATA / "clips" / name / "labels.csv"
    if not path.exists():
        pytest.skip(f"no {path}")
    rows = list(csv.reader(path.read_text().splitlines()[1:]))
    videos = read_labels(path, video_ids=[video for video, _, _ in rows])
    assert [(video.video_id, video.label, video.group) for video in videos] == [tuple(row) for row in rows]


# Names and ids


def test_names_may_be_relative_to_a_folder_below_the_extracted_one(labels_csv: Path) -> None:
    videos = read_labels(labels_csv, video_ids=["set1/walk/a.mp4", "set1/run/b.mp4"])
    assert [video.video_id for video in videos] == ["set1/walk/a.mp4", "set1/run/b.mp4"]


def test_a_name_matches_whole_parts_of_an_id_only(labels_csv: Path) -> None:
    with pytest.raises(LabelsError, match=r"1 labelled video without features: walk/a\.mp4"):
        read_labels(labels_csv, video_ids=["sidewalk/a.mp4", "run/b.mp4"])


def test_an_exact_id_wins_over_longer_ones(labels_csv: Path) -> None:
    videos = read_labels(labels_csv, video_ids=["walk/a.mp4", "copy/walk/a.mp4", "run/b.mp4"])
    assert [video.video_id for video in videos] == ["walk/a.mp4", "run/b.mp4"]


def test_a_name_that_fits_two_ids_is_refused_with_both(labels_csv: Path) -> None:
    with pytest.raises(LabelsError, match=r"line 2: 'walk/a\.mp4' may be 'x/walk/a\.mp4' or 'y/walk/a\.mp4'"):
        read_labels(labels_csv, video_ids=["y/walk/a.mp4", "x/walk/a.mp4", "run/b.mp4"])


def test_a_name_may_use_backslashes_and_leave_the_extension_out(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "video,label\n.\\walk\\a.mp4,walk\nb,run\n")
    assert [video.video_id for video in read_labels(path, video_ids=["walk/a.mp4", "run/b.mov"])] == [
        "walk/a.mp4",
        "run/b.mov",
    ]


def test_matching_takes_time_in_proportion_to_the_number_of_videos(tmp_path: Path) -> None:
    names = [f"walk/{number}.mp4" for number in range(10_000)]
    path = write(tmp_path / "labels.csv", "video,label\n" + "".join(f"{name},walk\n" for name in names))
    start = time.process_time()
    videos = read_labels(path, video_ids=[f"set1/{name}" for name in names])
    assert time.process_time() - start < 2
    assert [video.video_id for video in videos] == [f"set1/{name}" for name in names]


# Labels and videos that do not fit


def test_labelled_videos_without_features_are_an_error_with_remedies(labels_csv: Path) -> None:
    with pytest.raises(LabelsError) as caught:
        read_labels(labels_csv, video_ids=["a.mp4"])
    message = str(caught.value)
    assert "2 labelled videos without features: walk/a.mp4, run/b.mp4" in message
    assert "an id in the store looks like 'a.mp4'" in message
    assert "extract them, remove their rows, or pass --skip-missing" in message


def test_missing_videos_are_skipped_on_request_with_a_warning(
    labels_csv: Path, caplog: pytest.LogCaptureFixture
) -> None:
    videos = read_labels(labels_csv, video_ids=["run/b.mp4"], skip_missing=True)
    assert videos == [LabeledVideo("run/b.mp4", "run")]
    assert "1 labelled video without features: walk/a.mp4; left out" in caplog.text


def test_nothing_left_after_skipping_is_an_error(labels_csv: Path) -> None:
    with pytest.raises(LabelsError, match="none of its videos has features"):
        read_labels(labels_csv, video_ids=["other.mp4"], skip_missing=True)


def test_videos_that_failed_to_extract_are_left_out_with_a_warning(
    labels_csv: Path, caplog: pytest.LogCaptureFixture
) -> None:
    videos = read_labels(labels_csv, video_ids=["run/b.mp4"], failed_ids=["walk/a.mp4"])
    assert videos == [LabeledVideo("run/b.mp4", "run")]
    assert "1 labelled video could not be read when extracting: walk/a.mp4" in caplog.text


def test_a_video_that_failed_once_but_has_features_is_kept(labels_csv: Path, caplog: pytest.LogCaptureFixture) -> None:
    videos = read_labels(labels_csv, video_ids=["run/b.mp4", "walk/a.mp4"], failed_ids=["walk/a.mp4"])
    assert len(videos) == 2
    assert not caplog.records


def test_videos_without_a_label_are_left_out_and_counted(labels_csv: Path, caplog: pytest.LogCaptureFixture) -> None:
    videos = read_labels(labels_csv, video_ids=["run/b.mp4", "walk/a.mp4", "z.mp4", "y.mp4"])
    assert [video.video_id for video in videos] == ["walk/a.mp4", "run/b.mp4"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "2 videos of the store without a label: y.mp4, z.mp4; left out" in record.getMessage()


def test_identical_lines_count_once(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "video,label\nx/a.mp4,walk\nx/a.mp4,walk\na.mp4,walk\n")
    assert read_labels(path, video_ids=["x/a.mp4"]) == [LabeledVideo("x/a.mp4", "walk")]


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ("a.mp4,walk,train", "a.mp4,run,train", "label 'walk' in .*line 2, and label 'run' in .*line 4"),
        ("a.mp4,walk,train", "x/a.mp4,walk,test", "split 'train' in .*line 2, and split 'test' in .*line 4"),
    ],
)
def test_contradicting_lines_are_both_named(tmp_path: Path, first: str, second: str, what: str) -> None:
    path = write(tmp_path / "labels.csv", f"video,label,split\n{first}\nb.mp4,run,train\n{second}\n")
    with pytest.raises(LabelsError, match=f"'x/a.mp4' has {what}; remove one"):
        read_labels(path, video_ids=["x/a.mp4", "b.mp4"])


# CSV files: what is refused


def test_a_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.csv: no such file or folder; .*video,label"):
        read_labels(tmp_path / "nowhere.csv", video_ids=["a.mp4"])


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"without official split lists; give .*ucfTrainTestlist.*video,label"):
        read_labels(tmp_path, video_ids=["a.mp4"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; its first line must name the columns video,label"),
        ("video,label\n", "no rows"),
        ("name,label\na.mp4,walk\n", "missing column 'video'; found: name, label; needed: video,label"),
        ("a.mp4,walk\n", "missing column 'video'; found: a.mp4, walk"),
        ("video;label\na.mp4;walk\n", "found: video;label; needed: video,label in the first line, separated by commas"),
        ("video,label,label\na.mp4,walk,run\n", "column 'label' stands there more than once"),
        ("youtube_id,time_start,time_end\nabc,0,10\n", "missing column 'label'.*needed: label,youtube_id"),
        ("video,label\na.mp4,walk\nb.mp4, \n", "line 3: the cell of column 'label' is empty"),
        ("video,label\n,walk\n", "line 2: the cell of column 'video' is empty"),
        ("video,label\na.mp4,walk, run\n", "line 2: more cells than columns; put double quotes"),
        ('video,label\na.mp4,"walk\n', "not a CSV file"),
        ("video,label,split\na.mp4,walk,tain\n", "line 2: unknown split 'tain'; did you mean 'train'"),
        ("video,label,split\na.mp4,walk,testing\n", "unknown split 'testing'; did you mean 'test'"),
        ("label,youtube_id,time_start,time_end\nwalk,abc,1:20,90\n", "line 2: time_start is '1:20'.*whole seconds"),
    ],
)
def test_bad_csv_files_are_refused_in_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "labels.csv", text)
    with pytest.raises(LabelsError, match=message) as caught:
        read_labels(path, video_ids=["a.mp4", "b.mp4"])
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes("video,label\na.mp4,walk\nété.mp4,run\n".encode("latin-1"))
    with pytest.raises(LabelsError, match="line 3: not UTF-8 text; save the file as plain text in UTF-8"):
        read_labels(path, video_ids=["a.mp4"])


def test_few_names_are_listed_and_many_are_counted() -> None:
    assert first_few(["a", "b", "c"]) == "a, b, c"
    assert first_few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
