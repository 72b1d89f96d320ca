"""Pictures: words for each, one ink, and numbers that are drawn as given."""

import itertools
import math
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.path import Path

from litformer import viz
from litformer.viz import grids

ALT = 'Weights of "she": most on <Ada>.'

FIGURES = {
    "heatmap": lambda: viz.heatmap(torch.eye(3), "abc", "abc"),
    "signed heatmap": lambda: viz.heatmap(torch.randn(3, 5), signed=True),
    "mask_grid": lambda: viz.mask_grid(
        {"causal": torch.ones(4, 4).tril() > 0, "all": torch.ones(4, 4) > 0}
    ),
    "attention_rows": lambda: viz.attention_rows(
        torch.tensor([[0.9, 0.1], [0.5, 0.5]]), "ab", "ab"
    ),
    "bars": lambda: viz.bars("ab", {"x": [1, 2], "y": [3, 4]}, ylabel="loss"),
    "lines": lambda: viz.lines(
        [1, 2, 4],
        {"band": ([2, 3, 4], [1, 2, 3], [3, 4, 5]), "plain": [1, 1, 1]},
        xlabel="width",
        ylabel="entropy (nats)",
        baselines={"chance": 0.5},
    ),
    "pictures": lambda: viz.pictures(
        {"photo": torch.rand(3, 90, 70), "digit": torch.rand(1, 8, 8)}
    ),
    "plane": lambda: viz.plane(
        {"q": (1, 2)}, points={"v": (0, -1)}, paths=[[(0, 0), (1, 1)]]
    ),
}


@pytest.fixture(params=FIGURES)
def picture(request):
    torch.manual_seed(0)
    return viz.show(FIGURES[request.param](), alt=ALT)


def test_it_is_xml_with_a_name_and_no_size_of_its_own(picture):
    """Screen readers hear the words; a phone may scale the picture."""
    root = ET.fromstring(picture.svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == ALT
    assert "viewBox" in root.attrib
    assert not {"width", "height"} & set(root.attrib)
    assert repr(picture) == f"[Picture: {ALT}]"
    assert picture._repr_html_() == picture.svg


def test_ink_is_the_text_colour_of_the_page(picture):
    """Neither the stand-in colour, nor black text, nor a white ground."""
    assert "currentColor" in picture.svg
    assert viz.INK not in picture.svg
    ground = re.findall(r'id="[^"]*patch_1".*?style="([^"]*)"', picture.svg)
    assert all("fill: none" in style for style in ground)
    assert "<style" not in picture.svg  # it would style the whole page


def test_the_same_figure_gives_the_same_bytes():
    """Pages are compared and cached by their text."""
    for draw in FIGURES.values():
        torch.manual_seed(0)
        first = viz.show(draw(), alt=ALT).svg
        torch.manual_seed(0)
        assert viz.show(draw(), alt=ALT).svg == first


def test_ids_of_two_pictures_differ():
    """All pictures of a page share one name space."""
    ids = [
        set(re.findall(r'id="([^"]+)"', viz.show(fig, alt=ALT).svg))
        for fig in (
            viz.lines([0, 1], {"a": [0, 1]}, xlabel="x", ylabel="y"),
            viz.lines([0, 1], {"a": [1, 0]}, xlabel="x", ylabel="y"),
        )
    ]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_what_is_linked_is_defined(picture):
    """Renaming ids must rename their uses."""
    used = set(re.findall(r'(?:url\(#|href="#)([\w.-]+)', picture.svg))
    defined = set(re.findall(r'id="([^"]+)"', picture.svg))
    assert used <= defined


def test_heatmap_writes_its_numbers():
    """Told in digits, not by colour alone."""
    svg = viz.show(viz.heatmap(torch.tensor([[0.25, -1.5]])), alt=ALT).svg
    texts = [t.text.strip() for t in ET.fromstring(svg).iter() if t.text]
    assert "0.25" in texts
    assert any(t in texts for t in ("-1.50", "\N{MINUS SIGN}1.50"))


def test_text_on_cells_has_contrast():
    """Black on light and white on dark, at least 4.5 to 1 (WCAG AA)."""
    for red in range(0, 256, 15):
        for blue in range(0, 256, 15):
            colour = (red / 255, 0.5, blue / 255)
            ground = grids._luminance(colour)
            ink = grids._luminance(mpl.colors.to_rgb(grids._ink_on(colour)))
            light, dark = max(ground, ink), min(ground, ink)
            assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_palette_is_seen_on_light_and_dark_pages():
    """At least 3 to 1 on white and on the site's dark ground."""
    for colour in viz.PALETTE:
        y = grids._luminance(mpl.colors.to_rgb(colour))
        assert 1.05 / (y + 0.05) >= 3
        assert (y + 0.05) / (grids._luminance((0.07, 0.1, 0.11)) + 0.05) >= 3


def test_a_mask_is_drawn_cell_by_cell():
    """As many filled cells as True entries, and the rest empty."""
    mask = torch.tensor([[True, False, True], [False, False, True]])
    (ax,) = viz.mask_grid(mask).axes
    filled, empty = (len(c.get_paths()) for c in ax.collections[:2])
    assert sorted((filled, empty)) == [3, 3]


@pytest.mark.parametrize("across", [1, 2, 3, None])
def test_panels_share_the_width_of_a_page(across):
    """Many panels get smaller cells, or a phone would shrink their letters."""
    grids_by_name = {str(i): torch.ones(8, 8) > 0 for i in range(3)}
    fig = viz.mask_grid(grids_by_name, across=across)
    assert fig.get_figwidth() <= 5.2 + 1e-9


@pytest.mark.parametrize(
    ("y", "place"),
    [
        (list(range(11)), ("left", "bottom")),
        ([5.5] * 5 + [0, 10] + [0] * 4, ("right", "bottom")),
        ([5.5] * 5 + [0] * 5 + [10], ("left", "top")),
        ([5.5, 4.5, 5.5, 4.5, 0, 10, 0, *[5.5] * 4], ("right", "top")),
    ],
)
def test_the_name_of_a_level_keeps_out_of_the_way(y, place):
    """It goes to the end and the side where no curve passes."""
    fig = viz.lines(
        range(11), {"": y}, xlabel="t", ylabel="loss", baselines={"chance": 5.0}
    )
    (text,) = fig.axes[0].texts
    assert (text.get_ha(), text.get_va()) == place


def test_names_in_the_plane_keep_off_the_curves():
    """A curve that leaves a point as its name does is not written over."""
    way = [[-1.0, 1.0], [-3.0, 2.0]]
    free = viz.plane({}, points={"thanked": way[0]})
    fig = viz.plane({}, points={"thanked": way[0]}, paths=[way])
    corners = []
    for each in (free, fig):
        each.draw_without_rendering()
        (text,) = (t for t in each.axes[0].texts if t.get_text())
        corners.append((text.get_ha(), text.get_va()))
    assert corners[0] == ("right", "bottom")
    assert corners[1] != corners[0]
    curve = fig.axes[0].transData.transform(way)
    box = text.get_window_extent()
    assert not Path(curve).intersects_bbox(box, filled=False)


def test_names_in_the_plane_stay_inside():
    """A long name at the left end does not cover the numbers of the axis."""
    fig = viz.plane({"a very long name": (-2, -1), "another long one": (2, 1)})
    fig.draw_without_rendering()
    (ax,) = fig.axes
    for text in ax.texts:
        if text.get_text():
            box = text.get_window_extent()
            assert ax.bbox.x0 - 5 <= box.x0
            assert box.x1 <= ax.bbox.x1 + 5


def test_names_in_the_plane_keep_off_lines():
    """Where both diagonals of a square pass, and where two arrows end."""
    square = np.array([(0, 1), (1, 1), (1, 0), (0, 0.0)])
    points = dict(zip("abcd", square.tolist(), strict=True), middle=(0.5, 0.5))
    paths = [square[[0, 1, 2, 3, 0]], square[[0, 2]], square[[1, 3]]]
    fig = viz.plane({}, points=points, paths=paths)
    clear(fig, [np.linspace(p, q, 200) for p, q in itertools.pairwise(square)])
    clear(fig, [np.linspace(square[i], square[i + 2], 200) for i in (0, 1)])
    arrows = {"one arrow": (-1.9, -0.9), "another": (-2.2, -1.3)}
    fig = viz.plane(arrows)
    clear(fig, [np.linspace((0, 0), end, 200) for end in arrows.values()])


def clear(fig, strokes):
    """No name lies on a stroke."""
    fig.draw_without_rendering()
    (ax,) = fig.axes
    for text in ax.texts:
        if text.get_text():
            box = text.get_window_extent()
            drawn = ax.transData.transform(np.concatenate(strokes))
            assert not box.count_contains(drawn), text.get_text()


def test_numbers_fit_their_cells():
    """Long labels make the cells narrow, and the numbers smaller."""
    rows = ["a sentence of some length"] * 8
    fig = viz.heatmap(torch.full((8, 8), -0.25), rows)
    fig.draw_without_rendering()
    (ax,) = fig.axes
    boxes = [text.get_window_extent() for text in ax.texts]
    for left, right in itertools.pairwise(boxes[:8]):
        assert left.x1 < right.x0


def test_labels_of_thin_rows_do_not_touch():
    fig = viz.heatmap(torch.rand(8, 56), annotate=False)
    fig.draw_without_rendering()
    shown = [t for t in fig.axes[0].get_yticklabels() if t.get_text()]
    assert shown[0].get_text() == "0"
    boxes = [t.get_window_extent() for t in shown]
    for upper, lower in itertools.pairwise(boxes):
        assert lower.y1 < upper.y0


def test_long_labels_of_bars_are_broken():
    names = ["words in common", "the mean of all", "the first of all", "short"]
    fig = viz.bars(names, [1, 2, 3, 4], ylabel="found")
    fig.draw_without_rendering()
    labels = fig.axes[0].get_xticklabels()
    assert [t.get_text().replace("\n", " ") for t in labels] == names
    assert "\n" in labels[0].get_text()
    for left, right in itertools.pairwise(labels):
        assert left.get_window_extent().x1 < right.get_window_extent().x0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: viz.show(viz.heatmap(torch.eye(2)), alt=" "),
            ValueError,
            "show: alt is empty. Say in a sentence",
        ),
        (
            lambda: viz.heatmap(torch.zeros(1, 2, 3)),
            ValueError,
            r"two axes, got shape \(1, 2, 3\). Pick one batch and one head",
        ),
        (
            lambda: viz.heatmap(torch.zeros(2, 3), "ab", "ab"),
            ValueError,
            "has 3 columns, but 2 labels were given",
        ),
        (
            lambda: viz.mask_grid(torch.ones(2, 2)),
            TypeError,
            "mask must be bool with True = may attend, got float32",
        ),
        (
            lambda: viz.bars("ab", [1, 2, 3], ylabel="y"),
            ValueError,
            r"one height for each of the 2 labels, got shape \(3,\)",
        ),
        (
            lambda: viz.lines([1, 2], {"a": [1]}, xlabel="x", ylabel="y"),
            ValueError,
            r"'a' must have one value for each of the 2 positions",
        ),
        (
            lambda: viz.plane({"q": (1, 2, 3)}),
            ValueError,
            r"'q' must have two components, got shape \(3,\)",
        ),
        (
            lambda: viz.plane({}, paths=[[1, 2, 3]]),
            ValueError,
            r"path 0 must have shape \(n, 2\), got \(3,\)",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_style_is_the_readers_choice():
    """Drawing here changes no setting of matplotlib; use_style does."""
    with mpl.rc_context():
        before = dict(mpl.rcParams)
        viz.heatmap(torch.eye(2))
        assert dict(mpl.rcParams) == before
        viz.use_style()
        assert mpl.rcParams["axes.edgecolor"] == viz.INK


def test_clocks_point_up_at_zero_and_turn_clockwise():
    fig = viz.clocks([[0.0, math.pi / 2]], ["place"], ["slow", "fast"])
    (ax,) = fig.axes
    hands = [line for line in ax.lines if line.get_linewidth() == 2]
    (up, right) = [
        (line.get_xdata()[1] - j, line.get_ydata()[1])
        for j, line in enumerate(hands)
    ]
    assert up == pytest.approx((0, -0.34))  # the y axis points down
    assert right == pytest.approx((0.34, 0), abs=1e-9)
    texts = [t.get_text() for t in ax.get_xticklabels() + ax.get_yticklabels()]
    assert texts == ["slow", "fast", "place"]
    with pytest.raises(ValueError, match="clocks: the matrix has 1 rows, but"):
        viz.clocks([[0.0]], ["a", "b"])


def test_lines_mark_places():
    fig = viz.lines(
        [0, 1], {"a": [0, 1]}, xlabel="x", ylabel="y", marks={"here": 0.25}
    )
    (ax,) = fig.axes
    assert any(list(line.get_xdata()) == [0.25, 0.25] for line in ax.lines)
    assert "here" in [t.get_text() for t in ax.texts]


def embedded(svg):
    """(kind, image) of each image in a picture."""
    import base64
    import io

    from PIL import Image

    found = re.findall(r'href="data:image/(\w+);base64,([^"]+)"', svg)
    return [
        (kind, Image.open(io.BytesIO(base64.b64decode(code))))
        for kind, code in found
    ]


def test_photographs_are_light_and_smooth_and_digits_exact():
    """A photograph in WebP is small; eight pixels stay eight pixels."""
    y, x = torch.meshgrid(
        torch.linspace(0, 1, 224), torch.linspace(0, 1, 224), indexing="ij"
    )
    photo = torch.stack([x, y, (x * 9).sin().abs()])
    digit = torch.arange(64.0).view(8, 8) / 63
    svg = viz.show(viz.pictures({"p": photo, "d": digit}), alt=ALT).svg
    (kind, big), (other, small) = embedded(svg)
    assert (kind, big.size) == ("webp", (224, 224))
    assert (other, small.size) == ("png", (8, 8))
    assert len(svg) < 25_000
    pixels = torch.tensor(list(big.convert("RGB").tobytes())).view(224, 224, 3)
    error = (pixels.permute(2, 0, 1) / 255 - photo).abs().mean()
    assert error < 0.03
    grey = torch.tensor(list(small.convert("L").tobytes())).view(8, 8)
    assert ((1 - grey / 255) - digit).abs().max() < 0.01
    tags = re.findall(r"<image .*?>", svg)
    assert ["pixelated" in tag for tag in tags] == [False, True]


def test_a_picture_is_its_image_without_margins_of_its_own():
    """One figure cell for each image, in reading order."""
    images = {f"n{i}": torch.full((3, 80, 80), i / 6) for i in range(6)}
    fig = viz.pictures(images, across=3)
    assert [ax.get_title() for ax in fig.axes] == list(images)
    shown = [ax.images[0].get_array()[0, 0, 0] for ax in fig.axes]
    assert shown == pytest.approx([i / 6 for i in range(6)])


def test_overlay_is_bright_where_the_map_is_high():
    image = torch.full((3, 40, 60), 0.5)
    heat = torch.zeros(4, 6)
    heat[1, 4] = 1.0
    got = viz.overlay(image, heat, low=0.0, high=1.0)
    assert got.shape == (3, 40, 60)
    assert 0 <= got.min() <= got.max() <= 1
    light = got.mean(0)
    row, column = divmod(int(light.argmax()), 60)
    assert 10 <= row < 20
    assert 40 <= column < 50
    assert light[15, 45] > 2 * light[35, 5]


def test_a_map_is_stretched_as_torch_does():
    import torch.nn.functional as F

    from litformer.viz.pictures import _stretch

    grid = torch.rand(5, 7, dtype=torch.double)
    expected = F.interpolate(
        grid[None, None], size=(20, 17), mode="bilinear", align_corners=False
    )[0, 0]
    got = torch.tensor(_stretch(grid.numpy(), (20, 17)))
    torch.testing.assert_close(got, expected)


def test_pictures_refuse_what_is_no_image():
    with pytest.raises(ValueError, match=r"pictures: .*got \(2, 4, 5\).*batch"):
        viz.pictures(torch.zeros(2, 4, 5))
    with pytest.raises(ValueError, match=r"overlay: heat.*got shape \(2, 3, 3"):
        viz.overlay(torch.zeros(3, 4, 5), torch.zeros(2, 3, 3))
