"""Settings of `vidpipe extract`: what is sampled, how it is decoded, and which network sees it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidpipe.config.setting import Config, setting
from vidpipe.errors import UsageError

__all__ = [
    "DEFAULT_DECODER",
    "DEFAULT_POSE_SIZE",
    "DUPLICATES_SETTINGS",
    "EXACT_DECODING",
    "EXPLAIN_SETTINGS",
    "FINETUNE_SETTINGS",
    "PREDICT_SETTINGS",
    "RAY_SETTINGS",
    "SEARCH_SETTINGS",
    "Decoding",
    "ExtractConfig",
    "Sampling",
]

DEFAULT_NUM_FRAMES = {"uniform": 16, "scene": 4, "keyframe": 16}
DEFAULT_FPS = 2.0
DEFAULT_DECODER = "pyav"
DEFAULT_POSE_SIZE = 256
RAY_SETTINGS = ("ray_address", "ray_actors", "ray_cpus", "ray_gpus")
"""Settings of `extract` that go with `--executor ray`."""
PREDICT_SETTINGS = (
    "weights",
    "detector_weights",
    "device",
    "engine",
    "decoder",
    "batch_size",
    "workers",
    "timeout",
    "video_column",
    "executor",
    *RAY_SETTINGS,
)
"""Settings of `extract` that `predict` has too. The others change features; `predict` takes them from the run."""
EXPLAIN_SETTINGS = ("weights", "device", "decoder", "workers", "timeout", "video_column")
"""Settings of `extract` that `explain` has too."""
FINETUNE_SETTINGS = ("weights", "decoder", "workers", "timeout", "video_column")
"""Settings of `extract` that `finetune` has too."""
SEARCH_SETTINGS = ("weights", "detector_weights", "device", "engine", "decoder", "batch_size", "workers", "timeout")
"""Settings of `extract` that `search similar` has too."""
DUPLICATES_SETTINGS = ("executor", "ray_address")
"""Settings of `extract` that `search duplicates` has too."""


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are sampled; `vidpipe.video.sampling` has the rules."""

    method: str
    num_frames: int | None = None
    """Frames of the video (uniform), of each scene (scene), or at most of the key frames (keyframe)."""
    fps: float | None = None
    """Frames per second (fps)."""
    clip_seconds: float | None = None
    """`num_frames` are of every clip of this length, not of the whole video (uniform)."""

    def as_dict(self) -> dict[str, Any]:
        """Return the method and its parameter, as in a feature store's key."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def __str__(self) -> str:
        parameter = f"{self.fps:g} fps" if self.method == "fps" else f"{self.num_frames} frames"
        if self.method == "fps":
            return parameter
        if self.method == "keyframe":
            return f"up to {self.num_frames} key frames"
        each = "" if self.clip_seconds is None else f" every {self.clip_seconds:g} s"
        return f"{self.method}, {parameter}{' a scene' * (self.method == 'scene')}{each}"


@dataclass(frozen=True)
class Decoding:
    """How frames are decoded, as far as it changes their pixels."""

    fast_decode: str = "off"
    """One of `vidpipe.video.container.FAST_DECODE`."""
    decoder: str = "pyav"
    """`nvdec`, or `pyav` for those with the same pixels as PyAV."""

    def as_dict(self) -> dict[str, str] | None:
        """Return what differs from exact decoding, as in a feature store's key; None where nothing does."""
        return {name: value for name, value in vars(self).items() if value != getattr(EXACT_DECODING, name)} or None


EXACT_DECODING = Decoding()


@dataclass(frozen=True)
class ExtractConfig(Config):
    """Settings of `vidpipe extract`."""

    sampling: str = setting(
        "uniform",
        "Which frames to sample. keyframe: of the frames that the file stores as key frames, which decode fastest.",
        choices=("uniform", "fps", "scene", "keyframe"),
    )
    num_frames: int | None = setting(
        None,
        "Frames of each video (uniform; default 16), of each scene (scene; default 4), or at most of the key frames "
        "(keyframe; default 16).",
        low=1,
    )
    fps: float | None = setting(None, "Frames to sample per second of video (fps; default 2).", low=0, above=True)
    clip_seconds: float | None = setting(
        None,
        "Take --num-frames of every CLIP_SECONDS of a video, not of the whole video: a long video is sampled as "
        "clips of this length would be (uniform). For timelines.",
        low=0,
        above=True,
    )
    backbone: str = setting(
        "resnet50",
        "Frozen model, one or more of: a name that `vidpipe backbones` lists, timm/NAME, torchvision/NAME, "
        "transformers/NAME. Each video is decoded once for all of them.",
        several=True,
    )
    weights: str = setting(
        "default", "`default`, `random` (for tests, and to train from scratch), or a .pth, .pt or .safetensors file."
    )
    pool: str = setting(
        "auto",
        "How to pool the model's output into one feature. Convolutional networks: avg or max over the last feature "
        "map. Transformers: token (the class token), tokens (mean of the patch tokens) or attention. auto: what the "
        "weights were trained for.",
        choices=("auto", "avg", "max", "token", "tokens", "attention", "none"),
    )
    crop: str = setting(
        "centre",
        "What an image model sees of a frame: the centre crop that its weights were trained with, or the whole picture "
        "at the same size.",
        choices=("centre", "whole"),
    )
    input_size: int | None = setting(
        None,
        "Pixels of the shorter side of what a network sees. Fewer are faster. [default: as its weights were trained]",
        low=16,
        high=2048,
    )
    grid: int = setting(
        1,
        "Also pool each of GRID × GRID cells of the picture (image models with a feature map; head: attention).",
        low=1,
        high=7,
    )
    window_stride: float | None = setting(
        None,
        "Video models: a window of frames at each WINDOW_STRIDE seconds of video, in place of one around each sampled "
        "frame.",
        low=0.01,
    )
    regions: str = setting(
        "whole",
        "What the backbone sees of each frame. people: a box around all people of the video. tracks: a box around each "
        "person, who has a feature sequence of their own. mask: people alone; all else is painted over. background: "
        "all but people, who are painted over. faces: a box around each face, by person as for tracks.",
        choices=("whole", "people", "tracks", "mask", "background", "faces"),
    )
    detector: str | None = setting(
        None,
        "Detector of people (--regions, --backbone pose), a name that `vidpipe backbones --kind detector` lists. "
        "[default: fasterrcnn_mobilenet for people and tracks, deeplab_mobilenet for mask and background, mtcnn for "
        "faces, keypointrcnn for pose]",
    )
    detector_weights: str = setting(
        "default",
        "Weights of the detector: `default`, `random` (for tests), or a .pth, .pt, .safetensors or .onnx file; for "
        "mtcnn a folder with its three files, or facenet-pytorch's wheel.",
    )
    refine: str = setting(
        "none",
        "Refine masks of people (--regions mask and background). crf: fit them to the edges of the frame, with a fully "
        "connected conditional random field.",
        choices=("none", "crf"),
    )
    pose_size: int = setting(
        DEFAULT_POSE_SIZE,
        "Pixels of the longer side of the frames in which movenet looks for key points (--backbone pose). Small people "
        "need more; the time grows with the square.",
        low=64,
        high=1280,
    )
    dtype: str = setting("float32", "Type of the stored features.", choices=("float32", "float16"))
    device: str = setting("auto", "Device that runs the image model.", choices=("auto", "cpu", "cuda"))
    engine: str = setting(
        "auto",
        "Library that runs the image model. auto: ONNX Runtime for convolutional networks on a CPU, otherwise torch.",
        choices=("auto", "torch", "onnx"),
    )
    decoder: str = setting(
        DEFAULT_DECODER,
        "Preferred decoder. pyav and decord give the same frames. nvdec decodes on an NVIDIA GPU (pip install "
        "'vidpipe[nvdec]'), and its pixels differ slightly.",
        choices=("pyav", "decord", "nvdec"),
    )
    fast_decode: str = setting(
        "off",
        "Skip the loop filter of H.264, HEVC, VP8 and VP9, which smooths the edges of blocks. nonref: in frames that "
        "no other frame refers to. all: in all frames; the error grows until the next key frame. Changes features.",
        choices=("off", "nonref", "all"),
    )
    precision: str = setting(
        "full",
        "Arithmetic precision of the image model. half is for GPUs, and changes features by up to 1 %.",
        choices=("full", "half"),
    )
    cuda_graphs: bool = setting(
        False,
        "On a GPU, launch all kernels of the image model at once, as a CUDA graph, where that is measured to be "
        "faster.",
    )
    batch_size: int | None = setting(
        None, "Frames in a batch of the image model (default 8 on a CPU, 64 on a GPU).", low=1
    )
    workers: int = setting(0, "Number of decoding processes; 0 chooses it from the cores and the device.", low=0)
    timeout: float = setting(
        120.0, "Time limit in seconds for decoding one chunk of a video (128 packets or frames).", low=0, above=True
    )
    seal_videos: int = setting(256, "Seal a shard after this number of videos, the most that a crash can lose.", low=1)
    seal_seconds: float = setting(60.0, "Seal a shard after this number of seconds, if that comes first.", low=0)
    executor: str = setting(
        "local",
        "What does the work: this machine, or the nodes of a Ray cluster, which share the folders of videos and store "
        "(pip install 'vidpipe[ray]').",
        choices=("local", "ray"),
    )
    ray_address: str | None = setting(
        None,
        "Ray cluster to use: HOST:PORT, or auto for the one that this machine belongs to. [default: RAY_ADDRESS; "
        "without it, a Ray of its own on this machine]",
    )
    ray_actors: int | None = setting(
        None, "Number of actors, the processes of Ray that extract. [default: as many as fit]", low=1
    )
    ray_cpus: int | None = setting(
        None,
        "Cores of an actor. [default: 4, or those of the smallest node; with GPUs, a GPU's share of its node]",
        low=1,
    )
    ray_gpus: float | None = setting(
        None, "GPUs of an actor; 0.5: two actors share one. [default: 1 where nodes have GPUs]", low=0
    )
    video_column: str | None = setting(
        None,
        "Column of an INPUT's CSV with the videos. Default: `video`, or a common name such as filename or path.",
        metavar="COLUMN",
    )

    @staticmethod
    def check_together(values: Mapping[str, Any]) -> None:
        sampling = values.get("sampling", "uniform" if "fps" not in values else "fps")
        if values.get("fps") is not None and sampling != "fps":
            raise UsageError(f"--fps goes with --sampling fps, not with --sampling {sampling}")
        if values.get("num_frames") is not None and sampling == "fps":
            raise UsageError(
                "--num-frames goes with --sampling uniform, scene or keyframe; with --sampling fps, give --fps"
            )
        if values.get("clip_seconds") is not None and sampling != "uniform":
            raise UsageError(f"--clip-seconds goes with --sampling uniform, not with --sampling {sampling}")
        _check_key_frames(values, sampling)
        if values.get("fast_decode", "off") != "off" and values.get("decoder", DEFAULT_DECODER) != "pyav":
            raise UsageError(f"--fast-decode goes with --decoder pyav, not with --decoder {values['decoder']}")
        has_pose = "pose" in str(values.get("backbone", "")).split(",")
        if values.get("detector") is not None and values.get("regions", "whole") == "whole" and not has_pose:
            raise UsageError(
                "--detector goes with --regions people, tracks, faces, mask or background, or with --backbone pose; "
                "give one of them"
            )
        if "facenet" in str(values.get("backbone", "")).split(",") and values.get("regions", "faces") != "faces":
            raise UsageError("--backbone facenet sees faces alone, and not whole pictures; add --regions faces")
        if values.get("refine", "none") != "none" and values.get("regions", "whole") not in ("mask", "background"):
            raise UsageError("--refine goes with --regions mask or background; give one of them")
        if values.get("pose_size", DEFAULT_POSE_SIZE) != DEFAULT_POSE_SIZE and not has_pose:
            raise UsageError("--pose-size goes with --backbone pose")
        given = [name for name in RAY_SETTINGS if values.get(name) is not None]
        if given and values.get("executor", "local") != "ray":
            raise UsageError(f"--{given[0].replace('_', '-')} goes with --executor ray")

    @staticmethod
    def replaced(from_file: Mapping[str, Any], given: Mapping[str, Any]) -> set[str]:
        sampling = given.get("sampling")
        if sampling is None or sampling == from_file.get("sampling"):
            return set()
        if "sampling" in from_file:
            return {"num_frames", "fps", "clip_seconds"}
        return {"num_frames", "clip_seconds"} if sampling == "fps" else {"fps"}

    @property
    def backbones(self) -> tuple[str, ...]:
        """The names in `backbone`."""
        return tuple(self.backbone.split(","))

    @property
    def decoding(self) -> Decoding:
        """The settings of the decoder that change pixels."""
        return Decoding(self.fast_decode, "nvdec" if self.decoder == "nvdec" else "pyav")

    def resolve_sampling(self) -> Sampling:
        """Return the sampling method with its parameter, or the parameter's default."""
        if self.sampling == "fps":
            return Sampling("fps", fps=self.fps or DEFAULT_FPS)
        num_frames = self.num_frames or DEFAULT_NUM_FRAMES[self.sampling]
        return Sampling(self.sampling, num_frames=num_frames, clip_seconds=self.clip_seconds)


def _check_key_frames(values: Mapping[str, Any], sampling: str) -> None:
    """Refuse what needs the frames between key frames."""
    if sampling != "keyframe":
        return
    if values.get("window_stride") is not None:
        raise UsageError(
            "--window-stride takes windows of neighbouring frames, and --sampling keyframe decodes key frames alone; "
            "leave one of them out"
        )
    if values.get("regions", "whole") in ("people", "tracks", "faces"):
        raise UsageError(
            f"--regions {values['regions']} looks for people between the key frames, too; use --sampling uniform or "
            "fps, or --regions mask or background"
        )
