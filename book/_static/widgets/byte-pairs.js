// Text cut into tokens by merges that the chapter learnt, while it is typed.
// A slider says how many of the merges may be used: none gives the bytes.
(() => {
  const { el, control } = lit;
  const MOST = 300; // characters of text

  lit.widget("byte-pairs", ({ body, tensors, config }) => {
    // --- the tokeniser: twin of litformer.tokenizer --------------------------
    // A token is a string of characters below 256, one for each byte.
    const pairs = lit.list(tensors.merges);
    const tokens = Array.from({ length: 256 }, (_, b) =>
      String.fromCharCode(b),
    );
    const number = new Map(tokens.map((token, i) => [token, i]));
    const key = (left, right) => left * 2 ** 24 + right;
    const ranks = new Map();
    pairs.forEach(([left, right], rank) => {
      const joined = tokens[left] + tokens[right];
      if (!number.has(joined)) number.set(joined, tokens.push(joined) - 1);
      ranks.set(key(left, right), { rank, made: number.get(joined) });
    });
    const rules = Object.fromEntries(
      Object.entries(config.rules).map(([name, rule]) => [
        name,
        new RegExp(
          rule
            .replaceAll("{L}", "\\p{L}")
            .replaceAll("{N}", "\\p{N}")
            .replaceAll("{S}", config.white),
          "gu",
        ),
      ]),
    );
    const utf8 = new TextEncoder();
    const exact = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

    function merged(piece, merges) {
      const ids = [...utf8.encode(piece)];
      for (;;) {
        let best = null;
        for (let i = 0; i + 1 < ids.length; i++) {
          const found = ranks.get(key(ids[i], ids[i + 1]));
          if (found && found.rank < (best?.rank ?? merges))
            best = { ...found, i };
        }
        if (!best) return ids;
        ids.splice(best.i, 2, best.made);
      }
    }
    // The ids of each piece of the text.
    const cut = (text, merges, rule) =>
      (text.match(rules[rule]) ?? []).map((piece) => merged(piece, merges));

    // --- what a token looks like ---------------------------------------------
    function written(id) {
      const bytes = Uint8Array.from(tokens[id], (c) => c.charCodeAt(0));
      let text = "";
      try {
        text = exact.decode(bytes);
      } catch {
        // part of a character: its bytes are all that can be shown
      }
      if (!text || /^\p{M}|[\p{Cc}\p{Cf}]/u.test(text.replaceAll("\n", "")))
        return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join(
          " ",
        );
      return text.replaceAll(" ", "\u2423").replaceAll("\n", "\u23ce");
    }

    // --- controls ------------------------------------------------------------
    const area = el("textarea", {
      id: "bk-byte-pairs",
      rows: 2,
      maxlength: MOST,
      spellcheck: "false",
      oninput: () => update(),
    });
    area.value = config.text;
    const slider = control(
      {
        type: "range",
        min: 0,
        max: pairs.length,
        step: 1,
        value: pairs.length,
        oninput: () => update(),
      },
      "merges",
      el("output"),
    );
    const digits = control(
      { type: "checkbox", onchange: () => update() },
      "cut digits apart",
    );
    const [range, shown] = ["input", "output"].map((t) =>
      slider.querySelector(t),
    );
    const list = el("ol.tokens", { "aria-label": "tokens" });
    const said = el("p.said", { role: "status" });
    body.append(
      el("label.text", { for: "bk-byte-pairs" }, "text"),
      area,
      el("div.controls", {}, slider, digits),
      list,
      said,
    );

    function update() {
      const merges = Number(range.value);
      const rule = digits.querySelector("input").checked ? "smollm2" : "gpt2";
      const pieces = cut(area.value, merges, rule);
      const count = pieces.flat().length;
      const bytes = utf8.encode(area.value).length;
      shown.textContent = ` ${merges}`;
      list.replaceChildren(
        ...pieces.flatMap((ids, i) =>
          ids.map((id) =>
            el(
              `li.token-${i % 4}`,
              {},
              el("span", {}, written(id)),
              el("small", {}, id),
            ),
          ),
        ),
      );
      said.textContent =
        `${[...area.value].length} characters, ${bytes} bytes, ` +
        `${count} tokens` +
        (count ? `: ${(bytes / count).toFixed(2)} bytes per token.` : ".");
    }
    update();
    return {
      ids: config.cases.map(([text, merges, rule]) =>
        cut(text, merges, rule).flat(),
      ),
    };
  });
})();
