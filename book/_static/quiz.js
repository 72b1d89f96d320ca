// {quiz}: choose, check, read why. Answers stay in this browser.
(() => {
  const KEY = "litformer.quiz";
  const load = () => {
    try {
      return JSON.parse(localStorage.getItem(KEY)) || {};
    } catch {
      return {}; // no storage here (private window): nothing is remembered
    }
  };
  const save = (change) => {
    const all = load();
    change(all);
    try {
      localStorage.setItem(KEY, JSON.stringify(all));
    } catch {
      // the quiz works without memory
    }
  };

  const quizzes = [...document.querySelectorAll("form.bk-quiz")].map(setUp);
  if (quizzes.length) showProgress();

  function showProgress() {
    const right = quizzes.filter((quiz) => quiz.solved()).length;
    for (const quiz of quizzes)
      quiz.progress.textContent =
        `${right} of ${quizzes.length} answered right in this chapter`;
  }

  function setUp(form) {
    const { quiz: id, digest } = form.dataset;
    const part = (name) => form.querySelector(`.quiz-${name}`);
    const [check, again] = [part("check"), part("again")];
    const [verdict, progress] = [part("verdict"), part("progress")];
    const inputs = [...form.querySelectorAll("input")];
    const rows = inputs.map((input) => input.closest(".quiz-row"));
    const correct = (input) => input.dataset.correct === "1";
    const picked = () => inputs.filter((input) => input.checked);
    let solved = false;

    // The reasons give the answers away: hidden until one was given.
    const clear = () => {
      solved = false;
      verdict.textContent = "";
      delete form.dataset.state;
      again.hidden = true;
      check.hidden = false;
      for (const row of rows) {
        delete row.dataset.state;
        const reason = row.querySelector("details");
        reason.open = false;
        reason.hidden = true;
      }
    };

    const judge = () => {
      clear();
      const chosen = picked();
      if (!chosen.length) {
        verdict.textContent = "Choose an answer first.";
        return;
      }
      solved = inputs.every((input) => input.checked === correct(input));
      inputs.forEach((input, i) => {
        const reason = rows[i].querySelector("details");
        if (input.checked) {
          rows[i].dataset.state = correct(input) ? "right" : "wrong";
          reason.open = true;
        }
        // once it is solved, every reason may be read
        reason.hidden = !(input.checked || solved);
      });
      form.dataset.state = solved ? "right" : "wrong";
      const missing = inputs.some((i) => correct(i) && !i.checked);
      const wrong = chosen.some((i) => !correct(i));
      verdict.textContent = solved
        ? "Right."
        : wrong
          ? "Not quite. Read why, and try again."
          : missing
            ? "Right so far, but not all of them."
            : "";
      again.hidden = false;
      check.hidden = solved;
    };

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      judge();
      showProgress();
      if (picked().length)
        save((all) => {
          const chosen = picked().map((input) => inputs.indexOf(input));
          all[id] = { digest, chosen };
        });
      if (solved) again.focus({ preventScroll: true });
    });
    form.addEventListener("reset", () => {
      clear();
      showProgress();
      save((all) => delete all[id]);
      inputs[0].focus({ preventScroll: true });
    });
    form.addEventListener("change", () => {
      if (form.dataset.state) clear();
      showProgress();
    });

    form.classList.add("live");
    progress.hidden = false;
    clear();
    const stored = load()[id];
    if (stored?.digest === digest) {
      inputs.forEach((input, i) => (input.checked = stored.chosen.includes(i)));
      judge();
    }
    return { progress, solved: () => solved };
  }
})();
