"""What all pictures of explanations share: text that can be drawn, and files that are always complete."""

import os
from contextlib import suppress
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vidpipe.errors import VidpipeError
from vidpipe.version import __version__

__all__ = ["clean_text", "write_png"]


def clean_text(text: str) -> str:
    """Return a text in which a space stands for each character that cannot be drawn."""
    return "".join(one if one.isprintable() else " " for one in text)


def write_png(picture: Image.Image, out: Path) -> None:
    """Write a picture as a PNG: under another name first, so that `out` is always complete.

    Args:
        picture: what to write.
        out: the file.

    Raises:
        VidpipeError: it cannot be written.
    """
    about = PngInfo()
    about.add_text("Software", f"vidpipe {__version__}")
    aside = out.with_name(f".{out.name}.partial")
    try:
        picture.save(aside, "PNG", pnginfo=about)
        os.replace(aside, out)
    except OSError as error:
        raise VidpipeError(f"{out}: cannot be written ({error.strerror}); choose another folder") from error
    finally:
        with suppress(OSError):
            aside.unlink()
