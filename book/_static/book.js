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

  // A tip is for reading. Its links were written for the page that it was taken
  // from and lead nowhere here; and a tip that takes the focus stays open when
  // the focus goes on, so that tips pile up before who uses the keyboard.
  const plain = (instance) => {
    for (const extra of instance.popper.querySelectorAll(".headerlink, .backrefs"))
      extra.remove();
    for (const link of instance.popper.querySelectorAll("a"))
      link.replaceWith(...link.childNodes);
  };
  const tips = () => window.tippy?.setDefaultProps({ onCreate: plain });
  if (document.readyState === "loading")
    document.addEventListener("DOMContentLoaded", tips);
  else tips();
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") window.tippy?.hideAll();
  });
})();
