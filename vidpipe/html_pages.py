"""HTML pages as single files, rendered by Jinja2: a page opens from disk and allows only its own style and script.

All names come from the user: Jinja2 escapes each one, and a character that cannot be seen (a change of writing
direction, a control character) is shown as its escape sequence.
"""

import base64
import hashlib
import json
from contextlib import suppress
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vidpipe.errors import VidpipeError
from vidpipe.version import __version__

__all__ = ["render_page", "script_json", "write_whole"]


def render_page(package: str, template: str, *, assets: str, **values: Any) -> str:
    """Render a template of a package's folder `templates`; it extends `page.html` of vidpipe's own.

    Args:
        package: the package, such as `vidpipe.report`.
        template: the template's file name.
        assets: name of the style and the script beside it: `report` for `report.css` and `report.js`; a page without a
            script has no `.js`.
        **values: what the template shows.

    Returns:
        The page. The template also has `style`, `script`, their hashes for a Content-Security-Policy, and
        `vidpipe_version`.
    """
    folder = files(package) / "templates"
    style, script = (_read_asset(folder / f"{assets}.{suffix}") for suffix in ("css", "js"))
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("vidpipe")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_escape_unprintable,
    )
    return environment.get_template(template).render(
        **values,
        vidpipe_version=__version__,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def script_json(value: Any) -> Markup:
    """Return JSON that stays data inside a script element, whatever texts it holds."""
    text = json.dumps(value, separators=(",", ":"))  # ASCII: also without line separators and lone surrogates
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def write_whole(page: str, path: Path, *, kind: str, error: type[VidpipeError]) -> None:
    """Write a page under another name first, so that an existing page is replaced as a whole.

    Args:
        page: the text.
        path: the file.
        kind: what the page is, for the message: `the report`.
        error: the type of error to raise.

    Raises:
        VidpipeError: of the type `error`: the page cannot be written.
    """
    target = path.resolve()
    aside = target.with_name(f".{target.name}.partial")
    try:
        if target.exists() and not target.is_file():
            raise OSError("a folder or a device is there")
        aside.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")  # a lone surrogate is no UTF-8
        aside.replace(target)
    except OSError as problem:
        with suppress(OSError):
            aside.unlink()
        raise error(
            f"{path}: {kind} cannot be written ({problem.strerror or problem}); -o names another file"
        ) from problem


def _read_asset(file: Traversable) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _hash(text: str) -> str:
    """Return the hash by which a Content-Security-Policy allows a script or a style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _escape_unprintable(value: Any) -> Any:
    """Return a text with an escape sequence for each character that cannot be seen."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in value)
