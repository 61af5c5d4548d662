"""The official split lists of UCF101 and HMDB51."""

from pathlib import Path

import pytest

from tests.stores import make_sequence, make_store
from vidpipe.datasets.labels import read_labels
from vidpipe.datasets.official import ucf101_group
from vidpipe.datasets.store_labels import label_store
from vidpipe.errors import LabelsError, UsageError
from vidpipe.records import LabeledVideo

UCF101_VIDEOS = [
    LabeledVideo("Archery/v_Archery_g08_c01.avi", "Archery", "train", "Archery_g08"),
    LabeledVideo(
        "HandstandPushups/v_HandStandPushups_g25_c07.avi", "HandstandPushups", "train", "HandStandPushups_g25"
    ),
    LabeledVideo("Archery/v_Archery_g01_c01.avi", "Archery", "test", "Archery_g01"),
]
UCF101_IDS = [video.video_id for video in UCF101_VIDEOS]

HMDB51_VIDEOS = [
    LabeledVideo("clap/#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi", "clap", "train", "#20_Rhythm"),
    LabeledVideo("kick/how_to_kick_a_ball_kick_f_cm_np1_ri_med_1.avi", "kick", "train", "how_to_kick_a_ball"),
    LabeledVideo("kick/Film (part!)_kick_f_cm_np1_ri_bad_0.avi", "kick", "test", "Film (part!)"),
]
HMDB51_IDS = [video.video_id for video in HMDB51_VIDEOS]


@pytest.fixture
def ucf101(tmp_path: Path) -> Path:
    folder = tmp_path / "ucfTrainTestlist"
    folder.mkdir()
    (folder / "classInd.txt").write_text("1 Archery\n2 HandstandPushups\n")
    (folder / "trainlist01.txt").write_bytes(
        b"Archery/v_Archery_g08_c01.avi 1\r\nHandstandPushups/v_HandStandPushups_g25_c07.avi 2\r\n"
    )
    (folder / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\n\n")
    (folder / "trainlist02.txt").write_text("Archery/v_Archery_g01_c01.avi 1\n")
    (folder / "testlist02.txt").write_text("Archery/v_Archery_g08_c01.avi\n")
    return folder


@pytest.fixture
def hmdb51(tmp_path: Path) -> Path:
    folder = tmp_path / "testTrainMulti_7030_splits"
    folder.mkdir()
    (folder / "clap_test_split1.txt").write_text(
        "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi 1 \nUnused_clap_u_nm_np1_fr_goo_0.avi 0 \n"
    )
    (folder / "kick_test_split1.txt").write_text(
        "how_to_kick_a_ball_kick_f_cm_np1_ri_med_1.avi 1 \nFilm (part!)_kick_f_cm_np1_ri_bad_0.avi 2 \n"
    )
    (folder / "clap_test_split2.txt").write_text("#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi 2 \n")
    return folder


@pytest.mark.parametrize("given", ["", "trainlist01.txt"])
def test_official_lists_have_no_column_to_group_by(ucf101: Path, tmp_path: Path, given: str) -> None:
    store = make_store(tmp_path / "store", [make_sequence(video_id) for video_id in UCF101_IDS])
    message = (
        "--group-by 'camera': official lists have no columns, and as a regular expression it matches nothing in 3 of 3"
    )
    with pytest.raises(LabelsError, match=message):
        label_store(store, ucf101 / given, group_by="camera")
    assert {video.group for video in label_store(store, ucf101 / given, group_by=r"_(g\d+)_")} == {"g08", "g25", "g01"}


@pytest.mark.parametrize("given", ["", "trainlist01.txt", "testlist01.txt"])
def test_ucf101_is_read_whole_from_the_folder_or_either_list(ucf101: Path, given: str) -> None:
    assert read_labels(ucf101 / given, video_ids=UCF101_IDS) == UCF101_VIDEOS


def test_a_list_says_which_ucf101_split_it_is_of(ucf101: Path) -> None:
    ids = ["Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g08_c01.avi"]
    from_list = read_labels(ucf101 / "trainlist02.txt", video_ids=ids)
    assert [(video.video_id, video.split) for video in from_list] == [(ids[0], "train"), (ids[1], "test")]
    assert read_labels(ucf101, video_ids=ids, official_split=2) == from_list


def test_ucf101_is_found_in_a_store_of_its_parent_folder(ucf101: Path) -> None:
    videos = read_labels(ucf101, video_ids=[f"UCF-101/{video_id}" for video_id in UCF101_IDS])
    assert [video.video_id for video in videos] == [f"UCF-101/{video_id}" for video_id in UCF101_IDS]
    assert [video.group for video in videos] == [video.group for video in UCF101_VIDEOS]


def test_a_ucf101_list_without_its_sibling_is_refused(ucf101: Path) -> None:
    (ucf101 / "testlist02.txt").unlink()
    with pytest.raises(LabelsError, match=r"testlist02\.txt: no such file; the train list and the test list"):
        read_labels(ucf101 / "trainlist02.txt", video_ids=UCF101_IDS)


@pytest.mark.parametrize("line", ["v_Archery_g08_c01.avi 1", "Archery/v_Archery_g08_c01.avi one", "Archery/"])
def test_a_broken_ucf101_line_is_named(ucf101: Path, line: str) -> None:
    (ucf101 / "trainlist01.txt").write_text(f"Archery/v_Archery_g08_c01.avi 1\n\n{line}\n")
    with pytest.raises(LabelsError, match=rf"trainlist01\.txt, line 3: expected `Class/video\.avi 1`, got '{line}'"):
        read_labels(ucf101, video_ids=UCF101_IDS)


@pytest.mark.parametrize("given", ["", "clap_test_split1.txt", "kick_test_split1.txt"])
def test_hmdb51_is_read_whole_from_the_folder_or_any_list(hmdb51: Path, given: str) -> None:
    assert read_labels(hmdb51 / given, video_ids=HMDB51_IDS) == HMDB51_VIDEOS


def test_a_list_says_which_hmdb51_split_it_is_of(hmdb51: Path) -> None:
    expected = [LabeledVideo(HMDB51_IDS[0], "clap", "test", "#20_Rhythm")]
    assert read_labels(hmdb51 / "clap_test_split2.txt", video_ids=HMDB51_IDS[:1]) == expected
    assert read_labels(hmdb51, video_ids=HMDB51_IDS[:1], official_split=2) == expected


def test_an_hmdb51_split_that_is_not_in_the_folder_is_refused(hmdb51: Path) -> None:
    with pytest.raises(LabelsError, match=r"no list of HMDB51's split 3 \(<action>_test_split3\.txt\)"):
        read_labels(hmdb51, video_ids=HMDB51_IDS, official_split=3)


@pytest.mark.parametrize("line", ["Film_clap_u_nm_np1_fr_goo_0.avi", "Film_clap_u_nm_np1_fr_goo_0.avi 3"])
def test_a_broken_hmdb51_line_is_named(hmdb51: Path, line: str) -> None:
    (hmdb51 / "clap_test_split1.txt").write_text(f"{line}\n")
    with pytest.raises(LabelsError, match=rf"clap_test_split1\.txt, line 1: expected `video\.avi 1`, got '{line}'"):
        read_labels(hmdb51, video_ids=HMDB51_IDS)


@pytest.mark.parametrize("official_split", [0, 4])
def test_there_are_three_official_splits(ucf101: Path, official_split: int) -> None:
    with pytest.raises(UsageError, match=f"unknown official split '{official_split}'; Known: 1, 2, 3"):
        read_labels(ucf101, video_ids=UCF101_IDS, official_split=official_split)


def test_an_empty_official_list_is_refused(ucf101: Path) -> None:
    for name in ("trainlist01.txt", "testlist01.txt"):
        (ucf101 / name).write_text("")
    with pytest.raises(LabelsError, match="no rows"):
        read_labels(ucf101, video_ids=UCF101_IDS)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("v_Archery_g08_c02.avi", "Archery_g08"),
        ("UCF-101/Archery/v_Archery_g08_c02.mp4", "Archery_g08"),
        ("v_Archery_g08_c02", "Archery_g08"),
        ("Archery/archery_g08_c02.avi", None),
        ("v_Archery_g08_c02/clip.avi", None),
        ("v_Archery_g08.avi", None),
    ],
)
def test_only_ucf101_file_names_carry_a_group(name: str, group: str | None) -> None:
    assert ucf101_group(name) == group
