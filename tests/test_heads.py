import pytest
import torch
from torch import Tensor

from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import pad
from vidpipe.models.heads import HEADS, Head, MeanHead, build_head, masked_mean

CONFIGS = [
    pytest.param(name, TrainConfig(head=name, hidden_size=12, **more), id=f"{name} {more}")
    for name in HEADS
    for more in ({}, {"bidirectional": True}, {"num_layers": 2})
]


def make_head(name: str, config: TrainConfig) -> Head:
    torch.manual_seed(0)
    head = build_head(name, 7, 3, config)
    head.fit_standardisation(torch.randn(50, 7) * 3 + 1)
    return head.eval()


def make_sequences() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(length, 7) for length in (5, 1, 9, 3)]


@pytest.mark.parametrize(("name", "config"), CONFIGS)
def test_padding_and_company_never_change_a_prediction(name: str, config: TrainConfig) -> None:
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


def test_a_constant_feature_does_not_divide_by_zero() -> None:
    head = MeanHead(4, 2)
    head.fit_standardisation(torch.ones(10, 4))
    assert head(torch.ones(1, 3, 4), torch.tensor([3])).isfinite().all()
