"""Similar videos of a store: features of the queries from the store or from their files, with the store's key."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from vidpipe.config import ExtractConfig
from vidpipe.datasets.matching import nearest_ids
from vidpipe.errors import UsageError
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFailure, VideoFeatures, VideoFile
from vidpipe.search.embedded import EmbeddedVideos
from vidpipe.search.similar import SimilarResult, SimilarSearch, SimilarVideo
from vidpipe.similarity.sequences import read_index, timed_features
from vidpipe.stages.apply import answer_each
from vidpipe.video.files import find_videos

__all__ = ["search_similar"]


def search_similar(
    store: FeatureStore,
    queries: Sequence[str | Path],
    *,
    number: int = 10,
    embedded: EmbeddedVideos | None = None,
    config: ExtractConfig | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[SimilarResult]:
    """Find the videos of a store that are most like other videos.

    Args:
        store: the features.
        queries: video files, and ids of videos in the store. What is both is taken as an id.
        number: how many videos to find for each query.
        embedded: ranks the videos by a learned embedding; `store` is its first stream, and
            says where they are alike.
        config: device, batch size, workers, timeout and weights; the store's key gives what changes a feature.
        on_progress: called with the numbers of the store's videos that are read and to read.

    Returns:
        An iterator over the results, in the order of the queries.

    Raises:
        UsageError: a query is neither a file nor an id, or a stream of the embedding lacks it.
        StoreError: the store has fewer than two videos, or cannot be read.
        RunError: the weights are not those of the store's key.
    """
    files = {str(query): _file_of(store, query) for query in queries}
    search = SimilarSearch(read_index(store, on_progress=on_progress))
    if embedded is None:
        return _results(store, _by_frames(search, number), files, {"": store.key}, config or ExtractConfig())
    for query, video in files.items():
        if video is None:
            embedded.vector_of(query)  # before any result is printed
    keys = embedded.embedding.keys
    rank = _by_embedding(search, embedded, next(iter(keys)), number)
    return _results(store, rank, files, keys, config or ExtractConfig())


def _file_of(store: FeatureStore, query: str | Path) -> VideoFile | None:
    """The file of a query; None for an id of the store.

    Raises:
        UsageError: it is neither.
    """
    if str(query) in store:
        return None
    if Path(query).is_dir():
        raise UsageError(f"{query}: a folder; give video files, or ids of videos in {store.path}")
    if not Path(query).is_file():
        near = nearest_ids([str(query)], store.ids).get(str(query))
        hint = f"; did you mean {near!r}?" if near else ""
        raise UsageError(f"{query}: no such file, and {store.path} has no video of this id{hint}")
    (video,) = find_videos([Path(query)])
    return video


def _results(
    store: FeatureStore,
    rank: "_Rank",
    files: dict[str, VideoFile | None],
    keys: Mapping[str, FeatureKey],
    config: ExtractConfig,
) -> Iterator[SimilarResult]:
    new = [VideoFile(query, video.path, None) for query, video in files.items() if video is not None]

    def answer(found: VideoFeatures | VideoFailure) -> SimilarResult:
        path = Path(found.video_id)
        if isinstance(found, VideoFailure):
            return SimilarResult(found.video_id, path, error=found.message)
        return SimilarResult(found.video_id, path, tuple(rank(found, None)))

    answers = answer_each(new, keys, answer, config=config, owner=str(store.path))
    for query, video in files.items():
        if video is None:
            stored = VideoFeatures(query, {next(iter(keys)): store[query]})
            yield SimilarResult(query, videos=tuple(rank(stored, query)))
        else:
            yield next(answers)


_Rank = Callable[[VideoFeatures, str | None], list[SimilarVideo]]
"""Finds the videos that are most like one with these features; the id of the query itself, if it is in the store."""


def _by_frames(search: SimilarSearch, number: int) -> _Rank:
    def rank(found: VideoFeatures, own_id: str | None) -> list[SimilarVideo]:
        (sequence,) = found.streams.values()
        return search.query(timed_features(sequence), number=number, without=own_id)

    return rank


def _by_embedding(search: SimilarSearch, embedded: EmbeddedVideos, stream: str, number: int) -> _Rank:
    def rank(found: VideoFeatures, own_id: str | None) -> list[SimilarVideo]:
        vector = embedded.embed(found.streams) if own_id is None else embedded.vector_of(own_id)
        cosines = embedded.rank(vector, number, without=own_id)
        sequence = timed_features(found.streams[stream])
        return search.describe(sequence, cosines, doubtful_below=embedded.doubtful_below(vector))

    return rank
