# Written in chapters/tokenization.md; edit it there, then run make export.
"""Small files that say when they are damaged: JSON with a checksum."""

import hashlib
import json
import os
from pathlib import Path

__all__ = ["read_checked", "write_checked"]


def write_checked(path: str | Path, form: str, content: dict) -> None:
    """JSON with a checksum of its content; complete, or not there at all."""
    content = {"format": form, **content}
    draft = Path(f"{path}.part")
    checked = {"sha256": _checksum(content), **content}
    draft.write_text(json.dumps(checked), encoding="utf-8")
    os.replace(draft, path)


def read_checked(path: str | Path, form: str) -> dict:
    """The content that `write_checked` wrote.

    Raises:
        ValueError: cut short, changed, or of another format.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # JSON's, and UTF-8's
        raise ValueError(f"{path}: cut short or damaged: {error}.") from None
    if not isinstance(content, dict) or content.get("format") != form:
        raise ValueError(f"{path}: this is no file of the format {form!r}.")
    if content.pop("sha256", None) != _checksum(content):
        raise ValueError(
            f"{path}: its checksum is not that of its content. It was changed "
            "after it was saved; save it again."
        )
    del content["format"]
    return content


def _checksum(content: dict) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
