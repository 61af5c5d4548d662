"""The folder of a video's explanation.

DIR/walk/a.mp4/
  contact.png        the rows with their heat maps and shares
  heat.mp4           the video with the heat maps over it; heat.mkv where MP4 cannot hold its sound
  explanation.json   the numbers
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from vidpipe.errors import UsageError, VidpipeError, first_few
from vidpipe.explain.contact import contact_sheet
from vidpipe.explain.explanation import ExplainedVideo
from vidpipe.explain.heat_video import write_heat_video
from vidpipe.explain.pictures import write_png
from vidpipe.video.drawn_copy import copy_suffix

__all__ = ["check_folders", "write_explanation"]

_CONTACT, _NUMBERS = "contact.png", "explanation.json"


def check_folders(folder: Path, video_ids: Sequence[str]) -> None:
    """Check that no video has an explanation in a folder yet.

    Args:
        folder: the folder of all explanations.
        video_ids: the videos.

    Raises:
        UsageError: one has.
    """
    existing = [str(folder / video_id) for video_id in video_ids if (folder / video_id / _NUMBERS).exists()]
    if existing:
        raise UsageError(
            f"{first_few(existing)}: holds an explanation; choose another folder, or give --overwrite to replace it"
        )


def write_explanation(explained: ExplainedVideo, folder: Path, *, video: bool = True) -> Path:
    """Write the explanation of a video; the numbers last, so that they are there only where all is.

    Args:
        explained: the video.
        folder: the folder of all explanations.
        video: also write the copy with heat maps.

    Returns:
        The folder of this explanation.

    Raises:
        VideoError: the video cannot be read any more.
        VidpipeError: a file cannot be written.
    """
    own = folder / explained.video.id
    try:
        own.mkdir(parents=True, exist_ok=True)
        (own / _NUMBERS).unlink(missing_ok=True)
        write_png(contact_sheet(explained), own / _CONTACT)
        if video:
            write_heat_video(explained, own / f"heat{copy_suffix(explained.video.path)}")
        aside = own / f".{_NUMBERS}.partial"
        aside.write_text(json.dumps(explained.as_dict(), indent=1) + "\n", encoding="utf-8")
        os.replace(aside, own / _NUMBERS)
    except OSError as error:
        raise VidpipeError(f"{own}: cannot be written ({error.strerror}); choose another folder") from error
    return own
