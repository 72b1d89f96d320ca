// A link to something folded away unfolds it: browsers do not.
(() => {
  const reveal = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    const target = id && document.getElementById(id);
    if (!target) return;
    let folded = false;
    for (let box = target; box; box = box.parentElement?.closest("details"))
      if (box.matches("details:not([open])")) folded = box.open = true;
    if (folded) target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
})();
