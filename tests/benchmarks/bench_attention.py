"""`fused_attention` against the bare kernel, `attention` beside both.

Goal: our wrapper costs at most 5 % more than `F.scaled_dot_product_attention`
called directly at T = 2048.
"""

import torch
import torch.nn.functional as F

from benchmarks.harness import compare, peak_mib, publish
from litformer.attention import attention, fused_attention

B, H, DH = 1, 8, 64


def inputs(t, *, grad):
    make = torch.Generator().manual_seed(0)
    return [
        torch.randn(B, H, t, DH, generator=make).requires_grad_(grad)
        for _ in range(3)
    ]


def call(attend, t, *, backward, **options):
    """A function without arguments that runs forward, or both ways."""
    qkv = inputs(t, grad=backward)
    if not backward:
        return lambda: attend(*qkv, **options)
    ones = torch.ones(B, H, t, DH)
    return lambda: torch.autograd.grad(attend(*qkv, **options), qkv, ones)


def direct(q, k, v, mask=None, *, causal=False):
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal
    )


def test_wrapper_against_bare_kernel():
    t = 2048
    make = torch.Generator().manual_seed(1)
    some = torch.rand(t, t, generator=make) < 0.5
    cases = {}
    for name, options in {
        "full": {},
        "causal": {"causal": True},
        "bool mask": {"mask": some},
    }.items():
        q, k, v = inputs(t, grad=False)
        torch.testing.assert_close(
            fused_attention(q, k, v, **options), direct(q, k, v, **options)
        )
        for backward in (False, True):
            what = f"{name}, forward{' + backward' if backward else ''}"
            cases[what] = compare(
                {
                    "the kernel itself": call(
                        direct, t, backward=backward, **options
                    ),
                    "ours": call(
                        fused_attention, t, backward=backward, **options
                    ),
                }
            )
    publish(
        "attention",
        "wrapper",
        title="What the contract of fused_attention costs",
        what="Against F.scaled_dot_product_attention called directly, 8 heads "
        "of 64, 2048 tokens.",
        cases=cases,
    )


def test_overhead_of_one_small_call():
    """What the checks cost where there is next to nothing to compute."""
    found = compare(
        {
            "direct": call(direct, 4, backward=False),
            "ours": call(fused_attention, 4, backward=False),
        }
    )
    publish(
        "attention",
        "small-call",
        title="The contract where there is next to nothing to compute",
        what="One call on four tokens: the price of checking shapes and masks.",
        cases={
            "4 tokens": {
                "the kernel itself": 1000 * found["direct"].ms,
                "ours": 1000 * found["ours"].ms,
            }
        },
        unit="CPU microseconds",
        goal=None,
    )


def test_curves_of_time_and_memory():
    times, memory = {}, {}
    for t in (128, 256, 512, 1024, 2048, 4096):
        calls = {
            "attention": call(attention, t, backward=True),
            "fused_attention": call(fused_attention, t, backward=True),
        }
        case = f"{t} tokens"
        times[case] = compare(calls, rounds=7 if t < 2048 else 3)
        peaks = {name: peak_mib(f) for name, f in calls.items()}
        if None not in peaks.values():
            memory[case] = {n: max(mib, 0.1) for n, mib in peaks.items()}
    shared = {"ours": "fused_attention", "goal": None}
    what = "Forward and backward, 8 heads of 64: by hand against the kernel."
    publish(
        "attention",
        "time",
        title="Time of the two paths",
        what=what,
        cases=times,
        **shared,
    )
    if memory:
        publish(
            "attention",
            "memory",
            title="Memory of the two paths",
            what=what,
            cases=memory,
            unit="MiB at most",
            **shared,
        )
