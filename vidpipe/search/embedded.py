"""The videos of stores as vectors of a learned embedding, ranked by their cosine with a query's."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vidpipe.datasets.sequences import SequenceDataset, join_cells, pad
from vidpipe.errors import UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence, LabeledVideo
from vidpipe.search.embedding import Embedding
from vidpipe.search.statistics import compute_vectors
from vidpipe.search.streams import open_stream

__all__ = ["EmbeddedVideos", "open_searched"]

CLEAR_MARGIN = 0.1
"""Of cosines: the margin that triplets learn by default, which is 0.2 of squared distances."""


class EmbeddedVideos:
    """The vectors of the videos that all streams have.

    Args:
        embedding: the embedding.
        stores: by stream, with its keys.
        on_progress: called with the numbers of videos that are embedded and to embed.

    Raises:
        KeyMismatchError: a store has other features.
        StoreError: a feature is not finite.
    """

    def __init__(
        self,
        embedding: Embedding,
        stores: Mapping[str, FeatureStore],
        *,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        embedding.check(stores)
        self.embedding, self.stores = embedding, {name: stores[name] for name in embedding.keys}
        common = set.intersection(*(set(store.ids) for store in self.stores.values()))
        self.ids = tuple(sorted(one for one in common if all(store.length(one) for store in self.stores.values())))
        """N ids."""
        dataset = SequenceDataset(self.stores, [LabeledVideo(video_id, "") for video_id in self.ids], [""])
        self.vectors = compute_vectors(
            embedding.network, dataset, on_videos=lambda done: on_progress(done, len(self.ids))
        )
        """(N, D), each of length 1."""

    @property
    def first_store(self) -> FeatureStore:
        """The store of the first stream."""
        return next(iter(self.stores.values()))

    def vector_of(self, video_id: str) -> Tensor:
        """Return the vector (D,) of a video.

        Args:
            video_id: its id.

        Returns:
            The vector.

        Raises:
            UsageError: a stream lacks the video.
        """
        if video_id not in self.ids:
            lacking = [name for name, store in self.stores.items() if video_id not in store]
            raise UsageError(
                f"{video_id}: {', '.join(lacking)} lacks this video, which the embedding needs; complete the stream "
                "with `vidpipe extract`"
            )
        return self.vectors[self.ids.index(video_id)]

    @torch.no_grad()
    def embed(self, streams: Mapping[str, FeatureSequence]) -> Tensor:
        """Embed another video.

        Args:
            streams: its features by stream.

        Returns:
            (D,)
        """
        padded = {}
        for name, key in self.embedding.keys.items():
            rows = join_cells(streams[name].features, key.num_cells, owner=streams[name].video_id)
            padded[name] = pad([rows.float()])
        vector: Tensor = self.embedding.network(padded)[0]
        return vector

    def rank(self, vector: Tensor, number: int, *, without: str | None = None) -> dict[str, float]:
        """Rank the videos.

        Args:
            vector: (D,) of the query.
            number: how many to return.
            without: id of a video to leave out: the query itself.

        Returns:
            By id, the cosine with the query, the largest first.
        """
        cosines = self.vectors @ vector  # (N, D) @ (D,) -> (N,)
        order = cosines.argsort(descending=True, stable=True)[: number + 1].tolist()
        found = {self.ids[index]: float(cosines[index]) for index in order if self.ids[index] != without}
        return dict(list(found.items())[:number])

    def doubtful_below(self, vector: Tensor) -> float:
        """Return the cosine with a vector (D,) below which a video is doubtful: little above the median of all."""
        return float((self.vectors @ vector).median()) + CLEAR_MARGIN


def open_searched(
    path: Path,
    *,
    stream: str | None = None,
    embedding: Path | None = None,
    verb: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[FeatureStore, EmbeddedVideos | None]:
    """Open the store that a search uses, and embed its videos if there is an embedding.

    Args:
        path: a store, or a folder of stores.
        stream: the stream of a folder of stores; None for the first.
        embedding: the folder of an embedding, which has its own streams; or None.
        verb: `similar` or `duplicates`, for messages.
        on_progress: called with the numbers of videos that are embedded and to embed.

    Returns:
        The store, which is that of the embedding's first stream if there is one; and its embedded videos.

    Raises:
        UsageError: there is no such folder or stream, or both a stream and an embedding are given.
        RunError: the embedding cannot be loaded.
        KeyMismatchError: the store has other features.
        StoreError: the store cannot be opened or read.
    """
    if embedding is None:
        return open_stream(path, stream), None
    if stream is not None:
        raise UsageError("--stream does not go with --embedding, which has its own streams; give one of them")
    opened = Embedding.open(embedding)
    stores = opened.match([path], usage=f"vidpipe search {verb} STORE … --embedding {embedding}")
    embedded = EmbeddedVideos(opened, stores, on_progress=on_progress)
    return embedded.first_store, embedded
