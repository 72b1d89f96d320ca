// Small helps; every page reads well without them.
"use strict";
(() => {
  // Browsers let no page from the file system read another one, so there the
  // search shows titles without extracts instead of an error for each.
  if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS === "object")
    DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

  // A box that scrolls must be reachable by keyboard, one that does not
  // should not cost a press of Tab.
  const boxes = document.querySelectorAll(
    ".bd-article pre, .katex-display, .cell_output .text_html, " +
      ".pst-scrollable-table-container, .bd-article dl.py > dt",
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
  // without transitions a tip that waits for the end of one stays for ever
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const tips = () =>
    window.tippy?.setDefaultProps({
      onCreate: plain,
      ...(still ? { duration: 0 } : {}),
    });
  if (document.readyState === "loading")
    document.addEventListener("DOMContentLoaded", tips);
  else tips();
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") window.tippy?.hideAll();
  });
})();
