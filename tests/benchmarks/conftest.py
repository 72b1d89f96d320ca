"""One thread, whatever the machine has, and a word about the machine."""

import os

import pytest
import torch

from benchmarks.harness import machine


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Ratios of one thread hold on a machine with many, and on a busy one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # theirs, in Rust
    print(f"\n{machine()}")
    yield
    torch.set_num_threads(before)
