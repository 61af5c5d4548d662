"""A backbone some of whose stages learn. It begins as the frozen one."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidpipe.backbones.image import choose_device, load_with_model, without_classifier
from vidpipe.backbones.stages import choose_stages, find_backbone_stages
from vidpipe.backbones.stream import Stream
from vidpipe.config import FinetuneConfig
from vidpipe.errors import UsageError
from vidpipe.finetuning.lora import add_lora, merge_lora

__all__ = ["TunedBackbone"]

PART = 32
"""Frames at a time where no gradients are needed."""
CHECKPOINTED = 8
"""Frames at a time that are computed again for their gradients."""


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
        self.network.to(self.device)
        self._input_shape = stream.spec.input_shape
        if config.lora is not None:
            self._by_stage = add_lora(
                self.network,
                self._model,
                self.stages,
                config.lora,
                frames=torch.zeros(1, *self._input_shape, dtype=torch.uint8),
                owner=self.name,
                seed=config.seed,
            )
        for parameter in (one for parameters in self._by_stage for one in parameters):
            parameter.requires_grad_(True)
        _check_offsets_learn(self.network, deformable)
        self._norms = self._learned_norms() if config.batch_norm == "train" else []
        self._checkpoints, self._is_mixed = config.checkpointing, _is_mixed(config.precision, self.device)
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

                parts = torch.split(frames, self.checkpointed_rows(len(frames)))
                features = torch.cat([checkpoint(self.network, part, use_reentrant=False) for part in parts])
            else:
                features = self.network(frames)
        return features.float()

    def checkpointed_rows(self, num_rows: int) -> int:
        """Return how many frames or windows of a video are computed at once with `--checkpointing`.

        Args:
            num_rows: of the video.

        Returns:
            All where batch normalisation learns from them, else a few.
        """
        num_frames = self._input_shape[0] if len(self._input_shape) == 4 else 1
        return num_rows if self._norms else min(num_rows, max(1, CHECKPOINTED // num_frames))

    def saved_bytes(self, num_rows: int, num_stages: int) -> int:
        """Measure what autograd keeps in memory for gradients.

        Args:
            num_rows: frames or windows that are computed at once.
            num_stages: as if only the last ones of the trained stages learned.

        Returns:
            The bytes, without those of the parameters.
        """
        own = {one.untyped_storage().data_ptr() for one in (*self.network.parameters(), *self.network.buffers())}
        saved: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        frames = torch.zeros(num_rows, *self._input_shape, dtype=torch.uint8)
        frozen = [parameter for parameters in self.by_stage[num_stages:] for parameter in parameters]
        for parameter in frozen:
            parameter.requires_grad_(False)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self._is_mixed),
        ):
            self.network(frames)
        for parameter in frozen:
            parameter.requires_grad_(True)
        return sum(saved.values())

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

        merge_lora(self.network)
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
