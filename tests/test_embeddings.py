"""Learned embeddings: losses against the papers' formulas, retrieval against another library, training, and files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from torch.nn.functional import normalize

import vidpipe
from tests.commands import run
from tests.stores import make_sequence, make_store
from vidpipe.config import EmbeddingConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.errors import LabelsError, RunError, UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence, LabeledVideo
from vidpipe.search.embedded import EmbeddedVideos
from vidpipe.search.embedding import Embedding
from vidpipe.search.embedding_training import embedding_loss, measure_folds, train_embedding
from vidpipe.search.retrieval import measure_retrieval
from vidpipe.search.statistics import VideoStatistics, compute_vectors

QUICK = EmbeddingConfig(dim=16, epochs=20, folds=2)
LABELS = ("swing", "still", "turn")


def write_store(folder: Path, num_videos: int = 72, dim: int = 12) -> tuple[FeatureStore, list[LabeledVideo]]:
    """Videos whose labels differ in which features move, under large scenes of their groups and other motion."""
    random = np.random.default_rng(0)
    scenes = 5 * random.standard_normal((6, dim))
    sequences, videos = [], []
    for number in range(num_videos):
        index, group = number % 3, number // 3 % 6
        sequence = make_sequence(f"{LABELS[index]}/{number}.mp4", length=10, dim=dim, seed=number)
        wave = np.sin(np.linspace(0, 6, 10) + random.uniform(0, 6))
        sequence.features[:] = scenes[group] + 0.05 * random.standard_normal((10, dim))
        sequence.features[:, index] += wave
        sequence.features[:, 3 + random.integers(5)] += 1.5 * wave
        sequences.append(sequence)
        videos.append(LabeledVideo(sequence.video_id, LABELS[index], group=f"g{group}"))
    return make_store(folder / "store", sequences), videos


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, list[LabeledVideo]]:
    folder = tmp_path_factory.mktemp("embeddings")
    store, videos = write_store(folder)
    rows = (f"{video.video_id},{video.label},{video.group}" for video in videos)
    (folder / "labels.csv").write_text("\n".join(["video,label,group", *rows]))
    return store, videos


@pytest.fixture
def dataset(labelled: tuple[FeatureStore, list[LabeledVideo]]) -> SequenceDataset:
    return SequenceDataset(*labelled, sorted(LABELS))


def on_circle(*degrees: float) -> torch.Tensor:
    radians = torch.tensor(degrees).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def anything(number: int) -> torch.Tensor:
    return torch.ones(number, number, dtype=torch.bool)


def test_the_triplet_loss_is_that_of_the_paper_on_semi_hard_triplets() -> None:
    vectors, truth = on_circle(0, 20, 30, 60), torch.tensor([0, 0, 1, 1])
    squared = [[4 * np.sin(np.deg2rad(abs(a - b)) / 2) ** 2 for b in (0, 20, 30, 60)] for a in (0, 20, 30, 60)]
    terms = []
    for anchor, positive in ((0, 1), (1, 0), (2, 3), (3, 2)):
        for negative in (number for number in range(4) if truth[number] != truth[anchor]):
            near, far = squared[anchor][positive], squared[anchor][negative]
            if near < far < near + 0.2:
                terms.append(max(0.0, near - far + 0.2))
    assert len(terms) == 2
    assert float(embedding_loss("triplet")(vectors, truth, anything(4))) == pytest.approx(np.mean(terms), abs=1e-6)


def test_a_triplet_that_keeps_the_margin_or_is_hard_has_no_loss() -> None:
    truth = torch.tensor([0, 0, 1])
    far, hard = on_circle(0, 10, 90), on_circle(0, 40, 20)
    assert float(embedding_loss("triplet", 0.2)(far, truth, anything(3))) == 0
    assert float(embedding_loss("triplet", 0.2)(hard, truth, anything(3))) == 0


def test_the_contrastive_loss_is_that_of_the_paper() -> None:
    vectors = torch.tensor([[0.0, 0.0], [0.3, 0.4], [0.0, 0.8], [3.0, 0.0]])
    truth = torch.tensor([0, 0, 1, 2])
    distances = [float((vectors[a] - vectors[b]).norm()) for a in range(4) for b in range(4)]
    pulled = [0.5 * 0.5**2]
    pushed = [0.5 * max(0.0, 1 - distances[4 * a + b]) ** 2 for a in range(4) for b in range(4) if truth[a] != truth[b]]
    expected = np.mean(pulled) + np.mean(pushed)
    assert float(embedding_loss("contrastive")(vectors, truth, anything(4))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["triplet", "contrastive"])
def test_videos_of_one_group_are_not_pulled_together(name: str) -> None:
    vectors, truth = on_circle(0, 20, 25), torch.tensor([0, 0, 1])
    loss = embedding_loss(name)(vectors, truth, torch.zeros(3, 3, dtype=torch.bool))
    pushed = np.mean([0.5 * (1 - 2 * np.sin(np.deg2rad(angle) / 2)) ** 2 for angle in (25, 5)])
    assert float(loss) == pytest.approx(0 if name == "triplet" else pushed, abs=1e-6)


def test_retrieval_is_measured_as_another_library_does() -> None:
    random = torch.Generator().manual_seed(0)
    queries, others = (normalize(torch.randn(size, 4, generator=random)) for size in (20, 50))
    truth, class_index = torch.randint(0, 4, (20,), generator=random), torch.randint(0, 4, (50,), generator=random)
    ranked = class_index[(queries @ others.T).argsort(dim=1, descending=True)]
    found = measure_retrieval(ranked, truth)
    calculator = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"),
        knn_func=CustomKNN(CosineSimilarity()),
        device=torch.device("cpu"),
    )
    expected = calculator.get_accuracy(queries, truth, others, class_index)
    assert found is not None
    assert found.recall_at_1 == pytest.approx(expected["precision_at_1"])
    assert found.map_at_r == pytest.approx(expected["mean_average_precision_at_r"], abs=1e-6)
    assert found.recall_at_5 == pytest.approx(
        np.mean([(ranked[query, :5] == truth[query]).any() for query in range(20)])
    )


def test_queries_without_a_video_to_find_do_not_count() -> None:
    found = measure_retrieval(torch.tensor([[1, 0], [1, -1]]), torch.tensor([0, 2]))
    assert found is not None
    assert (found.num_queries, found.recall_at_1, found.recall_at_5, found.map_at_r) == (1, 0, 1, 0)
    assert measure_retrieval(torch.tensor([[1, 0]]), torch.tensor([2])) is None


def test_components_keep_the_products_of_the_videos_that_they_are_fitted_to(dataset: SequenceDataset) -> None:
    wide, wider = (compute_vectors(VideoStatistics.of(dataset, size), dataset) for size in (72, 80))
    assert torch.allclose(wide @ wide.T, wider @ wider.T, atol=1e-4)
    assert float(wide.norm(dim=1).square().mean()) == pytest.approx(1, abs=0.01)


def test_padding_does_not_change_a_vector(dataset: SequenceDataset) -> None:
    statistics = VideoStatistics.of(dataset, 8)
    name = dataset.streams[0]
    short = dataset.sequence(0)[None, :6].float()
    padded = torch.cat([short, torch.full((1, 4, 12), 9.0)], dim=1)
    length = torch.tensor([6])
    assert torch.allclose(statistics({name: (short, length)}), statistics({name: (padded, length)}), atol=1e-5)


@pytest.mark.parametrize("loss", ["triplet", "contrastive"])
def test_learning_finds_videos_of_other_groups(dataset: SequenceDataset, loss: str) -> None:
    fold = [number for number, unit in enumerate(dataset.units) if unit in ("group g0", "group g1")]
    learned, unlearned = measure_folds(dataset, [fold], EmbeddingConfig(dim=16, epochs=60, loss=loss))
    assert learned is not None
    assert unlearned is not None
    assert learned.map_at_r > unlearned.map_at_r + 0.1


def test_the_same_seed_gives_the_same_network_whatever_ran_before(dataset: SequenceDataset) -> None:
    first = compute_vectors(train_embedding(dataset, QUICK), dataset)
    torch.rand(3)
    np.random.rand(3)
    assert torch.equal(first, compute_vectors(train_embedding(dataset, QUICK), dataset))


def test_vectors_have_length_one_and_survive_the_file(
    labelled: tuple[FeatureStore, list[LabeledVideo]], dataset: SequenceDataset, tmp_path: Path
) -> None:
    store, _ = labelled
    labels = store.path.parent / "labels.csv"
    saved = vidpipe.train_embedding(store.path, tmp_path / "emb", labels=labels, dim=16, epochs=5, folds=2)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["emb", "embedding.json", "embedding.safetensors"]
    opened = Embedding.open(tmp_path / "emb")
    vectors = opened.embed(dataset)
    assert torch.equal(vectors, saved.embed(dataset))
    assert torch.allclose(vectors.norm(dim=1), torch.ones(72))
    assert opened.about["num_groups"] == 6
    assert set(opened.about["metrics"]["learned"]) == {"recall_at_1", "recall_at_5", "map_at_r", "num_queries"}


def test_an_embedding_is_replaced_only_when_asked(
    labelled: tuple[FeatureStore, list[LabeledVideo]], tmp_path: Path
) -> None:
    store, _ = labelled
    command = ("search", "train", store.path, "--labels", store.path.parent / "labels.csv", "--epochs", 1, "--dim", 4)
    assert run(*command, "-o", tmp_path / "emb").exit_code == 0
    refused = run(*command, "-o", tmp_path / "emb")
    assert (refused.exit_code, "--overwrite" in refused.stderr) == (1, True)
    replaced = run(*command, "-o", tmp_path / "emb", "--overwrite", "--seed", 3)
    assert replaced.exit_code == 0
    assert "recall@5" in replaced.stdout
    assert json.loads((tmp_path / "emb/embedding.json").read_text())["config"]["seed"] == 3
    (tmp_path / "emb/notes.txt").write_text("mine")
    assert run(*command, "-o", tmp_path / "emb", "--overwrite").exit_code == 2
    assert run(*command, "-o", store.path / "emb").exit_code == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("swing/0.mp4,swing\nswing/3.mp4,swing", "two labels or more, and here is swing"),
        ("swing/0.mp4,swing\nstill/1.mp4,still", "each label has one"),
    ],
)
def test_too_few_labels_are_one_line(
    labelled: tuple[FeatureStore, list[LabeledVideo]], tmp_path: Path, labels: str, message: str
) -> None:
    (tmp_path / "labels.csv").write_text(f"video,label\n{labels}\n")
    command = ("search", "train", labelled[0].path, "--labels", tmp_path / "labels.csv", "-o", tmp_path / "emb")
    result = run(*command, "--quiet")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert message in result.stderr
    assert not (tmp_path / "emb").exists()


def test_a_damaged_embedding_and_none_are_one_line(
    labelled: tuple[FeatureStore, list[LabeledVideo]], tmp_path: Path
) -> None:
    store, _ = labelled
    with pytest.raises(UsageError, match="no such folder"):
        Embedding.open(tmp_path / "none")
    with pytest.raises(RunError, match="no embedding"):
        Embedding.open(store.path)
    labels = store.path.parent / "labels.csv"
    vidpipe.train_embedding(store.path, tmp_path / "emb", labels=labels, dim=4, epochs=1)
    (tmp_path / "emb/embedding.safetensors").write_bytes(b"x")
    with pytest.raises(RunError, match="cannot be loaded"):
        Embedding.open(tmp_path / "emb")


def test_one_label_is_too_few_to_train(dataset: SequenceDataset) -> None:
    with pytest.raises(LabelsError, match="two labels"):
        train_embedding(dataset.select([one for one in dataset.video_ids if one.startswith("swing")]), QUICK)


def test_similar_videos_are_ranked_by_the_embedding(
    labelled: tuple[FeatureStore, list[LabeledVideo]], dataset: SequenceDataset, tmp_path: Path
) -> None:
    store, _ = labelled
    labels = store.path.parent / "labels.csv"
    embedding = vidpipe.train_embedding(store.path, tmp_path / "emb", labels=labels, dim=16, epochs=60)
    command = ("search", "similar", store.path, "swing/0.mp4", "-k", 4, "--format", "json")
    result = run(*command, "--embedding", tmp_path / "emb")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["videos"]
    vectors = embedding.embed(dataset)
    own = vectors[dataset.video_ids.index("swing/0.mp4")]
    cosines = dict(zip(dataset.video_ids, (vectors @ own).tolist(), strict=True))
    nearest = sorted(cosines, key=cosines.__getitem__, reverse=True)[1:5]
    assert [one["video"] for one in found] == nearest
    assert [one["score"] for one in found] == pytest.approx([cosines[one] for one in nearest], abs=1e-4)
    (same,) = vidpipe.search_similar(store.path, ["swing/0.mp4"], number=4, embedding=embedding)
    assert [one.video for one in same.videos] == nearest
    assert run(*command, "--embedding", tmp_path / "emb", "--stream", "resnet50").exit_code == 2


def test_duplicates_are_compared_with_the_nearest_of_the_embedding(
    labelled: tuple[FeatureStore, list[LabeledVideo]], tmp_path: Path
) -> None:
    original = labelled[0]["swing/0.mp4"]
    copy = FeatureSequence("copy.mp4", original.features, original.rows, original.info)
    sequences = [labelled[0][video_id] for video_id in labelled[0]]
    store = make_store(tmp_path / "store", [*sequences, copy])
    labels = labelled[0].path.parent / "labels.csv"
    embedding = vidpipe.train_embedding(labelled[0].path, tmp_path / "emb", labels=labels, dim=16, epochs=1)
    command = ("search", "duplicates", store.path, "--threshold", 7, "--embedding", tmp_path / "emb")
    found = run(*command, "--format", "csv")
    assert found.exit_code == 0, found.output
    assert "copy.mp4,swing/0.mp4" in found.stdout
    (group,) = vidpipe.search_duplicates(store.path, threshold=7, embedding=embedding)
    assert {member.video for member in group.members} == {"copy.mp4", "swing/0.mp4"}
    refused = run(*command, "--stream", "resnet50")
    assert (refused.exit_code, "give one of them" in refused.stderr) == (2, True)


def test_a_query_that_a_stream_lacks_is_one_line(
    labelled: tuple[FeatureStore, list[LabeledVideo]], tmp_path: Path
) -> None:
    store, _ = labelled
    embedding = vidpipe.train_embedding(store.path, tmp_path / "emb", labels=store.path.parent / "labels.csv", epochs=1)
    embedded = EmbeddedVideos(embedding, {"resnet50": store})
    with pytest.raises(UsageError, match="lacks this video"):
        embedded.vector_of("none.mp4")
