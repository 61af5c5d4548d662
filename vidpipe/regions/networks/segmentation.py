"""Semantic segmentation: networks that give each pixel a class, how they are built, and how they learn.

FCN-32s, -16s, -8s     `vidpipe.regions.networks.fcn`
U-Net                  segmentation-models-pytorch (Ronneberger et al. 2015, with an encoder of its choice)
DeepLab v3, FCN-ResNet torchvision
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from vidpipe.errors import UsageError, unknown_name
from vidpipe.regions.detections import Detections
from vidpipe.regions.masks import MASK_THRESHOLD
from vidpipe.regions.networks.fcn import STRIDES, Fcn, convolutional
from vidpipe.regions.networks.settings import NetworkSettings
from vidpipe.regions.table import find_detector

__all__ = [
    "SEGMENTATION_NETWORKS",
    "VOC_CLASS_IDS",
    "SegmentationNetwork",
    "SegmentationSettings",
    "build",
    "class_map",
    "load_fitting",
    "loss",
]

VOC_CLASS_IDS = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
"""COCO's category ids of VOC's 20 classes, in the order of their channels; channel 0 is the background."""
SEGMENTATION_NETWORKS = (*STRIDES, "unet", "deeplab", "deeplab_mobilenet", "fcn_resnet50")
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MULTIPLE = 32
"""Of the sides of a picture: FCN and U-Net halve it five times."""


@dataclass(frozen=True)
class SegmentationSettings(NetworkSettings):
    """What builds a network of semantic segmentation; it is stored with the weights.

    Raises:
        UsageError: there is no such network, or no class.
    """

    network: str
    """One of `SEGMENTATION_NETWORKS`."""
    class_ids: tuple[int, ...] = VOC_CLASS_IDS
    """The category ids of channels 1, 2, …; channel 0 is the background."""
    size: int = 512
    """The longer side, in pixels, to which a frame is resized."""
    width: float = 1.0
    """Scales the channels: of all layers of an FCN, and of the decoder of a U-Net."""
    batch_norm: bool = False
    """Of an FCN: an FCN that learns from random weights needs it."""
    encoder: str = "resnet34"
    """Of a U-Net: a name that segmentation-models-pytorch has."""

    def __post_init__(self) -> None:
        if self.network not in SEGMENTATION_NETWORKS:
            raise UsageError(unknown_name("segmentation network", self.network, SEGMENTATION_NETWORKS))
        if not self.class_ids:
            raise UsageError(f"{self.network} needs at least one class beside the background")


class SegmentationNetwork(nn.Module):
    """A network that gives each pixel of a picture the logits of its classes.

    Args:
        body: computes logits (N, 1 + K, H, W) of normalised pixels; torchvision's return them as `out`.
        settings: that built it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, settings: SegmentationSettings) -> None:
        super().__init__()
        self.body, self.settings = body, settings
        for name, values in (("mean", _IMAGENET_MEAN), ("std", _IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the logits of the background and of the K classes.

        Args:
            pixels: (N, 3, H, W) RGB, 0 to 1, of any size.

        Returns:
            (N, 1 + K, H, W)
        """
        height, width = pixels.shape[2:]
        border = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
        scores = self.body(pad((pixels - self.mean) / self.std, border, mode="replicate"))
        logits: Tensor = scores["out"] if isinstance(scores, Mapping) else scores
        return logits[..., :height, :width]


def build(settings: SegmentationSettings) -> SegmentationNetwork:
    """Build a network with random weights.

    Args:
        settings: what to build.

    Returns:
        The network.

    Raises:
        UsageError: the package of U-Net is not installed, or has no such encoder.
    """
    num_classes = 1 + len(settings.class_ids)
    if settings.network == "unet":
        return SegmentationNetwork(_unet(settings, num_classes), settings)
    if settings.network in STRIDES:
        fcn = Fcn(STRIDES[settings.network], num_classes, width=settings.width, batch_norm=settings.batch_norm)
        return SegmentationNetwork(fcn, settings)
    from torchvision.models import get_model

    builder = find_detector(settings.network).builder
    body = get_model(builder, weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=False)
    return SegmentationNetwork(body, settings)


def _unet(settings: SegmentationSettings, num_classes: int) -> nn.Module:
    if find_spec("segmentation_models_pytorch") is None:
        raise UsageError("unet needs a package: pip install 'vidpipe[segmentation]'")
    import segmentation_models_pytorch as smp

    channels = [max(1, round(number * settings.width)) for number in (256, 128, 64, 32, 16)]
    try:
        network: nn.Module = smp.Unet(
            settings.encoder, encoder_weights=None, decoder_channels=channels, classes=num_classes
        )
    except (KeyError, RuntimeError) as error:  # of its own encoders, and of timm's
        raise UsageError(
            f"unet: segmentation-models-pytorch has no encoder {settings.encoder!r}; resnet18, resnet34 and "
            "mobilenet_v2 are some that it has"
        ) from error
    return network


_PREFIXES = ("", "body.", "body.encoder.", "body.encoder.model.", "body.backbone.")
"""Where the weights of a whole network, of its body, and of a backbone that learned ImageNet's classes belong."""


def load_fitting(network: SegmentationNetwork, weights: Mapping[str, Tensor]) -> int:
    """Load those weights that fit a network, to begin training from them: a backbone's, or another segmentation's.

    VGG-16's fully connected layers become convolutions of an FCN.

    Args:
        network: the network; its other weights stay as they are.
        weights: of torchvision's vgg16 for an FCN, of an encoder for a U-Net, of a ResNet for torchvision's networks,
            or of the same network with other classes or another stride.

    Returns:
        The number of tensors that were loaded.
    """
    if isinstance(network.body, Fcn) and "classifier.0.weight" in weights:
        weights = convolutional(weights)
    wanted = network.state_dict()
    fitting = [
        {prefix + name: tensor for name, tensor in weights.items() if _fits(tensor, wanted.get(prefix + name))}
        for prefix in _PREFIXES
    ]
    most = max(fitting, key=len)
    network.load_state_dict(most, strict=False)
    return len(most)


def _fits(tensor: Tensor, wanted: Tensor | None) -> bool:
    return wanted is not None and tensor.shape == wanted.shape


def loss(network: SegmentationNetwork, pixels: Tensor, truths: Sequence[Detections]) -> Tensor:
    """Compute what training minimises: class-weighted cross entropy, and for U-Net the Dice loss of the classes, too.

    A class's weight is the fourth root of its pixels' inverse share in the batch, so that small objects count. With the
    square root, an FCN draws them too large: on the demo's figures, precision 0.69 and recall 0.93.

    Args:
        network: the network, in training mode.
        pixels: (N, 3, H, W) RGB, 0 to 1.
        truths: N records with masks of the same H and W. Objects of other classes are background.

    Returns:
        A scalar.
    """
    logits = network(pixels)
    class_ids = network.settings.class_ids
    target = torch.stack([class_map(truth, class_ids) for truth in truths]).to(pixels.device)  # (N, H, W)
    counts = target.flatten().bincount(minlength=logits.shape[1])
    total = cross_entropy(logits, target, weight=(target.numel() / counts.clamp(min=1)) ** 0.25)
    if network.settings.network == "unet":
        from segmentation_models_pytorch.losses import DiceLoss

        total = total + DiceLoss("multiclass", classes=list(range(1, logits.shape[1])))(logits, target)
    return total


def class_map(truth: Detections, class_ids: Sequence[int]) -> Tensor:
    """Return the channel of each pixel's class, 0 for the background.

    Args:
        truth: with masks; where two overlap, the later object is seen.
        class_ids: of channels 1, 2, …

    Returns:
        (H, W) int64
    """
    assert truth.masks is not None
    channels = np.zeros((truth.height, truth.width), np.int64)
    for class_id, mask in zip(truth.classes, truth.masks, strict=True):
        if class_id in class_ids:
            channels[mask >= MASK_THRESHOLD] = 1 + class_ids.index(class_id)
    return torch.from_numpy(channels)
