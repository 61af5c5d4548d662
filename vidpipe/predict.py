"""Stage 4: new videos -> labels, by the run's own sampling and image model."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from vidpipe.config import ExtractConfig
from vidpipe.datasets.sequences import pad
from vidpipe.errors import RunError, UsageError
from vidpipe.evaluate import check_key
from vidpipe.extract import iter_features, load_configured_engine
from vidpipe.features.store import FeatureStore
from vidpipe.models.backbones import find_backbone
from vidpipe.models.engines import Engine
from vidpipe.models.frozen import choose_device
from vidpipe.models.heads import Head
from vidpipe.models.weights import find_weights
from vidpipe.records import FeatureSequence, Prediction, VideoFailure, VideoFile
from vidpipe.run import Run

__all__ = ["predict"]


def predict(
    run: Run,
    videos: Sequence[VideoFile],
    *,
    top: int = 5,
    min_confidence: float = 0.0,
    store: FeatureStore | None = None,
    config: ExtractConfig | None = None,
) -> Iterator[Prediction]:
    """Label videos, each as soon as it is done; one that cannot be read gives its reason and stops nothing.

    Args:
        run: from `Run.open`.
        videos: what to label.
        top: how many classes to give, most probable first.
        min_confidence: below this probability of the first class, the answer is that it is none of them.
        store: features to use for the videos that it holds; the others are extracted, and not added to it.
        config: device, batch size, workers, timeout and weights; what changes a feature comes from the run.

    Raises:
        RunError: the store's features are not those that the run was trained on.
        WeightsError: the backbone's weights cannot be had, or are not those that the run was trained on.
    """
    config = config or ExtractConfig()
    head = run.load_heads(choose_device(config.device))[run.config.head]
    if store is not None:
        check_key(run, store)
    stored = [video for video in videos if store is not None and store.holds(video)]
    for video in stored:
        assert store is not None
        yield _classify(run, head, store[video.id], top, min_confidence)
    to_read = [video for video in videos if video not in set(stored)]
    if not to_read:
        return
    as_trained = _as_trained(run, config)
    for result in iter_features(to_read, engine=_load_engine(run, as_trained, len(to_read)), config=as_trained):
        if isinstance(result, VideoFailure):
            yield Prediction(result.video_id, error=result.message)
        elif isinstance(result, FeatureSequence):
            yield _classify(run, head, result, top, min_confidence)


def _as_trained(run: Run, config: ExtractConfig) -> ExtractConfig:
    """The config with everything that changes a feature taken from the run."""
    sampling = run.key.resolve_sampling()
    return replace(
        config,
        sampling=sampling.method,
        num_frames=sampling.num_frames,
        fps=sampling.fps,
        backbone=run.key.backbone,
        pool=run.key.pooling,
        dtype=run.key.dtype,
        precision=run.key.precision,
    )


def _load_engine(run: Run, config: ExtractConfig, num_videos: int) -> Engine:
    """The image model that the run's features came from."""
    try:
        spec = find_backbone(run.key.backbone)
    except UsageError as error:
        raise RunError(f"{run.path}: this vidpipe does not know its backbone: {error}") from error
    weights = find_weights(spec, "random" if run.key.weights == "random" else config.weights)
    if weights.id != run.key.weights:
        raise RunError(
            f"{run.path}: it was trained on features of other weights of {spec.name} (sha256 {run.key.weights[:12]}…; "
            f"{weights.source} is {weights.id[:12]}…); give that file with --weights"
        )
    return load_configured_engine(config, weights, num_videos)


@torch.inference_mode()
def _classify(run: Run, head: Head, sequence: FeatureSequence, top: int, min_confidence: float) -> Prediction:
    device = next(head.parameters()).device
    features, lengths = pad([torch.from_numpy(sequence.features).float()])  # (1, T, D), (1,)
    probabilities = head(features.to(device), lengths).softmax(dim=1)[0].cpu()  # (K,)
    best = probabilities.topk(min(top, len(run.class_names)))
    return Prediction(
        video_id=sequence.video_id,
        labels=tuple(run.class_names[index] for index in best.indices.tolist()),
        probabilities=tuple(best.values.tolist()),
        is_unknown=float(best.values[0]) < min_confidence,
    )
