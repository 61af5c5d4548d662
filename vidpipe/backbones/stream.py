"""A stream: one backbone's view of the videos, with everything that changes a feature resolved."""

from dataclasses import dataclass
from typing import Self

from vidpipe.backbones.engines.engine import Engine
from vidpipe.backbones.engines.load import load_engine
from vidpipe.backbones.spec import BackboneSpec
from vidpipe.backbones.table import find_backbone
from vidpipe.backbones.weights import WeightsFile, find_weights
from vidpipe.config import ExtractConfig
from vidpipe.errors import RunError, UsageError
from vidpipe.features.key import FeatureKey

__all__ = ["WEIGHTS_NOT_READ", "Stream"]

WEIGHTS_NOT_READ = WeightsFile("", None, "not read")
"""Stands for the weights where a stream is resolved but no feature is computed."""

FRAMES_OF_A_VIDEO = 64
"""An estimate, for samplings that do not fix the number."""


@dataclass(frozen=True)
class Stream:
    """A backbone with its weights, and the key of the features that they make."""

    spec: BackboneSpec
    weights: WeightsFile
    key: FeatureKey
    """Sampling, pooling, preprocessing, dtype and precision."""

    @classmethod
    def of(cls, config: ExtractConfig, *, weights: WeightsFile | None = None) -> Self:
        """Resolve the settings of an extraction.

        Args:
            config: the settings.
            weights: the weights to use; None finds those that the settings name, and downloads them if needed.

        Returns:
            The stream.

        Raises:
            UsageError: there is no such backbone or weights file, or the pooling does not go with the backbone.
            WeightsError: the weights cannot be downloaded or read.
        """
        spec = find_backbone(config.backbone)
        pooling = spec.resolve_pool(config.pool)  # before a download
        weights = weights or find_weights(spec, config.weights)
        key = FeatureKey.of(
            config.resolve_sampling(),
            backbone=config.backbone,
            weights_id=weights.id,
            pooling=pooling,
            preprocessing=spec.preprocessing,
            dtype=config.dtype,
            precision=config.precision,
        )
        return cls(spec, weights, key)

    @classmethod
    def of_key(cls, key: FeatureKey, *, weights: str, owner: str) -> Self:
        """Resolve the stream that made the features a run was trained on.

        Args:
            key: the key of these features.
            weights: `default` or a file's path; not used where the key says `random`.
            owner: the path of the run, for the messages.

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
            raise RunError(f"{owner}: this vidpipe does not know its backbone: {error}") from error
        found = find_weights(spec, "random" if key.weights == "random" else weights)
        if found.id != key.weights:
            raise RunError(
                f"{owner}: it was trained on features of other weights of {spec.name} (sha256 {key.weights[:12]}…; "
                f"{found.source} is {found.id[:12]}…); give that file with --weights"
            )
        return cls(spec, found, key)

    def load_engine(self, *, device: str, engine: str, num_videos: int) -> Engine:
        """Load the backbone, ready to run.

        Args:
            device: `auto`, `cpu` or `cuda`.
            engine: `auto`, `torch` or `onnx`.
            num_videos: about how many videos it will run on: an export to ONNX pays only for many.

        Returns:
            The engine.

        Raises:
            WeightsError: the weights belong to another model.
            UsageError: the device or the engine is not available, or the pooling does not go with the backbone.
        """
        return load_engine(
            self.spec,
            weights=self.weights,
            pool=self.key.pooling,
            device=device,
            engine=engine,
            precision=self.key.precision,
            num_frames=num_videos * (self.key.resolve_sampling().num_frames or FRAMES_OF_A_VIDEO),
        )
