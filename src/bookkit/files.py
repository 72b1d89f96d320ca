"""Writing files so that an interruption or a full disk loses nothing."""

import errno
import os
import tempfile
from pathlib import Path

from bookkit.book import BookError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a temporary file beside `path`, then rename it over `path`.

    A reader sees the whole old file or the whole new one, never a half.

    Raises:
        BookError: the disk is full, or the place cannot be written. The old
            file is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            prefix=f".{path.name}.", dir=path.parent
        )
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; the mode that open() would give is
        # the usual one less the umask
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BookError(
                f"{path}: the disk is full; the old file is unchanged. "
                "Free some space and run the command again."
            ) from error
        raise BookError(
            f"{path}: cannot be written ({error.strerror}); "
            "the old file is unchanged."
        ) from error
    except BaseException:  # an interruption leaves no litter behind
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise
