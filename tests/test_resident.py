"""Features in the memory of a device, and networks as graphs: the same values as without. Here it is the CPU."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.stores import make_sequence, make_store
from vidpipe.backbones.engines import cuda_graphs
from vidpipe.backbones.engines.cuda_graphs import Compute, GraphedNetwork
from vidpipe.backbones.engines.torch import TorchEngine
from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.table import BACKBONES
from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.heads.heads import build_head
from vidpipe.records import LabeledVideo
from vidpipe.training.fit import compute_logits, make_optimiser, train_epoch

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SequenceDataset:
    """Twelve videos of 1 to 12 rows."""
    sequences = [
        make_sequence(f"{number:02}.mp4", num_rows, seed=number) for number, num_rows in enumerate(range(1, 13))
    ]
    store = make_store(tmp_path_factory.mktemp("resident") / "s", sequences)
    return SequenceDataset(
        store, [LabeledVideo(one.video_id, "ab"[n % 2]) for n, one in enumerate(sequences)], ["a", "b"]
    )


def test_batches_of_resident_features_are_the_padded_ones(dataset: SequenceDataset) -> None:
    resident = dataset.resident_on(CPU)
    order = torch.from_numpy(np.random.default_rng(0).permutation(12))
    for ours, theirs in zip(resident.batches(5, order=order), dataset.batches(5, order=order), strict=True):
        assert torch.equal(ours.features, theirs.features)
        assert torch.equal(ours.lengths, theirs.lengths)
        assert torch.equal(ours.class_index, theirs.class_index)
    assert dataset.size_bytes == sum(range(1, 13)) * dataset.dim * 4


def test_a_dataset_made_of_a_resident_one_has_its_own_sequences(dataset: SequenceDataset) -> None:
    resident = dataset.resident_on(CPU)
    (batch,) = resident.select(["11.mp4", "02.mp4"]).batches(2)
    assert batch.lengths.tolist() == [12, 3]
    assert torch.equal(batch.features[0], dataset.sequence(11))
    (mean,) = resident.averaged().batches(12)
    assert mean.features[:, 0] == pytest.approx(torch.stack([dataset.sequence(n).mean(0) for n in range(12)]))


@pytest.mark.parametrize("name", ["lstm", "attention"])
def test_a_head_learns_the_same_from_resident_features(dataset: SequenceDataset, name: str) -> None:
    config = TrainConfig(head=name, hidden_size=4, batch_size=4, components=0, device="cpu")
    torch.manual_seed(0)
    first = build_head(name, dataset.dim, 2, config)
    second = copy.deepcopy(first)
    for head, seen in ((first, dataset), (second, dataset.resident_on(CPU))):
        torch.manual_seed(1)
        train_epoch(head, seen, make_optimiser(head, config), config, torch.arange(12))
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    assert torch.equal(compute_logits(first, dataset), compute_logits(second, dataset.resident_on(CPU)))


class Recorder:
    """Captures what replays as twice the network, so that a result shows whether the graph made it."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.captured: list[tuple[int, ...]] = []
        self._seconds = seconds

    def capture(self, network: Compute, example: Tensor) -> Compute:
        self.captured.append(tuple(example.shape))
        return self.replay

    def replay(self, batch: Tensor) -> Tensor:
        return 2 * batch

    def measure(self, compute: Compute, batch: Tensor) -> float:
        return self._seconds["graph" if compute == self.replay else "eager"]


def eager(batch: Tensor) -> Tensor:
    return batch


def results(network: Callable[[Tensor], Tensor], sizes: list[int]) -> list[float]:
    return [float(network(torch.ones(size, 2))[0, 0]) for size in sizes]


def test_batches_of_the_shape_that_repeats_are_replayed_and_others_are_not() -> None:
    recorder = Recorder({"eager": 2.0, "graph": 1.0})
    network = GraphedNetwork(eager, capture=recorder.capture, measure=recorder.measure)
    sizes = [8, 8, 3, *[8] * (cuda_graphs.EAGER_BATCHES - 1), 3, 8]
    assert results(network, sizes) == [1.0] * 3 + [1.0] * (cuda_graphs.EAGER_BATCHES - 2) + [2.0, 1.0, 2.0]
    assert recorder.captured == [(8, 2)]


def test_a_graph_that_is_not_faster_is_dropped() -> None:
    recorder = Recorder({"eager": 1.0, "graph": 1.0})
    network = GraphedNetwork(eager, capture=recorder.capture, measure=recorder.measure)
    assert results(network, [8] * 8) == [1.0] * 8
    assert recorder.captured == [(8, 2)]


def test_a_network_that_cannot_be_captured_runs_as_it_is() -> None:
    def refuse(network: Compute, example: Tensor) -> Compute:
        raise RuntimeError("operation not permitted when stream is capturing")

    network = GraphedNetwork(eager, capture=refuse, measure=lambda compute, batch: 1.0)
    assert results(network, [8] * 8) == [1.0] * 8


def test_on_a_cpu_graphs_change_nothing(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    backbone = load_backbone(BACKBONES["lenet5"], device="cpu")
    plain, graphed = TorchEngine(backbone), TorchEngine(backbone, cuda_graphs=True)
    for _ in range(cuda_graphs.EAGER_BATCHES + 2):
        assert np.array_equal(plain.start(frames)()[0], graphed.start(frames)()[0])
