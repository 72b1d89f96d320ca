"""Shape annotations of litformer are checked by the tests of litformer.

The hook must be in place before anything imports the package, hence here.
It is off until `tests/litformer/conftest.py` turns it on: every other test
meets the package as its users do.
"""

from jaxtyping import config, install_import_hook

install_import_hook("litformer", "beartype.beartype")
config.update("jaxtyping_disable", True)


def pytest_addoption(parser):
    """What `bookkit test --all` asks for."""
    parser.addoption(
        "--whole",
        action="store_true",
        help="run learners' notebooks whole, trainings and all",
    )
