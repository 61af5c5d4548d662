"""Settings of `vidpipe finetune`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidpipe.config.setting import Config, setting
from vidpipe.errors import UsageError

__all__ = ["FinetuneConfig"]


@dataclass(frozen=True)
class FinetuneConfig(Config):
    """Settings of `vidpipe finetune`."""

    stream: str | None = setting(None, "Stream to fine-tune, of a run with several. The new run has this stream only.")
    unfreeze: str = setting(
        "1",
        "What of the backbone is trained: its last N stages, the stage NAME and all after it, or all. A wrong name "
        "lists the stages.",
        metavar="N|NAME|all",
    )
    lora: int | None = setting(
        None,
        "Transformers: train low-rank changes of this rank of the linear layers in these stages, in place of their "
        "weights (pip install 'vidpipe[finetune]').",
        low=1,
        high=256,
        metavar="RANK",
    )
    deformable: str | None = setting(
        None,
        "ResNets: make the 3 × 3 convolutions of these stages deformable, such as layer3,layer4. They begin as plain "
        "ones, and learn where to sample.",
        several=True,
        metavar="STAGE",
    )
    epochs: int = setting(20, "Largest number of passes over the training videos.", low=1)
    patience: int = setting(5, "Stop after this number of epochs without a lower validation loss.", low=1)
    batch_size: int = setting(8, "Videos of a step.", low=1)
    accumulate: int | None = setting(
        None,
        "Compute a step in this number of parts, whose gradients are added. More parts need less memory. [default: 1 "
        "on a GPU or with --batch-norm train; on a CPU one for each video, which is fastest]",
        low=1,
    )
    checkpointing: bool = setting(
        False,
        "Compute the backbone again for its gradients, a few frames at a time. It needs less memory and more time.",
    )
    lr: float = setting(1e-4, "Largest learning rate of the last stage (AdamW).", low=0, above=True)
    lr_decay: float = setting(
        0.7, "Factor from the learning rate of a stage to that of the stage before it.", low=0, above=True, high=1
    )
    head_lr: float = setting(
        3e-5, "Largest learning rate of the heads, which begin as fitted to frozen features.", low=0, above=True
    )
    weight_decay: float = setting(1e-2, "Weight decay of matrices and filters.", low=0)
    warm_up: float = setting(
        0.1, "Share of the steps in which the learning rate rises; then it falls to 0 as a cosine.", low=0, high=0.9
    )
    ema: float = setting(
        0.99,
        "Decay of the exponential moving average of the weights, which is validated and saved; 0 turns it off.",
        low=0,
        high=0.99999,
    )
    label_smoothing: float = setting(0.1, "Label smoothing: the probability spread over all classes.", low=0, high=0.9)
    batch_norm: str = setting(
        "frozen",
        "Statistics of batch normalisation: those of the weights, or learned anew in the trained stages (for large "
        "batches).",
        choices=("frozen", "train"),
    )
    frames_per_segment: int = setting(
        3,
        "Uniform sampling of single frames: frames cached of each part of a video, an odd number. An epoch sees one of "
        "them at random; 1 always takes the middle one.",
        low=1,
        high=15,
    )
    crop_scale: float = setting(
        0.7, "Smallest share of the picture in a random crop; 1 takes the centre crop.", low=0.05, high=1
    )
    flip: str = setting(
        "auto",
        "Mirror clips at random. auto: unless a label has the word left or right.",
        choices=("auto", "on", "off"),
    )
    colour: float = setting(
        0.3, "Largest random change of brightness, contrast and saturation; 0 turns it off.", low=0, high=1
    )
    val_fraction: float = setting(
        0.2,
        "Share of the training videos to validate on, where the run has no validation set. Groups stay together.",
        low=0.05,
        high=0.9,
    )
    cache: str | None = setting(
        None,
        "Folder to keep the decoded frames in, for other fine-tunings of the same videos. [default: RUN2.frames/, "
        "removed at the end]",
        is_path=True,
        metavar="DIR",
    )
    cache_gb: float = setting(20.0, "Largest size of the decoded frames in GB.", low=0, above=True)
    checkpoint_seconds: float = setting(60.0, "Seconds between two checkpoints for --resume.", low=0)
    precision: str = setting(
        "auto",
        "Arithmetic of the backbone. mixed: bfloat16 where it is safe (GPUs that have it). auto: mixed on such a GPU, "
        "else full.",
        choices=("auto", "full", "mixed"),
    )
    seed: int = setting(0, "Seed of the order of videos and of their changes.", low=0)
    device: str = setting("auto", "Device that trains.", choices=("auto", "cpu", "cuda"))
    threads: int = setting(0, "Number of CPU threads; 0 uses all cores.", low=0)

    @staticmethod
    def check_together(values: Mapping[str, Any]) -> None:
        frames = values.get("frames_per_segment", 3)
        if frames % 2 == 0:
            raise UsageError(
                f"--frames-per-segment {frames}: an odd number is needed, so that one frame is the middle one, such as "
                f"{frames + 1}"
            )
        if values.get("lora") is not None and values.get("batch_norm", "frozen") != "frozen":
            raise UsageError("--lora keeps the backbone's own weights; leave --batch-norm train out")
