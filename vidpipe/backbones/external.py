"""The open doors `timm/NAME` and `torchvision/NAME`: what the table says of its models is here read from the model."""

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
"""A family's first letters -> the node that its pooling reads; `features` in all other families."""


def external_names(model: str) -> list[str]:
    """The doors through which a model of that name can be had: `["timm/resnet14t"]`"""
    return [f"{door}/{model}" for door in EXTERNAL_LIBRARIES if model in _names(door)]


@lru_cache
def _names(door: str) -> frozenset[str]:
    if door == "torchvision":
        return frozenset(torchvision.models.list_models(module=torchvision.models))
    return frozenset((*timm.list_models(), *timm.list_pretrained()))


@lru_cache
def find_external(door: str, model: str) -> BackboneSpec:
    """A model of a library as a backbone, with the weights that the library gives by default.

    Args:
        door: `timm` or `torchvision`.
        model: the library's own name; timm's may say which weights: `resnet50.a1_in1k`.

    Raises:
        UsageError: the library has no such model, or it gives no features.
    """
    if model not in _names(door):
        nearest = get_close_matches(model, _names(door), n=1, cutoff=0.5)
        hint = f"; did you mean '{door}/{nearest[0]}'?" if nearest else ""
        raise UsageError(f"{door} has no model {model!r}{hint}")
    return _timm(model) if door == "timm" else _torchvision(model)


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
    return _as_given(spec, num_prefix_tokens=1)


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
    return _as_given(spec, num_prefix_tokens=0)


def _address(published: Any) -> str:
    """Where timm would fetch the weights: its hub, or a file of a release."""
    if published.hf_hub_id:
        file = published.hf_hub_filename or "model.safetensors"
        return f"https://huggingface.co/{published.hf_hub_id}/resolve/main/{file}"
    return published.url or ""


def _as_given(spec: BackboneSpec, *, num_prefix_tokens: int) -> BackboneSpec:
    """The spec with D and kind as the model's own output has them, on torch's device without memory."""
    from vidpipe.backbones.image import meta_backbone

    try:
        backbone = meta_backbone(spec)
        with torch.device("meta"), torch.no_grad():
            given = backbone.features(torch.empty(1, 3, spec.input_size, spec.input_size))
        if not isinstance(given, torch.Tensor) or given.ndim not in (2, 3, 4):
            raise TypeError("it gives no feature map, no tokens and no feature")
    except Exception as error:  # each model has its own way of not being one
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{spec.name} cannot be used as a backbone: {reason}") from error
    model = getattr(backbone.features, "model", None)
    if given.ndim == 4:
        return replace(spec, dim=given.shape[1])
    if given.ndim == 2:
        return replace(spec, dim=given.shape[1], kind="layer")
    if getattr(model, "attn_pool", None) is not None:
        kind = "attention"
    elif getattr(model, "num_prefix_tokens", num_prefix_tokens) and getattr(model, "global_pool", "token") == "token":
        kind = "class token"
    else:
        kind = "tokens"
    return replace(spec, dim=given.shape[2], kind=kind)
