"""Late fusion and early fusion: the arithmetic, the weights, and what each member learns from."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tests.trainings import DIM, rising_and_falling
from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset, pad
from vidpipe.heads.fusion import Fusion, MemberHeads
from vidpipe.heads.heads import Components, ProjectedHead, RecurrentHead, build_head
from vidpipe.heads.members import Member, plan_members
from vidpipe.training import fusion as fusing
from vidpipe.training import fusion_weights
from vidpipe.training.fusion import compute_member_logits, cross_fit, fit_classifier, fit_member
from vidpipe.training.fusion_weights import CrossFitted, find_weights

LINEAR, NEURAL = Member(("a",), "statistics"), Member(("a",), "lstm")
QUICK = TrainConfig(head="statistics,lstm", hidden_size=8, epochs=3, device="cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SequenceDataset:
    """Two streams of 80 videos in 20 groups; both are the same store."""
    store, videos = rising_and_falling(tmp_path_factory.mktemp("fusion"))
    return SequenceDataset({"a": store, "b": store}, videos, ["falling", "rising"])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def members_with(heads: Sequence[str], *, dim: int = DIM) -> list[MemberHeads]:
    torch.manual_seed(0)
    config = TrainConfig(hidden_size=8)
    return [MemberHeads(Member(("a",), name), [build_head(name, dim, 3, config)]) for name in heads]


# The arithmetic


@torch.inference_mode()
def test_late_fusion_adds_weighted_log_probabilities() -> None:
    members = members_with(("statistics", "lstm", "gru"))
    weights, temperature = (1.5, 1.0, 0.5), 2.5
    fusion = Fusion(members, weights, temperature).eval()
    batch = {"a": pad([torch.randn(length, DIM) for length in (3, 7, 1)])}
    each = np.stack([member(batch).numpy() for member in members])  # (M, N, K)
    expected = np.einsum("m,mnk->nk", weights, log_softmax(each)) / temperature
    assert np.allclose(fusion(batch).numpy(), expected, atol=1e-5)


@torch.inference_mode()
def test_one_member_gives_its_own_logits() -> None:
    (member,) = members_with(("statistics",))
    batch = {"a": pad([torch.randn(4, DIM)])}
    assert torch.equal(Fusion([member]).eval()(batch), member(batch))


@torch.inference_mode()
def test_padding_never_changes_a_fused_prediction() -> None:
    fusion = Fusion(members_with(("statistics", "lstm")), (1.0, 0.5), 1.2).eval()
    sequences = [torch.randn(length, DIM) for length in (3, 9, 1)]
    alone = torch.cat([fusion({"a": pad([sequence])}) for sequence in sequences])
    assert torch.allclose(fusion({"a": pad(sequences)}), alone, atol=1e-5)


# The weights


def cross_fitted(*members: Tensor, truth: Tensor) -> CrossFitted:
    number = torch.arange(len(truth))
    return CrossFitted(torch.stack(members, dim=1), truth, [f"g{n}" for n in (number // 2).tolist()], number % 3)


def informed(truth: Tensor, *, share: float, seed: int) -> Tensor:
    """Logits that name the right class for a share of the videos, and a random one for the others."""
    random = torch.Generator().manual_seed(seed)
    guess = torch.randint(3, truth.shape, generator=random)
    known = torch.rand(truth.shape, generator=random) < share
    return 4 * torch.nn.functional.one_hot(torch.where(known, truth, guess), 3).float()


TRUTH = torch.arange(120) % 3


def test_a_member_that_knows_nothing_hardly_matters_and_one_that_knows_all_decides() -> None:
    found = find_weights(
        cross_fitted(informed(TRUTH, share=0, seed=1), informed(TRUTH, share=1, seed=2), truth=TRUTH),
        members=[LINEAR, NEURAL],
    )
    assert found.temperatures[0] > 10
    assert found.temperatures[1] < 1
    assert all(value > 0 for value in found.values)


def test_equally_good_members_keep_the_default_weights() -> None:
    found = find_weights(
        cross_fitted(informed(TRUTH, share=0.5, seed=1), informed(TRUTH, share=0.5, seed=2), truth=TRUTH),
        members=[LINEAR, LINEAR],
    )
    assert not found.is_found
    assert found.values == pytest.approx((1, 1))
    assert 0.5 <= found.scale <= 1


def test_weights_that_lead_on_other_folds_are_taken() -> None:
    """Four copies of a poor member outweigh a good one by default."""
    poor, good = informed(TRUTH, share=0.3, seed=1), informed(TRUTH, share=0.9, seed=2)
    found = find_weights(cross_fitted(poor, poor, poor, poor, good, truth=TRUTH), members=[*[LINEAR] * 4, NEURAL])
    assert found.is_found
    assert found.values[4] > 1 > max(found.values[:4])


def test_with_few_videos_nothing_is_fitted() -> None:
    truth = TRUTH[:19]
    found = find_weights(cross_fitted(*[informed(truth, share=1, seed=1)] * 2, truth=truth), members=[LINEAR, NEURAL])
    assert (found.temperatures, found.scale, found.is_found) == ((1.0, 1.0), 0.5, False)
    assert found.values == pytest.approx((4 / 3, 2 / 3))


def test_a_member_is_judged_by_videos_of_groups_that_it_has_not_seen(
    dataset: SequenceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    judged: list[set[str]] = []

    def fit(member: Member, subsets: dict[str, SequenceDataset], config: TrainConfig) -> tuple[MemberHeads, list[int]]:
        seen.append(set(subsets["train"].units))
        assert len(subsets["val"]) == 0
        return MemberHeads(member, [build_head(member.head, DIM, 2, config)]), []

    def apply(member: MemberHeads, videos: SequenceDataset) -> Tensor:
        judged.append(set(videos.units))
        return torch.zeros(len(videos), 2)

    monkeypatch.setattr(fusing, "fit_member", fit)
    monkeypatch.setattr(fusing, "compute_member_logits", apply)
    found = cross_fit([LINEAR, NEURAL], dataset, QUICK)
    assert (found.logits.shape, sorted(set(found.folds.tolist()))) == ((80, 2, 2), [0, 1, 2])
    assert all(not learned & tested for learned, tested in zip(seen, judged, strict=True))
    assert set.union(*judged) == set(dataset.units)


def test_many_videos_are_judged_on_one_fold(dataset: SequenceDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "MAX_CROSS_FITTED_VIDEOS", 50)
    found = cross_fit([LINEAR, Member(("b",), "statistics")], dataset, replace(QUICK, C=1.0))
    assert set(found.folds.tolist()) == {0}
    assert 20 <= len(found.truth) <= 35
    assert len(set(fusion_weights._at_least_two(found).tolist())) == 3


def test_members_get_the_temperatures_of_the_folds(dataset: SequenceDataset) -> None:
    members = plan_members(["a", "b"], QUICK)
    assert [member.name for member in members] == ["a/statistics", "b/statistics", "a/lstm", "b/lstm"]
    subsets = {"train": dataset, "val": dataset.select([])}
    fitted = fit_classifier(members, subsets, QUICK)
    found = [float(member.heads[0].temperature) for member in fitted.fusion.fitted.values()]
    assert found == pytest.approx(fitted.weights.temperatures)
    again = fit_classifier(members, subsets, QUICK, weights=fitted.weights)
    assert again.weights is fitted.weights


# Early fusion


def test_early_fusion_is_a_logistic_regression_on_the_statistics_of_all_streams(dataset: SequenceDataset) -> None:
    config = TrainConfig(head="mean", fusion="early", C=5.0, calibrate=False, device="cpu")
    member = Member(("a", "b"), "mean")
    fitted, _ = fit_member(member, {"train": dataset, "val": dataset.select([])}, config)
    sequences = [dataset.stream("a").sequence(number).numpy() for number in range(len(dataset))]
    means = np.stack([sequence.mean(axis=0) for sequence in sequences]) / np.concatenate(sequences).std(axis=0)
    rows = (means - means.mean(axis=0)) / np.sqrt(means.var(axis=0).sum())  # about as long as 1
    joined = np.concatenate([rows, rows], axis=1) / np.sqrt(2)
    model = LogisticRegression(C=5.0, max_iter=2000).fit(joined, dataset.class_index.numpy())
    found = log_softmax(compute_member_logits(fitted, dataset).numpy())
    assert np.allclose(found, model.predict_log_proba(joined), atol=2e-2)


# What the LSTM sees


def test_components_are_those_of_a_principal_component_analysis() -> None:
    rows = np.random.default_rng(0).standard_normal((500, 40)) @ np.diag(2.0 ** -np.arange(40))
    rows -= rows.mean(axis=0)
    components = Components(40, 4)
    torch.manual_seed(0)
    components.fit(torch.from_numpy(rows).float())
    expected = PCA(4).fit_transform(rows)
    found = components(torch.from_numpy(rows).float()).numpy()
    agreement = (
        np.abs((found * expected).sum(axis=0)) / np.linalg.norm(found, axis=0) / np.linalg.norm(expected, axis=0)
    )
    assert agreement.min() > 0.99
    assert np.square(found).mean() == pytest.approx(1, rel=0.05)


@torch.inference_mode()
def test_a_projected_head_gives_what_the_head_gives() -> None:
    head = build_head("lstm", 300, 3, TrainConfig(motion="centred,magnitude", hidden_size=8, components=5)).eval()
    assert isinstance(head, RecurrentHead)
    assert head.components is not None
    head.components.weight.normal_()
    features, lengths = pad([torch.randn(length, 300) for length in (4, 9)])
    projected = head.project(head.motion(features, lengths))
    assert projected.shape == (2, 9, 5)
    assert torch.allclose(ProjectedHead(head).eval()(projected, lengths), head(features, lengths), atol=1e-6)


def test_a_small_feature_is_not_projected() -> None:
    head = build_head("lstm", 243, 3, TrainConfig(motion="raw,magnitude"))
    assert isinstance(head, RecurrentHead)
    assert head.components is None
