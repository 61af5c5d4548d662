"""Similar videos and duplicates: planted footage is found where it was planted, and neighbours are not taken for it."""

import csv
import io
import json
import pickle
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray

import vidpipe
from tests.browser import Browser
from tests.commands import LENET, run
from tests.media import numbered_frame, read_number, write_frames, write_video
from tests.stores import KEY, make_sequence, make_store
from vidpipe.config import LabelsConfig
from vidpipe.datasets.leaks import find_leaks
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.datasets.store_labels import label_store_splits
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence, LabeledVideo
from vidpipe.search.duplicates import find_duplicates
from vidpipe.similarity import shortlist
from vidpipe.similarity.alignment import Changes, align
from vidpipe.similarity.duplicates import Candidates, DuplicatePair, compare_block, cut_candidates, find_pairs
from vidpipe.similarity.local_path import LocalPath, best_path
from vidpipe.similarity.sequences import SequenceIndex, read_index
from vidpipe.similarity.shortlist import nearest
from vidpipe.video.thumbnails import read_frames_at

DIM = 256
Floats = NDArray[np.float32]


def footage(seed: int, seconds: NDArray[np.float64]) -> Floats:
    """What is to be seen at some times of a film: features on the way between random values, and slowly drifting."""
    random, knots = np.random.default_rng(seed), np.arange(-5, 40, 0.2)
    values = random.normal(size=(len(knots), DIM)) + 0.3 * random.normal(size=(len(knots), DIM)).cumsum(axis=0)
    return np.stack([np.interp(seconds, knots, feature) for feature in values.T], axis=1).astype(np.float32)


def clip(
    video_id: str,
    seed: int,
    *,
    length: float = 2.0,
    rows: int = 16,
    start: float = 0.0,
    speed: float = 1.0,
    camera: int = 0,
    offset: float = 0.0,
) -> FeatureSequence:
    """A clip of a film from `start` on, played at a speed, with what a camera's place and an alteration add to it."""
    times = (np.arange(rows) + 0.5) * length / rows
    place = 6 * np.random.default_rng([camera, 1]).normal(size=DIM)
    noise = np.random.default_rng(crc32(video_id.encode())).normal(size=(rows, DIM))
    features = footage(seed, start + speed * times) + place + offset + 0.1 * noise
    made = make_sequence(video_id, rows, DIM)
    info = replace(made.info, duration_seconds=length, num_frames=50 * rows)
    return FeatureSequence(video_id, features.astype(np.float32), replace(made.rows, pts_seconds=times), info)


def changes(sequence: FeatureSequence) -> Changes:
    times = (sequence.pts_seconds[1:] + sequence.pts_seconds[:-1]) / 2
    return Changes(np.diff(sequence.features, axis=0), times)


@pytest.fixture
def archive(tmp_path: Path) -> FeatureStore:
    """Ten films from two cameras; of three of them, altered copies."""
    originals = [clip(f"films/{seed}.mp4", seed, camera=seed % 2) for seed in range(10)]
    copies = [
        clip("copies/0_trimmed.mp4", 0, length=0.8, start=0.6),
        clip("copies/0_faster.mp4", 0, length=2 / 1.1, speed=1.1, offset=0.5),
        clip("copies/1_brighter.mp4", 1, camera=1, offset=1.0),
    ]
    return make_store(tmp_path / "store", [*originals, *copies])


@pytest.mark.parametrize(
    ("start", "speed", "length"), [(0.0, 1.0, 2.0), (0.6, 1.0, 0.8), (0.0, 1.1, 2 / 1.1), (-0.7, 1.0, 2.0)]
)
def test_an_alignment_is_where_the_footage_was_planted(start: float, speed: float, length: float) -> None:
    film = clip("film.mp4", 3)
    copy = clip("copy.mp4", 3, start=start, speed=speed, length=length, offset=2.0)
    line = align(changes(copy), changes(film))
    assert line is not None
    assert line.evidence > 1
    for seconds in line.stretch:
        assert line.other_time(seconds) == pytest.approx(start + speed * seconds, abs=0.06)
    expected = max(0, -start), min(length, (2 - start) / speed)
    assert line.stretch == pytest.approx(expected, abs=0.07)
    back = line.reversed()
    assert back.stretch == pytest.approx(line.other_stretch)
    assert back.other_time(line.other_time(1.2)) == pytest.approx(1.2)


def test_other_footage_does_not_align() -> None:
    films = [changes(clip("film.mp4", seed)) for seed in range(8)]
    scores = [align(one, other).evidence for one in films for other in films if one is not other]  # type: ignore[union-attr]
    assert max(scores) < 0.9 * align(films[0], films[0]).evidence  # type: ignore[union-attr]
    assert align(changes(clip("short.mp4", 1, rows=4)), films[1]) is None


def test_pairs_are_the_copies_and_not_the_neighbours_of_one_camera(archive: FeatureStore) -> None:
    groups = find_duplicates(archive)
    assert [{member.video for member in group.members} for group in groups] == [
        {"films/0.mp4", "copies/0_trimmed.mp4", "copies/0_faster.mp4"},
        {"films/1.mp4", "copies/1_brighter.mp4"},
    ]
    pairs = {(pair.video, pair.other): pair for group in groups for pair in group.pairs}
    trimmed = pairs["copies/0_trimmed.mp4", "films/0.mp4"]
    assert trimmed.offset_seconds == pytest.approx(0.6, abs=0.06)
    assert trimmed.matched_seconds == pytest.approx(0.8, abs=0.06)
    assert pairs["copies/0_faster.mp4", "films/0.mp4"].speed == pytest.approx(1.1, abs=0.03)
    assert [member.video for member in groups[0].members if member.keep] == ["films/0.mp4"]


def test_copies_of_a_file_are_duplicates_whatever_their_score(archive: FeatureStore) -> None:
    same = [replace(clip("same.mp4", 77, rows=3), video_id=f"same/{number}.mp4") for number in range(2)]
    store = make_store(archive.path.with_name("with_copies"), [*archive.sequences(), *same])
    [group] = find_duplicates(store, threshold=1000)
    assert {member.video for member in group.members} == {"same/0.mp4", "same/1.mp4"}
    assert 0 < group.pairs[0].score < 1000
    assert not group.pairs[0].is_doubtful


def test_blocks_that_other_processes_compare_give_the_same_groups(archive: FeatureStore) -> None:
    def compare_blocks(index: SequenceIndex, candidates: Candidates) -> Iterator[tuple[int, list[DuplicatePair]]]:
        for numbers, *block in cut_candidates(index, candidates, 7):
            found = compare_block(*pickle.loads(pickle.dumps(block)))
            yield 7, [replace(one, one=int(numbers[one.one]), other=int(numbers[one.other])) for one in found]

    found, expected = find_duplicates(archive, compare=compare_blocks), find_duplicates(archive)
    assert [group.members for group in found] == [group.members for group in expected]
    for pair, its in zip(*([pair for group in one for pair in group.pairs] for one in (found, expected)), strict=True):
        numbers, its_numbers = asdict(pair), asdict(its)  # products of other shapes are rounded differently
        assert (pair.video, pair.other) == (its.video, its.other)
        del numbers["video"], numbers["other"], its_numbers["video"], its_numbers["other"]
        assert numbers == pytest.approx(its_numbers, rel=1e-3, abs=1e-3)


def test_two_parts_of_one_video_are_one_group_but_no_pair(tmp_path: Path) -> None:
    parts = [clip("first.mp4", 5, length=1.0), clip("last.mp4", 5, length=1.0, start=1.0)]
    whole = clip("whole.mp4", 5)
    others = [clip(f"{seed}.mp4", seed) for seed in range(20, 26)]
    (group,) = find_duplicates(make_store(tmp_path / "store", [*parts, whole, *others]))
    assert {(pair.video, pair.other) for pair in group.pairs} == {("first.mp4", "whole.mp4"), ("last.mp4", "whole.mp4")}
    assert {member.video: member.covered_by for member in group.members} == {
        "whole.mp4": None,
        "first.mp4": "whole.mp4",
        "last.mp4": "whole.mp4",
    }


def test_two_copies_of_one_file_are_found_however_short(tmp_path: Path) -> None:
    one = clip("one.mp4", 5, rows=1)
    same = FeatureSequence("same.mp4", one.features, one.rows, one.info)
    others = [clip(f"{seed}.mp4", seed, rows=1) for seed in range(20, 26)]
    (group,) = find_duplicates(make_store(tmp_path / "store", [one, same, *others]))
    assert [(member.video, member.keep) for member in group.members] == [("one.mp4", True), ("same.mp4", False)]


def test_what_overlaps_is_kept(tmp_path: Path) -> None:
    overlapping = [clip("one.mp4", 5), clip("two.mp4", 5, start=0.4)]
    others = [clip(f"{seed}.mp4", seed) for seed in range(20, 26)]
    (group,) = find_duplicates(make_store(tmp_path / "store", [*overlapping, *others]))
    assert all(member.keep for member in group.members)
    assert group.pairs[0].matched_seconds == pytest.approx(1.6, abs=0.1)


def test_a_part_of_a_long_video_is_found_over_its_whole_length(tmp_path: Path) -> None:
    long = clip("long.mp4", 7, length=30.0, rows=240)
    part = clip("part.mp4", 7, length=12.0, rows=96, start=9.0)
    others = [clip(f"{seed}.mp4", seed, length=8.0, rows=64) for seed in range(20, 24)]
    store = make_store(tmp_path / "store", [long, part, *others])
    (group,) = find_duplicates(store)
    (pair,) = group.pairs
    assert (pair.video, pair.other) == ("long.mp4", "part.mp4")
    assert (pair.start_seconds, pair.stop_seconds) == pytest.approx((9, 21), abs=0.3)
    assert (pair.other_start_seconds, pair.other_stop_seconds) == pytest.approx((0, 12), abs=0.3)
    (same,) = find_pairs(read_index(store), vectors=np.ones((6, 1), np.float32))
    assert (same.score, same.alignment.start_seconds) == pytest.approx((pair.score, pair.start_seconds), abs=1e-6)


def test_vectors_say_which_videos_are_compared_and_the_alignment_which_are_copies(archive: FeatureStore) -> None:
    index = read_index(archive)
    angles = 0.5 * np.arange(len(index), dtype=np.float32)  # each is nearest to its neighbours
    places = {video_id: number for number, video_id in enumerate(index.ids)}
    angles[places["films/0.mp4"]] = angles[places["copies/0_trimmed.mp4"]] + 0.01
    angles[places["films/5.mp4"]] = angles[places["films/6.mp4"]] + 0.01
    found = find_pairs(index, vectors=np.stack([np.cos(angles), np.sin(angles)], axis=1), num_nearest=1)
    assert ("copies/0_trimmed.mp4", "films/0.mp4") in {(index.ids[pair.one], index.ids[pair.other]) for pair in found}
    assert not any({index.ids[pair.one], index.ids[pair.other]} == {"films/5.mp4", "films/6.mp4"} for pair in found)
    assert not any(index.ids[pair.one] == "copies/1_brighter.mp4" for pair in found)  # far from its film


def test_the_shortlist_is_the_exact_one_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortlist, "BLOCK_BYTES", 4 * 50 * 7)
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    found = np.concatenate([numbers for _, numbers, _ in nearest(vectors, vectors, 5)])
    assert np.array_equal(found, np.argsort(-(vectors @ vectors.T), axis=1)[:, :5])


def many_films() -> Floats:
    """Unit vectors of 2,000 videos of 40 places."""
    random = np.random.default_rng(0)
    vectors = np.repeat(random.normal(size=(40, 32)), 50, axis=0) + 0.3 * random.normal(size=(2000, 32))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_an_index_of_faiss_finds_nearly_all_that_the_product_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(shortlist, "MAX_EXACT_PRODUCTS", 10**6)
    monkeypatch.setattr(shortlist, "NUM_PROBED", 8)  # of 88
    vectors = many_films()
    found = list(nearest(vectors, vectors, 10))
    numbers, products = (np.concatenate([block[part] for block in found]) for part in (1, 2))
    assert [block[0] for block in found] == [0, 1024]
    exact = vectors @ vectors.T
    expected = np.argsort(-exact, axis=1)[:, :10]
    recall = np.mean([len(set(its) & set(right)) / 10 for its, right in zip(numbers, expected, strict=True)])
    assert 0.9 < recall < 1  # an exact search would have found all
    assert np.take_along_axis(exact, numbers, axis=1) == pytest.approx(products, abs=2e-3)


def test_without_faiss_the_product_stays_exact_and_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shortlist, "MAX_EXACT_PRODUCTS", 10**6)
    monkeypatch.setattr(shortlist, "find_spec", lambda name: None)
    vectors = many_films()
    found = np.concatenate([numbers for _, numbers, _ in nearest(vectors, vectors, 5)])
    assert np.array_equal(found[:, 0], np.arange(len(vectors)))
    assert np.array_equal(found[:50], np.argsort(-(vectors[:50] @ vectors.T), axis=1)[:, :5])
    assert "pip install 'vidpipe[faiss]'" in caplog.text


def test_the_best_path_is_the_planted_one() -> None:
    cosines = np.full((9, 12), 0.1, np.float32)
    for row, column in ((2, 5), (3, 6), (3, 7), (4, 8), (5, 9)):
        cosines[row, column] = 0.9
    assert best_path(cosines) == LocalPath(2, 5, 5, 9)


def test_similar_videos_are_ranked_by_their_frames(archive: FeatureStore) -> None:
    (result,) = vidpipe.search_similar(archive, ["films/0.mp4"], number=4)
    assert [found.rank for found in result.videos] == [1, 2, 3, 4]
    assert {found.video for found in result.videos[:2]} == {"copies/0_faster.mp4", "copies/0_trimmed.mp4"}
    trimmed = next(found for found in result.videos if found.video == "copies/0_trimmed.mp4")
    assert trimmed.is_duplicate
    assert (trimmed.start_seconds, trimmed.stop_seconds) == pytest.approx((0.6, 1.4), abs=0.07)
    centre = np.concatenate([archive[one].features for one in archive]).mean(axis=0)
    units = []
    for one in ("films/0.mp4", trimmed.video):
        rows = archive[one].features - centre
        units.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    cosines = units[0] @ units[1].T
    expected = (cosines.max(axis=0).mean() + cosines.max(axis=1).mean()) / 2
    assert trimmed.score == pytest.approx(float(expected), abs=1e-5)


# The split


def test_duplicates_on_both_sides_of_a_split_are_leaks(archive: FeatureStore) -> None:
    videos = [LabeledVideo(video_id, "x") for video_id in archive.ids]
    dataset = SequenceDataset(archive, videos, ["x"])
    subsets = {
        "train": dataset.select(one for one in archive.ids if one.startswith("films")),
        "val": dataset.select([]),
        "test": dataset.select(one for one in archive.ids if one.startswith("copies")),
    }
    leaks = {(leak.video, leak.other): leak.duplicate_score for leak in find_leaks(subsets, archive)}
    found = {frozenset(pair) for pair, score in leaks.items() if score}
    assert found == {
        frozenset(("films/0.mp4", "copies/0_trimmed.mp4")),
        frozenset(("films/0.mp4", "copies/0_faster.mp4")),
        frozenset(("films/1.mp4", "copies/1_brighter.mp4")),
    }


def test_groups_of_duplicates_join_the_groups_of_the_labels(archive: FeatureStore, tmp_path: Path) -> None:
    rows = [f"{one},x,{'g' if one in ('films/1.mp4', 'films/2.mp4') else ''}" for one in archive.ids]
    (tmp_path / "labels.csv").write_text("\n".join(["video,label,group", *rows]))
    config = LabelsConfig(labels=str(tmp_path / "labels.csv"), group_by="duplicates")
    (videos,) = label_store_splits(archive, config)
    group_of = {video.video_id: video.group for video in videos}
    assert len({group_of[one] for one in ("films/0.mp4", "copies/0_trimmed.mp4", "copies/0_faster.mp4")}) == 1
    assert len({group_of[one] for one in ("films/1.mp4", "films/2.mp4", "copies/1_brighter.mp4")}) == 1
    assert len(set(group_of.values())) == 9


# The commands, on real videos


def film(seed: int, *, num_frames: int = 48) -> list[NDArray[np.uint8]]:
    """Three bright squares that swing over a dark picture, each on a path of its own."""
    random = np.random.default_rng(seed)
    speeds, phases = random.uniform(0.05, 0.3, (3, 2)), random.uniform(0, 7, (3, 2))
    frames = []
    for number in range(num_frames):
        frame = np.full((64, 64, 3), 30, np.uint8)
        for x, y in (26 + 24 * np.sin(speeds * number + phases)).astype(int):
            frame[y : y + 12, x : x + 12] = 220
        frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos, their store `features`, and a file that is no video."""
    folder = tmp_path_factory.mktemp("search")
    for seed in range(6):
        write_frames(folder / "videos" / f"{seed}.mp4", film(seed))
    write_frames(folder / "videos" / "copy.mp4", [frame // 10 * 9 + 20 for frame in film(2)[10:]])
    write_frames(folder / "query.mp4", [frame // 10 * 9 for frame in film(3)])
    (folder / "broken.mp4").write_text("no video")
    extracted = run("extract", folder / "videos", "-o", folder / "features", "--num-frames", 24, *LENET)
    assert extracted.exit_code == 0, extracted.output
    return folder


def test_the_command_finds_the_copy(real: Path) -> None:
    found = run("search", "duplicates", real / "features", "--format", "json")
    assert found.exit_code == 0, found.output
    (group,) = map(json.loads, found.stdout.splitlines())
    (pair,) = group["pairs"]
    assert (pair["video"], pair["other"]) == ("2.mp4", "copy.mp4")
    assert (pair["start_seconds"], pair["stop_seconds"]) == pytest.approx((0.4, 1.92), abs=0.1)
    assert [(one["video"], one["keep"]) for one in group["videos"]] == [("2.mp4", True), ("copy.mp4", False)]
    table = run("search", "duplicates", real / "features", "--threshold", 10)
    assert "copy.mp4" in table.stdout
    rows = list(csv.DictReader(io.StringIO(run("search", "duplicates", real / "features", "--format", "csv").stdout)))
    assert [(row["video"], row["other"], row["keep_other"]) for row in rows] == [("2.mp4", "copy.mp4", "False")]


def test_a_file_is_a_query_and_one_that_fails_is_reported(real: Path) -> None:
    paths = real / "query.mp4", real / "broken.mp4"
    found = run("search", "similar", real / "features", *paths, "--format", "json", "--device", "cpu", "-k", 2)
    assert found.exit_code == 3, found.output
    good, bad = map(json.loads, found.stdout.splitlines())
    assert good["videos"][0]["video"] == "3.mp4"
    assert good["videos"][0]["is_duplicate"]
    assert (bad["status"], bad["videos"]) == ("failed", [])
    assert bad["error"]


def test_bad_input_gets_one_line_with_the_remedy(real: Path, tmp_path: Path) -> None:
    one = make_store(tmp_path / "one", [clip("only.mp4", 0)]).path
    for command in (("duplicates", one), ("similar", one, "only.mp4")):
        refused = run("search", *command)
        assert refused.exit_code == 1
        assert "1 video" in refused.stderr
        assert "extract more videos" in refused.stderr
    empty = make_store(tmp_path / "empty", [make_sequence(f"{number}.mp4", 0) for number in range(3)]).path
    for command in (("duplicates", empty), ("similar", empty, "0.mp4")):
        refused = run("search", *command)
        assert (refused.exit_code, "0 videos with features" in refused.stderr) == (1, True)
    folder = run("search", "similar", real / "features", real / "videos")
    assert (folder.exit_code, "videos: a folder; give video files" in folder.stderr) == (2, True)
    stream = run("search", "duplicates", real / "features", "--stream", "flow")
    assert (stream.exit_code, "--stream flow: unknown stream 'flow'" in stream.stderr) == (2, True)
    unknown = run("search", "similar", real / "features", "4.avi")
    assert unknown.exit_code == 2
    assert "4.avi: no such file" in unknown.stderr
    assert "did you mean '4.mp4'?" in unknown.stderr
    make_store(tmp_path / "other", [clip(f"{seed}.mp4", seed) for seed in range(3)])
    other = run("search", "similar", tmp_path / "other", real / "query.mp4", "--weights", "random")
    assert other.exit_code == 1
    assert "its features are of other weights of resnet50" in other.stderr
    assert KEY.backbone == "resnet50"
    assert run("search", "duplicates", tmp_path / "none").exit_code == 2
    page = tmp_path / "mine.html"
    page.write_text("mine")
    assert run("search", "duplicates", real / "features", "--page", page).exit_code == 2


def test_frames_are_those_on_screen_at_a_time(tmp_path: Path) -> None:
    import base64

    from PIL import Image

    path = write_video(tmp_path / "a.mp4", 30, width=160, height=120)
    shown = read_frames_at(path, [0.5, 0.0, 0.5, 9.0])
    pictures = [Image.open(io.BytesIO(base64.b64decode(one.uri.partition(",")[2]))) for one in shown]
    assert [read_number(np.asarray(picture)) for picture in pictures] == [12, 0, 12, 29]
    assert [one.pts_seconds for one in shown] == pytest.approx([0.48, 0, 0.48, 29 / 25])
    assert read_number(numbered_frame(12, 160, 120)) == 12


def test_the_pages_fit_a_phone_and_mark_doubts(real: Path, tmp_path: Path) -> None:
    pages = tmp_path / "duplicates.html", tmp_path / "similar.html"
    assert run("search", "duplicates", real / "features", "--page", pages[0]).exit_code == 0
    similar = run("search", "similar", real / "features", "2.mp4", "--page", pages[1])
    assert similar.exit_code == 0, similar.output
    with Browser(tmp_path / "profile") as browser:
        for page, num_rows in zip(pages, (2, 7), strict=True):
            for width in (390, 1280):
                size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
                browser.call("Emulation.setDeviceMetricsOverride", **size)
                browser.call("Page.navigate", url=page.as_uri())
                browser.wait_for("document.readyState == 'complete'")
                assert browser.evaluate("document.documentElement.scrollWidth") <= width
                assert browser.evaluate("document.querySelectorAll('.rows > li').length") == num_rows
                assert browser.evaluate("[...document.images].every(one => one.naturalWidth > 0)")
        assert browser.evaluate("document.querySelectorAll('.doubtful .badge').length > 0")
        assert browser.happened("Log.entryAdded") == []
