# Written in chapters/training.md; edit it there, then run make export.
"""Sealed folders: tensors and facts on disk, whole or not at all.

A folder holds safetensors files and manifest.json, which has the facts, and
the size, the checksum and the shapes of every file. No pickle. A new folder
replaces an old one by renaming, so that a kill leaves one of them whole.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["CheckpointError", "describe", "read_sealed", "write_sealed"]


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written, with the reason."""


def describe(tensor: Tensor) -> str:
    """`float32 (3, 4)`: what two tensors must share to be exchanged."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _with_seal(body: dict) -> bytes:
    """The manifest's text: its body under the body's own checksum."""
    seal = hashlib.sha256(json.dumps(body, indent=1).encode()).hexdigest()
    return json.dumps({"seal": seal, **body}, indent=1).encode()


def _write_tensors(file: Path, tensors: dict[str, Tensor]) -> dict:
    """Write one file to the disk; return what the manifest says of it."""
    save_file({n: t.contiguous() for n, t in tensors.items()}, file)
    with file.open("rb+") as written:
        os.fsync(written.fileno())  # on the disk, not on its way there
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return dict(
        bytes=file.stat().st_size,
        sha256=digest,
        tensors={name: describe(t) for name, t in tensors.items()},
    )


def _beside(path: Path) -> tuple[Path, Path]:
    """Where a new folder grows, and where an old one waits."""
    part = path.with_name(path.name + ".part")
    return part, path.with_name(path.name + ".previous")


def write_sealed(
    path: Path, files: dict[str, dict[str, Tensor]], facts: dict
) -> None:
    """Write files of tensors and the facts; replace what stood there.

    Raises:
        CheckpointError: `path` is a file, or holds what is not ours.
    """
    known = {*files, "manifest.json"}
    if path.is_file():
        raise CheckpointError(f"{path} is a file. A checkpoint is a folder.")
    for entry in path.iterdir() if path.exists() else ():
        if entry.name not in known:
            raise CheckpointError(
                f"{path} holds {entry.name}, which is no part of a "
                "checkpoint and would be lost. Name a folder of its own."
            )
    part, previous = _beside(path)
    shutil.rmtree(part, ignore_errors=True)  # of a save that was killed
    part.mkdir(parents=True)
    wrote = {n: _write_tensors(part / n, t) for n, t in files.items()}
    with (part / "manifest.json").open("wb") as out:
        out.write(_with_seal({**facts, "files": wrote}))
        out.flush()
        os.fsync(out.fileno())
    if path.exists():
        shutil.rmtree(previous, ignore_errors=True)
        path.rename(previous)  # until the next line, `previous` is the whole
    part.rename(path)
    shutil.rmtree(previous, ignore_errors=True)


def _manifest(folder: Path) -> dict:
    """The manifest of a folder, if it is as it was written."""
    file = folder / "manifest.json"
    if not file.is_file():
        missing = file if folder.exists() else folder
        raise CheckpointError(f"{missing} does not exist.")
    data = file.read_bytes()
    try:
        body = json.loads(data)
        body.pop("seal")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{file} is no manifest ({error}). Was it cut off, or written by "
            "something else?"
        ) from None
    if _with_seal(body) != data:
        raise CheckpointError(f"{file} was changed: its checksum differs.")
    return body


def read_sealed(
    path: Path,
) -> tuple[dict[str, dict[str, Tensor]], dict]:
    """The tensors of each file, and the facts, verified to the last bit.

    Raises:
        CheckpointError: missing, cut off, or changed; it says which file.
    """
    _, previous = _beside(path)
    folder = path if path.exists() or not previous.exists() else previous
    facts = _manifest(folder)
    files = {}
    for name, said in facts.pop("files").items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing.")
        if (size := file.stat().st_size) != said["bytes"]:
            raise CheckpointError(
                f"{file} has {size} bytes, its manifest says {said['bytes']}: "
                "it was cut off or replaced."
            )
        with file.open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        if digest != said["sha256"]:
            raise CheckpointError(f"{file} is corrupt: its checksum differs.")
        files[name] = load_file(file)
    return files, facts
