// Five masks and their "and", for up to twelve positions. The reader switches
// them on and reads the truth table, row by row.
(() => {
  const { el, svg, control } = lit;
  const MOST = 12;

  // The rules of litformer.masks. `query` and `key` are positions: with a
  // cache the T queries are the last T of the S positions.
  const RULES = {
    causal: ({ query, key }) => key <= query,
    window: ({ query, key }, window) => key <= query && key > query - window,
    prefix: ({ query, key }, prefix) => key <= query || key < prefix,
    length: ({ key }, length) => key < length,
    documents: ({ query, key }, ids) => ids[query] === ids[key],
  };
  const given = (value) =>
    value !== null && value !== undefined && value !== false;
  function table(t, s, open) {
    return Array.from({ length: t }, (_, i) =>
      Array.from({ length: s }, (_, key) => open({ query: s - t + i, key })),
    );
  }
  const build = ({ t, s, ...parts }) =>
    table(t, s, (place) =>
      Object.entries(RULES).every(
        ([name, rule]) => !given(parts[name]) || rule(place, parts[name]),
      ),
    );

  const PARTS = {
    causal: { text: "causal" },
    window: { text: "window", letter: "w", from: 1 },
    prefix: { text: "prefix", letter: "p", from: 0 },
    length: { text: "padding", letter: "n", from: 0 },
    documents: { text: "documents" },
  };

  lit.widget("mask-builder", ({ body, config }) => {
    const state = {
      t: 8,
      s: 8,
      on: { causal: true },
      window: 3,
      prefix: 3,
      length: 6,
      starts: new Set([3, 6]), // positions where a document begins
      at: null, // [row, column] that is being read
    };
    const ids = () => {
      let id = 0;
      return Array.from({ length: state.s }, (_, j) =>
        state.starts.has(j) && j ? ++id : id,
      );
    };
    const value = (name) =>
      name === "causal" ? true : name === "documents" ? ids() : state[name];
    const parts = () =>
      Object.fromEntries(
        Object.keys(PARTS).map((name) => [
          name,
          state.on[name] ? value(name) : null,
        ]),
      );

    // --- controls -------------------------------------------------------------
    // `S = 8` with its slider; `name` is what it is called aloud
    function slider(letter, name, from, change) {
      const shown = el("output");
      const input = el("input", {
        type: "range",
        min: from,
        max: MOST,
        step: 1,
        "aria-label": name,
        oninput: () => change(Number(input.value)),
      });
      const show = (now, most) => {
        input.max = most;
        input.value = now;
        shown.textContent = `${letter} = ${now}`;
      };
      return { node: el("span.slider", {}, input, shown), show };
    }
    const sizes = {
      s: slider("S", "number of keys S", 1, (s) => {
        // without a cache, the queries follow the keys
        const t = state.t === state.s ? s : Math.min(state.t, s);
        update({ s, t });
      }),
      t: slider("T", "number of queries T", 1, (t) => update({ t })),
    };
    const sizeNote = el("p.help");

    const chips = el("div.documents", {
      role: "group",
      "aria-label": "Where a document begins",
    });
    const lines = Object.entries(PARTS).map(([name, part]) => {
      const box = control(
        {
          type: "checkbox",
          checked: !!state.on[name],
          onchange: (event) =>
            update({ on: { ...state.on, [name]: event.target.checked } }),
        },
        part.text,
      );
      const thumb = svg("svg.thumb", { "aria-hidden": "true" });
      const range =
        part.letter &&
        slider(part.letter, `${part.text} ${part.letter}`, part.from, (x) =>
          update({ [name]: x, on: { ...state.on, [name]: true } }),
        );
      const extra = range?.node ?? (name === "documents" ? chips : "");
      const node = el("div.part", {}, thumb, box, extra);
      return { name, node, thumb, range, part };
    });

    // --- the table ---------------------------------------------------------------
    const grid = el("table.mask", { role: "grid" });
    const sentence = el("p.said", { role: "status" });
    const why = el("p.note");
    const expression = el("pre.expression", { tabindex: 0 }, el("code"));
    body.append(
      el(
        "div.builder",
        {},
        el(
          "div",
          {},
          el("div.part", {}, el("span.size", {}, "keys"), sizes.s.node),
          el("div.part", {}, el("span.size", {}, "queries"), sizes.t.node),
          sizeNote,
          ...lines.map(({ node }) => node),
          why,
        ),
        el("div", {}, el("div.scroll", {}, grid), sentence),
      ),
      expression,
    );

    grid.addEventListener("keydown", (event) => {
      const way = {
        ArrowLeft: [0, -1],
        ArrowRight: [0, 1],
        ArrowUp: [-1, 0],
        ArrowDown: [1, 0],
      }[event.key];
      const cell = event.target.closest("td[data-row]");
      if (!way || !cell) return;
      event.preventDefault();
      const next = [
        Math.min(state.t - 1, Math.max(0, +cell.dataset.row + way[0])),
        Math.min(state.s - 1, Math.max(0, +cell.dataset.key + way[1])),
      ];
      look(next);
      find(next).focus();
    });
    for (const kind of ["focusin", "pointerover"])
      grid.addEventListener(kind, (event) => {
        const cell = event.target.closest("td[data-row]");
        if (cell) look([+cell.dataset.row, +cell.dataset.key]);
      });
    const find = ([row, key]) =>
      grid.querySelector(`td[data-row="${row}"][data-key="${key}"]`);

    function look(at) {
      state.at = at;
      const [row, key] = at;
      for (const cell of grid.querySelectorAll("[data-row], [data-key]")) {
        const same =
          cell.dataset.row === String(row) || cell.dataset.key === String(key);
        cell.classList.toggle("lit", same);
        if (cell.tagName === "TD")
          cell.tabIndex = cell === find(at) ? 0 : -1;
      }
      const mask = build({ ...state, ...parts() });
      const query = state.s - state.t + row;
      const seen = mask[row].flatMap((open, j) => (open ? [j] : []));
      const against = hidden(query, key);
      const keys = `key${seen.length > 1 ? "s" : ""} ${seen.join(", ")}`;
      sentence.textContent =
        `Query ${query} may attend to ` +
        (seen.length
          ? `${keys}.`
          : "no key: its output is zero.") +
        (against.length
          ? ` Key ${key} is hidden by: ${against.join(", ")}.`
          : "");
    }
    const hidden = (query, key) =>
      Object.entries(parts()).flatMap(([name, x]) =>
        given(x) && !RULES[name]({ query, key }, x) ? [PARTS[name].text] : [],
      );

    function update(change) {
      Object.assign(state, change);
      const { t, s } = state;
      for (const name of ["window", "prefix", "length"])
        state[name] = Math.min(state[name], s);
      sizes.s.show(s, MOST);
      sizes.t.show(t, s);
      sizeNote.textContent =
        s > t
          ? `${s - t} cached, ${t} new: the queries are the last ${t} rows ` +
            `of the ${s} by ${s} table.`
          : "Nothing is cached: every key has its query.";

      const active = parts();
      for (const { name, node, thumb, range } of lines) {
        node.classList.toggle("on", !!state.on[name]);
        range?.show(state[name], s);
        draw(thumb, table(t, s, (place) => RULES[name](place, value(name))));
      }
      const id = ids();
      chips.replaceChildren(
        ...id.map((document, j) => {
          const style = `--odd: ${document % 2}`;
          if (!j) return el("span", { style }, "0");
          return el(
            "button",
            {
              type: "button",
              style,
              "data-start": j,
              "aria-pressed": String(state.starts.has(j)),
              "aria-label": `a document begins at ${j}`,
              onclick: () => {
                const starts = new Set(state.starts);
                if (!starts.delete(j)) starts.add(j);
                update({ starts, on: { ...state.on, documents: true } });
                chips.querySelector(`[data-start="${j}"]`).focus();
              },
            },
            j,
          );
        }),
      );
      for (const { name, node } of lines)
        node.querySelector("input[type=checkbox]").checked = !!state.on[name];

      const mask = build({ t, s, ...active });
      const cached = (j) => (j < s - t ? ".cached" : "");
      grid.replaceChildren(
        el("caption", {}, "Row: query. Column: key. \u2713 may attend"),
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("td.corner", {}, ""),
            mask[0].map((_, j) =>
              el(`th${cached(j)}`, { scope: "col", "data-key": j }, j),
            ),
          ),
        ),
        el(
          "tbody",
          {},
          ...mask.map((row, i) => {
            const query = s - t + i;
            return el(
              "tr",
              {},
              el("th", { scope: "row", "data-row": i }, query),
              row.map((open, j) => {
                const words = `query ${query}, key ${j}: `;
                return el(
                  open ? "td.open" : "td",
                  {
                    role: "gridcell",
                    tabindex: -1,
                    "data-row": i,
                    "data-key": j,
                    "aria-label":
                      words + (open ? "may attend" : "hidden"),
                  },
                  open ? "\u2713" : "",
                );
              }),
            );
          }),
        ),
      );
      why.textContent =
        state.on.causal && state.on.prefix
          ? "The causal mask undoes the prefix. prefix_mask holds the causal " +
            "rule already: switch causal off to see it."
          : "";
      expression.firstChild.textContent = code(active, t, s, id);
      const [row, key] = state.at ?? [t - 1, 0];
      look([Math.min(row, t - 1), Math.min(key, s - 1)]);
    }

    function draw(thumb, mask) {
      const [t, s] = [mask.length, mask[0].length];
      thumb.setAttribute("viewBox", `0 0 ${s} ${s}`);
      const cells = mask.flatMap((row, i) =>
        row.flatMap((open, j) => (open ? [`M${j} ${s - t + i}h1v1h-1z`] : [])),
      );
      thumb.replaceChildren(svg("path", { d: cells.join("") }));
    }

    // What the reader would write.
    function code(active, t, s, id) {
      const size = s === t ? `${t}` : `${t}, ${s}`;
      const calls = {
        causal: () => `causal_mask(${size})`,
        window: (w) => `sliding_window_mask(${size}, window=${w})`,
        prefix: (p) => `prefix_mask(${size}, prefix=${p})`,
        length: (n) => `padding_mask(torch.tensor([${n}]), ${s})`,
        documents: () =>
          `document_mask(torch.tensor([[${id.join(", ")}]])` +
          (s === t ? ")" : `, ${t})`),
      };
      const used = Object.entries(active).filter(([, x]) => given(x));
      return used.length
        ? used.map(([name, x]) => calls[name](x)).join("\n& ")
        : "None  # every query may attend to every key";
    }

    update({});
    return {
      masks: (config.cases ?? []).map((c) =>
        build(c).map((row) => row.map(Number)),
      ),
    };
  });
})();
