"""Random affine changes: nothing at zero, exact at quarter turns, bounded."""

import math

import pytest
import torch

from litformer.augment import random_affine

B, C, H, W = 3, 2, 7, 11


def images(seed=0):
    return torch.rand(B, C, H, W, generator=torch.Generator().manual_seed(seed))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_no_change_at_zero():
    x = images()
    got = random_affine(x, degrees=0.0, shift=0.0, zoom=0.0)
    torch.testing.assert_close(got, x, atol=1e-5, rtol=1e-5)


def test_chance_comes_from_the_generator():
    x = images()
    a, b = (random_affine(x, generator=seeded(1)) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, random_affine(x, generator=seeded(2)))


def test_each_image_is_changed_by_itself():
    same = images()[:1].expand(5, -1, -1, -1)
    got = random_affine(same, generator=seeded())
    assert len({tuple(x.flatten().tolist()) for x in got}) == 5


def test_a_blob_moves_as_far_as_told():
    """The centre of a blob is drawn uniformly from the square of shifts."""
    n, side = 400, 41
    x = torch.zeros(n, 1, side, side)
    x[:, :, 18:23, 18:23] = 1
    got = random_affine(x, degrees=0.0, zoom=0.0, shift=0.2, generator=seeded())
    place = torch.arange(side).float() - 20
    mass = got.sum((1, 2, 3))
    right = (got.sum((1, 2)) * place).sum(1) / mass
    down = (got.sum((1, 3)) * place).sum(1) / mass
    for moved in (right, down):
        assert moved.abs().max() <= 0.2 * side + 0.01
        assert moved.abs().max() > 0.18 * side
        assert abs(moved.std().item() - 0.4 * side / math.sqrt(12)) < 0.5
    assert abs(torch.corrcoef(torch.stack([right, down]))[0, 1]) < 0.15


def test_a_turn_keeps_lengths_on_an_oblong_image():
    """A rotation in pixels, though the grid measures sides from -1 to 1."""
    y, x = torch.meshgrid(
        torch.arange(41.0) - 20, torch.arange(81.0) - 40, indexing="ij"
    )
    ring = torch.exp(-(((y**2 + x**2).sqrt() - 12) ** 2) / 18)
    picture = ring.expand(20, 1, -1, -1)
    got = random_affine(
        picture, degrees=90.0, shift=0.0, zoom=0.0, generator=seeded()
    )
    change = (got - picture).abs()  # a ring looks turned as before
    assert change[:, :, 5:-5].max() < 0.03


def test_zoom_changes_areas_within_its_bounds():
    x = torch.zeros(300, 1, 61, 61)
    x[:, :, 20:41, 20:41] = 1
    got = random_affine(x, degrees=0.0, shift=0.0, zoom=0.2, generator=seeded())
    side = got.sum((1, 2, 3)).sqrt() / 21
    assert 0.79 < side.min() < 0.83
    assert 1.17 < side.max() < 1.21


@pytest.mark.parametrize(
    "amounts", [dict(degrees=-1.0), dict(shift=-0.1), dict(zoom=1.0)]
)
def test_amounts_that_mean_nothing(amounts):
    with pytest.raises(ValueError, match="0 or more and zoom in"):
        random_affine(images(), **amounts)


def test_one_image_is_no_batch(unchecked):
    with pytest.raises(ValueError, match=r"\(B, C, H, W\), got \(2, 7, 11\)"):
        random_affine(images()[0])
