"""Shape annotations of litformer are checked by the tests of litformer.

The hook must be in place before anything imports the package, hence here.
It is off until `tests/litformer/conftest.py` turns it on: every other test
meets the package as its users do. Benchmarks have no hook at all, since it
costs time even when it is off: it wraps every function.
"""

from jaxtyping import config as checks
from jaxtyping import install_import_hook


def pytest_configure(config):
    """Before any test is imported."""
    if "bench_*.py" not in config.getini("python_files"):
        install_import_hook("litformer", "beartype.beartype")
        checks.update("jaxtyping_disable", True)


def pytest_addoption(parser):
    """What `bookkit test --all` asks for."""
    parser.addoption(
        "--whole",
        action="store_true",
        help="run learners' notebooks whole, trainings and all",
    )
