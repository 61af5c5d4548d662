"""Similar videos and duplicates in a store.

The features of queries come from the store, or from their files with the store's key.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import DUPLICATE_THRESHOLD, ExtractConfig
from vidpipe.datasets.matching import nearest_ids
from vidpipe.datasets.people import has_tracks, split_people
from vidpipe.errors import UsageError
from vidpipe.execution.executor import connected
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFailure, VideoFeatures, VideoFile
from vidpipe.search.duplicates import DuplicateGroup, find_duplicates
from vidpipe.search.embedded import EmbeddedVideos
from vidpipe.search.similar import SimilarResult, SimilarSearch
from vidpipe.similarity.duplicates import Candidates, DuplicatePair, compare_block, cut_candidates
from vidpipe.similarity.sequences import SequenceIndex, read_index, timed_features
from vidpipe.stages.apply import answer_each
from vidpipe.video.files import find_videos

__all__ = ["search_duplicates", "search_similar"]

PAIRS_PER_TASK = 20_000
"""Of a task of Ray: some seconds of one core."""


def search_duplicates(
    store: FeatureStore,
    *,
    threshold: float = DUPLICATE_THRESHOLD,
    embedded: EmbeddedVideos | None = None,
    config: ExtractConfig | None = None,
    on_progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> list[DuplicateGroup]:
    """Find the videos of a store that show the same footage, on this machine or on a Ray cluster.

    Args:
        store: the features.
        threshold: the score from which on a pair counts.
        embedded: as for `vidpipe.search.duplicates.find_duplicates`.
        config: the executor.
        on_progress: as for `vidpipe.search.duplicates.find_duplicates`.

    Returns:
        The groups, those with the most videos first.

    Raises:
        UsageError: the executor is not installed.
        ExecutorError: Ray cannot be reached, or one of its nodes cannot take part.
        StoreError: the store has fewer than two videos, or cannot be read.
    """
    config = config or ExtractConfig()
    if config.executor == "local":
        return find_duplicates(store, threshold=threshold, embedded=embedded, on_progress=on_progress)
    with connected(config):
        from vidpipe.execution.ray_cluster import check_store

        check_store(store)
        return find_duplicates(
            store, threshold=threshold, embedded=embedded, compare=_compare_on_nodes, on_progress=on_progress
        )


def _compare_on_nodes(index: SequenceIndex, candidates: Candidates) -> Iterator[tuple[int, list[DuplicatePair]]]:
    """Compare blocks of pairs, each as a task of Ray."""
    from vidpipe.execution.ray_cluster import map_on_nodes

    sent = dict[int, tuple[NDArray[np.int64], int]]()

    def blocks() -> Iterator[tuple[SequenceIndex, Candidates]]:
        for number, (videos, part, block) in enumerate(cut_candidates(index, candidates, PAIRS_PER_TASK)):
            sent[number] = videos, len(block)
            yield part, block

    for number, found in map_on_nodes(compare_block, blocks()):
        videos, num_compared = sent.pop(number)
        yield num_compared, [replace(one, one=int(videos[one.one]), other=int(videos[one.other])) for one in found]


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

    Where the rows of the store are of single people, each person of a query is compared with each person of the
    videos, and has a result of their own; an embedding compares videos.

    Args:
        store: the features.
        queries: video files, and ids of videos in the store. What is both is taken as an id.
        number: how many videos to find for each query.
        embedded: ranks the videos by a learned embedding; `store` is its first stream, and
            says where they are alike.
        config: device, batch size, workers, timeout and weights; the store's key gives what changes a feature.
        on_progress: called with the numbers of the store's videos that are read and to read.

    Returns:
        An iterator over the results, in the order of the queries and of their people.

    Raises:
        UsageError: a query is neither a file nor an id, or a stream of the embedding lacks it.
        StoreError: the store has fewer than two videos, or cannot be read.
        RunError: the weights are not those of the store's key.
    """
    files = {str(query): _file_of(store, query) for query in queries}
    by_person = embedded is None and has_tracks(store.key)
    search = SimilarSearch(read_index(store, by_person=by_person, on_progress=on_progress))
    if embedded is None:
        rank = _by_frames(search, number)
        rank = _by_person(rank) if by_person else rank
        return _results(store, rank, files, {"": store.key}, config or ExtractConfig())
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

    def answer(found: VideoFeatures | VideoFailure) -> Sequence[SimilarResult]:
        path = Path(found.video_id)
        if isinstance(found, VideoFailure):
            return [SimilarResult(found.video_id, path=path, error=found.message)]
        return rank(found, path)

    answers = answer_each(new, keys, answer, config=config, owner=str(store.path))
    for query, video in files.items():
        if video is None:
            yield from rank(VideoFeatures(query, {next(iter(keys)): store[query]}), None)
        else:
            yield from next(answers)


_Rank = Callable[[VideoFeatures, Path | None], Sequence[SimilarResult]]
"""Finds the videos that are most like one with these features; its file, if it is not in the store."""


def _by_frames(search: SimilarSearch, number: int) -> _Rank:
    def rank(found: VideoFeatures, path: Path | None) -> Sequence[SimilarResult]:
        (sequence,) = found.streams.values()
        own_id = found.video_id if path is None else None
        videos = search.query(timed_features(sequence), number=number, without=own_id)
        return [SimilarResult(found.video_id, path=path, videos=tuple(videos))]

    return rank


def _by_person(rank: _Rank) -> _Rank:
    def rank_people(found: VideoFeatures, path: Path | None) -> Sequence[SimilarResult]:
        people = split_people(found.streams)
        if not people:
            return [SimilarResult(found.video_id, path=path, error="nobody was found in it, so nobody can be compared")]
        return [
            replace(result, person=number)
            for number, streams in people.items()
            for result in rank(VideoFeatures(found.video_id, streams), path)
        ]

    return rank_people


def _by_embedding(search: SimilarSearch, embedded: EmbeddedVideos, stream: str, number: int) -> _Rank:
    def rank(found: VideoFeatures, path: Path | None) -> Sequence[SimilarResult]:
        own_id = found.video_id if path is None else None
        vector = embedded.embed(found.streams) if own_id is None else embedded.vector_of(own_id)
        cosines = embedded.rank(vector, number, without=own_id)
        sequence = timed_features(found.streams[stream])
        videos = search.describe(sequence, cosines, doubtful_below=embedded.doubtful_below(vector))
        return [SimilarResult(found.video_id, path=path, videos=tuple(videos))]

    return rank
