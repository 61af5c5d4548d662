"""Labels from folders and from CSV files, and how they are matched with the videos of a store."""

import csv
import io
import logging
import time
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from vidpipe.datasets.labels import labels_from_folders, read_labels
from vidpipe.errors import LabelsError, UsageError, first_few
from vidpipe.records import LabeledVideo
from vidpipe.video.files import find_videos

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


TABLE = (("été, a.mp4", "sauter; courir"), ("b.mp4", "漕ぐ"))


def table_text(delimiter: str, columns: tuple[str, str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([columns, *TABLE])
    return stream.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "columns",
    [("Video", "Label"), ("filename", "class"), ("Video Path", "Category"), ("FILE", "Action"), ("name", "label")],
)
def test_what_spreadsheets_save_is_read_by_train_and_by_extract_alike(
    tmp_path: Path, delimiter: str, encoding: str, columns: tuple[str, str]
) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(table_text(delimiter, columns).encode(encoding))
    ids = [video for video, _ in TABLE]
    assert [(video.video_id, video.label) for video in read_labels(path, video_ids=ids)] == list(TABLE)
    assert [video.id for video in find_videos([path])] == ids


def test_columns_of_other_names_can_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "Clip Nr.;what\na.mp4;walk\n")
    videos = read_labels(path, video_ids=["a.mp4"], video_column="clip nr.", label_column="what")
    assert videos == [LabeledVideo("a.mp4", "walk")]
    assert [video.id for video in find_videos([path], video_column="Clip Nr.")] == ["a.mp4"]
    with pytest.raises(
        UsageError, match=r"--video-column 'clip': .*labels\.csv has no such column; it has: Clip Nr\., what"
    ):
        find_videos([path], video_column="clip")


def test_the_plain_names_of_columns_win_over_others(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "path,class,label,video\n/x/y.mp4,2,walk,a.mp4\n")
    assert read_labels(path, video_ids=["a.mp4"]) == [LabeledVideo("a.mp4", "walk")]


def test_the_delimiter_may_stand_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "sep=|\r\nvideo|label\r\na.mp4|walk\r\nb.mp4|\r\n")
    with pytest.raises(LabelsError, match="line 4: the cell of column 'label' is empty"):
        read_labels(path, video_ids=["a.mp4"])


def test_rows_of_nothing_but_delimiters_are_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "\n;;\nvideo;label;note\na.mp4;walk;\n;;\n;;;;\n")
    assert read_labels(path, video_ids=["a.mp4"]) == [LabeledVideo("a.mp4", "walk")]


def test_labels_that_look_the_same_are_the_same(tmp_path: Path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    path = write(tmp_path / "labels.csv", f"video,label\na.mp4,{nfc}\nb.mp4,{nfd}\nc.mp4, {nfc} \n")
    assert {video.label for video in read_labels(path, video_ids=["a.mp4", "b.mp4", "c.mp4"])} == {nfc}


def test_folders_that_differ_only_in_case_are_kept_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    videos = labels_from_folders(["Thin/a.mp4", "thin /b.mp4", "thin/c.mp4", "C/d.mp4", "C-/e.mp4"])
    assert [video.label for video in videos] == ["Thin", "thin", "thin", "C", "C-"]
    assert "are different classes: 'Thin' (1 video), 'thin' (2 videos); rename" in caplog.text
    assert "'C" not in caplog.text


def test_what_predict_writes_can_be_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(
        tmp_path / "labels.csv",
        "video,label,probability,label_1,probability_1,path\n"
        "a.mp4,walk,0.9,walk,0.9,/data/a.mp4\nb.mp4,none of these,0.4,run,0.4,/data/b.mp4\n",
    )
    assert read_labels(path, video_ids=["a.mp4"]) == [LabeledVideo("a.mp4", "walk")]
    (record,) = caplog.records
    assert "1 video labelled 'none of these', as predict does; left out" in record.getMessage()


def test_a_column_of_groups_wins_over_kinetics_sources(tmp_path: Path) -> None:
    path = write(tmp_path / "k.csv", "label,youtube_id,time_start,time_end,Channel\nwalk,x,0,9,news\nrun,y,0,9,\n")
    videos = read_labels(path, video_ids=["x_000000_000009.mp4", "y_000000_000009.mp4"], group_column="channel")
    assert [video.group for video in videos] == ["news", "y"]


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
    path = write(tmp_path / "labels.csv", "video,label\n" + "".join(f"/data/set1/{name},walk\n" for name in names))
    start = time.process_time()
    videos = read_labels(path, video_ids=[f"set1/{name}" for name in names])
    assert time.process_time() - start < 2
    assert [video.video_id for video in videos] == [f"set1/{name}" for name in names]


PATHS = ("walk/a.mp4", "walk/é漕.mp4", "run/b.mp4")


@pytest.mark.parametrize(
    "written",
    [
        "/data/videos/{}",
        "../videos/{}",
        "videos/{}",
        "./{}",
        "C:\\Users\\me\\videos\\{}",
        "https://host/videos/{}",
        "videos/x/../{}",
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_whole_paths_and_paths_from_any_folder_mean_the_stored_videos(
    tmp_path: Path, written: str, form: Literal["NFC", "NFD"]
) -> None:
    rows = [f"{written.format(path)},{path.split('/')[0]}" for path in PATHS]
    other_form: Literal["NFC", "NFD"] = "NFD" if form == "NFC" else "NFC"
    path = write(tmp_path / "labels.csv", unicodedata.normalize(other_form, "\n".join(["video,label", *rows])))
    ids = [unicodedata.normalize(form, path) for path in PATHS]
    assert [video.video_id for video in read_labels(path, video_ids=ids)] == ids


def test_the_csv_that_was_extracted_can_be_trained_on_wherever_its_paths_begin(tmp_path: Path) -> None:
    rows = "".join(f"{folder}/{number}.mp4,{folder}\n" for folder in ("walk", "run") for number in range(3))
    absolute = rows.replace("walk/", f"{tmp_path}/walk/").replace("run/", f"{tmp_path}/run/")
    for text in (rows, absolute, rows.replace("walk/", "../walk/"), rows.replace("run/", "./run//")):
        path = write(tmp_path / "labels.csv", f"video,label\n{text}")
        ids = [video.id for video in find_videos([path])]
        videos = read_labels(path, video_ids=ids)
        assert sorted(video.video_id for video in videos) == sorted(ids)
        assert all(video.label in video.video_id for video in videos)


def test_two_ids_that_one_path_ends_with_are_distinguished_by_the_folder_of_other_paths(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "video,label\n/data/a.mp4,run\n/data/walk/a.mp4,walk\n/data/b.mp4,run\n")
    videos = read_labels(path, video_ids=["a.mp4", "b.mp4", "walk/a.mp4"])
    assert {(video.video_id, video.label) for video in videos} == {
        ("a.mp4", "run"),
        ("b.mp4", "run"),
        ("walk/a.mp4", "walk"),
    }
    path = write(tmp_path / "labels.csv", "video,label\n/data/walk/a.mp4,walk\n")
    with pytest.raises(LabelsError, match=r"'/data/walk/a\.mp4' may be 'walk/a\.mp4' or 'a\.mp4'; write the full id"):
        read_labels(path, video_ids=["a.mp4", "b.mp4", "walk/a.mp4"])


def test_two_paths_that_end_like_one_video_are_refused_with_both(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "video,label\nx/a.mp4,walk\ny/a.mp4,walk\n")
    with pytest.raises(
        LabelsError, match=r"'x/a\.mp4' in .*line 2 and 'y/a\.mp4' in .*line 3 both end like .* 'a\.mp4'"
    ):
        read_labels(path, video_ids=["a.mp4"])


def test_a_path_does_not_mean_a_video_that_another_line_names(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "video,label\na.mp4,walk\nx/a.mp4,walk\n")
    with pytest.raises(LabelsError, match=r"1 labelled video without features: x/a\.mp4"):
        read_labels(path, video_ids=["a.mp4"])


def test_a_warning_names_several_folders_that_no_id_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "labels.csv", "video,label\nwalk/a.mp4,walk\nrun/b.mp4,run\n")
    assert len(read_labels(path, video_ids=["a.mp4", "b.mp4"])) == 2
    assert "whose beginnings differ: run, walk; check that the store holds the videos of all" in caplog.text


def test_two_spellings_of_one_unicode_name_are_distinguished_if_written_so_else_refused(tmp_path: Path) -> None:
    ids = [unicodedata.normalize(form, "é.mp4") for form in ("NFC", "NFD")]
    for video_id in ids:
        path = write(tmp_path / "labels.csv", f"video,label\n{video_id},walk\n")
        assert [video.video_id for video in read_labels(path, video_ids=ids)] == [video_id]
    path = write(tmp_path / "labels.csv", f"video,label\n./{ids[0]},walk\n")
    with pytest.raises(LabelsError, match=r"may be .* or .*; write the full id"):
        read_labels(path, video_ids=ids)


@pytest.mark.parametrize("name", ["fight/a.mp4", "Fight/A.avi", "/data/FIGHT/a.MP4", "a.mov"])
def test_a_name_that_differs_in_case_or_extension_is_offered_and_not_taken(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "labels.csv", f"video,label\n{name},fight\nb.mp4,run\n")
    with pytest.raises(LabelsError, match=rf"did you mean 'fight/A\.MP4' for '{name}'\?; extract them, remove"):
        read_labels(path, video_ids=["fight/A.MP4", "b.mp4"])


# Labels and videos that do not fit


def test_labelled_videos_without_features_are_an_error_with_remedies(labels_csv: Path) -> None:
    with pytest.raises(LabelsError) as caught:
        read_labels(labels_csv, video_ids=["c.mp4"])
    message = str(caught.value)
    assert "2 labelled videos without features: walk/a.mp4, run/b.mp4" in message
    assert "an id in the store looks like 'c.mp4'" in message
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
        ("", "empty; the first line of a table names its columns"),
        ("video,label\n", "no rows"),
        ("title,label\na.mp4,walk\n", "missing column 'video'; found: title, label; .*give --video-column"),
        ("video,title\na.mp4,walk\n", "missing column 'label'; found: video, title; .*give --label-column"),
        ("a.mp4,walk\n", "missing column 'video'; found: a.mp4, walk"),
        ("file,path,label\na,b,walk\n", "'file' and 'path' could both be the video; choose one with --video-column"),
        (
            "video,label\na.mp4,Thin\nb.mp4,thin\n",
            r"case or spacing: 'Thin' \(1 video\), 'thin' \(1 video\); write each",
        ),
        ("video,label\na.mp4,no fight\nb.mp4,no_fight\n", r"'no fight' \(1 video\), 'no_fight' \(1 video\)"),
        ("video,label\na.mp4,no  fight\nb.mp4,no fight\n", r"'no  fight' \(1 video\), 'no fight' \(1 video\)"),
        ("youtube_id,label,time_start\nabc,walk,0\n", "missing column 'time_end'; a Kinetics CSV has youtube_id"),
        ("video,label,label\na.mp4,walk,run\n", "column 'label' occurs more than once"),
        ("youtube_id,time_start,time_end\nabc,0,10\n", "missing column 'label'; found: youtube_id, time_start"),
        ("video,label\na.mp4,walk\nb.mp4, \n", "line 3: the cell of column 'label' is empty"),
        ("video,label\n,walk\n", "line 2: the cell of column 'video' is empty"),
        ("video,label\na.mp4,walk, run\n", "line 2: more cells than columns; put .* a cell that contains a comma"),
        ("video;label\na.mp4;walk; run\n", "line 2: more cells than columns; put .* a cell that contains a semicolon"),
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
