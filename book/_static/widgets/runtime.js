// What every widget shares: tensors from the chapter's cell, the forward pass
// of a transformer in plain loops, and the check against the chapter.
//
// A tensor is {shape, data}: sizes, and a Float32Array in row-major order.
// A function that meets a wrong shape throws, as its twin in litformer does.
(() => {
  const size = (shape) => shape.reduce((a, b) => a * b, 1);
  const tensor = (shape, data) => {
    data = data ? Float32Array.from(data) : new Float32Array(size(shape));
    if (data.length !== size(shape))
      throw new Error(`${data.length} numbers do not fit (${shape})`);
    return { shape: [...shape], data };
  };
  const need = (who, ok, ...shapes) => {
    if (!ok)
      throw new Error(`${who}: got ${shapes.map((s) => `(${s})`).join(", ")}`);
  };

  // --- tensors from bookkit.widget.export -----------------------------------
  function half(h) {
    const sign = h & 0x8000 ? -1 : 1;
    const exponent = (h >> 10) & 31;
    const fraction = h & 1023;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  function decode({ dtype, shape, data }) {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const read = {
      float32: (i) => view.getFloat32(4 * i, true),
      float16: (i) => half(view.getUint16(2 * i, true)),
      int32: (i) => view.getInt32(4 * i, true),
      uint8: (i) => view.getUint8(i),
    }[dtype];
    if (!read) throw new Error(`decode: no numbers of type ${dtype}`);
    return tensor(
      shape,
      Array.from({ length: size(shape) }, (_, i) => read(i)),
    );
  }
  // Nested lists, and back.
  function list({ shape, data }) {
    const build = (d, at) =>
      d === shape.length
        ? data[at]
        : Array.from({ length: shape[d] }, (_, i) =>
            build(d + 1, at * shape[d] + i),
          );
    return build(0, 0);
  }
  function from(nested) {
    const shape = [];
    for (let x = nested; Array.isArray(x); x = x[0]) shape.push(x.length);
    return tensor(shape, [nested].flat(Infinity));
  }

  // --- layers: x is (T, width) ----------------------------------------------
  function matmul(a, b) {
    const [n, k] = a.shape;
    const [k2, m] = b.shape;
    need("matmul (n, k) x (k, m)", k === k2, a.shape, b.shape);
    const out = tensor([n, m]);
    for (let i = 0; i < n; i++)
      for (let l = 0; l < k; l++) {
        const x = a.data[i * k + l];
        for (let j = 0; j < m; j++)
          out.data[i * m + j] += x * b.data[l * m + j];
      }
    return out;
  }
  function transpose(a) {
    const [n, m] = a.shape;
    const out = tensor([m, n]);
    for (let i = 0; i < n; i++)
      for (let j = 0; j < m; j++) out.data[j * n + i] = a.data[i * m + j];
    return out;
  }
  const map = (a, f) => tensor(a.shape, a.data.map(f));
  function add(a, b) {
    // b may be one row, as a bias is
    const n = b.data.length;
    const ok = n === a.data.length || n === a.shape.at(-1);
    need("add", ok, a.shape, b.shape);
    return map(a, (x, i) => x + b.data[i % n]);
  }
  // As torch stores it: weight (out, in).
  const linear = (x, weight, bias) => {
    const y = matmul(x, transpose(weight));
    return bias ? add(y, bias) : y;
  };
  function embedding(ids, table) {
    const [rows, width] = table.shape;
    for (const id of ids)
      if (!(id >= 0 && id < rows))
        throw new Error(`embedding: no row ${id} among ${rows}`);
    const out = tensor([ids.length, width]);
    ids.forEach((id, t) =>
      out.data.set(
        table.data.subarray(id * width, (id + 1) * width),
        t * width,
      ),
    );
    return out;
  }
  // Over the last axis. A row of nothing but -Infinity gives zeros, as a
  // fully masked row does in litformer.attention.
  function softmax(x) {
    const width = x.shape.at(-1);
    const out = tensor(x.shape);
    for (let at = 0; at < x.data.length; at += width) {
      const row = x.data.subarray(at, at + width);
      const top = Math.max(...row);
      if (top === -Infinity) continue;
      const powers = Array.from(row, (s) => Math.exp(s - top));
      const sum = powers.reduce((a, b) => a + b, 0);
      out.data.set(
        powers.map((p) => p / sum),
        at,
      );
    }
    return out;
  }
  function normalise(x, eps, weight, bias, centre) {
    const width = x.shape.at(-1);
    const out = tensor(x.shape);
    for (let at = 0; at < x.data.length; at += width) {
      const row = x.data.subarray(at, at + width);
      const mean = centre ? row.reduce((a, b) => a + b, 0) / width : 0;
      const square = row.reduce((a, b) => a + (b - mean) ** 2, 0) / width;
      const scale = 1 / Math.sqrt(square + eps);
      for (let i = 0; i < width; i++)
        out.data[at + i] =
          (row[i] - mean) * scale * (weight ? weight.data[i] : 1) +
          (bias ? bias.data[i] : 0);
    }
    return out;
  }
  const layerNorm = (x, { weight, bias, eps = 1e-5 } = {}) =>
    normalise(x, eps, weight, bias, true);
  const rmsNorm = (x, { weight, eps = 1e-6 } = {}) =>
    normalise(x, eps, weight, null, false);

  const relu = (x) => map(x, (v) => Math.max(v, 0));
  const silu = (x) => map(x, (v) => v / (1 + Math.exp(-v)));
  // The exact form, as torch's default; erf after Abramowitz and Stegun
  // (1964), 7.1.26, whose error is below 1.5e-7.
  function erf(x) {
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const poly =
      t *
      (0.254829592 +
        t *
          (-0.284496736 +
            t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return Math.sign(x) * (1 - poly * Math.exp(-x * x));
  }
  const gelu = (x) => map(x, (v) => (v * (1 + erf(v / Math.SQRT2))) / 2);

  // q (T, D), k and v (S, D), as `heads` heads side by side.
  // mask: (T, S) lists or a tensor, true = may attend. The causal triangle is
  // aligned bottom-right. Gives weights (heads, T, S) and output (T, D).
  function attention(q, k, v, options = {}) {
    const { mask, causal = false, heads = 1, scaled = true } = options;
    const [t, d] = q.shape;
    const s = k.shape[0];
    const width = d / heads;
    const ok = k.shape[1] === d && v.shape[0] === s && d % heads === 0;
    need("attention", ok, q.shape, k.shape, v.shape);
    need("attention: causal needs T <= S", !causal || t <= s, [t], [s]);
    const allowed = mask?.data ? list(mask) : mask;
    const scores = tensor([heads, t, s]);
    for (let h = 0; h < heads; h++)
      for (let i = 0; i < t; i++)
        for (let j = 0; j < s; j++) {
          const open =
            (!causal || j <= s - t + i) && (!allowed || allowed[i][j]);
          let dot = 0;
          for (let c = h * width; c < (h + 1) * width; c++)
            dot += q.data[i * d + c] * k.data[j * d + c];
          scores.data[(h * t + i) * s + j] = open
            ? dot / (scaled ? Math.sqrt(width) : 1)
            : -Infinity;
        }
    const weights = softmax(scores);
    const vWidth = v.shape[1] / heads;
    const output = tensor([t, v.shape[1]]);
    for (let h = 0; h < heads; h++)
      for (let i = 0; i < t; i++)
        for (let j = 0; j < s; j++) {
          const w = weights.data[(h * t + i) * s + j];
          for (let c = h * vWidth; c < (h + 1) * vWidth; c++)
            output.data[i * v.shape[1] + c] += w * v.data[j * v.shape[1] + c];
        }
    return { scores, weights, output };
  }

  // --- comparing ------------------------------------------------------------
  const flat = (x) => (x?.data ? [...x.data] : [x].flat(Infinity).map(Number));
  function maxDiff(got, expected) {
    const [a, b] = [flat(got), flat(expected)];
    if (a.length !== b.length) return Infinity;
    const worst = a.reduce((m, x, i) => Math.max(m, Math.abs(x - b[i])), 0);
    return Number.isNaN(worst) ? Infinity : worst;
  }

  // --- elements -------------------------------------------------------------
  // el("button.primary", {type: "button", onclick: f}, "text", child)
  function make(create, spec, attributes, children) {
    const [tag, ...classes] = spec.split(".");
    const node = create(tag);
    if (classes.length) node.setAttribute("class", classes.join(" "));
    for (const [name, value] of Object.entries(attributes))
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined)
        node.setAttribute(name, value);
    node.append(...children.flat());
    return node;
  }
  const el = (spec, attributes = {}, ...children) =>
    make((t) => document.createElement(t), spec, attributes, children);
  const svg = (spec, attributes = {}, ...children) =>
    make(
      (t) => document.createElementNS("http://www.w3.org/2000/svg", t),
      spec,
      attributes,
      children,
    );
  let ids = 0;
  // A checkbox, a radio or a slider with its label.
  function control(attributes, label, ...more) {
    const id = `bk-control-${++ids}`;
    return el(
      `span.control.control-${attributes.type}`,
      {},
      el("input", { id, ...attributes }),
      el("label", { for: id }, label),
      ...more,
    );
  }
  const sign = (x, digits = 2) =>
    (Math.abs(x) < 0.5 * 10 ** -digits ? 0 : x)
      .toFixed(digits)
      .replace("-", "\u2212");

  // Start a widget in each of its boxes. `start` fills `body` and returns what
  // it computes from the chapter's tensors, under the names of `check`.
  function widget(name, start) {
    const payload = window.bookWidgets?.[name];
    const boxes = document.querySelectorAll(
      `.bk-widget[data-widget="${name}"]`,
    );
    for (const box of boxes) {
      const body = box.querySelector(".widget-body");
      try {
        if (!payload) throw new Error(`no data for ${name}`);
        const tensors = Object.fromEntries(
          Object.entries(payload.tensors).map(([k, t]) => [k, decode(t)]),
        );
        const { config, check } = payload;
        const found = start({ box, body, tensors, config, check }) ?? {};
        const differences = Object.entries(check).map(([key, expected]) =>
          key in found ? maxDiff(found[key], expected) : Infinity,
        );
        // the greatest difference to the chapter's own numbers
        box.dataset.maxdiff = Math.max(0, ...differences).toExponential(2);
      } catch (error) {
        body.textContent = "This figure could not start.";
        box.dataset.maxdiff = "Infinity";
        console.error(error);
      }
    }
  }

  window.lit = {
    add, attention, control, decode, el, embedding, from, gelu, layerNorm,
    linear, list, map, matmul, maxDiff, relu, rmsNorm, sign, silu, softmax,
    svg, tensor, transpose, widget,
  };
})();
