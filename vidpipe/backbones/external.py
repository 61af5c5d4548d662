"""Models outside the table, `timm/NAME` and `torchvision/NAME`: their description is read from the library."""

from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import timm
import torch
import torchvision.models
from timm.data.config import resolve_data_config

from vidpipe.backbones.spec import EXTERNAL_LIBRARIES, BackboneSpec
from vidpipe.errors import UsageError
from vidpipe.records import Preprocessing

__all__ = ["external_names", "find_external"]

TORCHVISION_MAPS = {
    "googlenet": "inception5b",
    "inception": "Mixed_7c",
    "resnet": "layer4",
    "resnext": "layer4",
    "wide_resnet": "layer4",
    "densenet": "relu",
    "regnet": "trunk_output",
    "shufflenet": "conv5",
    "mnasnet": "layers",
    "swin": "permute",
    "maxvit": "blocks.3",
    "vit": "encoder",
}
"""By the start of a model's name: the node whose output is pooled; `features` for all others."""


def external_names(model: str) -> list[str]:
    """Return the names of a library's model as backbones: `["timm/resnet14t"]`; none where no library has it."""
    return [f"{library}/{model}" for library in EXTERNAL_LIBRARIES if model in _names(library)]


@lru_cache
def _names(library: str) -> frozenset[str]:
    if library == "torchvision":
        return frozenset(torchvision.models.list_models(module=torchvision.models))
    return frozenset((*timm.list_models(), *timm.list_pretrained()))


@lru_cache
def find_external(library: str, model: str) -> BackboneSpec:
    """Describe a library's model as a backbone, with the library's default weights.

    Args:
        library: `timm` or `torchvision`.
        model: the library's own name; timm's may include the weights: `resnet50.a1_in1k`.

    Returns:
        The description.

    Raises:
        UsageError: the library has no such model, or the model has no features.
    """
    if library == "torchvision" and model in torchvision.models.list_models(module=torchvision.models.video):
        raise UsageError(f"torchvision/{model} is a video model, which has a name of its own: --backbone {model}")
    if model not in _names(library):
        nearest = get_close_matches(model, _names(library), n=1, cutoff=0.5)
        hint = f"; did you mean '{library}/{nearest[0]}'?" if nearest else ""
        raise UsageError(f"{library} has no model {model!r}{hint}")
    return _timm(model) if library == "timm" else _torchvision(model)


def _torchvision(model: str) -> BackboneSpec:
    weights = torchvision.models.get_model_weights(model).DEFAULT
    published = weights.transforms()
    family = next((family for family in TORCHVISION_MAPS if model.startswith(family)), "")
    spec = BackboneSpec(
        name=f"torchvision/{model}",
        dim=0,
        preprocessing=Preprocessing(
            published.resize_size[0],
            published.crop_size[0],
            published.interpolation.value,
            tuple(published.mean),
            tuple(published.std),
        ),
        library="torchvision",
        builder=model,
        feature_map=TORCHVISION_MAPS.get(family, "features"),
        weights=weights.url,
        weights_licence="BSD-3-Clause (torchvision); trained on ImageNet-1k",
        top1=weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
        top1_source="torchvision",
    )
    return _with_output(spec, num_prefix_tokens=1)


def _timm(model: str) -> BackboneSpec:
    published = timm.get_pretrained_cfg(model)
    assert published is not None
    wanted = resolve_data_config(pretrained_cfg=vars(published))  # type: ignore[no-untyped-call]
    crop = wanted["input_size"][1]
    spec = BackboneSpec(
        name=f"timm/{model}",
        dim=0,
        preprocessing=Preprocessing(
            int(crop / wanted["crop_pct"]),
            crop,
            wanted["interpolation"] if wanted["interpolation"] in ("bilinear", "bicubic") else "bicubic",
            wanted["mean"],
            wanted["std"],
        ),
        library="timm",
        builder=model,
        feature_map="forward_features",
        weights=_address(published),
        weights_licence=f"{published.license or 'unknown'}, as timm lists them",
    )
    return _with_output(spec, num_prefix_tokens=0)


def _address(published: Any) -> str:
    """The URL from which timm loads the weights: on the Hugging Face hub, or a file of a release."""
    if published.hf_hub_id:
        file = published.hf_hub_filename or "model.safetensors"
        return f"https://huggingface.co/{published.hf_hub_id}/resolve/main/{file}"
    return published.url or ""


def _with_output(spec: BackboneSpec, *, num_prefix_tokens: int) -> BackboneSpec:
    """Fill in D and kind from the model's output, computed on the device `meta`."""
    from vidpipe.backbones.image import meta_backbone

    try:
        backbone = meta_backbone(spec)
        with torch.device("meta"), torch.no_grad():
            output = backbone.features(torch.empty(1, 3, spec.input_size, spec.input_size))
        if not isinstance(output, torch.Tensor) or output.ndim not in (2, 3, 4):
            raise TypeError("its output is no feature map, no tokens and no feature")
    except Exception as error:  # each model fails in its own way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{spec.name} cannot be used as a backbone: {reason}") from error
    model = getattr(backbone.features, "model", None)
    if output.ndim == 4:
        return replace(spec, dim=output.shape[1])
    if output.ndim == 2:
        return replace(spec, dim=output.shape[1], kind="layer")
    if getattr(model, "attn_pool", None) is not None:
        kind = "attention"
    elif getattr(model, "num_prefix_tokens", num_prefix_tokens) and getattr(model, "global_pool", "token") == "token":
        kind = "class token"
    else:
        kind = "tokens"
    return replace(spec, dim=output.shape[2], kind=kind)
