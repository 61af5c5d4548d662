"""Train an embedding by triplet loss (FaceNet, Schroff et al. 2015) or contrastive loss (Hadsell et al. 2006).

Each batch has P labels with K videos each. Positives come from another group of the label where it has several: that
two clips of one camera are alike says nothing about their label.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import ContrastiveLoss, TripletMarginLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from pytorch_metric_learning.reducers import MeanReducer
from pytorch_metric_learning.samplers import MPerClassSampler
from pytorch_metric_learning.utils import common_functions
from pytorch_metric_learning.utils.loss_and_miner_utils import get_all_pairs_indices
from torch import Tensor

from vidpipe.config import EmbeddingConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.errors import LabelsError, TrainingError
from vidpipe.search.embedding import EmbeddingNetwork
from vidpipe.search.retrieval import Retrieval, measure_retrieval
from vidpipe.search.statistics import VideoStatistics, compute_vectors

__all__ = ["cross_validate_embedding", "embedding_loss", "measure_folds", "train_embedding"]

DEFAULT_MARGINS = {"triplet": 0.2, "contrastive": 1.0}
LABELS_PER_BATCH, VIDEOS_PER_LABEL = 16, 4
MAX_STEPS = 6000
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-2
NOISE = 0.5
"""Of a component's deviation, added to each video in training."""
MAX_QUERIES = 2000
"""With more videos, the other folds would only take longer."""

EmbeddingLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Embeddings (N, D), class indices (N,) and whether two videos may be a pair of one label (N, N) -> ()"""


class _HadsellLoss(ContrastiveLoss):  # type: ignore[misc]
    """½ d² for two videos of a label, ½ max(0, m − d)² for others."""

    def get_per_pair_loss(self, pair_dists: Tensor, pos_or_neg: str) -> Tensor:
        hinge: Tensor = super().get_per_pair_loss(pair_dists, pos_or_neg)
        return hinge.square() / 2


def embedding_loss(name: str, margin: float | None = None) -> EmbeddingLoss:
    """Return a loss of embeddings.

    Args:
        name: `triplet`: the mean of max(0, ‖a − p‖² − ‖a − n‖² + margin) over the semi-hard triplets, whose negative is
            farther than the positive, by less than the margin. `contrastive`: the mean of ½ d² over the pairs of a
            label, and the mean of ½ max(0, margin − d)² over the others.
        margin: None for 0.2 or 1.

    Returns:
        The function.
    """
    margin = DEFAULT_MARGINS[name] if margin is None else margin
    if name == "contrastive":
        distance = LpDistance(normalize_embeddings=False)
        contrastive = _HadsellLoss(0, margin, distance=distance, reducer=MeanReducer())

        def pair_loss(vectors: Tensor, class_index: Tensor, may_pair: Tensor) -> Tensor:
            first, second, *negatives = get_all_pairs_indices(class_index)
            kept = may_pair[first, second]
            loss: Tensor = contrastive(vectors, indices_tuple=(first[kept], second[kept], *negatives))
            return loss

        return pair_loss
    squared = LpDistance(normalize_embeddings=False, power=2)
    triplet = TripletMarginLoss(margin, distance=squared, reducer=MeanReducer())
    miner = TripletMarginMiner(margin, type_of_triplets="semihard", distance=squared)

    def triplet_loss(vectors: Tensor, class_index: Tensor, may_pair: Tensor) -> Tensor:
        anchor, positive, negative = miner(vectors, class_index)
        kept = may_pair[anchor, positive]
        loss: Tensor = triplet(vectors, class_index, (anchor[kept], positive[kept], negative[kept]))
        return loss

    return triplet_loss


def train_embedding(training: SequenceDataset, config: EmbeddingConfig) -> EmbeddingNetwork:
    """Train an embedding on labelled videos; the same seed gives the same network.

    Args:
        training: the videos, with all streams.
        config: the settings.

    Returns:
        The network, ready to use.

    Raises:
        LabelsError: there are fewer than two labels, or no label has two videos.
        TrainingError: a loss is not finite.
    """
    _check_labels(training)
    with torch.random.fork_rng(devices=[]), _seeded(config.seed):
        torch.manual_seed(config.seed)
        network = EmbeddingNetwork(VideoStatistics.of(training, config.dim))
        components = compute_vectors(network.statistics, training)  # (N, D), computed once
        _fit(network, components, training, config)
    return network.eval()


def _fit(network: EmbeddingNetwork, components: Tensor, training: SequenceDataset, config: EmbeddingConfig) -> None:
    compute_loss = embedding_loss(config.loss, config.margin)
    class_index, may_pair = training.class_index, _may_pair(training)
    deviation = components.std(dim=0, correction=0)
    batches = _batches(class_index, config.epochs)
    optimiser = torch.optim.AdamW(network.projection.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(batches))
    for chosen in batches:
        noisy = components[chosen] + NOISE * deviation * torch.randn(len(chosen), len(deviation))
        loss = compute_loss(network.project(noisy), class_index[chosen], may_pair(chosen))
        if not torch.isfinite(loss):
            raise TrainingError("the loss of the embedding is not finite; give a smaller --margin")
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()


def _batches(class_index: Tensor, epochs: int) -> list[Tensor]:
    """The numbers of the videos in each batch: K videos of each of P labels."""
    num_labels = int((class_index.bincount() > 0).sum())
    size = VIDEOS_PER_LABEL * min(num_labels, LABELS_PER_BATCH)
    num_batches = min(MAX_STEPS, epochs * max(1, len(class_index) // size))
    sampler = MPerClassSampler(class_index, VIDEOS_PER_LABEL, size, num_batches * size)
    return list(torch.split(torch.tensor(list(sampler)), size))


def _may_pair(training: SequenceDataset) -> Callable[[Tensor], Tensor]:
    """Whether two videos may be pulled together, (n,) -> (n, n): they are of two groups, or their label has one."""
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(training.units))}
    group = torch.tensor([numbers[unit] for unit in training.units])
    groups = defaultdict(set)
    for index, number in zip(training.class_index.tolist(), group.tolist(), strict=True):
        groups[index].add(number)
    has_one = torch.tensor([len(groups[index]) == 1 for index in training.class_index.tolist()])

    def may_pair(chosen: Tensor) -> Tensor:
        return (group[chosen][:, None] != group[chosen]) | has_one[chosen][:, None]

    return may_pair


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the sampler, which draws from a generator of its library."""
    before = common_functions.NUMPY_RANDOM
    common_functions.NUMPY_RANDOM = np.random.RandomState(seed)
    try:
        yield
    finally:
        common_functions.NUMPY_RANDOM = before


def _check_labels(training: SequenceDataset) -> None:
    counts = training.class_index.bincount()
    if int((counts > 0).sum()) < 2:
        names = ", ".join(sorted({video.label for video in training.videos})) or "none"
        raise LabelsError(
            f"an embedding needs videos of two labels or more, and here is {names}; label videos of another kind, too"
        )
    if int(counts.max()) < 2:
        raise LabelsError("an embedding needs two videos or more of a label, and each label has one; label more videos")


# Measured on groups that it has not learned from


def cross_validate_embedding(
    dataset: SequenceDataset, config: EmbeddingConfig
) -> tuple[Retrieval | None, Retrieval | None]:
    """Measure an embedding on folds over groups, and the statistics without learning on the same queries.

    The videos of a fold are queries among all others, which the fold's embedding has learned from.

    Args:
        dataset: labelled videos, with all streams.
        config: `folds` and the settings of the training.

    Returns:
        The metrics of the embedding, then those without learning; None where there are too few groups or videos.

    Raises:
        LabelsError: there are fewer than two labels, or no label has two videos.
        TrainingError: a loss is not finite.
    """
    _check_labels(dataset)
    return measure_folds(dataset, list(_folds(dataset, config)), config)


def measure_folds(
    dataset: SequenceDataset, folds: Sequence[Sequence[int]], config: EmbeddingConfig
) -> tuple[Retrieval | None, Retrieval | None]:
    """Measure an embedding on given folds; see `cross_validate_embedding`.

    Args:
        dataset: labelled videos, with all streams.
        folds: the numbers of the videos of each.
        config: the settings of the training.

    Returns:
        The metrics of the embedding, then those without learning; None where no query has a video to find.

    Raises:
        LabelsError: the others of a fold have fewer than two labels, or no label has two videos.
        TrainingError: a loss is not finite.
    """
    learned, unlearned, truth = list[Tensor](), list[Tensor](), list[Tensor]()
    ids = dataset.video_ids
    for fold in folds:
        inside = set(fold)
        others = dataset.select(one for number, one in enumerate(ids) if number not in inside)
        queries = dataset.select(ids[number] for number in fold)
        network = train_embedding(others, config)
        for ranked, module in ((learned, network), (unlearned, network.statistics)):
            ranked.append(_rank(compute_vectors(module, queries), compute_vectors(module, others), others.class_index))
        truth.append(queries.class_index)
    if not truth:
        return None, None
    of_all = torch.cat(truth)
    return measure_retrieval(_joined(learned), of_all), measure_retrieval(_joined(unlearned), of_all)


def _folds(dataset: SequenceDataset, config: EmbeddingConfig) -> Iterator[list[int]]:
    """The numbers of the videos of each fold, by group; of folds whose others can train an embedding."""
    from sklearn.model_selection import StratifiedGroupKFold

    from vidpipe.training.linear import quiet_about_few_videos

    truth, units = dataset.class_index.numpy(), dataset.units
    num_folds, num_queries = min(config.folds, len(set(units))), 0
    if num_folds < 2:
        return
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=0)
    with quiet_about_few_videos():
        folds = list(splitter.split(truth, truth, units))
    for others, fold in folds:
        counts = np.bincount(truth[others])
        if (counts > 0).sum() > 1 and counts.max() > 1 and len(fold):
            yield fold.tolist()
            num_queries += len(fold)
        if num_queries >= MAX_QUERIES:
            return


def _rank(queries: Tensor, others: Tensor, class_index: Tensor) -> Tensor:
    """The class indices of the other videos for each query, the nearest first: (Q, D), (N, D), (N,) -> (Q, N)"""
    similarity = torch.nn.functional.normalize(queries, dim=1) @ torch.nn.functional.normalize(others, dim=1).T
    return class_index[similarity.argsort(dim=1, descending=True, stable=True)]


def _joined(ranked: Sequence[Tensor]) -> Tensor:
    """The rankings of all folds, (ΣQ, N); −1 fills those of folds with fewer videos."""
    width = max(one.shape[1] for one in ranked)
    return torch.cat([torch.nn.functional.pad(one, (0, width - one.shape[1]), value=-1) for one in ranked])
