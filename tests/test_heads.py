from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import pad
from vidpipe.heads.heads import HEADS, STATISTICS, Ensemble, Head, build_head, time_thirds
from vidpipe.heads.motion import masked_mean

MORE: dict[str, list[dict[str, Any]]] = {
    "lstm": [{}, {"bidirectional": True}, {"num_layers": 2}, {"motion": "raw"}, {"ensemble": 2}],
    "gru": [{}, {"bidirectional": True}],
    "transformer": [{}, {"num_layers": 2}],
    "statistics": [{}, {"statistics": "mean,deviation,thirds", "motion": "raw,centred,difference,magnitude"}],
}
CONFIGS = [
    pytest.param(name, TrainConfig(head=name, hidden_size=12, **more), id=f"{name} {more}")
    for name in HEADS
    for more in MORE.get(name, [{}])
]


def make_head(name: str, config: TrainConfig) -> Head:
    torch.manual_seed(0)
    head = build_head(name, 7, 3, config)
    rows = torch.randn(5, 10, 7) * 3 + 1
    head.motion.fit([(rows, torch.full((5,), 10))])
    return head.eval()


def make_sequences() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(length, 7) for length in (5, 1, 9, 3)]


@pytest.mark.parametrize(("name", "config"), CONFIGS)
def test_padding_and_other_videos_of_the_batch_never_change_a_prediction(name: str, config: TrainConfig) -> None:
    head, sequences = make_head(name, config), make_sequences()
    with torch.inference_mode():
        alone = torch.cat([head(sequence[None], torch.tensor([len(sequence)])) for sequence in sequences])
        together = head(*pad(sequences))
        reversed_order = head(*pad(sequences[::-1])).flip(0)
        features, lengths = pad(sequences)
        rubbish = torch.full((len(sequences), 20, 7), 1e6)
        for row, sequence in zip(rubbish, sequences, strict=True):
            row[: len(sequence)] = sequence
        over_padded = head(rubbish, lengths)
    assert features.shape == (4, 9, 7)
    for other in (together, reversed_order, over_padded):
        assert (other - alone).abs().max() < 1e-5


def test_the_lstm_sees_the_order_and_the_mean_does_not() -> None:
    sequence, length = make_sequences()[2][None], torch.tensor([9])
    with torch.inference_mode():
        for name, differs in (("lstm", True), ("mean", False)):
            head = make_head(name, TrainConfig(head=name, hidden_size=12))
            difference = (head(sequence, length) - head(sequence.flip(1), length)).abs().max()
            assert (difference > 1e-3) == differs


def test_the_masked_mean_is_the_mean_of_each_sequence() -> None:
    sequences = make_sequences()
    expected = torch.stack([sequence.mean(dim=0) for sequence in sequences])
    assert torch.allclose(masked_mean(*pad(sequences)), expected, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7])
def test_time_thirds_are_the_means_of_a_sequence_drawn_out_threefold(length: int) -> None:
    sequence = torch.randn(length, 7, generator=torch.Generator().manual_seed(length))
    drawn_out = sequence.repeat_interleave(3, dim=0)  # each third is now `length` whole steps
    expected = torch.cat([third.mean(dim=0) for third in torch.split(drawn_out, length)])
    padded = torch.cat([sequence, torch.zeros(5, 7)])
    assert torch.allclose(time_thirds(padded[None], torch.tensor([length]))[0], expected, atol=1e-6)


def test_the_statistics_are_numpys() -> None:
    sequences = make_sequences()
    for name, of in (("mean", np.mean), ("deviation", np.std)):
        found = STATISTICS[name][1](*pad(sequences))
        assert np.allclose(found.numpy(), np.stack([of(s.numpy(), axis=0) for s in sequences]), atol=1e-5)


def test_an_ensemble_gives_the_mean_of_its_members_probabilities() -> None:
    head = make_head("gru", TrainConfig(head="gru", hidden_size=12, ensemble=3))
    assert isinstance(head, Ensemble)
    batch = pad(make_sequences())
    with torch.inference_mode():
        expected = torch.stack([member(*batch).softmax(dim=1) for member in head.heads]).mean(dim=0)
        assert torch.allclose(head(*batch).softmax(dim=1), expected, atol=1e-6)
    assert (expected - head.heads[0](*batch).softmax(dim=1)).abs().max() > 1e-3


def test_calibrate_finds_the_temperature_of_least_loss() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(400, 3)
    truth = torch.multinomial((logits / 2.5).softmax(dim=1), 1)[:, 0]
    head = make_head("mean", TrainConfig(head="mean"))
    head.calibrate(logits, truth)
    losses = {t / 100: float(cross_entropy(logits / (t / 100), truth)) for t in range(50, 1000)}
    assert float(head.temperature) == pytest.approx(min(losses, key=losses.__getitem__), abs=0.02)


def test_fewer_than_twenty_videos_do_not_calibrate_a_head() -> None:
    head = make_head("mean", TrainConfig(head="mean"))
    head.calibrate(torch.randn(19, 3), torch.zeros(19, dtype=torch.int64))
    assert float(head.temperature) == 1.0
