"""A backbone at work: uint8 frames in, pooled features out; frozen, in evaluation mode, without gradients."""

import timm
import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from vidpipe.errors import UsageError, WeightsError
from vidpipe.models.backbones import BackboneSpec
from vidpipe.models.weights import WeightsFile, find_weights, load_tensors
from vidpipe.records import Preprocessing

__all__ = ["FrozenBackbone", "choose_device", "load_backbone"]

NOT_USED = ("fc.", "classifier.", "AuxLogits.")
"""Parts of a published checkpoint that come after the feature map, or beside it."""


class FrozenBackbone(nn.Module):
    """A frozen image model with global pooling.

    Args:
        features: normalised float frames (N, 3, H, W) -> feature map (N, D, h, w).
        dim: D.
        pool: `avg` or `max`, over the feature map's h × w places.
        preprocessing: what the weights want; the frames given are resized and cropped already.
    """

    def __init__(self, features: nn.Module, *, dim: int, pool: str, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.features = features
        self.dim = dim
        self.pool = pool
        self.preprocessing = preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.get_buffer("mean").device

    def feature_map(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB -> (N, D, h, w) float32"""
        pixels = frames.to(self.get_buffer("mean"), non_blocking=True) / 255
        maps: Tensor = self.features((pixels - self.get_buffer("mean")) / self.get_buffer("std"))
        return maps

    def forward(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB -> (N, D) float32"""
        maps = self.feature_map(frames)
        return maps.amax(dim=(2, 3)) if self.pool == "max" else maps.mean(dim=(2, 3))  # (N, D, h, w) -> (N, D)


class _TimmFeatures(nn.Module):
    """A timm model up to its last feature map."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.model.forward_features(pixels)  # type: ignore[operator]
        return maps


class _TorchvisionFeatures(nn.Module):
    """A torchvision model up to the node that its pooling reads."""

    def __init__(self, model: nn.Module, node: str) -> None:
        super().__init__()
        self.cut = create_feature_extractor(model.eval(), {node: "map"}, suppress_diff_warning=True)

    def forward(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.cut(pixels)["map"]
        return maps


def choose_device(device: str) -> torch.device:
    """`auto` takes CUDA where there is one.

    Raises:
        UsageError: `cuda` is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here; --device auto or cpu runs on the CPU")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def load_backbone(
    spec: BackboneSpec, *, weights: WeightsFile | None = None, pool: str = "avg", device: str = "auto"
) -> FrozenBackbone:
    """Build a backbone with its weights.

    Args:
        spec: which; see `vidpipe.models.backbones.find_backbone`.
        weights: from `find_weights`; the default ones if None.
        pool: `avg` or `max`.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        WeightsError: the weights cannot be had or are of another model.
        UsageError: the device is not there.
    """
    weights = weights or find_weights(spec, "default")
    model = _build(spec)
    if weights.path is not None:
        _load(model, spec, weights)
    features = _TimmFeatures(model) if spec.library == "timm" else _TorchvisionFeatures(model, spec.feature_map)
    backbone = FrozenBackbone(features, dim=spec.dim, pool=pool, preprocessing=spec.preprocessing)
    return backbone.to(choose_device(device))


def _build(spec: BackboneSpec) -> nn.Module:
    """The whole network, with weights drawn from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if spec.library == "timm":
            return timm.create_model(spec.builder, pretrained=False)
        # As torchvision itself builds them when it is given weights; Inception's were trained on other means.
        inception = {"transform_input": True, "init_weights": False} if spec.builder.startswith("inception") else {}
        return get_model(spec.builder, weights=None, **inception)  # type: ignore[no-any-return]


def _load(model: nn.Module, spec: BackboneSpec, weights: WeightsFile) -> None:
    assert weights.path is not None
    tensors = load_tensors(weights.path)
    wanted = model.state_dict()
    if weights.source == spec.weights and weights.source.startswith("package:"):
        # The package's file names its tensors after another library; they are the same ones in the same order.
        tensors = dict(zip(wanted, tensors.values(), strict=True))
    used = {name: tensor for name, tensor in tensors.items() if not name.startswith(NOT_USED)}
    needed = {name for name in wanted if not name.startswith(NOT_USED) and not name.endswith("num_batches_tracked")}
    misfits = {
        "missing": sorted(needed - used.keys()),
        "unexpected": sorted(used.keys() - wanted.keys()),
        "of another shape": sorted(n for n in needed & used.keys() if used[n].shape != wanted[n].shape),
    }
    if any(misfits.values()):
        told = "; ".join(_told(kind, names) for kind, names in misfits.items() if names)
        raise WeightsError(f"{weights.path}: these are not weights of {spec.name}: {told}")
    model.load_state_dict(used, strict=False)


def _told(kind: str, names: list[str]) -> str:
    """`3 missing (conv1.weight, bn1.weight, bn1.bias)`"""
    return f"{len(names)} {kind} ({', '.join(names[:3])}{', …' * (len(names) > 3)})"
