// The trained translator of the chapter, run in the page: English number words
// in, German out, with the attention that each German word paid.
(() => {
  const { add, attention, el, embedding, gelu, layerNorm, list, matmul } = lit;
  const [PAD, BOS, EOS] = [0, 1, 2];
  const MOST = 999999999999;

  // --- numbers in words, as the chapter's data has them -----------------------
  const words = (text) => text.trim().split(/\s+/);
  const EN = words(
    "zero one two three four five six seven eight nine ten eleven twelve " +
      "thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
  );
  const EN_TENS = words(
    "- - twenty thirty forty fifty sixty seventy eighty ninety",
  );
  const EN_SCALES = { billion: 1e9, million: 1e6, thousand: 1e3 };
  const DE = words(
    "null ein zwei drei vier f\u00fcnf sechs sieben acht neun zehn elf " +
      "zw\u00f6lf dreizehn vierzehn f\u00fcnfzehn sechzehn siebzehn achtzehn " +
      "neunzehn",
  );
  const DE_TENS = words(
    "- - zwanzig drei\u00dfig vierzig f\u00fcnfzig sechzig siebzig achtzig " +
      "neunzig",
  );
  const group = (n, scale) => Math.floor(n / scale) % 1000;

  function english(n) {
    const below = (g) => {
      const [h, r] = [Math.floor(g / 100), g % 100];
      const head = h ? [EN[h], "hundred", ...(r ? ["and"] : [])] : [];
      if (r >= 20)
        return [...head, EN_TENS[Math.floor(r / 10)], ...(r % 10 ? [EN[r % 10]] : [])];
      return r ? [...head, EN[r]] : head;
    };
    if (n === 0) return ["zero"];
    const out = Object.entries(EN_SCALES).flatMap(([name, scale]) =>
      group(n, scale) ? [...below(group(n, scale)), name] : [],
    );
    const last = n % 1000;
    if (n >= 1000 && last && last < 100) out.push("and");
    return [...out, ...below(last)];
  }

  function german(n) {
    // `one` is how a last 1 is said: eine Million, ein tausend, and eins
    const below = (g, one) => {
      const [h, r] = [Math.floor(g / 100), g % 100];
      const head = h ? [DE[h], "hundert"] : [];
      if (r >= 20)
        return [...head, ...(r % 10 ? [DE[r % 10], "und"] : []), DE_TENS[Math.floor(r / 10)]];
      return r ? [...head, r === 1 ? one : DE[r]] : head;
    };
    if (n === 0) return ["null"];
    const out = [];
    for (const [scale, one, many] of [
      [1e9, "milliarde", "milliarden"],
      [1e6, "million", "millionen"],
      [1e3, "tausend", "tausend"],
    ]) {
      const g = group(n, scale);
      const alone = scale === 1e3 ? "ein" : "eine";
      if (g) out.push(...below(g, g === 1 ? alone : "eins"), g === 1 ? one : many);
    }
    return [...out, ...below(n % 1000, "eins")];
  }

  // German writes the parts as one word, but for the nouns.
  const spelled = (parts) =>
    parts
      .map((p) =>
        p.startsWith("milli") ? ` ${p[0].toUpperCase()}${p.slice(1)} ` : p,
      )
      .join("")
      .replace(/\s+/g, " ")
      .trim();

  // The number that English words say, or null if they say none.
  function meaning(said) {
    let [total, part] = [0, 0];
    for (const word of said) {
      if (EN.includes(word)) part += EN.indexOf(word);
      else if (EN_TENS.includes(word)) part += 10 * EN_TENS.indexOf(word);
      else if (word === "hundred") part *= 100;
      else if (word in EN_SCALES) {
        total += part * EN_SCALES[word];
        part = 0;
      }
    }
    const n = total + part;
    const again = n <= MOST ? english(n).join(" ") : "";
    return again === said.join(" ") ? n : null;
  }

  // What was typed: {said} words to translate, or {wrong} what is the matter.
  function read(text, known) {
    const input = text.trim().toLowerCase();
    if (!input)
      return { wrong: "Type a number, such as 847693, or its English words." };
    if (/\d/.test(input)) {
      if (/^[-\u2212]/.test(input))
        return { wrong: "The model knows no negative numbers." };
      if (/[a-z]/.test(input))
        return { wrong: "Type digits or words, not both at once." };
      const groups = /^\d{1,3}(?:([ .,'\u2019_\u00a0\u202f])\d{3})(?:\1\d{3})*$/;
      if (!/^\d+$/.test(input) && !groups.test(input))
        return {
          wrong: "A whole number is needed, such as 847693 or 847,693.",
        };
      const n = Number(input.replace(/\D/g, ""));
      if (n > MOST)
        return {
          wrong: "The model learned numbers of up to twelve digits: at most 999,999,999,999.",
        };
      return { said: english(n), number: n };
    }
    const said = input.replace(/[-\u2010-\u2013,.]/g, " ").trim().split(/\s+/);
    if (!said[0])
      return { wrong: "Type a number, such as 847693, or its English words." };
    const unknown = said.find((word) => !known.has(word));
    if (unknown !== undefined)
      return {
        wrong:
          `The model has no word \u201c${unknown}\u201d. It knows ` +
          `${known.size} English words: zero to nineteen, the tens, hundred, ` +
          "thousand, million, billion, and.",
      };
    return { said, number: meaning(said) };
  }

  // --- the model --------------------------------------------------------------
  const rows = (x, from, to) =>
    lit.tensor(
      [to - from, x.shape[1]],
      x.data.subarray(from * x.shape[1], to * x.shape[1]),
    );
  const stack = (a, b) =>
    lit.tensor(
      [a.shape[0] + b.shape[0], b.shape[1]],
      [...a.data, ...b.data],
    );

  function model(tensors, config) {
    const { d_model: d, n_heads: heads, layers } = config;
    // torch stores (out, in): turned once, and not at every word
    const turned = {};
    const project = (name, x) => {
      const weight = (turned[name] ??= lit.transpose(tensors[`${name}.weight`]));
      return add(matmul(x, weight), tensors[`${name}.bias`]);
    };
    const norm = (name, x) =>
      layerNorm(x, {
        weight: tensors[`${name}.weight`],
        bias: tensors[`${name}.bias`],
      });
    const embed = (side, ids, start = 0) => {
      const x = embedding(ids, tensors[`${side}_embed.weight`]);
      return lit.tensor(
        x.shape,
        x.data.map((value, i) => {
          const [place, column] = [start + Math.floor(i / d), i % d];
          const angle = place / 10000 ** ((column - (column % 2)) / d);
          const wave = column % 2 ? Math.cos(angle) : Math.sin(angle);
          return value * Math.sqrt(d) + wave;
        }),
      );
    };
    const attend = (name, x, k, v, options = {}) => {
      const q = project(`${name}.q_proj`, x);
      const found = attention(q, k, v, { heads, ...options });
      return { ...found, output: project(`${name}.o_proj`, found.output) };
    };
    const keys = (name, x) => ({
      k: project(`${name}.k_proj`, x),
      v: project(`${name}.v_proj`, x),
    });
    const feed = (at, x) =>
      add(
        x,
        project(
          `${at}.ff.down_proj`,
          gelu(project(`${at}.ff.up_proj`, norm(`${at}.norm_ff`, x))),
        ),
      );

    function encode(ids) {
      let x = embed("source", ids);
      for (let i = 0; i < layers[0]; i++) {
        const at = `encoder.blocks.${i}`;
        const y = norm(`${at}.norm_attn`, x);
        const { k, v } = keys(`${at}.attn`, y);
        x = feed(at, add(x, attend(`${at}.attn`, y, k, v).output));
      }
      return norm("encoder.norm", x);
    }

    // As a Session of the chapter: nothing of the past is computed twice.
    function session(memory) {
      const context = Array.from({ length: layers[1] }, (_, i) =>
        keys(`decoder.blocks.${i}.cross_attn`, memory),
      );
      const past = [];
      let length = 0;
      return (ids) => {
        let x = embed("target", ids, length);
        length += ids.length;
        const seen = [];
        for (let i = 0; i < layers[1]; i++) {
          const at = `decoder.blocks.${i}`;
          const y = norm(`${at}.norm_attn`, x);
          const now = keys(`${at}.attn`, y);
          past[i] = past[i]
            ? { k: stack(past[i].k, now.k), v: stack(past[i].v, now.v) }
            : now;
          const { k, v } = past[i];
          x = add(x, attend(`${at}.attn`, y, k, v, { causal: true }).output);
          const z = norm(`${at}.norm_cross`, x);
          const look = attend(
            `${at}.cross_attn`,
            z,
            context[i].k,
            context[i].v,
          );
          seen.push(look.weights); // (heads, T, S)
          x = feed(at, add(x, look.output));
        }
        const out = norm("decoder.norm", x);
        const table = (turned.words ??= lit.transpose(
          tensors["target_embed.weight"],
        ));
        return { logits: matmul(out, table), seen };
      };
    }

    // Greedy: the likeliest word each time, until the end.
    function write(ids, most) {
      const step = session(encode(ids));
      const [out, logits, seen] = [[], [], []];
      for (let word = BOS; out.length < most && word !== EOS; ) {
        const found = step([word]);
        const scores = [...rows(found.logits, 0, 1).data];
        scores[PAD] = scores[BOS] = -Infinity;
        word = scores.indexOf(Math.max(...scores));
        out.push(word);
        logits.push(list(found.logits)[0]);
        // layers x heads x S
        seen.push(found.seen.map((w) => list(w).map((head) => head[0])));
      }
      return { out, logits, seen };
    }
    return { write };
  }

  lit.widget("translator", ({ body, tensors, config }) => {
    const { source, target, cases } = config;
    const ids = new Map(source.map((word, i) => [word, i]));
    const known = new Map([...ids].filter(([, i]) => i > EOS));
    const { write } = model(tensors, config);
    const encode = (said) => [...said.map((w) => ids.get(w)), EOS];
    const most = config.max_len - 1;
    const [nLayers, nHeads] = [config.layers[1], config.n_heads];
    const state = { text: config.start, layer: nLayers - 1, head: -1, chosen: 0 };
    let shown = null; // what is being shown: words, attention

    // --- controls ---------------------------------------------------------------
    const input = el("input", {
      type: "text",
      id: "translator-input",
      value: state.text,
      autocomplete: "off",
      autocapitalize: "none",
      spellcheck: "false",
      enterkeyhint: "go",
      "aria-describedby": "translator-message",
    });
    const go = el("button", { type: "submit" }, "Translate");
    const form = el(
      "form.ask",
      {
        onsubmit: (event) => {
          event.preventDefault();
          translate(input.value);
        },
      },
      el("label", { for: "translator-input" }, "Number, in digits or English words"),
      el("span.line", {}, input, go),
    );
    const examples = el(
      "div.controls.examples",
      { role: "group", "aria-label": "Examples" },
      config.examples.map((text) =>
        el(
          "button",
          {
            type: "button",
            onclick: () => {
              input.value = text;
              translate(text);
            },
          },
          text,
        ),
      ),
      el(
        "button",
        {
          type: "button",
          onclick: () => {
            const digits = 3 + Math.floor(10 * Math.random());
            const n = Math.floor(
              10 ** (digits - 1) * (1 + 9 * Math.random()),
            );
            input.value = String(n);
            translate(input.value);
          },
        },
        "any number",
      ),
    );
    const message = el("p.message", { id: "translator-message", role: "status" });
    const options = [];
    for (let layer = nLayers - 1; layer >= 0; layer--)
      for (let head = -1; head < nHeads; head++)
        options.push(
          el(
            "option",
            { value: `${layer},${head}` },
            `layer ${layer + 1}, ` +
              (head < 0 ? "mean of the heads" : `head ${head + 1}`),
          ),
        );
    const pick = el(
      "select",
      {
        id: "translator-head",
        onchange: () => {
          [state.layer, state.head] = pick.value.split(",").map(Number);
          draw();
        },
      },
      ...options,
    );
    const from = el("div.words.from", { role: "list", "aria-label": "English" });
    const to = el("div.words.to", {
      role: "radiogroup",
      "aria-label": "German: choose a word to see where it looks",
    });
    const looks = el("p.said", { role: "status" });
    const spelling = el("p.spelling", { lang: "de" });
    const verdict = el("p.verdict");
    const grid = el("table.heat.align");
    const scroll = el(
      "div.scroll",
      { tabindex: 0, role: "region", "aria-label": "Attention as a table" },
      grid,
    );
    const result = el(
      "div.result",
      {},
      el("p.label", {}, "English, as the model reads it"),
      from,
      el("p.label", {}, "German, as it writes it"),
      to,
      looks,
      spelling,
      verdict,
      el(
        "div.controls",
        {},
        el("label", { for: "translator-head" }, "Attention of"),
        pick,
      ),
      scroll,
    );
    body.append(form, examples, message, result);

    // --- translating ------------------------------------------------------------
    function translate(text) {
      const { wrong, said, number } = read(text, known);
      const long = said && said.length + 1 > config.max_len;
      message.textContent = long
        ? `That is ${said.length} words; the model reads at most ` +
          `${config.max_len - 1} at once.`
        : (wrong ?? "");
      message.classList.toggle("wrong", Boolean(wrong || long));
      input.setAttribute("aria-invalid", String(Boolean(wrong || long)));
      if (wrong || long) return;
      const start = performance.now();
      const { out, seen } = write(encode(said), most);
      const ms = performance.now() - start;
      const ended = out.at(-1) === EOS;
      const parts = (ended ? out.slice(0, -1) : out).map((i) => target[i]);
      shown = {
        said: [...said, "end"],
        parts: ended ? [...parts, "end"] : parts,
        seen,
      };
      state.chosen = 0;
      spelling.textContent = spelled(parts) || "(nothing)";
      const right = number === null ? null : german(number);
      const digits = number?.toLocaleString("en-US");
      verdict.className = "verdict";
      if (right === null)
        verdict.textContent =
          "English does not say a number like this, so there is no right " +
          "answer. The model answers all the same.";
      else if (right.join(" ") === parts.join(" ")) {
        verdict.classList.add("right");
        verdict.textContent = `Right: ${digits}.`;
      } else {
        verdict.classList.add("wrong");
        verdict.textContent =
          `Wrong. ${digits} is ${spelled(right)}.` +
          (number < 100
            ? " Numbers below 100 were not in the course by themselves."
            : "");
      }
      verdict.append(` Computed here, in ${Math.max(1, Math.round(ms))} ms.`);
      draw();
    }

    const weightsOf = (row) => {
      const layer = shown.seen[row][state.layer];
      if (state.head >= 0) return layer[state.head];
      return layer[0].map(
        (_, j) => layer.reduce((sum, head) => sum + head[j], 0) / nHeads,
      );
    };

    function draw() {
      const { said, parts } = shown;
      from.replaceChildren(
        ...said.map((word) =>
          el("span.word", { role: "listitem" }, el("span", {}, word), el("small")),
        ),
      );
      to.replaceChildren(
        ...parts.map((word, i) =>
          el(
            "button.word",
            {
              type: "button",
              role: "radio",
              lang: "de",
              onclick: () => choose(i),
              onpointerenter: (event) =>
                event.pointerType === "mouse" && choose(i),
              onfocus: () => choose(i),
            },
            word,
          ),
        ),
      );
      grid.replaceChildren(
        el("caption", {}, "Row: German word. Column: English word. Per cent."),
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("td"),
            said.map((word) => el("th", { scope: "col" }, el("span", {}, word))),
          ),
        ),
        el(
          "tbody",
          {},
          ...parts.map((word, i) => {
            const cells = weightsOf(i).map((w) =>
              el("td", { style: `--weight: ${w}` }, Math.round(100 * w) || ""),
            );
            return el("tr", {}, el("th", { scope: "row", lang: "de" }, word), cells);
          }),
        ),
      );
      choose(Math.min(state.chosen, parts.length - 1));
    }

    function choose(row) {
      state.chosen = row;
      const weights = weightsOf(row);
      [...to.children].forEach((node, i) => {
        node.setAttribute("aria-checked", String(i === row));
        node.tabIndex = i === row ? 0 : -1;
      });
      [...grid.tBodies[0].rows].forEach((node, i) =>
        node.classList.toggle("chosen", i === row),
      );
      [...from.children].forEach((node, j) => {
        const percent = Math.round(100 * weights[j]);
        node.style.setProperty("--weight", weights[j]);
        node.lastChild.textContent = percent >= 5 ? `${percent}\u202f%` : "";
      });
      const best = weights.indexOf(Math.max(...weights));
      looks.textContent =
        `\u201c${shown.parts[row]}\u201d looks most at ` +
        `\u201c${shown.said[best]}\u201d, ` +
        `${Math.round(100 * weights[best])}\u202f%.`;
    }
    to.addEventListener("keydown", (event) => {
      const step = {
        ArrowRight: 1,
        ArrowDown: 1,
        ArrowLeft: -1,
        ArrowUp: -1,
      }[event.key];
      const end = { Home: 0, End: shown.parts.length - 1 }[event.key];
      if (step === undefined && end === undefined) return;
      event.preventDefault();
      const last = shown.parts.length - 1;
      const next = end ?? Math.min(last, Math.max(0, state.chosen + step));
      to.children[next].focus();
    });

    translate(state.text);
    const found = cases.slice(0, 3).map((n) => write(encode(english(n)), most));
    return {
      english: cases.map((n) => encode(english(n))),
      german: cases.map((n) =>
        german(n).map((word) => target.indexOf(word)),
      ),
      written: found.map(({ out }) => out),
      logits: found.slice(0, 2).map(({ logits }) => logits),
      attention: found.slice(0, 1).map(({ seen }) => seen),
    };
  });
})();
