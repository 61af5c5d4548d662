"""The JSON Schemas of docs/output.md."""

import json
import re
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

DOCUMENT = (Path(__file__).parents[1] / "docs/output.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^## `vidpipe (.*?)`\n.*?^```json schema\n(.*?)^```\n\n^```json example\n(.*?)^```", re.M | re.S)
SECTIONS = {title: (json.loads(schema), example) for title, schema, example in SECTION.findall(DOCUMENT)}


def problems(title: str, document: Any) -> list[str]:
    """What of a document its section of docs/output.md does not allow."""
    return [error.message for error in Draft202012Validator(SECTIONS[title][0]).iter_errors(document)]
