// Small helps; every page reads well without them.
"use strict";
(() => {
  // A box that scrolls must be reachable by keyboard, one that does not
  // should not cost a press of Tab.
  const boxes = document.querySelectorAll(
    ".bd-article pre, .katex-display, .cell_output .text_html, .hero-code pre",
  );
  const mark = () => {
    for (const box of boxes) {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  mark();
  addEventListener("load", mark);
  addEventListener("resize", mark);
  for (const details of document.querySelectorAll(".bd-article details"))
    details.addEventListener("toggle", mark);
})();
