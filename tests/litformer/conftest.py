"""Annotations are enforced here, and can be switched off for one test."""

import pytest
from jaxtyping import config


@pytest.fixture(scope="module", autouse=True)
def _annotations_are_checked():
    config.update("jaxtyping_disable", False)
    yield
    config.update("jaxtyping_disable", True)


@pytest.fixture
def unchecked():
    """The package as users run it: bad input meets our own messages.

    With the annotations enforced, jaxtyping would speak first.
    """
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
