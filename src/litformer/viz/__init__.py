"""Pictures that a page can hold: one inline SVG each, with words for it.

A plot cell of a chapter is one call, `viz.show(viz.heatmap(...), alt="...")`.
Functions that draw return a matplotlib `Figure`; `show` turns any figure into
SVG whose ink is the text colour of the page, so that one picture serves light
and dark mode, JupyterLab, Colab and the site. Nothing is told by colour alone:
lines differ in marker and dash, bars in hatching, a mask is filled or empty,
and cells carry their numbers.
"""

from litformer.viz.charts import bars, lines, plane
from litformer.viz.grids import attention_rows, clocks, heatmap, mask_grid
from litformer.viz.page import INK, PALETTE, Picture, show, use_style
from litformer.viz.pictures import overlay, pictures

__all__ = [
    "INK",
    "PALETTE",
    "Picture",
    "attention_rows",
    "bars",
    "clocks",
    "heatmap",
    "lines",
    "mask_grid",
    "overlay",
    "pictures",
    "plane",
    "show",
    "use_style",
]
