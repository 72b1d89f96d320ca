"""What the tests of several modules need."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import litformer

SOURCE = Path(litformer.__file__).parents[1]


def refused(error, message, function, *args, **kwargs):
    """`function` raises `error`, and says exactly `message`."""
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    assert str(caught.value) == message


def runs_apart(script):
    """The script runs to its end in a fresh interpreter.

    There the annotations are not enforced: the import hook that does it here
    would break a compiled graph.
    """
    script = textwrap.dedent(script) + "\nprint('to the end')"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "to the end"
