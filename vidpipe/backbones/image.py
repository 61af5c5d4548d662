"""Frozen backbones in PyTorch: uint8 frames in, features out; in evaluation mode, without gradients.

There is a class for each kind of output: a feature map that is pooled (`FrozenBackbone`), the tokens of a transformer
(`TokenBackbone`), and a layer that is the feature itself (`LayerBackbone`). `WholeNetwork` is the network as its
library builds it, for explanations of its layers.
"""

import logging
import re
import sys
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vidpipe.backbones.cells import area_weights, max_of_cells
from vidpipe.backbones.clip import freeze_clip
from vidpipe.backbones.frozen import FrozenNetwork
from vidpipe.backbones.inception_resnet import InceptionResnetV1
from vidpipe.backbones.lenet import LeNet5
from vidpipe.backbones.spec import EXTERNAL_LIBRARIES, BackboneSpec
from vidpipe.backbones.weights import WeightsFile, find_weights, load_tensors
from vidpipe.errors import UsageError, WeightsError

__all__ = [
    "FrozenBackbone",
    "LayerBackbone",
    "TokenBackbone",
    "WholeNetwork",
    "build_network",
    "choose_device",
    "load_backbone",
    "load_whole",
    "load_with_model",
    "meta_backbone",
    "without_classifier",
]

logger = logging.getLogger(__name__)

NOT_USED = ("fc.", "classifier.", "AuxLogits.", "aux1.", "aux2.", "head.", "heads.", "output.", "logits.")
"""Parts of a published checkpoint that the features do not need: classifiers and auxiliary outputs."""

POSITIONS = ("pos_embed", "relative_position_bias_table")
"""Tensors of timm's transformers whose shape depends on the input size, by the end of their names."""

MAX_NAMED = 8
"""Tensors that a message about weights names."""

OWN_NETWORKS: Mapping[str, type[nn.Module]] = {"LeNet5": LeNet5, "InceptionResnetV1": InceptionResnetV1}
"""The networks that vidpipe builds itself."""

BUILT_FOR_WEIGHTS = {
    "inception_v3": {"transform_input": True, "init_weights": False},
    "googlenet": {"transform_input": True, "init_weights": False, "aux_logits": False},
}
"""torchvision's own arguments when it loads weights; these models were trained with other means."""


class FrozenBackbone(FrozenNetwork):
    """A frozen image model with global pooling: features (N, 3, H, W) -> feature map (N, D, h, w).

    Its pooling is `avg` or `max`, over the h × w positions of the feature map.
    """

    grid = 1
    """G: G × G cells of the map are pooled, too; 1 where only the whole map is."""

    @torch.no_grad()
    def divide(self, grid: int) -> None:
        """Also pool each of grid × grid cells of the feature map from now on.

        Args:
            grid: cells along each side, at least 2.

        Raises:
            UsageError: the backbone has no feature map, or a smaller one.
        """
        height, width = self.check_grid(grid)
        self.grid = grid
        weights = torch.from_numpy(area_weights(height, width, grid))
        self.register_buffer("cell_weights", weights, persistent=False)

    def check_grid(self, grid: int) -> tuple[int, int]:
        """Return the height and width of the feature map.

        Args:
            grid: cells along each side.

        Returns:
            The two; neither is below `grid`.

        Raises:
            UsageError: the backbone has no feature map, or a smaller one.
        """
        height, width = self.feature_map(torch.zeros(1, 3, *self.preprocessing.size, dtype=torch.uint8)).shape[2:]
        if grid > min(height, width):
            raise UsageError(f"--grid {grid} is finer than its feature map of {height} × {width}; take a smaller one")
        return height, width

    @property
    def pools_each_channel(self) -> bool:
        """See `FrozenNetwork.pools_each_channel`."""
        return True

    def run(self, frames: Tensor) -> Tensor:
        """See `FrozenNetwork.run`."""
        output: Tensor = self.features(self.normalise(frames))
        return output

    def pool(self, output: Tensor) -> Tensor:
        """See `FrozenNetwork.pool`."""
        pooled = self._pooled(output)
        return pooled if self.grid == 1 else torch.cat([pooled[:, None], self._pooled_cells(output)], dim=1)

    def _pooled(self, maps: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, D)"""
        return maps.amax(dim=(2, 3)) if self.pooling == "max" else maps.mean(dim=(2, 3))

    def _pooled_cells(self, output: Tensor) -> Tensor:
        """-> (N, G², D)"""
        maps = self.as_map(output)
        if self.pooling == "max":
            return max_of_cells(maps, self.grid)
        return self.get_buffer("cell_weights") @ maps.flatten(2).transpose(1, 2)  # (N, h·w, D) -> (N, G², D)


class TokenBackbone(FrozenBackbone):
    """A transformer: (N, T, D) tokens, first the class token and registers, then one for each patch, row by row.

    Its pooling is `token` (the class token), `tokens` (the mean over the patches) or `attention` (a layer of its own).
    """

    features: "_TokenFeatures"

    @property
    def pools_each_channel(self) -> bool:
        """See `FrozenNetwork.pools_each_channel`."""
        return self.pooling == "tokens" and isinstance(self.features.after_pooling, nn.Identity)

    def as_map(self, output: Tensor) -> Tensor:
        """See `FrozenNetwork.as_map`: the patches, row by row."""
        patches = output[:, self.features.num_prefix_tokens :]  # (N, T, D) -> (N, h·w, D)
        side = int(patches.shape[1] ** 0.5)
        if side * side != patches.shape[1]:
            raise UsageError(f"its {patches.shape[1]} tokens are not a square of patches, so it has no feature map")
        return patches.transpose(1, 2).reshape(len(patches), self.dim, side, side)  # -> (N, D, h, w)

    def _pooled(self, tokens: Tensor) -> Tensor:
        if self.pooling == "attention":
            pooled = self.features.attention(tokens)  # (N, T, D) -> (N, D)
        elif self.pooling == "tokens":
            pooled = tokens[:, self.features.num_prefix_tokens :].mean(dim=1)
        else:
            pooled = tokens[:, 0]
        normed: Tensor = self.features.after_pooling(pooled)
        return normed

    def _pooled_cells(self, output: Tensor) -> Tensor:
        normed: Tensor = self.features.after_pooling(super()._pooled_cells(output))
        return normed


class LayerBackbone(FrozenBackbone):
    """A model whose feature is the output of a layer, without pooling; it has no feature map."""

    @property
    def pools_each_channel(self) -> bool:
        """See `FrozenNetwork.pools_each_channel`."""
        return False

    def as_map(self, output: Tensor) -> Tensor:
        """Raise UsageError: it has no feature map."""
        raise UsageError(
            "its feature is a whole layer, which has no feature map; resnet18 is a small backbone with one"
        )

    def _pooled(self, layer: Tensor) -> Tensor:
        return layer


class WholeNetwork(FrozenNetwork):
    """A network as its library builds it: its modules have the library's names, and it is not cut.

    Its classifier has random weights, because no feature needs them.

    Args:
        model: the library's network.
        spec: the backbone.
        weights_id: the sha256 of the weights' file, or `random`.
    """

    def __init__(self, model: nn.Module, spec: BackboneSpec, *, weights_id: str = "random") -> None:
        super().__init__(
            model, dim=spec.dim, pool=spec.poolings[0], preprocessing=spec.preprocessing, weights_id=weights_id
        )
        self.input_shape = spec.input_shape
        """(3, H, W) of a frame, or (W, 3, H, W) of a window of frames."""
        if spec.window is None:
            self.to(memory_format=self.memory_format)  # on a CPU, gradients take a third of the time

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before those of the patches: the class token and registers; of a transformer of images."""
        return int(getattr(self.features, "num_prefix_tokens", hasattr(self.features, "class_token")))

    def run(self, frames: Tensor) -> Tensor:
        """See `FrozenNetwork.run`: what the classifier gives."""
        pixels = self.normalise(frames)
        windows = pixels.ndim == 5
        pixels = pixels.transpose(1, 2) if windows else pixels.contiguous(memory_format=self.memory_format)
        output: Tensor = self.features(pixels)  # (N, 3, H, W) or (N, 3, W, H, W)
        return output


class _TimmFeatures(nn.Module):
    """A timm model up to its last feature map."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"

    def forward(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.model.forward_features(pixels)  # type: ignore[operator]
        return maps.permute(0, 3, 1, 2) if self.channels_last else maps


class _TorchvisionFeatures(nn.Module):
    """A torchvision model up to the node whose output is pooled."""

    def __init__(self, model: nn.Module, node: str) -> None:
        from torchvision.models.feature_extraction import create_feature_extractor

        super().__init__()
        self.cut = create_feature_extractor(model.eval(), {node: "map"}, suppress_diff_warning=True)

    def forward(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.cut(pixels)["map"]
        return maps


class _TokenFeatures(nn.Module):
    """A transformer up to its tokens, (N, T, D), and the layers that its library applies to them."""

    def __init__(self, features: nn.Module, model: nn.Module, *, num_prefix_tokens: int) -> None:
        super().__init__()
        self.tokens = features
        self.num_prefix_tokens = num_prefix_tokens
        self.attention: nn.Module = getattr(model, "attn_pool", None) or nn.Identity()
        self.after_pooling: nn.Module = getattr(model, "fc_norm", None) or nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        tokens: Tensor = self.tokens(pixels)
        return tokens


def choose_device(device: str) -> torch.device:
    """Choose a device.

    Args:
        device: `cpu`, `cuda`, or `auto` for CUDA where it is available.

    Returns:
        The device.

    Raises:
        UsageError: `cuda` is asked for and not available.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here; --device auto or cpu runs on the CPU")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def load_backbone(
    spec: BackboneSpec,
    *,
    weights: WeightsFile | None = None,
    pool: str = "auto",
    device: str = "auto",
    grid: int = 1,
) -> FrozenNetwork:
    """Build a backbone with its weights.

    Args:
        spec: from `vidpipe.backbones.table.find_backbone`.
        weights: from `find_weights`; None for the default weights.
        pool: one of `spec.poolings`, or `auto` for the one that the weights were trained with.
        device: `auto`, `cpu` or `cuda`.
        grid: 2 or more pools each of grid × grid cells of an image model's feature map, too.

    Returns:
        The backbone, on the device.

    Raises:
        WeightsError: the weights cannot be downloaded or read, or belong to another model.
        UsageError: the device is not available, or the pooling or the grid does not go with the backbone.
    """
    backbone, _ = load_with_model(spec, weights=weights, pool=pool)
    if grid > 1 and isinstance(backbone, FrozenBackbone):
        backbone.divide(grid)
    return backbone.to(choose_device(device))


def load_with_model(
    spec: BackboneSpec, *, weights: WeightsFile | None = None, pool: str = "auto", deformable: Sequence[str] = ()
) -> tuple[FrozenNetwork, nn.Module]:
    """Build a backbone with its weights, and give the library's network that it is cut from too.

    Args:
        spec: from `vidpipe.backbones.table.find_backbone`.
        weights: as for `load_backbone`.
        pool: as for `load_backbone`.
        deformable: stages of a ResNet whose 3 × 3 convolutions become deformable ones, which compute the same at first.

    Returns:
        The backbone, and the network, whose layers are the backbone's own: a change of one changes the other. Both are
        on the CPU.

    Raises:
        WeightsError: as for `load_backbone`.
        UsageError: the pooling does not go with the backbone, or it has no such stages.
    """
    pooling = spec.resolve_pool(pool)
    weights = weights or find_weights(spec, "default")
    model = _with_weights(spec, weights)
    if deformable:
        from vidpipe.backbones.deformable import deform_stages

        deform_stages(model, deformable, owner=spec.name)
    return _frozen(spec, model, pooling=pooling, weights_id=weights.id), model


def without_classifier(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a library's network that features need.

    Args:
        model: the network.
        tensors: by the network's names, such as its `state_dict`.

    Returns:
        The tensors, without those of classifiers and auxiliary outputs.
    """
    not_used = (*NOT_USED, *_classifiers(model))
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(not_used)}


def load_whole(spec: BackboneSpec, *, weights: WeightsFile, device: str = "auto") -> WholeNetwork:
    """Build a network of torchvision, timm or vidpipe with its weights, and do not cut it.

    Args:
        spec: from `vidpipe.backbones.table.find_backbone`.
        weights: from `find_weights`.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        The network, on the device.

    Raises:
        WeightsError: the weights cannot be read, or belong to another model.
        UsageError: the device is not available.
    """
    model = _with_weights(spec, weights)
    _set_input_size(spec, model)
    return WholeNetwork(model, spec, weights_id=weights.id).to(choose_device(device))


def meta_backbone(spec: BackboneSpec) -> FrozenNetwork:
    """Build a backbone on the device `meta`, which has shapes and sizes but no weights and takes no memory."""
    try:
        with torch.device("meta"):
            return _frozen(spec, build_network(spec), pooling=spec.poolings[0], weights_id="random")
    except NotImplementedError:  # RegNets compute their widths with tensors, which must have values
        return _frozen(spec, build_network(spec), pooling=spec.poolings[0], weights_id="random").to("meta")


def build_network(spec: BackboneSpec) -> nn.Module:
    """Build the whole network as its library does, with its classifier and with random weights of a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if spec.library == "vidpipe":
            return OWN_NETWORKS[spec.builder]()
        if spec.library == "timm":
            import timm  # here, because it takes a second, and stored features need none

            return timm.create_model(spec.builder, pretrained=False)
        if spec.library == "transformers":
            from vidpipe.backbones.video_transformers import build_encoder

            return build_encoder(spec.builder)
        from torchvision.models import get_model

        return get_model(spec.builder, weights=None, **BUILT_FOR_WEIGHTS.get(spec.builder, {}))  # type: ignore[no-any-return]


def _frozen(spec: BackboneSpec, model: nn.Module, *, pooling: str, weights_id: str) -> FrozenNetwork:
    """The network without its classifier, at the input size of the spec."""
    if spec.window is not None:
        return freeze_clip(spec, model, pooling=pooling, weights_id=weights_id)
    _set_input_size(spec, model)
    features: nn.Module = model
    kind = {"map": FrozenBackbone, "layer": LayerBackbone}.get(spec.kind, TokenBackbone)
    if spec.library == "timm":
        model.reset_classifier(0)  # type: ignore[operator]
        features = _TimmFeatures(model)
    elif spec.library == "torchvision":
        features = _TorchvisionFeatures(model, spec.feature_map)
    if kind is TokenBackbone:
        prefix = getattr(model, "num_prefix_tokens", int(spec.library == "torchvision"))  # torchvision: a class token
        features = _TokenFeatures(features, model, num_prefix_tokens=prefix)
    return kind(features, dim=spec.dim, pool=pooling, preprocessing=spec.preprocessing, weights_id=weights_id)


def _with_weights(spec: BackboneSpec, weights: WeightsFile) -> nn.Module:
    """The whole network; only its classifier keeps random weights."""
    model = build_network(spec)
    if weights.path is not None:
        _load(model, spec, weights)
    return model


def _set_input_size(spec: BackboneSpec, model: nn.Module) -> None:
    """Give a transformer of timm the positions of the spec's input size."""
    if spec.library != "timm" or not hasattr(model, "set_input_size"):
        return
    if model.pretrained_cfg["input_size"][1] != spec.input_size:  # type: ignore[index]
        model.set_input_size(img_size=(spec.input_size, spec.input_size))  # type: ignore[operator]


def _load(model: nn.Module, spec: BackboneSpec, weights: WeightsFile) -> None:
    assert weights.path is not None
    tensors = load_tensors(weights.path)
    if spec.library in EXTERNAL_LIBRARIES:
        from vidpipe.backbones.deformable import deform_layers  # here, because it imports torchvision

        deform_layers(model, tensors)
    wanted = model.state_dict()
    positions = wanted.keys() & {name for name in tensors if name.endswith(POSITIONS)}
    if any(tensors[name].shape != wanted[name].shape for name in positions):
        _set_input_size(spec, model)  # fine-tuned weights have the positions of the spec's input size
        wanted = model.state_dict()
    if weights.source == spec.weights and weights.source.startswith("package:"):
        # The package names the tensors as another library does; they are the same tensors in the same order.
        tensors = dict(zip(wanted, tensors.values(), strict=True))
    needed = {name for name in without_classifier(model, wanted) if not name.endswith("num_batches_tracked")}
    used = without_classifier(model, _renamed(model, tensors, needed))
    misfits = {
        "missing": sorted(needed - used.keys()),
        "unexpected": sorted(used.keys() - wanted.keys()),
        "of another shape": sorted(n for n in needed & used.keys() if used[n].shape != wanted[n].shape),
    }
    if any(misfits.values()):
        logger.debug("all tensors that do not fit: %s", misfits)
        reasons = "; ".join(_format_misfits(kind, names) for kind, names in misfits.items() if names)
        raise WeightsError(f"{weights.path}: these are not weights of {spec.name}: {reasons}")
    model.load_state_dict(used, strict=False)


def _classifiers(model: nn.Module) -> tuple[str, ...]:
    """The prefixes of a timm model's classifier: `("last_linear.",)`"""
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))


def _renamed(model: nn.Module, tensors: Mapping[str, Tensor], needed: set[str]) -> Mapping[str, Tensor]:
    """Rename tensors of published checkpoints whose names are older than those of the library's model."""
    if hasattr(model, "base_model_prefix"):  # a model of transformers
        from vidpipe.backbones.video_transformers import encoder_tensors

        return encoder_tensors(model, tensors)
    if needed <= tensors.keys():
        return tensors
    if type(model).__name__ == "DenseNet":  # torchvision's: `denselayer1.norm.1.weight`
        return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", n): t for n, t in tensors.items()}
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)  # timm's own
    if convert is None:
        return tensors
    try:
        converted: Mapping[str, Tensor] = convert(dict(tensors), model)
    except Exception:  # another model's tensors make it raise anything; the caller reports what does not fit
        return tensors
    return converted


def _format_misfits(kind: str, names: list[str]) -> str:
    """`2 missing (conv1.weight, bn1.weight)`; the first few of many, --debug shows all"""
    return f"{len(names)} {kind} ({', '.join(names[:MAX_NAMED])}{', …' * (len(names) > MAX_NAMED)})"
