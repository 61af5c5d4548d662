"""How well vectors of videos find videos of the same label."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

__all__ = ["Retrieval", "measure_retrieval"]


@dataclass(frozen=True)
class Retrieval:
    """Means over the queries for which there is a video of the same label to find."""

    recall_at_1: float
    """The share of queries whose nearest video has their label."""
    recall_at_5: float
    """The share of queries with a video of their label among the nearest five."""
    map_at_r: float
    """Mean average precision at R, the number of videos of the query's label. Musgrave, Belongie & Lim 2020."""
    num_queries: int

    def as_dict(self) -> dict[str, float | int]:
        """Return plain values, for JSON."""
        return asdict(self)


def measure_retrieval(ranked: Tensor, truth: Tensor) -> Retrieval | None:
    """Measure rankings.

    Args:
        ranked: (Q, N) class indices of the videos found for each query, the nearest first; −1 for none.
        truth: (Q,) class indices of the queries.

    Returns:
        The metrics; None where no query has a video of its label to find.
    """
    is_same = ranked == truth[:, None]  # (Q, N)
    num_same = is_same.sum(dim=1)
    is_same, num_same = is_same[num_same > 0], num_same[num_same > 0]
    if not len(is_same):
        return None
    places = torch.arange(1, is_same.shape[1] + 1)  # (N,)
    precision = is_same.cumsum(dim=1) / places
    counted = is_same & (places <= num_same[:, None])
    average = (precision * counted).sum(dim=1) / num_same  # (Q,)
    return Retrieval(
        float(is_same[:, 0].double().mean()),
        float(is_same[:, :5].any(dim=1).double().mean()),
        float(average.double().mean()),
        len(is_same),
    )
