"""`check` answers in words, and disturbs nothing."""

import math
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bookkit import check as checker
from bookkit import checks, progress
from bookkit.check import (
    CheckFailed,
    Result,
    UnknownExercise,
    Wrong,
    check,
    examine,
    exercise,
    expect_close,
    expect_dtype,
    expect_equal,
    expect_no_loop,
    expect_shape,
    show,
    unchanged,
    without,
)


@pytest.fixture(autouse=True)
def own_registry(tmp_path, monkeypatch):
    """Each test has its own checks, its own progress and no strict mode."""
    monkeypatch.setattr(checker, "_registry", {})
    monkeypatch.setattr(checks, "__path__", [str(tmp_path / "checks")])
    for name in [m for m in sys.modules if m.startswith("bookkit.checks.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("LITFORMER_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("BOOKKIT_STRICT", raising=False)
    (tmp_path / "checks").mkdir()
    yield
    for name in [m for m in sys.modules if m.startswith("bookkit.checks.")]:
        del sys.modules[name]


@pytest.fixture
def write_checks(tmp_path):
    def write(text: str, chapter: str = "tiny") -> None:
        head = "import torch\nfrom bookkit.check import *\n"
        head += "from bookkit.check import exercise, Wrong\n"
        path = tmp_path / "checks" / f"{chapter}.py"
        path.write_text(head + textwrap.dedent(text), encoding="utf-8")

    return write


DOUBLE = """
@exercise("tiny.double", seconds=1)
def double(f):
    '''Doubling.'''
    x = torch.randn(3, 4)
    expect_close(f(x), 2 * x, on={"x": x}, hint="Add x to itself.")
    return "`f` is linear."
"""


@pytest.fixture
def answer(write_checks):
    """Examine one answer to the exercise `double`."""
    write_checks(DOUBLE)

    def examined(code: str) -> Result:
        namespace: dict = {}
        lines = textwrap.dedent(code)
        file = "<answer>"
        checker.linecache.cache[file] = (
            len(lines), None, lines.splitlines(True), file
        )  # fmt: skip
        exec(compile(lines, file, "exec"), namespace)
        return examine("tiny.double", namespace)

    return examined


# ---------------------------------------------------------------- verdicts


def test_right_answer(answer):
    result = answer("def f(x): return x + x")
    assert result.solved
    assert result.status == "solved"
    assert "Solved: tiny.double" in result.text
    assert "`f` is linear." in result.text


def test_wrong_answer_says_input_expected_and_got(answer):
    result = answer("def f(x): return x * 6")
    assert not result.solved
    assert result.status == "wrong"
    assert result.details["Input"].startswith("x = shape (3, 4)")
    assert result.details["Expected"].startswith("shape (3, 4)")
    assert result.details["Got"].startswith("shape (3, 4)")
    assert result.details["Likely"] == (
        "Every number is 3 times the expected one. Add x to itself."
    )
    assert re.search(
        r"12 of 12 numbers are off. The worst is at \[\d, \d\]", result.text
    )


def test_not_written_yet(answer):
    for code in (
        "def f(x): raise NotImplementedError",
        "def f(x): raise NotImplementedError('write me')",
        "f = ...",
        "f = None",
        "def f(x): return ...",
    ):
        result = answer(code)
        assert result.status == "unwritten", code
        assert "Not written yet" in result.text


def test_missing_name(write_checks):
    write_checks(
        """
        @exercise("tiny.pair")
        def pair(first, second, third=None):
            '''Three names.'''
        """
    )
    text = examine("tiny.pair", {}).text
    assert "Run the cells that define `first` and `second` first." in text
    text = examine("tiny.pair", {"first": 1}).text
    assert "Run the cell that defines `second` first." in text
    assert examine("tiny.pair", {"first": 1, "second": 2}).solved


def test_error_is_put_into_words(answer):
    result = answer(
        """
        def f(x):
            y = x.T
            return x @ x
        """
    )
    assert result.status == "error"
    assert "RuntimeError: mat1 and mat2 shapes" in result.message
    assert result.details["Your line"].startswith("return x @ x\n")
    assert "in `f`" in result.details["Your line"]
    assert "transpose" in result.details["Likely"]
    assert "shape (3, 4)" in result.details["Input"]
    assert "Traceback" not in result.text


def test_a_real_not_implemented_error_is_an_error(answer):
    code = "def f(x): return torch.linalg.eig(x.to(torch.bfloat16) @ x.T)"
    result = answer("import torch\n" + code)
    assert result.status == "error"


def test_recursion_is_put_into_words(answer):
    result = answer("def f(x): return f(x)")
    assert result.status == "error"
    assert "calls itself without end" in result.text


def test_wrong_signature(answer):
    result = answer("def f(): return 1")
    assert "`f` could not be called" in result.text
    assert "parameters" in result.details["Likely"]


def test_wrong_kind_of_answer(answer):
    assert "could not be examined" in answer("f = 3").text


def test_missing_return(answer):
    result = answer("def f(x): x + x")
    assert "It returned None." in result.text
    assert "`return` missing" in result.details["Likely"]


def test_missing_return_in_a_check_without_expect(write_checks):
    write_checks(
        """
        @exercise("tiny.bare")
        def bare(f):
            '''No helper.'''
            f(1).shape
        """
    )
    result = examine("tiny.bare", {"f": lambda x: None})
    assert "`f` returned None." in result.text


def test_an_endless_loop_is_stopped(answer):
    start = time.monotonic()
    result = answer("def f(x):\n    while True:\n        pass")
    assert time.monotonic() - start < 10
    assert result.status == "timeout"
    assert "stopped after 1 seconds" in result.text
    assert "in `f`" in result.details["Your line"]


def test_an_endless_loop_that_swallows_exceptions_is_stopped(answer):
    result = answer(
        """
        def f(x):
            n = 0
            while n < 2:
                try:
                    while True:
                        pass
                except:
                    n += 1
            return x + x
        """
    )
    assert result.solved  # the timer fired twice, so the loops ended


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
def test_somebody_elses_timer_runs_on(answer):
    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        assert answer("def f(x): return 2 * x").solved
        assert 900 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def test_works_outside_of_the_main_thread(answer):
    results = []
    thread = threading.Thread(
        target=lambda: results.append(answer("def f(x): return 2 * x"))
    )
    thread.start()
    thread.join()
    assert results[0].solved


def test_prints_of_the_answer_are_shown_shortly(answer, capsys):
    result = answer(
        "def f(x):\n    for i in range(99): print('row', i)\n    return x + x"
    )
    assert capsys.readouterr().out == ""
    assert result.details["Printed"].startswith("row 0\nrow 1")
    assert "... 91 more lines" in result.details["Printed"]


def test_warnings_of_the_answer_are_shown(answer):
    result = answer(
        "import warnings\n"
        "def f(x):\n    warnings.warn('careful ' * 99)\n    return x + x"
    )
    assert result.solved
    assert result.details["Warned"].startswith("UserWarning: careful careful")
    assert len(result.details["Warned"]) <= 200
    assert "Warned" not in answer("def f(x): return x + x").details


# ------------------------------------------------------- nothing is disturbed


def test_writing_into_the_input_does_not_fool_the_check(write_checks):
    write_checks(
        """
        @exercise("tiny.same")
        def same(f):
            '''Compares with the input afterwards.'''
            x = torch.arange(3.0)
            expect_close(f(x), x, on={"x": x})
        """
    )

    def cheat(x):
        x.zero_()
        return x

    result = examine("tiny.same", {"f": cheat})
    assert result.status == "wrong"
    assert "changes its argument `x` in place" in result.details["Note"]


def test_what_is_ruled_out_is_seen_however_it_is_called():
    x = torch.randn(3, 4)
    ways = [
        lambda x: torch.softmax(x, -1),
        lambda x: x.softmax(-1),
        torch.nn.Softmax(-1),
        lambda x: torch.nn.functional.softmax(x, -1),
    ]
    for way in ways:
        with pytest.raises(Wrong, match=r"calls `softmax`.*rules out"):
            without(lambda x, way=way: way(x), "softmax")(x)
    allowed = without(lambda x: (x.exp() + 1).log(), "softmax")
    assert torch.equal(allowed(x), (x.exp() + 1).log())


def test_autograd_and_modules_can_be_ruled_out():
    from litformer.attention import attention_weights

    def slope(x):
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(leaf.square().sum(), leaf)[0]

    with pytest.raises(Wrong, match="calls `grad`"):
        without(slope, "grad")(torch.randn(3))
    q = torch.randn(1, 1, 2, 3)
    looks = without(lambda q: attention_weights(q, q), module="torch.nn")
    assert looks(q).shape == (1, 1, 2, 2)
    with pytest.raises(Wrong, match=r"calls `litformer\.attention`"):
        without(
            lambda q: attention_weights(q, q), module="litformer.attention"
        )(q)


def test_a_whole_package_can_be_ruled_out():
    from einops import rearrange

    def turned(x):
        return rearrange(x, "a b -> b a")

    x = torch.arange(6.0).view(2, 3)
    with pytest.raises(Wrong, match=r"calls `einops`, which.*rules out"):
        without(turned, module="einops")(x)
    assert torch.equal(without(turned, module="eino")(x), x.T)


def test_a_loop_can_be_ruled_out():
    def looped(x):
        return torch.stack([row.sum() for row in x])

    few, many = (torch.ones(2, 3),), (torch.ones(5, 3),)
    with pytest.raises(Wrong, match=r"calls torch \d+ times for a small"):
        expect_no_loop(looped, few, many, on="ones")
    expect_no_loop(lambda x: x.sum(1), few, many, on="ones")


def test_a_nan_that_is_repaired_can_be_ruled_out():
    def repaired(x):
        return (x / x).nan_to_num()

    zero = torch.zeros(2)
    assert torch.equal(without(repaired)(zero), zero)
    with pytest.raises(Wrong, match=r"NaN arises on the way, in `.*div"):
        without(repaired, nan=False)(zero)


def test_a_table_too_large_for_memory_is_put_into_words(answer):
    result = answer("import torch\ndef f(x): return torch.ones(2**60)")
    assert result.status == "error"
    assert "use a formula" in result.text


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("torch.nn.Linear(2, 2).weight.mul_(2)", r"torch\.no_grad\(\)"),
        ("torch.zeros(10**30)", "use a formula"),
    ],
)
def test_usual_errors_are_explained_without_a_stack(answer, code, says):
    result = answer(f"import torch\ndef f(x): return {code}")
    assert result.status == "error"
    assert re.search(says, result.details["Likely"])
    assert "Exception raised from" not in result.text


def test_in_place_is_noted_when_the_answer_is_right(answer):
    result = answer("def f(x):\n    x *= 2\n    return x")
    assert result.solved
    assert "changes its argument `x` in place" in result.details["Note"]


def test_in_place_is_noted_for_lists_and_dicts():
    for code, value in (
        ("x.append(1)", []),
        ("x.pop()", [1]),
        ("x[0].append(3)", [[1, 2]]),
        ("x[0].mul_(2)", [torch.ones(2)]),
        ("x['b'] = 1", {"a": 1}),
    ):
        namespace: dict = {}
        exec(f"def f(x):\n    {code}", namespace)
        calls = checker._Calls()
        calls.guard("f", namespace["f"])(value)
        assert calls.changed == ("f", "x"), code
    calls = checker._Calls()
    calls.guard("f", lambda x: sorted(x))([2, 1])
    assert calls.changed is None


def test_unchanged_refuses_an_answer_that_writes_into_its_arguments():
    def careful(x, y):
        return x * y

    def careless(x, y):
        return y.mul_(x)

    x, y = torch.full((2,), 3.0), torch.ones(2)
    unchanged(careful, x, y, names="x y", on="ones")
    with pytest.raises(Wrong, match="`y` was changed in place"):
        unchanged(careless, x, y, names="x y", on="ones")
    guarded = checker._Calls().guard("careless", careless)
    with pytest.raises(Wrong, match="`y` was changed in place"):
        unchanged(guarded, x, y, names="x y", on="ones")
    assert torch.equal(y, torch.ones(2))


def test_clones_keep_gradients_and_identity(write_checks):
    write_checks(
        """
        @exercise("tiny.grad")
        def grad(f):
            '''Gradients reach the check's own tensor.'''
            x = torch.ones(2, requires_grad=True)
            f(x, [x]).sum().backward()
            expect_close(x.grad, torch.full((2,), 2.0), on="ones")
        """
    )

    def f(a, b):
        assert b[0] is a
        return a + b[0]

    assert examine("tiny.grad", {"f": f}).solved


def test_random_state_is_seeded_and_restored(write_checks):
    write_checks(
        """
        import random, numpy as np
        @exercise("tiny.dice")
        def dice(log):
            '''Draws numbers.'''
            log.append((torch.rand(()).item(), random.random(),
                        np.random.rand()))
        """
    )
    log: list = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        before = (
            torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
        )  # fmt: skip
        assert examine("tiny.dice", {"log": log}).solved
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
        assert (np.random.get_state()[1] == before[2]).all()
    assert log[0] == log[1]


def test_defaults_of_torch_do_not_matter(answer):
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    try:
        assert answer("def f(x):\n    assert x.dtype == x.float().dtype\n"
                      "    return x + x").solved  # fmt: skip
        assert torch.get_default_dtype() == torch.float64
        assert not torch.is_grad_enabled()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)


# ------------------------------------------------------------------- check()


def test_check_finds_names_where_it_is_called(write_checks):
    write_checks(DOUBLE)

    def f(x):
        return x + x

    assert callable(f)
    result = check("tiny.double")
    assert result.solved
    assert result.progress == "1 of 1 solved in this chapter: all of them!"
    assert set(progress.solved()) == {"tiny.double"}


def test_progress_line_counts_the_chapter(write_checks):
    more = DOUBLE.replace("tiny.double", "tiny.other").replace("def d", "def e")
    write_checks(DOUBLE + more)
    f = torch.exp
    assert f
    result = check("tiny.double")
    assert result.progress == "0 of 2 solved in this chapter."
    assert result.progress in result.text
    assert result.progress in result._repr_html_()


def test_unwritten_answers_are_no_attempts(write_checks):
    write_checks(DOUBLE)
    f = ...
    assert f
    check("tiny.double")
    assert progress.load() == {}


def test_unwritable_progress_does_not_fail_the_check(
    write_checks, monkeypatch, tmp_path
):
    write_checks(DOUBLE)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LITFORMER_PROGRESS", str(tmp_path / "file" / "p.json"))

    def f(x):
        return x + x

    assert callable(f)
    result = check("tiny.double")
    assert result.solved
    assert "Progress was not saved" in result.progress
    assert "LITFORMER_PROGRESS" in result.progress


def test_strict_mode_raises_and_records_nothing(write_checks, monkeypatch):
    write_checks(DOUBLE)
    monkeypatch.setenv("BOOKKIT_STRICT", "1")
    f = torch.exp
    with pytest.raises(CheckFailed, match="tiny.double\n.*numbers are off"):
        check("tiny.double")
    f = lambda x: 2 * x  # noqa: E731
    assert f
    assert check("tiny.double").progress == ""
    assert progress.load() == {}


def test_unknown_ids(write_checks):
    write_checks(DOUBLE)
    with pytest.raises(UnknownExercise, match=r"Did you mean 'tiny.double'\?"):
        check("tiny.dubble")
    with pytest.raises(UnknownExercise, match=r"Did you mean 'tiny.double'\?"):
        check("tny.double")
    with pytest.raises(UnknownExercise, match="There are: tiny.double"):
        check("xyz")
    with pytest.raises(TypeError, match="give the id of an exercise.*got int"):
        check(3)


def test_registering_is_careful(write_checks):
    with pytest.raises(ValueError, match="id must look like.*got 'Nonsense'"):
        exercise("Nonsense")
    with pytest.raises(ValueError, match="needs a docstring"):
        exercise("tiny.a")(lambda x: None)

    def one(x):
        """One."""

    def two(x):
        """Two."""

    exercise("tiny.a")(one)
    exercise("tiny.a")(one)  # the same again, as a reload does
    with pytest.raises(ValueError, match="two checks are called 'tiny.a'"):
        exercise("tiny.a")(two)
    with pytest.raises(UnknownExercise, match="no chapter 'nope' has checks"):
        checker.checks_of("nope")


# -------------------------------------------------------------- expectations


def words(function, *args, **kwargs) -> str:
    with pytest.raises(Wrong) as caught:
        function(*args, on="the input", **kwargs)
    assert "Input:     the input" in str(caught.value)
    return str(caught.value)


def test_expect_close_accepts():
    expect_close(torch.ones(2) + 1e-7, [1.0, 1.0], on="")
    expect_close(2.0, torch.tensor(2.0), on="")
    expect_close(np.float32(0.1), 0.1, on="")
    expect_close(
        torch.tensor([math.nan, math.inf]), [math.nan, math.inf], on=""
    )


@pytest.mark.parametrize(
    ("got", "expected", "says"),
    [
        (torch.ones(2, 3), torch.ones(3, 2), "in another order"),
        (torch.ones(2, 1), torch.ones(2, 5), "summed or averaged away"),
        (torch.ones(2), torch.ones(2, 5), "It has 1 axis, not 2"),
        (torch.tensor([1.0, math.nan]), [1.0, 2.0], r"NaN at \[1\]"),
        (torch.tensor([1.0, -math.inf]), [1.0, 2.0], r"infinite at \[1\]"),
        (-torch.arange(4.0), torch.arange(4.0), "is -1 times the expected"),
        (torch.arange(4.0) + 3, torch.arange(4.0), "is off by 3"),
        (torch.zeros(4), torch.arange(4.0), "Every number is zero"),
        ([3.0, 2.0, 1.0], [1.0, 2.0, 3.0], "in reverse order"),
        ([1.0, 2.5, 4.0], [1.0, 2.0, 4.0], "1 of 3 .* expected 2, got 2.5"),
        (2.5, 2.0, r"^Expected 2, got 2\.5\."),
        (1.0, math.inf, r"^Expected inf, got 1\."),
        ([math.inf, 1.0], [-math.inf, 1.0], "1 of 2 numbers is off"),
        (None, 2.0, "It returned None"),
        ("two", 2.0, "Expected a tensor, got a str"),
        ((torch.ones(2), 1), torch.ones(2), "got a tuple of 2.*Return one"),
    ],
)
def test_expect_close_says(got, expected, says):
    assert re.search(says, words(expect_close, got, expected), re.S)


def test_expect_close_sees_a_transpose():
    square = torch.arange(9.0).view(3, 3)
    text = words(expect_close, square.T.contiguous(), square)
    assert "its last two axes exchanged" in text


def test_expect_equal():
    eye = torch.eye(3, dtype=torch.bool)
    expect_equal(eye, eye.clone(), on="")
    expect_equal([1, 2], [1, 2], on="")
    expect_equal(torch.tensor(3), 3, on="")
    assert "3 of 9 entries differ. The first is at [0, 0]" in words(
        expect_equal, torch.zeros(3, 3, dtype=torch.bool), eye
    )
    assert "Every entry is inverted" in words(expect_equal, ~eye, eye)
    triangle = torch.ones(3, 3, dtype=torch.bool).tril()
    assert "exchanged" in words(expect_equal, triangle.T, triangle)
    assert "dtype bool, got float32" in words(expect_equal, eye.float(), eye)
    assert "Expected 2, got 3." in words(expect_equal, 3, 2)
    assert "Expected True, got 1." in words(expect_equal, 1, True)
    assert "Expected a, got b." in words(expect_equal, "b", "a")
    assert "It returned None." in words(expect_equal, None, 2)
    assert "Expected shape (3, 3), got (2,)" in words(
        expect_equal, torch.zeros(2), eye
    )


def test_expect_equal_wants_int_where_int_is_asked_for():
    for got, expected in (
        (3.0, 3),
        ([1, 2.0], [1, 2]),
        ((1, [2.0]), (1, [2])),
        ({"a": 1.0}, {"a": 1}),
        (np.float64(3), 3),
    ):
        assert "as int" in words(expect_equal, got, expected)
    for got, expected in ((3, 3), (3, 3.0), (2.5, 2.5), (np.int64(3), 3)):
        expect_equal(got, expected, on="")
    assert "Expected 2, got 3." in words(expect_equal, 3.0, 2)


def test_expect_shape():
    expect_shape(torch.ones(2, 3), (2, 3), on="")
    text = words(expect_shape, torch.ones(3, 2), (2, 3), hint="Keep rows.")
    assert "Expected shape (2, 3), got (3, 2)." in text
    assert "Keep rows." in text


# ------------------------------------------------------------------- showing


def test_expect_dtype():
    expect_dtype(torch.ones(2), torch.float32, on="x")
    with pytest.raises(Wrong, match="dtype bool, got int64"):
        expect_dtype(torch.ones(2).long(), torch.bool, on="x")


def test_show_is_short_and_readable():
    assert show(torch.tensor(0.123456)) == "0.1235"
    assert show(torch.tensor([1.0, 20.5])) == "shape (2,): [   1 20.5]"
    assert show(torch.eye(2, dtype=torch.bool)) == (
        "shape (2, 2), bool, 1 = True\n[[1 .]\n [. 1]]"
    )
    assert show(torch.zeros(0, 3)) == "shape (0, 3), empty"
    assert show(torch.ones(1, dtype=torch.bfloat16)) == (
        "shape (1,), bfloat16: [1]"
    )
    assert show({"a": 1, "b": 0.5}) == "a = 1\nb = 0.5"
    assert show((1, 0.25)) == "(1, 0.25)"
    assert show((1,)) == "(1,)"
    assert show(print.__class__) == "type `builtin_function_or_method`"
    large = show(torch.randn(20, 30, 40))
    assert "of it [0]" in large
    assert len(large.splitlines()) == 8
    assert "..." in large
    wide = show(torch.randn(5, 11))
    assert max(len(line) for line in wide.splitlines()) < 80
    assert len(show(object) + show("x" * 10)) < 60


def test_a_stack_is_shown_where_it_is_wrong():
    want = torch.zeros(2, 3, 4, 5, dtype=torch.bool)
    have = want.clone()
    have[1, 2, 3, 0] = True
    text = words(expect_equal, have, want)
    assert "shape (2, 3, 4, 5), bool, 1 = True; of it [1, 2]" in text
    assert "[1 . . . .]]" in text
    text = words(expect_close, have.float(), want.float())
    assert "; of it [1, 2]" in text
    assert "[1 0 0 0 0]]" in text


def test_html_escapes_and_inherits_colours():
    result = Result(
        "tiny.x", "wrong", "a < `b`", {"Got": "1\n2 < 3", "Likely": "<i>"}
    )
    page = result._repr_html_()
    assert "a &lt; <code>b</code>" in page
    assert "<i>" not in page
    assert "currentColor" in page
    assert "background:#" not in page
    assert 'data-status="wrong"' in page


def test_imports_with_the_package_dependencies_only():
    code = """
    import sys
    for tool in ("jupytext", "nbformat", "yaml", "sphinx", "IPython", "nbval"):
        sys.modules[tool] = None
    import bookkit.check, bookkit.progress
    """
    source = Path(checker.__file__).parents[1]
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(source)},
        timeout=120,
    )
