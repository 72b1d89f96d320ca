"""Images from packages: the right pixels, in the right order, offline."""

import socket

import numpy as np
import pytest
import torch

from litformer.images import PHOTOGRAPHS, digits, normalise, photograph


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_digits_are_those_of_scikit_learn(no_network):
    from sklearn.datasets import load_digits

    images, labels = digits()
    theirs = load_digits()
    assert images.shape == (1797, 1, 8, 8)
    assert np.array_equal(images[:, 0].numpy() * 16, theirs.images)
    assert np.array_equal(labels.numpy(), theirs.target)
    images.zero_()  # the next caller gets a copy of its own
    assert digits()[0].max() == 1


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_are_there_without_a_network(name, no_network):
    image = photograph(name)
    assert image.shape[0] == 3
    assert min(image.shape[1:]) >= 300
    assert 0 <= image.min() < 0.2 < 0.8 < image.max() <= 1


def test_channels_are_red_green_blue():
    red, green, blue = photograph("astronaut")[:, 350, 130]  # an orange suit
    assert red > green > blue


@pytest.mark.parametrize("size", [(224, 224), (56, 140), (140, 56)])
def test_a_size_is_met_exactly(size):
    image = photograph("chelsea", size)
    assert image.shape == (3, *size)
    assert 0 <= image.min() <= image.max() <= 1


def test_the_cut_is_about_the_centre():
    """300 x 451 pixels: at half the size, 38 or 37 columns go on each side."""
    image = photograph("chelsea", (150, 150))
    whole = photograph("chelsea", (150, 226))
    torch.testing.assert_close(image, whole[:, :, 38:188])


def test_normalised_channels():
    flat = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None]
    assert normalise(flat.expand(1, 3, 2, 2)).abs().max() < 1e-6
    step = torch.tensor([0.229, 0.224, 0.225])[None, :, None, None]
    torch.testing.assert_close(normalise(flat + step), torch.ones(1, 3, 1, 1))


def test_messages(unchecked):
    with pytest.raises(ValueError, match="no 'dog'. There are: astronaut"):
        photograph("dog")
    with pytest.raises(ValueError, match=r"positive, got \(0, 5\)"):
        photograph("coffee", (0, 5))
    with pytest.raises(ValueError, match=r"C=3.*got \(2, 1, 4, 4\).*repeat"):
        normalise(torch.zeros(2, 1, 4, 4))
