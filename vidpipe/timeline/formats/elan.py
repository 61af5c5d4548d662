"""ELAN's annotation files (.eaf), one for each video: https://archive.mpi.nl/tla/elan.

A class is a tier, because ELAN allows no overlap within one. An annotation's text is the label; where it is empty, the
tier's name is.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from vidpipe.errors import LabelsError, UsageError, first_few
from vidpipe.records import Segment, Timeline
from vidpipe.timeline.formats.files import read_each, write_each
from vidpipe.timeline.formats.losses import describe_losses

__all__ = ["read", "write"]

_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_MIME_TYPES = {".mp4": "video/mp4", ".mpg": "video/mpeg", ".mpeg": "video/mpeg", ".mov": "video/quicktime"}


def read(path: Path) -> list[Timeline]:
    """Read an .eaf file, or a folder of them.

    Args:
        path: the file or folder. A video's id is its file's path without `.eaf`, with the linked video's extension.

    Returns:
        A timeline for each file.

    Raises:
        LabelsError: a file is damaged, or is linked with a video of another name.
        InputError: the folder has no such files.
        UsageError: pympi-ling is not installed.
    """
    return read_each(path, ".eaf", _read_file)


def write(path: Path, timelines: Sequence[Timeline]) -> list[str]:
    """Write .eaf files.

    Args:
        path: a folder; or a file, for one video.
        timelines: what to write.

    Returns:
        Sentences about what ELAN cannot hold.

    Raises:
        UsageError: a file is given for several videos, or pympi-ling is not installed.
        VidpipeError: a file cannot be written.
    """
    write_each(path, ".eaf", timelines, _text)
    too_short = [f"{one.video_id} {_milliseconds(segment)[0]} ms" for one in timelines for segment in _too_short(one)]
    lost = f"ELAN cannot hold segments below a millisecond; left out {first_few(too_short)}"
    return [*describe_losses("ELAN", timelines, holds=("empty", "path")), *([lost] if too_short else [])]


def _pympi() -> Any:
    try:
        from pympi import Elan
    except ImportError:
        raise UsageError("ELAN files need pympi-ling, which is not installed; pip install 'vidpipe[elan]'") from None
    return Elan


def _read_file(path: Path, video_id: str) -> Timeline:
    elan = _pympi()
    try:
        document = elan.Eaf(str(path), suppress_version_warning=True)
        tiers = {name: document.get_annotation_data_for_tier(name) for name in document.get_tier_names()}
    except Exception as error:  # pympi raises bare exceptions
        raise LabelsError(f"{path}: not an ELAN file ({error}); open it in ELAN, and save it again") from error
    offset = _time_origin(document.media_descriptors)
    segments = [_segment(one, name, offset, path) for name, annotations in tiers.items() for one in annotations]
    linked = _linked_id(path, video_id, [one.get("MEDIA_URL", "") for one in document.media_descriptors])
    return Timeline(linked, tuple(sorted(segments, key=lambda one: one.start_seconds)))


def _segment(annotation: tuple[Any, ...], tier: str, offset_seconds: float, path: Path) -> Segment:
    start, stop, text = annotation[:3]
    if start is None or stop is None:
        raise LabelsError(f"{path}: tier {tier!r} has an annotation without times; align it in ELAN, or remove it")
    return Segment(start / 1000 + offset_seconds, stop / 1000 + offset_seconds, (text or "").strip() or tier)


def _time_origin(descriptors: Sequence[dict[str, str]]) -> float:
    """Where in the first medium the annotations' time 0 lies, in seconds."""
    return int(descriptors[0].get("TIME_ORIGIN", 0)) / 1000 if descriptors else 0.0


def _linked_id(path: Path, video_id: str, urls: Sequence[str]) -> str:
    """Return the id with the linked video's extension; refuse a file that is linked with another video."""
    here = PurePosixPath(video_id)
    names = [PurePosixPath(unquote(urlsplit(url).path).replace("\\", "/")).name for url in urls]
    for name in names:
        if here.name in (name, PurePosixPath(name).stem):
            return str(here.with_name(name))
    if any(names):
        raise LabelsError(
            f"{path}: linked with {first_few(names)}, but named for {here.name!r}; rename it to "
            f"{PurePosixPath(names[0]).stem}.eaf, or correct the link in ELAN (Edit > Linked Files)"
        )
    return video_id


def _text(timeline: Timeline) -> str:
    elan = _pympi()
    document = elan.Eaf(author="vidpipe")
    document.remove_tier("default")
    short = set(_too_short(timeline))
    for segment in timeline.segments:
        label = _NOT_XML.sub("?", segment.label)
        if label not in document.get_tier_names():
            document.add_tier(label)
        if segment not in short:
            document.add_annotation(label, *_milliseconds(segment), label)
    media = Path(timeline.path) if timeline.path else Path(timeline.video_id)
    url = media.resolve().as_uri() if timeline.path else timeline.video_id
    mime_type = _MIME_TYPES.get(media.suffix.lower(), "unknown")
    document.add_linked_file(url, relpath=f"./{media.name}", mimetype=mime_type)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + str(elan.to_string(document))


def _too_short(timeline: Timeline) -> list[Segment]:
    """The segments that have no length in milliseconds, or start before the video."""
    return [one for one in timeline.segments if not 0 <= _milliseconds(one)[0] < _milliseconds(one)[1]]


def _milliseconds(segment: Segment) -> tuple[int, int]:
    return round(segment.start_seconds * 1000), round(segment.stop_seconds * 1000)
