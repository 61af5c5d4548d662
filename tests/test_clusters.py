"""Clusters of videos: found, described, named on a page in Chromium, and learned from."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score

import vidpipe
from tests.browser import Browser
from tests.commands import LENET, run
from tests.media import moving_square, write_frames
from tests.pages import IMAGE, SCRIPT, Page
from tests.stores import make_sequence, make_store, sequences_of
from vidpipe.config import ClustersConfig
from vidpipe.errors import InputError, UsageError
from vidpipe.search.clusters import Clustering, cluster_vectors

NUM_BLOBS, BLOB = 3, 12


def blobs(num_between: int = 0) -> tuple[list[str], torch.Tensor]:
    """Vectors around three directions, and some anywhere."""
    random = np.random.default_rng(0)
    middles = np.eye(6)[:NUM_BLOBS].repeat(BLOB, axis=0)
    near = middles + 0.08 * random.standard_normal(middles.shape)
    between = random.standard_normal((num_between, 6))
    ids = [f"{index}/{number}" for index in range(NUM_BLOBS) for number in range(BLOB)]
    vectors = torch.from_numpy(np.concatenate([near, between])).float()
    return [*ids, *(f"between/{number}" for number in range(num_between))], vectors


def cluster_blobs(labels: dict[str, str] | None = None, num_between: int = 0, **settings: Any) -> Clustering:
    ids, vectors = blobs(num_between)
    return cluster_vectors(ids, vectors, ClustersConfig(**settings), labels=labels or {})


@pytest.mark.parametrize("settings", [{}, {"method": "kmeans", "num_clusters": NUM_BLOBS}])
def test_videos_that_lie_together_are_a_cluster(settings: dict[str, Any]) -> None:
    found = cluster_blobs(**settings)
    pairs = [(video_id[0], cluster.number) for cluster in found.clusters for video_id in cluster.video_ids]
    assert len(pairs) == NUM_BLOBS * BLOB
    assert adjusted_mutual_info_score(*zip(*pairs, strict=True)) == pytest.approx(1)


def test_hdbscan_leaves_out_videos_that_lie_between_the_clusters() -> None:
    found = cluster_blobs(num_between=30)
    assert set(map(str, range(NUM_BLOBS))) <= {cluster.medoid[0] for cluster in found.clusters}
    assert found.unclustered
    assert {one.split("/")[0] for one in found.unclustered} == {"between"}
    assert found.num_videos == NUM_BLOBS * BLOB + 30


def test_the_medoid_has_the_least_mean_squared_distance_from_the_others() -> None:
    ids, vectors = blobs()
    centred = vectors - vectors.mean(dim=0)
    components = centred @ torch.linalg.svd(centred)[2].T
    place = dict(zip(ids, torch.nn.functional.normalize(components, dim=1), strict=True))
    for cluster in cluster_blobs().clusters:
        distances = {
            one: sum(float((place[one] - place[other]).square().sum()) for other in cluster.video_ids)
            for one in cluster.video_ids
        }
        assert cluster.medoid == min(distances, key=distances.__getitem__)
        assert cluster.video_ids[-1] == max(distances, key=distances.__getitem__)


def test_a_cluster_has_the_label_of_most_of_its_labelled_videos() -> None:
    found = cluster_blobs({"0/0": "walk", "0/1": "walk", "0/2": "run", "1/0": "jump"})
    of_blob = {cluster.medoid[0]: cluster for cluster in found.clusters}
    assert of_blob["0"].name == "walk"
    assert of_blob["0"].share == pytest.approx(2 / 3)
    assert (of_blob["1"].name, of_blob["1"].share) == ("jump", 1)
    assert (of_blob["2"].label, of_blob["2"].name) == (None, f"cluster {of_blob['2'].number}")


def test_the_same_seed_gives_the_same_map() -> None:
    one, other = (cluster_blobs(seed=1) for _ in range(2))
    assert one == other
    assert one.is_tsne


def test_videos_that_are_all_the_same_have_a_map() -> None:
    ids, _ = blobs()
    found = cluster_vectors(ids, torch.ones(len(ids), 6), ClustersConfig(), labels={})
    assert found.num_videos == len(ids)
    assert not found.is_tsne


def test_a_map_of_one_component_is_not_tsne() -> None:
    assert not cluster_blobs(components=1).is_tsne


@pytest.mark.parametrize(
    ("number", "options", "exit_code", "message"),
    [
        (3, (), 1, "3 videos, and these clusters need 10 or more; extract more videos"),
        (5, (), 1, "give a smaller --min-size"),
        (5, ("--method", "kmeans", "--num-clusters", 4), 1, "give a smaller --num-clusters"),
        (12, ("--method", "kmeans"), 2, "--method kmeans needs --num-clusters"),
        (12, ("--num-clusters", 3), 2, "--num-clusters goes with --method kmeans"),
        (12, ("--streams", "none"), 2, "unknown stream 'none'"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, number: int, options: tuple[object, ...], exit_code: int, message: str
) -> None:
    store = make_store(tmp_path / "store", sequences_of("abcdefghijkl"[:number]))
    result = run("search", "clusters", store.path, "-o", tmp_path / "clusters", *options)
    assert result.exit_code == exit_code
    assert message in result.stderr
    assert exit_code == 2 or str(store.path) in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "clusters").exists()


def test_an_embedding_of_other_features_is_refused(tmp_path: Path) -> None:
    sequences = [make_sequence(f"{'ab'[number % 2]}/{number}.mp4", seed=number) for number in range(12)]
    make_store(tmp_path / "store", sequences)
    vidpipe.train_embedding(tmp_path / "store", tmp_path / "emb", dim=4, epochs=1)
    document = json.loads((tmp_path / "store/store.json").read_text())
    document["key"]["sampling"]["num_frames"] = 3
    (tmp_path / "store/store.json").write_text(json.dumps(document))
    command = ("search", "clusters", tmp_path / "store", "-o", tmp_path / "c", "--embedding", tmp_path / "emb")
    result = run(*command)
    assert (result.exit_code, len(result.stderr.strip().splitlines())) == (1, 1)
    assert "was trained on" in result.stderr
    assert run(*command, "--streams", "resnet50").exit_code == 2


# Of videos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`videos/` without labels, of squares that go to the right and to the left, their `features/` and `clusters/`."""
    folder = tmp_path_factory.mktemp("clusters")
    for number in range(12):
        write_frames(folder / "videos" / f"{number:02}.mp4", moving_square(number // 2, to_the_right=number % 2 == 0))
    assert run("extract", folder / "videos", "-o", folder / "features", "--num-frames", 4, *LENET).exit_code == 0
    (folder / "known.csv").write_text(f'video,label\n00.mp4,{SCRIPT}\n01.mp4,"{IMAGE.replace(chr(34), chr(34) * 2)}"\n')
    command = ("search", "clusters", folder / "features", "-o", folder / "clusters", "--method", "kmeans")
    result = run(*command, "--num-clusters", 2, "--labels", folder / "known.csv")
    assert result.exit_code == 0, result.output
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "clusters/clusters.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_table_has_each_video_and_its_own_label_where_it_has_one(folder: Path) -> None:
    rows = {row["video"]: row for row in table(folder)}
    assert sorted(rows) == [f"{number:02}.mp4" for number in range(12)]
    assert (rows["00.mp4"]["label"], rows["01.mp4"]["label"]) == (SCRIPT, IMAGE)
    assert {row["cluster"] for row in rows.values()} == {"1", "2"}


def test_clusters_are_replaced_only_when_asked(folder: Path, tmp_path: Path) -> None:
    command = ("search", "clusters", folder / "features", "-o", tmp_path, "--min-size", 4)
    assert run(*command).exit_code == 0
    refused = run(*command)
    assert (refused.exit_code, "--overwrite" in refused.stderr) == (2, True)
    assert run(*command, "--overwrite").exit_code == 0
    assert (tmp_path / "clusters.png").read_bytes().startswith(b"\x89PNG")


def test_named_clusters_are_labels_and_unnamed_ones_are_left_out(folder: Path, tmp_path: Path) -> None:
    rows = ["video,label,cluster"]
    rows += [f"{number:02}.mp4,{('right', 'left')[number % 2] if number < 10 else ''},1" for number in range(12)]
    (tmp_path / "named.csv").write_text("\n".join(rows))
    command = ("train", folder / "features", "-o", tmp_path / "run", "--labels", tmp_path / "named.csv")
    result = run(*command, "--head", "mean", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "2 videos without a label" in result.stderr
    assert "not read" not in result.stderr
    assert "10 videos, 2 classes" in result.stdout


def test_the_page_shows_each_cluster_with_frames_and_no_name_is_markup(folder: Path) -> None:
    page = Page(folder / "clusters/clusters.html")
    assert page.tags["section"] == 2
    assert page.tags["script"] == 2
    assert page.tags["img"] == 1 + 6 * sum(min(5, len(one)) for one in clusters_of(folder).values())
    assert SCRIPT in page.text
    assert not any(name.startswith("on") for _, name, _ in page.attributes)


def clusters_of(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in table(folder):
        found.setdefault(row["cluster"], []).append(row["video"])
    return found


def test_the_page_names_clusters_in_chromium(folder: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile") as browser:
        for width in (390, 1280):
            browser.open(folder / "clusters/clusters.html", width=width)
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert not browser.happened("Log.entryAdded")
        name = 'const f = document.querySelector(".name"); f.value = "to the left, fast"'
        browser.evaluate(f"{name}; f.dispatchEvent(new Event('input'))")
        saved = list(csv.DictReader(browser.evaluate("csvText()").splitlines()))
    first = clusters_of(folder)["1"]
    named = {row["video"] for row in saved if row["label"] == "to the left, fast"}
    assert named == set(first) - {"00.mp4", "01.mp4"}
    assert [row["video"] for row in saved] == [row["video"] for row in table(folder)]


def test_the_function_gives_what_the_command_prints(folder: Path, tmp_path: Path) -> None:
    found, files = vidpipe.search_clusters(folder / "features", tmp_path / "c", min_size=4)
    assert [file.name for file in files] == ["clusters.html", "clusters.png", "clusters.csv"]
    printed = run("search", "clusters", folder / "features", "-o", tmp_path / "d", "--min-size", 4, "--format", "json")
    objects = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [one["medoid"] for one in objects if one["cluster"]] == [cluster.medoid for cluster in found.clusters]
    assert sum(one["num_videos"] for one in objects) == 12
    with pytest.raises(UsageError, match="--streams does not go with --embedding"):
        vidpipe.search_clusters(folder / "features", tmp_path / "e", embedding=tmp_path, streams="lenet5")


def test_too_few_videos_are_an_input_error(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", sequences_of("abc"))
    with pytest.raises(InputError, match="3 videos"):
        vidpipe.search_clusters(store, tmp_path / "c")
