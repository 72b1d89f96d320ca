// Four tokens with queries and keys of two numbers, trained in the chapter.
// The reader moves them and sees scores, weights and output follow.
(() => {
  const { el, svg, sign, control, list, from } = lit;
  const SIZE = 320; // of a plane, in its own units
  const percent = (w) => `${Math.round(100 * w)}\u202f%`;

  lit.widget("attention-plane", ({ body, tensors, config }) => {
    const { tokens } = config;
    const trained = { q: list(tensors.q), k: list(tensors.k) };
    const v = list(tensors.v);
    const state = {
      ...structuredClone(trained),
      chosen: tokens.length - 1,
      scaled: true,
      causal: false,
    };
    const attend = (options) =>
      lit.attention(from(state.q), from(state.k), tensors.v, options);

    // --- two planes: scores are made in one, the output in the other --------
    const reach = (points, room) =>
      Math.ceil(2 * room * Math.max(...points.flat().map(Math.abs))) / 2 || 1;
    const scorePlane = plane(
      "Queries and keys",
      reach([...state.q, ...state.k], 1.3),
      { role: "group" },
    );
    const valuePlane = plane("Values and output", reach(v, 1.15), {
      role: "img",
    });

    const axis = svg("line.query-line");
    const feet = tokens.map((_, j) => svg(`line.foot.token-${j}`));
    const arrow = svg("line.query-arrow");
    scorePlane.marks.append(axis, ...feet, arrow);
    const keys = tokens.map((token, j) =>
      handle(scorePlane, "k", () => j, `key of ${token}`, token, `token-${j}`),
    );
    const query = handle(
      scorePlane,
      "q",
      () => state.chosen,
      "query",
      "",
      "query",
    );

    const hull = svg("polygon.hull", {
      points: outline(v).map(valuePlane.at).join(" "),
    });
    const pulls = v.map((_, j) => svg(`line.pull.token-${j}`));
    const values = v.map((point, j) => {
      const [x, y] = valuePlane.at(point);
      return svg(
        `g.value.token-${j}`,
        { transform: `translate(${x} ${y})` },
        svg("rect", { x: -6, y: -6, width: 12, height: 12 }),
        label(tokens[j], [x, y]),
      );
    });
    const output = svg(
      "g.output",
      {},
      svg("circle", { r: 9 }),
      svg("circle.core", { r: 3.5 }),
      svg("text", { x: 14, y: 5 }, "output"),
    );
    valuePlane.marks.append(hull, ...pulls, ...values, output);

    // --- controls -------------------------------------------------------------
    const choose = el(
      "fieldset.choose",
      {},
      el("legend", {}, "Query of"),
      tokens.map((token, i) =>
        control(
          {
            type: "radio",
            name: "attention-plane-query",
            value: i,
            checked: i === state.chosen,
            onchange: () => update({ chosen: i }),
          },
          token,
        ),
      ),
    );
    const toggle = (name, text) =>
      control(
        {
          type: "checkbox",
          checked: state[name],
          onchange: (event) => update({ [name]: event.target.checked }),
        },
        text,
      );
    const reset = el(
      "button",
      { type: "button", onclick: () => update(structuredClone(trained)) },
      "Reset",
    );
    const bar = el(
      "div.controls",
      {},
      choose,
      toggle("scaled", el("span", {}, "divide by \u221a", el("i", {}, "d"))),
      toggle("causal", "causal mask"),
    );

    // --- numbers ---------------------------------------------------------------
    const scoreHead = el("th", { scope: "col" });
    const rows = tokens.map((token, j) => {
      const cells = { score: el("td.score"), weight: el("td.weight") };
      const fill = el(`span.fill.token-${j}`);
      const row = el(
        "tr",
        {},
        el("th", { scope: "row" }, el(`span.swatch.token-${j}`), token),
        cells.score,
        cells.weight,
        el("td.bar", { "aria-hidden": "true" }, fill),
      );
      return { row, fill, ...cells };
    });
    const chosenName = el("span");
    const numbers = el(
      "table.numbers",
      {},
      el("caption", {}, "The query of ", chosenName, " meets each key"),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("th", { scope: "col" }, "key"),
          scoreHead,
          el("th", { scope: "col" }, "weight"),
          el("td", { "aria-hidden": "true" }),
        ),
      ),
      el("tbody", {}, ...rows.map(({ row }) => row)),
    );
    const heat = tokens.map(() => tokens.map(() => el("td")));
    const heatRows = tokens.map((token, i) =>
      el("tr", {}, el("th", { scope: "row" }, token), heat[i]),
    );
    const matrix = el(
      "table.heat",
      {},
      el("caption", {}, "All weights: one row per query"),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("td"),
          tokens.map((token) => el("th", { scope: "col" }, token)),
        ),
      ),
      el("tbody", {}, ...heatRows),
    );
    const said = el("p.said", { role: "status" });
    const help = el(
      "p.help",
      { id: "attention-plane-help" },
      "Drag a handle, or focus it and press the arrow keys ",
      "(with Shift: larger steps; Home: back to the trained place).",
    );
    body.append(
      bar,
      el(
        "div.panels",
        {},
        el("div", {}, scorePlane.figure),
        el("div", {}, numbers),
        el("div", {}, valuePlane.figure),
        el("div", {}, matrix),
      ),
      el("div.controls.last", {}, help, reset),
      said,
    );

    // --- drawing ---------------------------------------------------------------
    let telling;
    function update(change, quiet = false) {
      Object.assign(state, change);
      const { chosen, causal, scaled } = state;
      const { scores, weights, output: out } = attend({ causal, scaled });
      const [w, score] = [list(weights)[0], list(scores)[0][chosen]];
      const result = list(out)[chosen];

      const q = state.q[chosen];
      const [qx, qy] = scorePlane.at(q);
      const [ox, oy] = scorePlane.at([0, 0]);
      const length = Math.hypot(...q);
      set(arrow, { x1: ox, y1: oy, x2: qx, y2: qy });
      const far = q.map((x) => (length ? (x / length) * 3 : 0));
      const ends = [-1, 1].map((s) =>
        scorePlane.at(far.map((x) => s * x * scorePlane.limit)),
      );
      set(axis, {
        x1: ends[0][0],
        y1: ends[0][1],
        x2: ends[1][0],
        y2: ends[1][1],
      });
      query.place(q, `query of ${tokens[chosen]}`, tokens[chosen]);
      query.node.setAttribute("data-token", chosen);
      state.k.forEach((k, j) => {
        const masked = causal && j > chosen;
        keys[j].place(k);
        keys[j].node.classList.toggle("masked", masked);
        values[j].classList.toggle("masked", masked);
        // the foot of the key on the query's line: what the score measures
        const t = length
          ? (q[0] * k[0] + q[1] * k[1]) / length ** 2
          : 0;
        const [kx, ky] = scorePlane.at(k);
        const [fx, fy] = scorePlane.at([t * q[0], t * q[1]]);
        set(feet[j], { x1: kx, y1: ky, x2: fx, y2: fy });
        feet[j].classList.toggle("masked", masked);

        const weight = w[chosen][j];
        rows[j].row.classList.toggle("masked", masked);
        rows[j].score.textContent = masked ? "masked" : sign(score[j]);
        rows[j].weight.textContent = percent(weight);
        rows[j].fill.style.width = `${100 * weight}%`;
        const [vx, vy] = valuePlane.at(v[j]);
        const [rx, ry] = valuePlane.at(result);
        set(pulls[j], { x1: rx, y1: ry, x2: vx, y2: vy });
        pulls[j].style.strokeWidth = 0.5 + 7 * weight;
      });
      scoreHead.textContent = scaled
        ? "q \u00b7 k / \u221ad"
        : "q \u00b7 k";
      chosenName.textContent = tokens[chosen];
      w.forEach((line, i) => {
        heatRows[i].classList.toggle("chosen", i === chosen);
        line.forEach((weight, j) => {
          const cell = heat[i][j];
          const hidden = causal && j > i;
          cell.textContent = hidden ? "\u00b7" : Math.round(100 * weight);
          cell.style.setProperty("--weight", weight);
          cell.classList.toggle("masked", hidden);
        });
      });
      const [x, y] = valuePlane.at(result);
      output.setAttribute("transform", `translate(${x} ${y})`);
      // values carry their names outward, so the output has its own inward
      set(output.lastChild, {
        x: x > SIZE / 2 ? -10 : 10,
        y: y > SIZE / 2 ? -14 : 24,
        "text-anchor": x > SIZE / 2 ? "end" : "start",
      });
      const words =
        `${tokens[chosen]} attends to ` +
        tokens.map((t, j) => `${t} ${percent(w[chosen][j])}`).join(", ") +
        `. Output: (${result.map((r) => sign(r)).join(", ")}).`;
      valuePlane.root.setAttribute("aria-label", words);
      // speak when the hand rests, not at every pixel
      clearTimeout(telling);
      if (!quiet)
        telling = setTimeout(() => (said.textContent = words), 300);
    }

    // --- parts -------------------------------------------------------------------
    function plane(title, limit, attributes) {
      const scale = SIZE / 2 / limit;
      const at = ([x, y]) => [SIZE / 2 + x * scale, SIZE / 2 - y * scale];
      const step = limit > 6 ? 2 : limit > 2 ? 1 : 0.5;
      const lines = [];
      for (let x = step; x < limit; x += step)
        for (const s of [x, -x]) {
          const [px, py] = at([s, s]);
          lines.push(`M${px} 0V${SIZE}M0 ${py}H${SIZE}`);
        }
      const marks = svg("g");
      const root = svg(
        "svg",
        {
          viewBox: `0 0 ${SIZE} ${SIZE}`,
          "aria-label": title,
          ...attributes,
        },
        svg("path.grid", { d: lines.join("") }),
        svg("path.axes", {
          d: `M0 ${SIZE / 2}H${SIZE}M${SIZE / 2} 0V${SIZE}`,
        }),
        svg(
          "text.tick",
          { x: at([step, 0])[0], y: SIZE / 2 + 15 },
          String(step),
        ),
        marks,
      );
      const figure = el(
        "figure.plane",
        {},
        el("figcaption", {}, title),
        root,
      );
      const where = (event) => {
        const point = new DOMPoint(event.clientX, event.clientY);
        const { x, y } = point.matrixTransform(root.getScreenCTM().inverse());
        return [(x - SIZE / 2) / scale, (SIZE / 2 - y) / scale];
      };
      return { root, marks, figure, at, where, limit };
    }

    // Outward from the middle, where it fits; about 7.5 units a letter.
    function label(text, [x, y]) {
      const length = 12 + 7.5 * text.length;
      const fits = [x > length, x < SIZE - length]; // left, right
      const right = x <= SIZE / 2 ? !fits[0] : fits[1];
      return svg(
        "text",
        {
          x: right ? 12 : -12,
          y: y > SIZE / 2 ? 16 : -7,
          "text-anchor": right ? "start" : "end",
        },
        text,
      );
    }

    function handle(on, part, index, name, text, kind) {
      const { limit } = on;
      const mark =
        part === "q"
          ? svg("path.mark", { d: "M0 -10L10 0L0 10L-10 0Z" })
          : svg("circle.mark", { r: 8 });
      const words = svg("text", {}, text);
      const node = svg(
        `g.handle.${kind}`,
        {
          role: "slider",
          tabindex: 0,
          "aria-roledescription": "handle in a plane",
          "aria-describedby": "attention-plane-help",
          "aria-label": name,
          "aria-valuemin": -limit,
          "aria-valuemax": limit,
        },
        svg("circle.hit", { r: 22 }),
        svg("circle.ring", { r: 15 }),
        mark,
        words,
      );
      const clamp = (x) => Math.min(limit, Math.max(-limit, x));
      const move = (point, quiet) => {
        state[part][index()] = point.map(clamp);
        update({}, quiet);
      };
      // touch-action alone does not hold the page still under an SVG handle
      node.addEventListener("touchstart", (event) => event.preventDefault(), {
        passive: false,
      });
      node.addEventListener("pointerdown", (event) => {
        if (event.button) return;
        event.preventDefault();
        node.focus({ preventScroll: true });
        node.setPointerCapture(event.pointerId);
        const from = on.where(event);
        const start = state[part][index()];
        const drag = (moved) => {
          const now = on.where(moved);
          move(start.map((x, i) => x + now[i] - from[i]), true);
        };
        const drop = () => {
          node.removeEventListener("pointermove", drag);
          update({});
        };
        node.addEventListener("pointermove", drag);
        node.addEventListener("lostpointercapture", drop, { once: true });
      });
      node.addEventListener("keydown", (event) => {
        const step = limit / (event.shiftKey ? 10 : 50);
        const way = {
          ArrowLeft: [-1, 0],
          ArrowRight: [1, 0],
          ArrowUp: [0, 1],
          ArrowDown: [0, -1],
        }[event.key];
        if (event.key === "Home") move([...trained[part][index()]]);
        else if (way)
          move(state[part][index()].map((x, i) => x + way[i] * step));
        else return;
        event.preventDefault();
      });
      on.marks.append(node);
      const place = (point, newName, newText) => {
        const [x, y] = on.at(point);
        set(node, {
          transform: `translate(${x} ${y})`,
          "aria-valuenow": point[0].toFixed(2),
          "aria-valuetext": `x ${sign(point[0])}, y ${sign(point[1])}`,
        });
        if (newName) node.setAttribute("aria-label", newName);
        if (newText) words.textContent = `query of ${newText}`;
        const fresh = label(words.textContent, [x, y]);
        for (const a of ["x", "y", "text-anchor"])
          words.setAttribute(a, fresh.getAttribute(a));
      };
      return { node, place };
    }

    update({}, true);
    said.textContent = valuePlane.root.getAttribute("aria-label");
    const plain = lit.attention(tensors.q, tensors.k, tensors.v);
    const causal = lit.attention(tensors.q, tensors.k, tensors.v, {
      causal: true,
    });
    return {
      weights: plain.weights,
      output: plain.output,
      causal_weights: causal.weights,
      causal_output: causal.output,
    };
  });

  function set(node, attributes) {
    for (const [name, value] of Object.entries(attributes))
      node.setAttribute(name, value);
  }

  // The convex hull, which no weighted average can leave (gift wrapping).
  function outline(points) {
    const cross = (o, a, b) =>
      (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0]);
    const first = points.reduce((a, b) => (b[0] < a[0] ? b : a));
    const hull = [];
    let at = first;
    do {
      hull.push(at);
      at = points.reduce(
        (next, p) =>
          next === at || cross(at, next, p) < 0 ? p : next,
        at,
      );
    } while (at !== first && hull.length <= points.length);
    return hull;
  }
})();
