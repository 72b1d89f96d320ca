"""The notebooks that train use a GPU: each one runs whole on a pretended one.

Which those are, the chapters say: they ask `torch.cuda.is_available()`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bookkit.book import Book
from helpers import SOURCE

ROOT = SOURCE.parent
# whole runs train for minutes; this one moves a few batches by hand
BY_HAND = {"training"}
ASKING = {
    chapter.name
    for chapter in Book(ROOT).chapters
    if "torch.cuda.is_available()" in chapter.text
}


def test_all_chapters_that_train_models_ask_for_a_gpu():
    assert ASKING >= {"translation", "gpt", "bert", "vit", "moe"}


@pytest.mark.parametrize("name", sorted(ASKING - BY_HAND))
def test_a_chapter_runs_on_a_gpu(name):
    """In a fresh interpreter: a chapter sets threads, seeds and styles."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "chapter_on_gpu.py", name],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
        # one thread, as the chapters are run: others would only wait
        env={
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr
