"""A stream: one backbone's view of the videos, with everything that changes a feature resolved."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from vidpipe.backbones.engines.engine import Engine
from vidpipe.backbones.engines.load import load_engine
from vidpipe.backbones.spec import OFFLINE_BACKBONE, BackboneSpec
from vidpipe.backbones.table import find_backbone
from vidpipe.backbones.weights import WeightsFile, find_fine_tuned, find_weights
from vidpipe.config import Decoding, ExtractConfig, Sampling
from vidpipe.errors import RunError, UsageError
from vidpipe.features.key import KINDS_OF_BOXES, FeatureKey
from vidpipe.records import Window

__all__ = ["WEIGHTS_NOT_READ", "Described", "Stream", "at_input_size", "resolve_decoding", "resolve_streams"]

WEIGHTS_NOT_READ = WeightsFile("", None, "not read")
"""Stands for the weights where a stream is resolved but no feature is computed."""

FRAMES_OF_A_VIDEO = 64
"""An estimate, for samplings that do not fix the number."""


@dataclass(frozen=True)
class Described:
    """What makes the features of a stream where frames are decoded."""

    weights: WeightsFile
    parameters: Mapping[str, Any]
    """All else that the features depend on."""


@dataclass(frozen=True)
class Stream:
    """A backbone with its weights, and the key of the features that they make."""

    spec: BackboneSpec
    """With the preprocessing of the key."""
    weights: WeightsFile
    key: FeatureKey
    """Sampling, pooling, preprocessing, window, dtype and precision."""

    @classmethod
    def of(
        cls,
        config: ExtractConfig,
        *,
        spec: BackboneSpec | None = None,
        weights: WeightsFile | None = None,
        regions: Mapping[str, Any] | None = None,
    ) -> Self:
        """Resolve the settings of an extraction with one backbone.

        Args:
            config: the settings.
            spec: the backbone; None finds the one that the settings name.
            weights: the weights to use; None finds those that the settings name, and downloads them if needed.
            regions: for the key, what of each frame the backbone sees; None for whole frames.

        Returns:
            The stream.

        Raises:
            UsageError: there is no such backbone or weights file, or the pooling or the grid does not go with the
                backbone.
            WeightsError: the weights cannot be downloaded or read.
        """
        spec = at_input_size(spec or find_backbone(config.backbone), config.input_size)
        spec = _seen_whole(spec, whole=config.crop == "whole")
        spec = _at_stride(spec, config.window_stride)
        pooling = spec.resolve_pool(config.pool) if spec.has_weights else "none"  # before a download
        if config.grid > 1 and spec.window is None and regions is not None and regions["kind"] in KINDS_OF_BOXES:
            raise UsageError(
                f"--grid {config.grid} divides whole pictures; leave it out, or --regions {regions['kind']}"
            )
        grid = _resolve_grid(spec, pooling, config.grid)
        weights = weights or find_weights(spec, config.weights)
        key = FeatureKey.of(
            _sampling(config, spec.window),
            backbone=spec.name,
            weights_id=weights.id,
            pooling=pooling,
            preprocessing=spec.preprocessing,
            dtype=config.dtype,
            precision=config.precision,
            window=spec.window,
            grid=grid,
            parameters=spec.parameters,
            regions=regions,
            decoding=config.decoding.as_dict(),
        )
        return cls(spec, weights, key)

    @classmethod
    def of_key(cls, key: FeatureKey, *, weights: str, owner: str) -> Self:
        """Resolve the stream that made the features a run was trained on.

        Args:
            key: the key of these features.
            weights: `default` or a file's path; not used where the key says `random`.
            owner: the path of the run, for the messages. `default` are its fine-tuned weights, where it has some.

        Returns:
            The stream.

        Raises:
            RunError: this version of vidpipe does not have the backbone, or the weights are others than the key's.
            UsageError: there is no such weights file.
            WeightsError: the weights cannot be downloaded or read.
        """
        try:
            spec = find_backbone(key.backbone)
        except UsageError as error:
            raise RunError(f"{owner}: its backbone is not available: {error}") from error
        if spec.kind == "pose":
            return cls(replace(spec, parameters=key.parameters), WeightsFile(key.weights, None, "the detector's"), key)
        spec = _preprocessed_as(spec, key)
        spec = _with_window_of(spec, key, owner)
        own = find_fine_tuned(Path(owner), key.weights) if weights == "default" else None
        found = own or find_weights(spec, "random" if key.weights == "random" else weights)
        if found.id != key.weights:
            raise RunError(
                f"{owner}: its features are of other weights of {spec.name} (sha256 {key.weights[:12]}…; "
                f"{found.source} is {found.id[:12]}…); give that file with --weights"
            )
        return cls(spec, found, key)

    def load_engine(
        self,
        *,
        device: str,
        engine: str,
        num_videos: int,
        cuda_graphs: bool = False,
        num_threads: int | None = None,
    ) -> Engine:
        """Load the backbone, ready to run.

        Args:
            device: `auto`, `cpu` or `cuda`.
            engine: `auto`, `torch` or `onnx`.
            num_videos: about how many videos it will run on: an export to ONNX pays only for many.
            num_threads: as for `vidpipe.backbones.engines.load.load_engine`.
            cuda_graphs: as for `vidpipe.backbones.engines.torch.TorchEngine`.

        Returns:
            The engine.

        Raises:
            WeightsError: the weights belong to another model.
            UsageError: the device or the engine is not available, or the pooling or the grid does not go with the
                backbone.
        """
        return load_engine(
            self.spec,
            weights=self.weights,
            pool=self.key.pooling,
            device=device,
            engine=engine,
            precision=self.key.precision,
            grid=self.key.grid,
            cuda_graphs=cuda_graphs,
            num_frames=num_videos * (self.key.resolve_sampling().num_frames or FRAMES_OF_A_VIDEO),
            num_threads=num_threads,
        )


def resolve_streams(
    config: ExtractConfig,
    *,
    weights: WeightsFile | None = None,
    regions: Mapping[str, Any] | None = None,
    pose: Described | None = None,
) -> dict[str, Stream]:
    """Resolve the settings of an extraction with one or more backbones.

    Args:
        config: the settings.
        weights: as for `Stream.of`.
        regions: as for `Stream.of`; key points are of whole frames.
        pose: the detector of key points, where they are a stream.

    Returns:
        By name of its store, the stream of each backbone.

    Raises:
        UsageError: a backbone is given twice, or a setting does not go with one of them; also as for `Stream.of`.
        WeightsError: the weights cannot be downloaded or read.
    """
    twice = next((name for name in config.backbones if config.backbones.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--backbone {twice} is given twice; each backbone makes one stream")
    specs = [find_backbone(name) for name in config.backbones]
    _check_goes_with(config, specs)
    streams = {}
    for spec in specs:
        if spec.kind == "pose" and pose is not None:
            spec = replace(spec, parameters=pose.parameters)
            stream = Stream.of(config, spec=spec, weights=pose.weights)
        else:
            stream = Stream.of(config, spec=spec, weights=weights, regions=regions)
        streams[spec.name.replace("/", "_")] = stream
    return streams


def resolve_decoding(keys: Mapping[str, FeatureKey]) -> Decoding:
    """Return how to decode a video for several streams, which are made of the same frames.

    Args:
        keys: by stream.

    Returns:
        The settings of the decoder.

    Raises:
        UsageError: two streams were decoded differently.
    """
    found = {name: key.resolve_decoding() for name, key in keys.items()}
    (first, decoding), *others = found.items()
    for name, other in others:
        if other != decoding:
            ours, theirs = (keys[stream].decoding_words for stream in (first, name))
            raise UsageError(
                f"the streams {first} and {name} were {ours} and {theirs}, and a video is decoded once for both; "
                "extract them alike, and train again"
            )
    return decoding


def _check_goes_with(config: ExtractConfig, specs: list[BackboneSpec]) -> None:
    """Check the settings that only some backbones have."""
    is_file = config.weights not in ("default", "random")
    learned = [spec.name for spec in specs if spec.has_weights]
    which = ", ".join(learned) or f"{specs[0].name} has none"
    if is_file and len(learned) != 1:
        raise UsageError(
            f"--weights {config.weights} is for one backbone with weights, and there are {len(learned)} "
            f"({which}); extract one backbone at a time into the same folder"
        )
    for option, is_given in (("--crop whole", config.crop == "whole"), (f"--grid {config.grid}", config.grid > 1)):
        if is_given and all(spec.family != "image" for spec in specs):
            what = "is what a detector finds" if specs[0].kind == "pose" else "sees windows of frames"
            raise UsageError(
                f"{option} goes with image models, and {specs[0].name} {what}; leave the option out, or add an image "
                "model"
            )
    windowed = next((spec.name for spec in specs if spec.window), None)
    if config.sampling == "keyframe" and windowed is not None:
        raise UsageError(
            f"--sampling keyframe takes key frames alone, and {windowed} sees windows of neighbouring frames; use "
            "--sampling uniform, or an image model"
        )
    if config.input_size is not None and not learned:
        raise UsageError(
            f"--input-size {config.input_size} goes with networks, and {specs[0].name} is none; leave it out"
        )
    if config.window_stride is not None and not any(spec.window for spec in specs):
        raise UsageError(
            f"--window-stride goes with models that see windows of frames, and {specs[0].name} sees single frames; "
            "--sampling fps --fps N takes frames at a fixed rate"
        )


def _seen_whole(spec: BackboneSpec, *, whole: bool) -> BackboneSpec:
    """An image model that sees the whole picture, or the crop that its weights were trained with."""
    return replace(spec, preprocessing=spec.preprocessing.whole) if whole and spec.family == "image" else spec


def _preprocessed_as(spec: BackboneSpec, key: FeatureKey) -> BackboneSpec:
    """A backbone with the input size and the part of the picture of a key."""
    crop = key.preprocessing.get("crop")
    side = min(crop) if isinstance(crop, list | tuple) else crop
    if spec.has_weights and isinstance(side, int) and side != spec.input_size:
        spec = replace(spec, preprocessing=spec.preprocessing.at_size(side))
    return _seen_whole(spec, whole=key.preprocessing == spec.preprocessing.whole.as_dict())


def at_input_size(spec: BackboneSpec, pixels: int | None) -> BackboneSpec:
    """Return a network that sees pictures of another size.

    Args:
        spec: the backbone; one that is no network stays as it is.
        pixels: of the shorter side of its input; None for its own.

    Returns:
        The backbone, with another preprocessing.

    Raises:
        UsageError: the network cannot see pictures of this size.
    """
    if pixels is None or pixels == spec.input_size or not spec.has_weights:
        return spec
    import torch  # here, because most extractions have no other size

    from vidpipe.backbones.image import meta_backbone

    sized = replace(spec, preprocessing=spec.preprocessing.at_size(pixels))
    try:
        backbone = meta_backbone(sized)
        with torch.device("meta"), torch.no_grad():
            backbone(torch.zeros(1, *sized.input_shape, dtype=torch.uint8))
    except Exception as error:  # each network fails in its own way
        raise UsageError(
            f"--input-size {pixels}: {spec.name} cannot see pictures of this size, and its own is {spec.input_size}; "
            f"give another size, or leave the option out ({str(error).splitlines()[0] if str(error) else 'too small'})"
        ) from error
    return sized


def _with_window_of(spec: BackboneSpec, key: FeatureKey, owner: str) -> BackboneSpec:
    if spec.window is None or key.window is None:
        return spec
    try:
        return replace(spec, window=Window(**key.window))
    except (TypeError, ValueError) as error:
        raise RunError(f"{owner}: this vidpipe does not know its windows of frames: {error}") from error


def _at_stride(spec: BackboneSpec, stride_seconds: float | None) -> BackboneSpec:
    """A model that sees windows, at a fixed stride over the video."""
    if spec.window is None or stride_seconds is None:
        return spec
    return replace(spec, window=replace(spec.window, stride_seconds=stride_seconds))


def _sampling(config: ExtractConfig, window: Window | None) -> Sampling:
    """The sampling; windows at a fixed stride do not depend on the settings of one, so neither does their key."""
    if window is None or window.stride_seconds is None:
        return config.resolve_sampling()
    return Sampling("fps", fps=1 / window.stride_seconds)


def _resolve_grid(spec: BackboneSpec, pooling: str, grid: int) -> int:
    """The grid of an image model with a feature map; 1 for a model that sees windows of frames."""
    if grid == 1 or spec.family != "image":
        return 1
    if spec.kind == "layer":
        raise UsageError(
            f"--grid {grid} needs a feature map, and the feature of {spec.name} is a whole layer; resnet18 and "
            f"{OFFLINE_BACKBONE} are small backbones with a map"
        )
    if pooling == "attention":
        raise UsageError(
            f"--grid {grid} does not go with --pool attention, which is trained for whole pictures; --pool tokens "
            "averages the patches of each cell"
        )
    _check_grid(spec, grid)
    return grid


def _check_grid(spec: BackboneSpec, grid: int) -> None:
    """Refuse a grid that is finer than the feature map. torch is imported only here, where there is a grid."""
    import torch

    from vidpipe.backbones.image import FrozenBackbone, meta_backbone

    backbone = meta_backbone(spec)
    if isinstance(backbone, FrozenBackbone):
        with torch.device("meta"), torch.no_grad():
            backbone.check_grid(grid)
