// A small language model with a mixture of experts in each layer, trained in
// the chapter. The reader types; the page runs the model and shows, for each
// character and each layer, which expert takes it.
(() => {
  const { el, list } = lit;
  const percent = (p) => `${Math.round(100 * p)}\u202f%`;
  const SHOWN = { " ": "\u2423", "\n": "\u21b5", "\t": "\u21e5" };
  const NAMES = { " ": "space", "\n": "new line", "\t": "tab" };
  const TYPED = {
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2013": "-",
    "\u2014": "-",
  };
  const shown = (c) => SHOWN[c] ?? c;
  const named = (c) => NAMES[c] ?? c;

  // --- the model -------------------------------------------------------------
  const rows = ({ shape, data }) =>
    Array.from({ length: shape[0] }, (_, i) =>
      data.subarray(i * shape[1], (i + 1) * shape[1]),
    );
  const best = (row) => row.indexOf(Math.max(...row));
  // matrix e of a stack (E, out, in)
  function matrix({ shape: [, m, n], data }, e) {
    return lit.tensor([m, n], data.subarray(e * m * n, (e + 1) * m * n));
  }

  function model(weights, heads) {
    const blocks = Object.keys(weights).map((name) => name.split("."));
    const depth = Math.max(
      ...blocks.map(([kind, i]) => (kind === "blocks" ? 1 + Number(i) : 0)),
    );
    const layer = (i, name) => weights[`blocks.${i}.${name}`];

    // Each token is answered by the one expert that its router likes best.
    function mixture(x, i) {
      const probabilities = lit.softmax(
        lit.linear(x, layer(i, "ff.router.weight")),
      );
      const chosen = rows(probabilities).map(best);
      const out = lit.tensor(x.shape);
      rows(x).forEach((row, t) => {
        const e = chosen[t];
        const token = lit.tensor([1, row.length], row);
        const of = (name) => matrix(layer(i, `ff.experts.${name}_proj`), e);
        const gate = lit.silu(lit.linear(token, of("gate")));
        const up = lit.linear(token, of("up"));
        const h = lit.map(gate, (g, j) => g * up.data[j]);
        const answer = lit.linear(h, of("down"));
        const p = probabilities.data[t * probabilities.shape[1] + e];
        out.data.set(answer.data.map((y) => p * y), t * row.length);
      });
      return { out, probabilities, chosen };
    }

    return (ids) => {
      const positions = lit.embedding(
        ids.map((_, t) => t),
        weights["positions.table.weight"],
      );
      let x = lit.add(lit.embedding(ids, weights["embed.weight"]), positions);
      const layers = [];
      for (let i = 0; i < depth; i++) {
        const norm = (name) =>
          lit.rmsNorm(x, { weight: layer(i, `norm_${name}.weight`) });
        const h = norm("attn");
        const [q, k, v] = ["q", "k", "v"].map((name) =>
          lit.linear(h, layer(i, `attn.${name}_proj.weight`)),
        );
        const { output } = lit.attention(q, k, v, { causal: true, heads });
        x = lit.add(x, lit.linear(output, layer(i, "attn.o_proj.weight")));
        const found = mixture(norm("ff"), i);
        x = lit.add(x, found.out);
        layers.push(found);
      }
      const last = lit.rmsNorm(x, { weight: weights["norm.weight"] });
      const next = lit.softmax(lit.linear(last, weights["lm_head.weight"]));
      return { layers, next };
    };
  }

  // --- the figure ----------------------------------------------------------
  lit.widget("moe-router", ({ body, tensors, config }) => {
    const { heads, samples } = config;
    const alphabet = [...config.alphabet];
    const place = new Map(alphabet.map((c, i) => [c, i]));
    const most = tensors["positions.table.weight"].shape[0];
    const run = model(tensors, heads);
    const plain = (text) => [...text].map((c) => TYPED[c] ?? c);
    const encode = (characters) =>
      characters.map((c) => place.get(c) ?? alphabet.length);

    const state = { characters: [], at: 0, found: null };
    const field = el("textarea.mono", {
      id: "moe-router-text",
      rows: 2,
      spellcheck: "false",
      autocapitalize: "off",
      autocomplete: "off",
      "aria-describedby": "moe-router-note",
      oninput: () => read(),
    });
    const buttons = samples.map(([name, text]) =>
      el(
        "button",
        {
          type: "button",
          onclick: () => {
            field.value = text;
            read();
          },
        },
        name,
      ),
    );
    const note = el("p.note", { id: "moe-router-note", role: "status" });
    const strip = el("div.letters", {
      role: "group",
      "aria-label": "Characters and their experts",
    });
    const said = el("p.said", { role: "status" });
    const experts = tensors["blocks.0.ff.router.weight"].shape[0];
    const depth = run([0]).layers.length;

    const bars = Array.from({ length: experts }, (_, e) => {
      const cells = Array.from({ length: depth }, () => {
        const fill = el(`span.fill.expert-${e}`);
        const value = el("td.weight");
        const bar = el("td.bar", { "aria-hidden": "true" }, fill);
        return { fill, value, bar };
      });
      const head = el("th", { scope: "row" }, el(`span.swatch.expert-${e}`), e);
      const row = el("tr", {}, head, cells.flatMap((c) => [c.value, c.bar]));
      return { row, cells };
    });
    const about = el("caption", {}, "");
    const table = el(
      "table.numbers.routes",
      {},
      about,
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("th", { scope: "col" }, "expert"),
          Array.from({ length: depth }, (_, i) =>
            el("th", { scope: "col", colspan: 2 }, `layer ${i + 1}`),
          ),
        ),
      ),
      el("tbody", {}, ...bars.map(({ row }) => row)),
    );
    body.append(
      el("label.field", { for: "moe-router-text" }, "Your text"),
      field,
      el("div.controls", { role: "group", "aria-label": "Samples" }, buttons),
      note,
      strip,
      el("div.routed", {}, table),
      said,
    );

    // --- reading --------------------------------------------------------------
    function read() {
      const all = plain(field.value);
      const characters = all.slice(0, most);
      const strange = [...new Set(characters.filter((c) => !place.has(c)))];
      const notes = [];
      if (!all.length)
        notes.push("There is nothing to route yet: type a text.");
      if (all.length > most)
        notes.push(
          `The model reads ${most} characters; the last ` +
            `${all.length - most} of your text are left out.`,
        );
      if (strange.length)
        notes.push(
          `The model has never seen ${strange.map(named).join(" ")}: ` +
            "it reads them all as one unknown character.",
        );
      note.textContent = notes.join(" ");
      state.characters = characters;
      state.found = characters.length ? run(encode(characters)) : null;
      state.at = Math.min(state.at, Math.max(0, characters.length - 1));
      draw();
    }

    function draw() {
      const { characters, found } = state;
      strip.replaceChildren(
        ...characters.map((c, t) => {
          const chosen = found.layers.map((layer) => layer.chosen[t]);
          // what eyes read from the layout is said to those who listen
          const aloud = (text) => el("span.visually-hidden", {}, text);
          return el(
            "button.letter",
            { type: "button", tabindex: -1, "data-at": t },
            aloud(`${t + 1}: `),
            el("span.character", {}, place.has(c) ? shown(c) : "\u25af"),
            aloud(named(c) === c ? "" : ` ${named(c)}`),
            chosen.flatMap((e, i) => [
              aloud(`, layer ${i + 1} expert `),
              el(`span.expert.expert-${e}`, {}, e),
            ]),
          );
        }),
      );
    table.hidden = !found;
      look(state.at);
    }

    function look(at) {
      state.at = at;
      const { characters, found } = state;
      for (const letter of strip.children) {
        const here = +letter.dataset.at === at;
        letter.tabIndex = here ? 0 : -1;
        letter.classList.toggle("lit", here);
      }
      if (!found) {
        said.textContent = "";
        return;
      }
      const name = named(characters[at]);
      about.textContent =
        `What the routers think of character ${at + 1}, \u201c${name}\u201d`;
      found.layers.forEach(({ probabilities, chosen }, i) =>
        bars.forEach(({ cells }, e) => {
          const p = probabilities.data[at * experts + e];
          cells[i].value.textContent = percent(p);
          cells[i].value.classList.toggle("taken", chosen[at] === e);
          cells[i].fill.style.width = `${100 * p}%`;
        }),
      );
      const row = rows(found.next)[at];
      const order = [...row.keys()].sort((a, b) => row[b] - row[a]);
      const guesses = order
        .slice(0, 3)
        .map((id) => `${named(alphabet[id] ?? "unknown")} ${percent(row[id])}`);
      const takers = found.layers.map(
        ({ chosen }, i) => `expert ${chosen[at]} in layer ${i + 1}`,
      );
      said.textContent =
        `Character ${at + 1}, ${name}, goes to ${takers.join(" and ")}. ` +
        `The model expects next: ${guesses.join(", ")}.`;
    }

    // --- pointing and walking -------------------------------------------------
    for (const kind of ["focusin", "pointerover", "click"])
      strip.addEventListener(kind, (event) => {
        const letter = event.target.closest(".letter");
        if (letter) look(+letter.dataset.at);
      });
    strip.addEventListener("keydown", (event) => {
      const last = state.characters.length - 1;
      const to = {
        ArrowLeft: state.at - 1,
        ArrowRight: state.at + 1,
        Home: 0,
        End: last,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const at = Math.min(last, Math.max(0, to));
      look(at);
      strip.children[at].focus();
    });

    field.value = samples[0][1];
    read();
    const checked = samples.map(([, text]) => run(encode(plain(text))));
    const layers = checked.flatMap((found) => found.layers);
    return {
      routing: layers.flatMap((layer) => list(layer.probabilities)),
      next: checked.map((found) => list(found.next).at(-1)),
      chosen: layers.flatMap((layer) => layer.chosen),
    };
  });
})();
