"""The frames that fine-tuning learns from: decoded once, resized, and kept as one file a video.

    CACHE/
      HASH/                       of what the frames depend on: sampling, size, window
        view.json                 that, in words
        ID.safetensors            a video: pictures (P, 3, h, w) uint8, its rows, and which pictures make them
        features-HASH/            a feature store: what the frozen backbone computes of them

A file is written aside and renamed, so that each is complete or not there: a killed caching continues with the videos
that are missing. Files are mapped into memory, so an epoch reads what it needs and the system keeps what fits.

The pictures are as large as the weights' preprocessing resizes frames to: its centre crop is what the backbone sees in
an extraction, and other crops have room around it.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.spec import BackboneSpec
from vidpipe.config import EXACT_DECODING, Decoding, ExtractConfig, Sampling
from vidpipe.errors import InputError, UsageError, count_of
from vidpipe.records import (
    FramePlan,
    Preprocessing,
    Rows,
    VideoFailure,
    VideoFile,
    VideoInfo,
)
from vidpipe.video.sampling import uniform_indices
from vidpipe.video.view import View
from vidpipe.video.whole import decode_whole

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CachedClip", "FrameCache", "centre_offset", "match_videos", "roomy", "segment_starts"]

_STREAM = "frames"
_ROW_ARRAYS = ("pts_seconds", "frame_index", "scene_index", "start_seconds", "stop_seconds", "num_repeated")
_UNKNOWN_FRAMES = 64
"""An estimate of a video's frames, for samplings that do not fix their number."""
GB = 1e9


def roomy(preprocessing: Preprocessing) -> Preprocessing:
    """Return a preprocessing that crops less, so that other crops than the centre have room.

    Args:
        preprocessing: of a backbone.

    Returns:
        The same resizing. The crop is larger by a multiple of four pixels, so that the centre of the larger crop is,
        to the pixel, the crop of the frame.
    """
    if not isinstance(preprocessing.resize, int):
        return replace(preprocessing, crop=preprocessing.resize)
    height, width = preprocessing.size
    room = max(0, 4 * ((preprocessing.resize - max(height, width)) // 4))
    return replace(preprocessing, crop=(height + room, width + room))


def centre_offset(preprocessing: Preprocessing) -> tuple[int, int]:
    """Return where the centre crop starts in the pictures of `roomy`: rows from the top, columns from the left."""
    (height, width), (crop_height, crop_width) = roomy(preprocessing).size, preprocessing.size
    return round((height - crop_height) / 2.0), round((width - crop_width) / 2.0)


def segment_starts(frame_index: NDArray[np.int64], num_frames_in_video: int, num_segments: int) -> NDArray[np.int64]:
    """Return where each segment of a video starts among its cached frames.

        F = 9, N = 3        frames 0 1 2 | 3 4 5 | 6 7 8
        cached 1, 4, 5, 7   starts 0, 1, 3 and the end, 4

    Args:
        frame_index: (P,) the cached frames, increasing.
        num_frames_in_video: F.
        num_segments: N, of equal length.

    Returns:
        (N + 1,) positions among the P frames.
    """
    segment = (2 * frame_index + 1) * num_segments // (2 * num_frames_in_video)  # (P,)
    return np.searchsorted(segment, np.arange(num_segments + 1)).astype(np.int64)


@dataclass(frozen=True)
class CachedClip:
    """The frames of one video."""

    pictures: "Tensor"
    """(P, 3, h, w) uint8, mapped from a file."""
    rows: Rows
    """T rows, those of an extraction."""
    row_pictures: NDArray[np.int64]
    """(T,) or (T, W) the pictures of each row, as an extraction sees them."""
    starts: NDArray[np.int64] | None
    """(T + 1,) from where to where among the pictures a row may take another one; None where it has only its own."""
    info: VideoInfo

    def draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return pictures for the rows: one at random of each segment (TSN, Wang et al. 2016), else their own."""
        if self.starts is None:
            return self.row_pictures
        return rng.integers(self.starts[:-1], self.starts[1:])


class FrameCache:
    """The frames of the videos of a fine-tuning, in a folder.

    Args:
        folder: of the cache; `fill` makes it if it does not exist.
        spec: the backbone, with the preprocessing and the window of the run.
        sampling: of the run.
        frames_per_segment: frames to keep of each part of a video, an odd number; more than one goes with uniform
            sampling of single frames only, and is 1 with others.
        decoding: how the run's frames were decoded.
    """

    def __init__(
        self,
        folder: Path,
        spec: BackboneSpec,
        sampling: Sampling,
        *,
        frames_per_segment: int,
        decoding: Decoding = EXACT_DECODING,
    ) -> None:
        self._sampling, self._spec, self._decoding = sampling, spec, decoding
        has_segments = sampling.method == "uniform" and sampling.clip_seconds is None and spec.window is None
        self.frames_per_segment = frames_per_segment if has_segments else 1
        dense = sampling
        if has_segments and sampling.num_frames is not None:
            dense = replace(sampling, num_frames=sampling.num_frames * self.frames_per_segment)
        self._view = View(dense, roomy(spec.preprocessing), spec.window)
        about = {
            "sampling": dense.as_dict(),
            "rows": sampling.as_dict(),
            "preprocessing": roomy(spec.preprocessing).as_dict(),
            "window": None if spec.window is None else dict(spec.window.as_dict()),
            "decoding": decoding.as_dict(),
        }
        self._about = json.dumps(about, sort_keys=True)
        self.root, self.path = folder, folder / sha256(self._about.encode()).hexdigest()[:12]

    def fill(
        self, videos: Sequence[VideoFile], *, max_gb: float, config: ExtractConfig, on_video: Callable[[int, int], None]
    ) -> None:
        """Decode the videos that the cache lacks, or has another version of.

        Args:
            videos: the files.
            max_gb: the largest size of the frames of all videos.
            config: how to decode.
            on_video: called after each video with how many are done, and of how many.

        Raises:
            UsageError: the frames need more space than allowed, or than there is, or the folder cannot be written.
            InputError: a video cannot be decoded.
        """
        lacking = [video for video in videos if not self._holds(video)]
        if not lacking:
            return
        self._make_folder()
        self._check_space(len(lacking), len(videos), max_gb)
        decoded = decode_whole(lacking, {_STREAM: self._view}, decoding=self._decoding, config=config)
        for num_done, one in enumerate(decoded, start=1):
            if isinstance(one, VideoFailure):
                raise InputError(
                    f"{one.video_id}: cannot be decoded ({one.message}); train the run again without this video"
                )
            self._write(one.video, one.plan.streams[_STREAM], one.info, one.pictures[_STREAM])
            on_video(num_done, len(lacking))

    def open(self, video: VideoFile) -> CachedClip:
        """Return the frames of a video that is in the cache."""
        from safetensors import safe_open

        with safe_open(self._path(video.id), "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            info = VideoInfo(**json.loads(opened.metadata()["info"]))
        arrays = {name: tensors[name].numpy() for name in _ROW_ARRAYS if name in tensors}
        starts = tensors["starts"].numpy() if "starts" in tensors else None
        return CachedClip(tensors["pictures"], Rows(**arrays), tensors["row_pictures"].numpy(), starts, info)

    def remove(self) -> None:
        """Remove the whole cache."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _make_folder(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "view.json").write_text(self._about + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"{self.root}: frames cannot be kept here ({error}); --cache names another folder"
            ) from error

    def _path(self, video_id: str) -> Path:
        return self.path / f"{sha256(video_id.encode('utf-8', 'surrogateescape')).hexdigest()[:20]}.safetensors"

    def _holds(self, video: VideoFile) -> bool:
        """Whether the cache has the frames of this version of a file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path(video.id), "pt") as opened:
                info = json.loads(opened.metadata()["info"])
        except (OSError, SafetensorError):
            return False
        stat = video.path.stat()
        return bool((info["size_bytes"], info["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns))

    def _check_space(self, num_lacking: int, num_videos: int, max_gb: float) -> None:
        height, width = self._view.preprocessing.size
        frames = (self._view.sampling.num_frames or _UNKNOWN_FRAMES) * (
            self._spec.window.num_frames if self._spec.window else 1
        )
        video_gb = frames * 3 * height * width / GB
        free_gb = shutil.disk_usage(self.path).free / GB
        what = f"the frames of {count_of(num_videos, 'video')} need about {num_videos * video_gb:.1f} GB"
        fewer = (
            f"--frames-per-segment 1 needs {num_videos * video_gb / self.frames_per_segment:.1f} GB"
            if self.frames_per_segment > 1
            else "a run with a smaller --num-frames needs less"
        )
        if num_videos * video_gb > max_gb:
            raise UsageError(f"{what}, and --cache-gb allows {max_gb:g}; {fewer}")
        if num_lacking * video_gb > free_gb:
            raise UsageError(
                f"{what}, and {self.path} has {free_gb:.1f} GB free; {fewer}; --cache names another folder"
            )

    def _write(self, video: VideoFile, plan: FramePlan, info: VideoInfo, pictures: NDArray[np.uint8]) -> None:
        from safetensors.numpy import save

        rows, row_pictures, starts = self._rows(plan, info)
        arrays: dict[str, NDArray[Any]] = {"pictures": pictures, "row_pictures": row_pictures}
        arrays |= {} if starts is None else {"starts": starts}
        arrays |= {name: its for name in _ROW_ARRAYS if (its := getattr(rows, name)) is not None}
        path = self._path(video.id)
        aside = path.with_suffix(".partial")
        content = save(
            {name: np.ascontiguousarray(its) for name, its in arrays.items()}, {"info": json.dumps(asdict(info))}
        )
        aside.write_bytes(content)
        aside.replace(path)

    def _rows(self, plan: FramePlan, info: VideoInfo) -> tuple[Rows, NDArray[np.int64], NDArray[np.int64] | None]:
        """The rows of an extraction, their pictures, and the segments where there is a choice."""
        if self.frames_per_segment == 1 or self._sampling.num_frames is None:
            own = plan.row_pictures
            return plan.rows, np.arange(len(plan.rows)) if own is None else own, None
        middle = uniform_indices(info.num_frames, self._sampling.num_frames)
        row_pictures = np.searchsorted(plan.frame_index, middle).astype(np.int64)
        starts = segment_starts(plan.frame_index, info.num_frames, len(middle))
        return plan.rows.select(row_pictures), row_pictures, starts


def match_videos(splits: Mapping[str, int], videos: Sequence[VideoFile], *, owner: str) -> list[VideoFile]:
    """Find the files of a run's videos.

    Args:
        splits: by id, the sizes of the files in bytes.
        videos: the files that there are.
        owner: the path of the run, for messages.

    Returns:
        A file for each id, in the order of `splits`.

    Raises:
        InputError: a file is missing, or has another size.
    """
    by_id = {video.id: video for video in videos}
    if missing := [video_id for video_id in splits if video_id not in by_id]:
        raise InputError(
            f"{count_of(len(missing), 'video')} of {owner} not found, such as {missing[0]}; give the folder that was "
            "given to `vidpipe extract`"
        )
    found = [by_id[video_id] for video_id in splits]
    for video in found:
        if (size := video.path.stat().st_size) != splits[video.id]:
            raise InputError(
                f"{video.path}: not the file that {owner} was trained on ({size} bytes, not {splits[video.id]}); train "
                "the run again on the new files"
            )
    return found
