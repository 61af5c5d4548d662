"""Video encoders of Hugging Face's transformers, `transformers/NAME`: VideoMAE and V-JEPA 2.

Their description is read from the files of a saved model: config.json, and the configuration of its preprocessing.
A model has its features pooled as the classifier of its own library does: VideoMAE (Tong et al. 2022) takes the mean of
the tokens, normalised where the model was fine-tuned; V-JEPA 2 (Assran et al. 2025) has an attentive pooler where one
was trained, else the mean of the tokens.
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidpipe.backbones.downloads import HUB, fetch_from_hub, hub_cache
from vidpipe.backbones.spec import BackboneSpec
from vidpipe.errors import UsageError, WeightsError
from vidpipe.records import Preprocessing, Window

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["build_encoder", "encoder_tensors", "find_transformer"]

logger = logging.getLogger(__name__)

CONFIG = "config.json"
PREPROCESSING = ("video_preprocessor_config.json", "preprocessor_config.json")
"""The names of the file, the newer one first."""
WEIGHTS = "model.safetensors"

VIDEOMAE_FPS = 7.5
"""Every fourth frame at 30 fps: `--sampling_rate 4` in scripts/kinetics of MCG-NJU/VideoMAE."""
VJEPA2_FPS = 4.0
"""`fps: 4` in configs/train of facebookresearch/vjepa2, with which the weights were trained."""
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}
"""By PIL's number."""


@dataclass(frozen=True)
class _Source:
    """Where the files of a model are."""

    name: str
    """NAME of `transformers/NAME`."""
    folder: Path | None
    """None for a repository of the hub."""

    @classmethod
    def of(cls, name: str) -> "_Source":
        if name.startswith((".", "/", "~")):
            return cls(name, Path(name).expanduser())
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
            raise UsageError(
                f"transformers/{name}: neither a name on the Hugging Face hub (transformers/OWNER/MODEL) nor a folder "
                "(transformers/./FOLDER, or an absolute path)"
            )
        return cls(name, None)

    @property
    def backbone(self) -> str:
        return f"transformers/{self.name}"

    @property
    def weights(self) -> str:
        """As in `BackboneSpec.weights`."""
        return f"{HUB}{self.name}/resolve/main/{WEIGHTS}" if self.folder is None else f"file:{self.folder / WEIGHTS}"

    def read(self, *files: str) -> dict[str, Any] | None:
        """The content of the first of these JSON files that there is; None where there is none of them."""
        path = self._fetched(files) if self.folder is None else self._in_folder(self.folder, files)
        if path is None:
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError(f"{path}: cannot be read as JSON ({error}); save the model again") from error
        if not isinstance(values, dict):
            raise WeightsError(f"{path}: holds no configuration; save the model again")
        return values

    def _in_folder(self, folder: Path, files: tuple[str, ...]) -> Path | None:
        if not folder.is_dir():
            raise UsageError(
                f"{self.backbone}: there is no folder {folder}; put the saved model back there, or link it there. A "
                "path that starts with a dot is looked up from the current folder"
            )
        return next((folder / file for file in files if (folder / file).is_file()), None)

    def _fetched(self, files: tuple[str, ...]) -> Path | None:
        try:
            return fetch_from_hub(self.name, files)
        except Exception as error:  # huggingface_hub and its HTTP client have errors of their own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            cached = "models--" + self.name.replace("/", "--")
            raise WeightsError(
                f"{self.backbone}: {files[0]} cannot be downloaded ({reason}). On a machine with a network, run "
                f"`vidpipe backbones --download {self.backbone}` and copy the folder {cached} to {hub_cache()}; or put "
                f"{CONFIG}, {WEIGHTS} and {PREPROCESSING[1]} or {PREPROCESSING[0]} of {HUB}{self.name} into a folder, "
                "and name it: --backbone transformers/./FOLDER"
            ) from error


def find_transformer(name: str) -> BackboneSpec:
    """Describe a video encoder of transformers as a clip backbone.

    Args:
        name: of a repository on the Hugging Face hub, or the path of a folder with a saved model: absolute, or with a
            dot at its start.

    Returns:
        The description.

    Raises:
        UsageError: the package transformers is not installed, there is no such folder, or it has a model of another
            kind.
        WeightsError: the configuration cannot be downloaded or read.
    """
    _check_installed(name)
    source = _Source.of(name)
    config, has_classifier = _read_config(source)
    is_videomae = config.model_type == "videomae"
    try:
        window = _window(config)
        preprocessing = _preprocessing(source, config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{source.backbone} cannot be used as a backbone: {error}") from error
    _check_size(source, config, preprocessing)
    return BackboneSpec(
        name=source.backbone,
        dim=config.hidden_size,
        preprocessing=preprocessing,
        library="transformers",
        builder=name,
        feature_map="last_hidden_state",
        weights=source.weights,
        weights_licence="as its publisher says" + (f" at {HUB}{name}" if source.folder is None else ""),
        kind="attention" if has_classifier and not is_videomae else "tokens",
        window=window,
    )


def build_encoder(name: str) -> "nn.Module":
    """Build a model as its library does, without what only its training needs, with random weights.

    Args:
        name: as for `find_transformer`.

    Returns:
        `VideoMAEForVideoClassification` or `VJEPA2ForVideoClassification` for a model with a classifier, else
        `VideoMAEModel` or `VJEPA2Model`.

    Raises:
        UsageError: as for `find_transformer`.
        WeightsError: the configuration cannot be downloaded or read.
    """
    import transformers

    config, has_classifier = _read_config(_Source.of(name))
    family = {"videomae": "VideoMAE", "vjepa2": "VJEPA2"}[config.model_type]
    model: nn.Module = getattr(transformers, family + ("ForVideoClassification" if has_classifier else "Model"))(config)
    base = getattr(model, config.model_type, model)
    if hasattr(base, "predictor"):  # V-JEPA 2 learns by predicting what is masked
        del base.predictor
    return model


def encoder_tensors(model: "nn.Module", tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Return the tensors of a checkpoint that a model has, under the model's names.

    Args:
        model: from `build_encoder`.
        tensors: as transformers saves them, with a decoder, a predictor or a classifier, or without.

    Returns:
        The tensors; those that only training needs are left out.
    """
    wanted = model.state_dict().keys()
    prefix = f"{model.base_model_prefix}."
    if not any(name.startswith(prefix) for name in wanted) and any(name.startswith(prefix) for name in tensors):
        tensors = {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
    kept = {name: one for name, one in tensors.items() if not name.removeprefix(prefix).startswith("predictor.")}
    return {name if name in wanted else _newer_name(name): one for name, one in kept.items()}


def _newer_name(name: str) -> str:
    """VideoMAE's checkpoints have the biases of its linear layers beside the layers: `attention.q_bias`."""
    return re.sub(r"attention\.([qv])_bias$", lambda found: _BIASES[found[1]], name)


_BIASES = {"q": "attention.query.bias", "v": "attention.value.bias"}


def _check_installed(name: str) -> None:
    if find_spec("transformers") is None:
        raise UsageError(f"transformers/{name} needs a package: pip install 'vidpipe[transformers]'")


def _read_config(source: _Source) -> tuple[Any, bool]:
    """The library's configuration of a model, and whether the model has a classifier."""
    import transformers

    transformers.logging.set_verbosity_error()  # it advises on settings that vidpipe's users do not have
    values = source.read(CONFIG)
    if values is None:
        raise UsageError(f"{source.backbone}: has no {CONFIG}; name a model saved by transformers' save_pretrained")
    classes = {"videomae": transformers.VideoMAEConfig, "vjepa2": transformers.VJEPA2Config}
    kind = values.get("model_type")
    if kind not in classes:
        raise UsageError(
            f"{source.backbone}: its {CONFIG} says model_type {kind!r}; the video encoders that vidpipe opens are "
            "videomae and vjepa2"
        )
    try:
        config = classes[kind].from_dict(values)
    except Exception as error:  # transformers checks values in its own ways
        reason = " ".join(str(error).split())
        raise WeightsError(f"{source.backbone}: its {CONFIG} is not valid: {reason}") from error
    return config, any(one.endswith("ForVideoClassification") for one in config.architectures or ())


def _window(config: Any) -> Window:
    """The frames that a model sees: VideoMAE's positions are fixed, V-JEPA 2's are rotary, for any number of frames."""
    if config.model_type == "videomae":
        return Window(config.num_frames, VIDEOMAE_FPS, config.num_frames)
    return Window(config.frames_per_clip, VJEPA2_FPS, config.tubelet_size, multiple=config.tubelet_size)


def _preprocessing(source: _Source, config: Any) -> Preprocessing:
    """What the model's own processor does to frames."""
    processor = _processor(source, config)
    if not (processor.do_resize and processor.do_rescale and processor.do_normalize):
        raise ValueError("its preprocessing does not resize, rescale and normalise")
    if round(255 * processor.rescale_factor, 6) != 1:
        raise ValueError(f"its preprocessing has rescale_factor {processor.rescale_factor}, not 1/255")
    size = dict(processor.size)
    resize: int | tuple[int, int] = size.get("shortest_edge") or (size["height"], size["width"])
    crop = dict(processor.crop_size) if processor.do_center_crop else size
    mean, std = (tuple(map(float, values)) for values in (processor.image_mean, processor.image_std))
    return Preprocessing(
        resize,
        crop["height"] if crop["height"] == crop["width"] else (crop["height"], crop["width"]),
        INTERPOLATIONS[int(processor.resample)],
        (mean[0], mean[1], mean[2]),
        (std[0], std[1], std[2]),
    )


def _processor(source: _Source, config: Any) -> Any:
    """The library's processor of a model's frames; the published one of its family where it has no file of its own."""
    import transformers

    is_videomae = config.model_type == "videomae"
    kind = transformers.VideoMAEVideoProcessor if is_videomae else transformers.VJEPA2VideoProcessor
    values = source.read(*PREPROCESSING)
    if values is None:
        logger.info("%s has no %s: frames are prepared as for its family's models", source.backbone, PREPROCESSING[0])
        side = config.image_size if is_videomae else config.crop_size
        values = {"crop_size": {"height": side, "width": side}, "size": {"shortest_edge": side}}
        values |= {"image_mean": IMAGENET[0], "image_std": IMAGENET[1]}
    return kind(**values)


def _check_size(source: _Source, config: Any, preprocessing: Preprocessing) -> None:
    """Raise UsageError where a model's positions are of another size than its frames."""
    side = config.image_size if config.model_type == "videomae" else config.crop_size
    size = tuple(side) if isinstance(side, list | tuple) else (side, side)
    if preprocessing.size != size:
        raise UsageError(
            f"{source.backbone}: its preprocessing makes frames of {' × '.join(map(str, preprocessing.size))} pixels, "
            f"and its {CONFIG} says {' × '.join(map(str, size))}; make the two files agree"
        )
