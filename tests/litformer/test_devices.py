"""What the chapters train and generate with runs on a GPU as on the CPU.

No GPU is needed: `pretended_gpu` refuses what CUDA refuses. Each computation
is written once and done twice; the results must be equal to the bit, since
the pretended GPU has the arithmetic of the CPU.
"""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from litformer.attention import MultiHeadAttention
from litformer.augment import random_affine
from litformer.bert import BertConfig, MaskedLM
from litformer.blocks import Block
from litformer.checkpoints import load_checkpoint
from litformer.data import bucketed_batches
from litformer.feedforward import GatedFeedForward
from litformer.generation import beam_search, greedy_decode, sample, stream
from litformer.gpt import GPT, GPTConfig, next_token_loss
from litformer.images import normalise
from litformer.losses import calibration_error, cross_entropy
from litformer.masking import mask_tokens
from litformer.masks import padding_mask
from litformer.mixture import MarkovMixture
from litformer.moe import (
    Experts,
    GroupedExperts,
    MoE,
    TopKRouter,
    balance_loss,
    describe_routing,
    expert_load,
    grouped_linear,
    pack,
    record_routing,
    router_z_loss,
)
from litformer.norm import LayerNorm
from litformer.optim import AdamW, decay_groups, warmup_linear
from litformer.pooling import first_pool, max_pool, mean_pool, text_vectors
from litformer.positions import ALiBi, T5Bias, WithBias
from litformer.rollout import attention_maps, rollout
from litformer.saliency import SaliencyDecoder
from litformer.sampling import next_token_probabilities
from litformer.seq2seq import Seq2Seq, Seq2SeqConfig
from litformer.training import set_seed, train
from litformer.vit import ImageClassifier, ViT, ViTConfig
from pretend_gpu import pretended_gpu

V, STEPS = 23, 4


def everywhere(compute, tol=0):
    """`compute(device)` here and there: equal results, each in its place.

    `compute` returns tensors, or numbers and lists.
    """
    here = compute("cpu")
    with pretended_gpu():
        there = compute("cuda")
        assert len(here) == len(there) > 0
        for a, b in zip(here, there, strict=True):
            if isinstance(a, torch.Tensor):
                assert b.is_cuda
                torch.testing.assert_close(b.cpu(), a, rtol=tol, atol=tol)
            else:
                rough = tol and not isinstance(a, str)
                assert b == (pytest.approx(a, rel=tol) if rough else a)


def ids(b=5, t=7, low=3, high=V, seed=0):
    dice = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (b, t), generator=dice)


def trained(model, batches, loss_fn, device, groups=False):
    """A few steps; the losses, and all weights in a row."""
    model.to(device)
    params = decay_groups(model, 0.1) if groups else model.parameters()
    history = train(
        model,
        batches,
        loss_fn,
        AdamW(params, lr=3e-3),
        steps=STEPS,
        schedule=warmup_linear(2, STEPS),
        grad_accum=2,
        progress=False,
    )
    weights = [p.detach().flatten() for p in model.parameters()]
    return [history.losses, history.norms, torch.cat(weights)]


def seq2seq(**changes):
    torch.manual_seed(0)
    return Seq2Seq(Seq2SeqConfig.tiny(V, V, dropout=0.1, **changes))


def test_seq2seq_trains():
    def loss_fn(model, batch):
        device = next(model.parameters()).device
        source, target = (t.to(device) for t in batch)
        asked = target[:, 1:]
        logits = model(source, target[:, :-1])
        loss = cross_entropy(
            logits, asked, ignore_index=0, smoothing=0.1, reduction="sum"
        )
        return loss, (asked != 0).sum()

    rows = [[*range(3, 5 + n)] for n in range(11)]
    examples = [(r, [1, *r, 2]) for r in rows]
    everywhere(
        lambda device: trained(
            seq2seq(),
            bucketed_batches(examples, batch_size=3),
            loss_fn,
            device,
        )
    )


@pytest.mark.parametrize("use_cache", [True, False])
def test_seq2seq_writes(use_cache):
    source = ids()
    source[1, 4:] = 0
    options = dict(max_new_tokens=9, use_cache=use_cache)

    def written(device):
        model, read = seq2seq().eval().to(device), source.to(device)
        beams = beam_search(
            model, read, beam_size=3, length_penalty=0.6, **options
        )
        return [greedy_decode(model, read, **options), *beams]

    everywhere(written)


def test_text_left_on_the_cpu_is_refused():
    with pretended_gpu(), pytest.raises(RuntimeError, match="same device"):
        greedy_decode(seq2seq().eval().to("cuda"), ids(), max_new_tokens=3)


GPTS = {
    "nano": GPTConfig.nano(V, 16, dropout=0.1),
    "llama": GPTConfig.llama(
        V, 16, d_model=24, n_layers=2, n_heads=6, n_kv_heads=2, d_ff=32
    ),
}


@pytest.mark.parametrize("name", GPTS)
def test_gpt_trains(name):
    def loss_fn(model, batch):
        return next_token_loss(model, [t.to(model.place) for t in batch])

    def run(device):
        set_seed(0)
        model = GPT(GPTS[name])
        model.place = device
        x = ids(seed=1)
        batches = [(x[:, :-1], x[:, 1:])]
        return trained(model, batches, loss_fn, device, groups=True)

    everywhere(run)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("name", GPTS)
def test_gpt_writes(name, use_cache):
    def written(device):
        set_seed(0)
        model = GPT(GPTS[name]).eval().to(device)
        options = dict(max_new_tokens=8, eos_id=2, use_cache=use_cache)
        start = ids(t=3).to(device)
        make = torch.Generator(device).manual_seed(0)
        drawn = sample(
            model, start, top_k=9, top_p=0.9, generator=make, **options
        )
        sure = torch.stack([*stream(model, start, temperature=0.0, **options)])
        return [drawn, sure]

    everywhere(written)


def test_sampling_with_a_generator_of_the_cpu_is_refused():
    with pretended_gpu():
        model = GPT(GPTS["nano"]).eval().to("cuda")
        with pytest.raises(RuntimeError, match="Expected a 'cuda' device"):
            sample(
                model,
                ids().to("cuda"),
                max_new_tokens=2,
                generator=torch.Generator(),
            )


def test_distributions_from_logits():
    dice = torch.Generator().manual_seed(0)
    logits = torch.randn(3, V, generator=dice).half()
    kinds = [
        {},
        dict(temperature=0.0),
        dict(temperature=0.7, top_k=5, top_p=0.5),
    ]
    everywhere(
        lambda device: [
            next_token_probabilities(logits.to(device), **kind)
            for kind in kinds
        ]
    )


def masked_lm():
    torch.manual_seed(0)
    return MaskedLM(BertConfig.nano(V, 16, dropout=0.1))


def test_bert_trains():
    """Masked where the tokens are, with a generator of that place."""

    def run(device):
        dice = torch.Generator(device).manual_seed(0)
        tokens = ids().to(device)
        mask = padding_mask(torch.tensor([7, 7, 4, 7, 2]).to(device), 7)
        sizes = dict(vocab_size=V, mask_id=2, special=(0, 1))

        def loss_fn(model, batch):
            hidden = model.bert(batch.inputs, mask=mask)
            gaps = batch.targets != -100
            logits = model.predict(hidden[gaps])
            loss = cross_entropy(logits, batch.targets[gaps], reduction="sum")
            return loss, gaps.sum()

        batches = [
            mask_tokens(tokens, rate=0.5, generator=dice, **sizes)
            for _ in range(3)
        ]
        return trained(masked_lm(), batches, loss_fn, device)

    everywhere(run)


def test_bert_reads_segments():
    segments = ids(low=0, high=2)
    everywhere(
        lambda device: [
            masked_lm()
            .eval()
            .to(device)(ids().to(device), segments=segments.to(device))
        ]
    )


@pytest.mark.parametrize("pool", [mean_pool, first_pool, max_pool])
def test_pooling_and_vectors_of_texts(pool):
    """`text_vectors` takes lists, and moves them to the model."""
    texts = [[3] * n for n in (5, 1, 9, 2)]

    def run(device):
        bert = masked_lm().bert.eval().to(device)
        return [
            pool(bert(ids().to(device))),
            text_vectors(bert, texts, pool=pool, batch_size=3),
        ]

    everywhere(run)


def images(b=5, size=8, channels=1):
    dice = torch.Generator().manual_seed(0)
    return torch.rand(b, channels, size, size, generator=dice)


def test_vit_trains():
    labels = ids(b=1, t=5, low=0, high=3)[0]

    def run(device):
        torch.manual_seed(0)
        model = ImageClassifier(ViT(ViTConfig.digits()), 3, pool="mean")

        def loss_fn(model, batch):
            x, y = (t.to(device) for t in batch)
            return cross_entropy(model(x), y, reduction="sum"), len(y)

        return trained(model, [(images(), labels)], loss_fn, device)

    everywhere(run)


def test_images_change_where_they_are():
    """The lots fall on the CPU, so that every machine draws the same."""
    dice = torch.Generator()
    rgb = images(channels=3)
    everywhere(
        lambda device: [
            random_affine(images().to(device), generator=dice.manual_seed(0)),
            normalise(rgb.to(device)),
        ]
    )


def test_where_a_vit_looks():
    def run(device):
        torch.manual_seed(0)
        vit = ViT(ViTConfig.digits()).eval().to(device)
        looks = SaliencyDecoder(64, widths=(11, 5)).eval().to(device)
        maps = attention_maps(vit, images().to(device))
        wide = vit(images(size=12).to(device))  # positions are interpolated
        return [*maps, rollout(maps), wide, looks(wide, (3, 3), (12, 12))]

    everywhere(run)


def expert(d=16, f=8):
    return GatedFeedForward(d, f, bias=False)


def moe(kind, **options):
    """A layer; `kind` is the form of its experts."""
    torch.manual_seed(0)
    router = TopKRouter(16, 5, top_k=2, **options)
    experts = (
        Experts(5, expert) if kind == "plain" else GroupedExperts(5, 16, 8)
    )
    return MoE(router, experts, shared=expert())


@pytest.mark.parametrize("options", [{}, dict(capacity_factor=0.6)])
@pytest.mark.parametrize("kind", ["plain", "grouped"])
def test_experts_train(kind, options):
    x = torch.randn(3, 11, 16, generator=torch.Generator().manual_seed(0))

    def loss_fn(model, batch):
        with record_routing(model) as routings:
            loss = (model(batch) - batch.flip(0)).square().sum()
        loss = loss + balance_loss(routings) + router_z_loss(routings[0])
        return loss, batch.numel()

    def run(device):
        layer = moe(kind, **options)
        found = trained(layer, [x.to(device)], loss_fn, device)
        with record_routing(layer) as routings:
            y = layer(x.to(device))
        seen = routings[0]
        return [*found, y, expert_load(seen), describe_routing(seen)]

    # there the runs are multiplied one by one, here by one kernel
    everywhere(run, tol=1e-5 if kind == "grouped" else 0)


class TestGroupedProduct:
    """The kernel on a GPU takes bfloat16 only; all else goes run by run."""

    counts = (3, 0, 4)

    def operands(self, dtype, device="cpu"):
        make = torch.Generator().manual_seed(0)
        rows = torch.randn(7, 16, generator=make)
        weights = torch.randn(3, 24, 16, generator=make)
        counts = torch.tensor(self.counts)
        return [
            rows.to(device, dtype),
            weights.to(device, dtype),
            counts.to(device),
        ]

    def one_by_one(self, rows, weights):
        runs = zip(rows.split(self.counts), weights, strict=True)
        return torch.cat([run @ weight.T for run, weight in runs])

    @pytest.mark.parametrize(
        ("dtype", "capability"),
        [
            (torch.float32, (9, 0)),
            (torch.float16, (9, 0)),
            (torch.bfloat16, (7, 5)),
        ],
    )
    def test_falls_back_where_there_is_no_kernel(
        self, dtype, capability, monkeypatch
    ):
        def absent(*args, **kwargs):
            raise AssertionError("CUDA: bfloat16 only, on 8.0 and more")

        monkeypatch.setattr(F, "grouped_mm", absent, raising=False)
        expected = self.one_by_one(*self.operands(dtype)[:2])
        old = mock.patch(
            "torch.cuda.get_device_capability", return_value=capability
        )
        with pretended_gpu(), old:
            found = grouped_linear(*self.operands(dtype, "cuda"))
            assert found.is_cuda
            assert found.cpu().equal(expected)

    @pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="torch < 2.10")
    def test_half_precision_goes_through_the_kernel(self, monkeypatch):
        kernel, calls = F.grouped_mm, []

        def counted(rows, weights, *, offs):
            assert offs.dtype == torch.int32
            calls.append(rows.device.type)
            return kernel(rows, weights, offs=offs)

        monkeypatch.setattr(F, "grouped_mm", counted)
        rows, weights, _ = self.operands(torch.bfloat16)
        exact = self.one_by_one(rows.float(), weights.float())
        with pretended_gpu():
            for device in ("cpu", "cuda"):
                found = grouped_linear(*self.operands(torch.bfloat16, device))
                assert found.dtype == torch.bfloat16
                # eight bits: one part in 256 of the rounded result
                torch.testing.assert_close(
                    found.cpu().float(), exact, rtol=2**-8, atol=2**-8
                )
        assert calls == ["cpu", "cuda"]


def test_packed_experts_stay_where_they_were():
    def run(device):
        torch.manual_seed(0)
        packed = pack([expert().to(device) for _ in range(3)])
        return [p.detach() for p in packed.parameters()]

    everywhere(run)


def test_a_gpt_of_experts_trains():
    """A router in each block, and a cache when it writes."""

    def feedforward(d_model, d_ff, *, bias):
        router = TopKRouter(d_model, 3)
        return MoE(router, GroupedExperts(3, d_model, d_ff))

    config = GPTConfig.nano(V, 16, d_ff=16, feedforward=feedforward)

    def run(device):
        set_seed(0)
        model = GPT(config)

        def loss_fn(model, batch):
            batch = [t.to(device) for t in batch]
            with record_routing(model) as routings:
                loss, n = next_token_loss(model, batch)
            return loss + 0.01 * n * balance_loss(routings), n

        source = MarkovMixture(2, 9, 3)
        dice = torch.Generator().manual_seed(0)
        x = source.sample(5, 11, generator=dice).tokens
        found = trained(model, [(x[:, :-1], x[:, 1:])], loss_fn, device)
        start = x[:, :3].to(device)
        model.eval()
        return [*found, sample(model, start, max_new_tokens=3, temperature=0.0)]

    everywhere(run, tol=1e-4)


@pytest.mark.parametrize("bias", [ALiBi, T5Bias])
def test_positions_in_the_scores(bias):
    def run(device):
        torch.manual_seed(0)
        attend = WithBias(bias(3))
        layer = MultiHeadAttention(12, 3, attend=attend).to(device)
        x = torch.ones(2, 5, 12).cumsum(1).to(device)
        return [layer(x, causal=True)]

    everywhere(run)


def test_losses_and_calibration():
    dice = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, V, generator=dice)
    targets = ids(3, 5)
    targets[0, 0] = -100

    def run(device):
        where = logits.to(device), targets.to(device)
        each = cross_entropy(*where, reduction="none", smoothing=0.1)
        return [each, calibration_error(*where)]

    everywhere(run)


def test_targets_left_on_the_cpu_are_refused():
    with pretended_gpu(), pytest.raises(RuntimeError, match="same device"):
        cross_entropy(torch.zeros(2, V, device="cuda"), torch.tensor([1, 2]))


def test_a_run_goes_on_from_a_checkpoint(tmp_path):
    """Saved on a GPU, taken up there and on the CPU, with its dropout."""

    def loss_fn(model, batch):
        device = next(model.parameters()).device
        return next_token_loss(model, [t.to(device) for t in batch])

    x = ids(seed=1)
    batches = [(x[i : i + 2, :-1], x[i : i + 2, 1:]) for i in range(4)]

    def run(device, until, place, history=None):
        set_seed(0)
        model = GPT(GPTS["nano"]).to(device)
        optimizer = AdamW(model.parameters(), lr=3e-3)
        if history:
            history = load_checkpoint(place, model, optimizer)
        options = dict(steps=until, checkpoint=place, progress=False)
        train(model, batches, loss_fn, optimizer, history=history, **options)
        state = next(iter(optimizer.state.values()))["mean"]
        weights = [p.detach().flatten() for p in model.parameters()]
        assert state.device == weights[0].device
        return [torch.cat(weights), state]

    here = run("cpu", 6, tmp_path / "whole")
    with pretended_gpu():
        run("cuda", 3, tmp_path / "part")
        for device in ("cuda", "cpu"):
            there = run(device, 6, tmp_path / "part", history=True)
            assert there[0].device.type == device
            for a, b in zip(here, there, strict=True):
                assert b.cpu().equal(a)
            run("cuda", 3, tmp_path / "part2")
            (tmp_path / "part").rename(tmp_path / f"done on {device}")
            (tmp_path / "part2").rename(tmp_path / "part")


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_rival_with_a_state_runs_in_the_loop(kind):
    """The baselines of the chapters are torch's own layers."""

    class Rival(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(V, 12)
            self.cell = kind(12, 12, batch_first=True)
            self.lm_head = nn.Linear(12, V)

        def forward(self, x):
            return self.lm_head(self.cell(self.embed(x))[0])

    def run(device):
        torch.manual_seed(0)
        x = ids(seed=1).to(device)
        batches = [(x[:, :-1], x[:, 1:])]
        return trained(Rival(), batches, next_token_loss, device)

    everywhere(run)


def test_post_norm_blocks_with_cross_attention():
    def run(device):
        torch.manual_seed(0)
        attn = [MultiHeadAttention(12, 3) for _ in range(2)]
        ff = GatedFeedForward(12, 8)
        kind = dict(norm=LayerNorm, norm_first=False)
        block = Block(12, attn[0], ff, cross_attn=attn[1], **kind).to(device)
        x = torch.ones(2, 5, 12).cumsum(1).to(device)
        real = padding_mask(torch.tensor([3, 5]).to(device), 5)
        return [block(x, x, causal=True, context_mask=real)]

    everywhere(run)
