"""A backbone some of whose stages learn. It begins as the frozen one."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidpipe.backbones.image import choose_device, load_with_model, without_classifier
from vidpipe.backbones.stages import BackboneStage, choose_stages, find_backbone_stages
from vidpipe.backbones.stream import Stream
from vidpipe.config import FinetuneConfig
from vidpipe.errors import UsageError

__all__ = ["TunedBackbone"]

PART = 32
"""Frames at a time where no gradients are needed."""


class TunedBackbone:
    """A backbone some of whose stages learn.

    Dropout inside the backbone stays off, and batch normalisation keeps the statistics of the weights, unless
    `--batch-norm train` learns them in the stages that are trained.

    Args:
        stream: the backbone with its weights, pooling and preprocessing.
        config: `unfreeze`, `lora`, `deformable`, `batch_norm`, `checkpointing`, `precision`, `device` and `seed`.

    Raises:
        UsageError: the backbone has no such stage, or no linear layers for LoRA; or the device is not available.
        WeightsError: the weights cannot be read.
    """

    def __init__(self, stream: Stream, config: FinetuneConfig) -> None:
        self.name, self.device = stream.spec.name, choose_device(config.device)
        deformable = tuple(config.deformable.split(",")) if config.deformable else ()
        self.network, self._model = load_with_model(
            stream.spec, weights=stream.weights, pool=stream.key.pooling, deformable=deformable
        )
        all_stages = find_backbone_stages(self.network, self._model)
        self.stages = choose_stages(all_stages, config.unfreeze, owner=self.name)
        """The trained ones, in order."""
        self._by_stage = [list(stage.parameters) for stage in self.stages]
        if config.lora is not None:
            self._by_stage = _add_lora(self.network, self.stages, config.lora, owner=self.name, seed=config.seed)
        for parameter in (one for parameters in self._by_stage for one in parameters):
            parameter.requires_grad_(True)
        _check_offsets_learn(self.network, deformable)
        self._norms = self._learned_norms() if config.batch_norm == "train" else []
        self._checkpoints, self._is_mixed = config.checkpointing, _is_mixed(config.precision, self.device)
        self.network.to(self.device)
        if stream.spec.window is None:
            self.network.to(memory_format=self.network.memory_format)  # on a CPU, gradients take a third of the time

    @property
    def by_stage(self) -> list[list[nn.Parameter]]:
        """The trained parameters of each stage, the last stage first."""
        return self._by_stage[::-1]

    @property
    def num_parameters(self) -> int:
        """Numbers that are learned."""
        return sum(parameter.numel() for parameters in self._by_stage for parameter in parameters)

    def tensors(self) -> dict[str, Tensor]:
        """Return all that training changes, by name: parameters, and statistics that are learned."""
        found: dict[str, Tensor] = {name: one for name, one in self.network.named_parameters() if one.requires_grad}
        norms = {id(norm) for norm in self._norms}
        for name, module in self.network.named_modules():
            if id(module) in norms:
                found |= {f"{name}.{its}": one for its, one in module.named_buffers(recurse=False)}
        return found

    def set_training(self, training: bool) -> None:
        """Learn the statistics of batch normalisation, where they are learned, or use them."""
        for norm in self._norms:
            norm.train(training)

    @torch.no_grad()
    def adapt_norms(self, batches: Iterable[Tensor]) -> bool:
        """Give the batch normalisation that is learned the statistics of frames, in place of those that it has.

        Args:
            batches: (n, 3, H, W) or (n, W, 3, H, W) uint8, at the backbone's input size.

        Returns:
            Whether there is such a layer.
        """
        for norm in self._norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over the batches
        self.set_training(True)
        for frames in batches if self._norms else ():
            self.network(frames)
        self.set_training(False)
        return bool(self._norms)

    def features(self, frames: Tensor) -> Tensor:
        """Compute features with their gradients.

        Args:
            frames: (n, 3, H, W) or (n, W, 3, H, W) uint8, at the backbone's input size.

        Returns:
            (n, D) float32
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._is_mixed):
            if self._checkpoints and torch.is_grad_enabled():
                from torch.utils.checkpoint import checkpoint

                features: Tensor = checkpoint(self.network, frames, use_reentrant=False)
            else:
                features = self.network(frames)
        return features.float()

    @torch.no_grad()
    def extract(self, frames: Tensor) -> Tensor:
        """Compute features as an extraction does: without gradients, on the CPU.

        Args:
            frames: as for `features`.

        Returns:
            (n, D) float32, on the CPU.
        """
        part = max(1, PART // (frames.shape[1] if frames.ndim == 5 else 1))
        return torch.cat([self.network(some).float().cpu() for some in torch.split(frames, part)])

    def save(self, path: Path) -> None:
        """Write the weights under the library's names, as `--weights` reads them; LoRA is added to the weights.

        Args:
            path: a .safetensors file.

        Raises:
            OSError: the file cannot be written.
        """
        from safetensors.torch import save

        _merge_lora(self.network)
        tensors = without_classifier(self._model, self._model.state_dict())
        kept = {name.replace(".base_layer.", "."): one for name, one in tensors.items() if ".lora_" not in name}
        copies = {name: one.cpu().clone(memory_format=torch.contiguous_format) for name, one in kept.items()}
        path.write_bytes(save(copies))

    def _learned_norms(self) -> list[_BatchNorm]:
        trained = {id(parameter) for stage in self.stages for parameter in stage.parameters}
        norms = (module for module in self.network.modules() if isinstance(module, _BatchNorm))
        return [norm for norm in norms if any(id(one) in trained for one in norm.parameters(recurse=False))]


def _check_offsets_learn(network: nn.Module, deformable: Sequence[str]) -> None:
    from vidpipe.backbones.deformable import DeformableConv2d

    layers = {
        name: one
        for name, one in network.named_modules()
        if isinstance(one, DeformableConv2d) and any(f".{stage}." in f".{name}." for stage in deformable)
    }
    for name, layer in layers.items():
        if not all(one.requires_grad for one in layer.offsets.parameters()):
            raise UsageError(
                f"--deformable {','.join(deformable)}: {name.removeprefix('features.cut.')} is in a stage that is not "
                f"trained, so it would stay plain; --unfreeze {min(deformable)} trains it"
            )


def _is_mixed(precision: str, device: torch.device) -> bool:
    """Whether the backbone computes in bfloat16 where that is safe."""
    can = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if precision == "mixed" and not can:
        raise UsageError("--precision mixed needs a GPU with bfloat16; --precision auto uses it where it is there")
    return can and precision != "full"


def _add_lora(
    network: nn.Module, stages: tuple[BackboneStage, ...], rank: int, *, owner: str, seed: int
) -> list[list[nn.Parameter]]:
    """Add low-rank changes, zero at first, to the linear layers of stages; return their parameters by stage.

    Hu et al. 2021.
    """
    by_stage = [_linear_layers(network, stage) for stage in stages]
    names = [name for its in by_stage for name in its]
    if not names:
        raise UsageError(
            f"--lora: the stages {', '.join(stage.name for stage in stages)} of {owner} have no linear layers: it goes "
            "with transformers; leave it out to train a convolutional network's own weights"
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UsageError("--lora: pip install 'vidpipe[finetune]' first") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names), network)
    found = dict(network.named_parameters())
    return [
        [one for its in names for name, one in found.items() if name.startswith(f"{its}.") and ".lora_" in name]
        for names in by_stage
    ]


def _linear_layers(network: nn.Module, stage: BackboneStage) -> list[str]:
    """The linear layers of a stage; those that attention of torch reads the weights of are left out."""
    parameters = {id(parameter) for parameter in stage.parameters}
    in_attention = {
        id(inner)
        for module in network.modules()
        if isinstance(module, nn.MultiheadAttention)
        for inner in module.modules()
    }
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in in_attention and id(module.weight) in parameters
    ]


def _merge_lora(network: nn.Module) -> None:
    """Add what LoRA has learned to the weights of the linear layers."""
    for module in network.modules():
        if hasattr(module, "lora_A"):
            module.merge()  # type: ignore[operator]
