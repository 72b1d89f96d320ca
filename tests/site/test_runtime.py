"""The widgets' runtime against torch: the same numbers, without a browser.

`runtime.js` runs in QuickJS, which the site needs anyway to typeset maths.
"""

import base64
import json
from pathlib import Path

import pytest
import quickjs
import torch
import torch.nn.functional as F

from bookkit.widget import export

STATIC = Path(__file__).resolve().parents[2] / "book" / "_static" / "widgets"
B64 = """
globalThis.window = globalThis;
globalThis.atob = (s) => (atobHex(s).match(/../g) ?? [])
    .map((h) => String.fromCharCode(parseInt(h, 16))).join("");
0
"""


@pytest.fixture(scope="module")
def js():
    """Call a function of the runtime on tensors: js("softmax(x)", x=x)."""
    context = quickjs.Context()
    context.add_callable("atobHex", lambda s: base64.b64decode(s).hex())
    context.eval(B64)
    context.eval((STATIC / "runtime.js").read_text() + ";0")

    def call(expression: str, half: bool = False, **tensors):
        payload = export("test", tensors=tensors, half=half).payload
        names = ", ".join(tensors)
        found = context.eval(
            f"(({{ {names} }}) => {{ const {{ add, attention, decode, "
            "embedding, from, gelu, layerNorm, linear, list, matmul, "
            "maxDiff, relu, rmsNorm, sign, silu, softmax, tensor, "
            f"transpose }} = lit; return JSON.stringify({expression}) }})"
            "(Object.fromEntries(Object.entries("
            f"{json.dumps(payload['tensors'])})"
            ".map(([k, t]) => [k, lit.decode(t)])))"
        )
        return json.loads(found)

    return call


def randn(*shape):
    seed = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=seed)


def close(got, expected, atol=1e-5):
    got = torch.tensor(got)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, atol=atol, rtol=0)


@pytest.mark.parametrize("half", [False, True])
def test_decode_reads_every_kind_of_number(js, half):
    smallest = 2.0**-24  # the least fp16, a denormal one
    x = torch.tensor([[0.0, -1.5, 65504.0], [smallest, 3 * smallest, -0.5]])
    assert js("list(x)", x=x, half=half) == x.tolist()
    ids = torch.tensor([0, -(2**31), 2**24])
    assert js("list(x)", x=ids, half=half) == ids.tolist()
    assert js("list(x)", x=torch.tensor([True, False]), half=half) == [1, 0]


def test_half_decodes_as_torch_does(js):
    x = randn(997)
    assert js("list(x)", x=x, half=True) == x.half().tolist()


def test_list_and_from_are_inverse(js):
    x = randn(2, 3, 5)
    close(js("list(from(list(x)))", x=x), x)


def test_matrix_products(js):
    a, b, w, bias = randn(2, 5), randn(5, 7), randn(3, 5), randn(3)
    close(js("list(matmul(a, b))", a=a, b=b), a @ b)
    close(js("list(transpose(a))", a=a), a.T)
    close(
        js("list(linear(a, w, bias))", a=a, w=w, bias=bias),
        F.linear(a, w, bias),
    )
    close(js("list(linear(a, w))", a=a, w=w), F.linear(a, w))


def test_embedding(js):
    table = randn(11, 3)
    got = js("list(embedding([4, 0, 10], table))", table=table)
    close(got, table[[4, 0, 10]])


def test_softmax(js):
    x = randn(5, 7) * 40
    close(js("list(softmax(x))", x=x), x.softmax(-1))


def test_norms(js):
    x, weight, bias = randn(5, 7), randn(7), randn(7) * 2
    close(
        js("list(layerNorm(x, {weight, bias}))", x=x, weight=weight, bias=bias),
        F.layer_norm(x, (7,), weight, bias),
    )
    close(js("list(layerNorm(x))", x=x), F.layer_norm(x, (7,)))
    close(
        js("list(rmsNorm(x, {weight}))", x=x, weight=weight),
        F.rms_norm(x, (7,), weight, eps=1e-6),
    )


@pytest.mark.parametrize("name", ["relu", "gelu", "silu"])
def test_activations(js, name):
    x = torch.linspace(-6, 6, 101)
    close(js(f"list({name}(x))", x=x), getattr(F, name)(x), atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
def test_attention(js, heads, causal):
    from litformer.attention import attention, attention_weights

    q, k, v = randn(5, 6), randn(7, 6), randn(7, 10)

    def split(x):
        return x.unflatten(-1, (heads, -1)).transpose(0, 1)[None]

    options = {"heads": heads, "causal": causal}
    got = js(
        "(({weights, output}) => [list(weights), list(output)])"
        f"(attention(q, k, v, {json.dumps(options)}))",
        q=q,
        k=k,
        v=v,
    )
    q, k, v = map(split, (q, k, v))
    close(got[0], attention_weights(q, k, causal=causal)[0])
    out = attention(q, k, v, causal=causal)[0].transpose(0, 1).flatten(1)
    close(got[1], out)


def test_attention_without_the_scale(js):
    q, k, v = randn(2, 3), randn(5, 3), randn(5, 3)
    got = js("list(attention(q, k, v, {scaled: false}).output)", q=q, k=k, v=v)
    close(got, (q @ k.T).softmax(-1) @ v)


def test_a_fully_masked_row_gives_zeros(js):
    from litformer.attention import attention

    q, k, v = randn(2, 3), randn(3, 3), randn(3, 3)
    mask = torch.tensor([[False, False, False], [True, False, True]])
    got = js(
        "list(attention(q, k, v, {mask}).output)", q=q, k=k, v=v, mask=mask
    )
    expected = attention(*(x[None, None] for x in (q, k, v)), mask)[0, 0]
    close(got, expected)
    assert got[0] == [0, 0, 0]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("matmul(a, a)", r"matmul \(n, k\) x \(k, m\): got \(2,3\), \(2,3\)"),
        ("add(a, tensor([2]))", r"add: got \(2,3\), \(2\)"),
        ("embedding([2], a)", "embedding: no row 2 among 2"),
        ("tensor([2, 2], [1])", r"1 numbers do not fit \(2,2\)"),
        ("attention(a, a, tensor([1, 3]))", "attention: got"),
        (
            "attention(a, tensor([1, 3]), tensor([1, 3]), {causal: true})",
            "causal needs T <= S",
        ),
        ("decode({dtype: 'int64', shape: [0], data: ''})", "type int64"),
    ],
)
def test_refuses(js, expression, message):
    with pytest.raises(quickjs.JSException, match=message):
        js(expression, a=randn(2, 3))


@pytest.mark.parametrize(
    ("got", "expected", "difference"),
    [
        ("[1, 2]", "[[1], [2.5]]", 0.5),
        ("tensor([2], [1, 2])", "[1, 2]", 0),
        ("[1, 2]", "[1]", None),  # JSON has no Infinity
        ("[NaN]", "[1]", None),
        ("[[true, false]]", "[[1, 0]]", 0),
    ],
)
def test_max_diff(js, got, expected, difference):
    assert js(f"maxDiff({got}, {expected})") == difference


def test_sign_writes_a_minus_and_no_negative_zero(js):
    assert js("[sign(-1.234), sign(-0.001), sign(2)]") == [
        "\u22121.23",
        "0.00",
        "2.00",
    ]
