"""`TokenEmbedding`: a lookup, its transpose, and what it refuses."""

import math

import pytest
import torch
from torch import nn

from helpers import refused
from litformer.embeddings import TokenEmbedding
from litformer.optim import decay_groups

B, T, V, D = 2, 5, 13, 7


def make(**options):
    torch.manual_seed(0)
    return TokenEmbedding(V, D, **options)


def tokens():
    return torch.randint(V, (B, T), generator=torch.manual_seed(1))


@pytest.mark.parametrize("scale", [True, False])
def test_equals_torchs_embedding_times_the_root_of_the_width(scale):
    ours, theirs = make(scale=scale), nn.Embedding(V, D)
    theirs.load_state_dict(ours.state_dict())
    factor = math.sqrt(D) if scale else 1.0
    for ids in (tokens(), tokens().int()):
        torch.testing.assert_close(ours(ids), factor * theirs(ids))


def test_logits_are_products_with_every_row():
    table = make()
    x = torch.randn(B, T, D)
    expected = torch.stack([x @ row for row in table.weight], dim=-1)
    torch.testing.assert_close(table.logits(x), expected)
    torch.testing.assert_close(table.logits(x[0, 0]), expected[0, 0])


def test_both_uses_train_one_table():
    table = make()
    ids = tokens()
    into = torch.autograd.grad(table(ids).square().sum(), table.weight)[0]
    x = torch.randn(B, T, D)
    out = torch.autograd.grad(table.logits(x).square().sum(), table.weight)[0]
    both = table(ids).square().sum() + table.logits(x).square().sum()
    both.backward()
    torch.testing.assert_close(table.weight.grad, into + out)
    assert list(table.state_dict()) == ["weight"]


def test_a_token_that_recognises_itself():
    """Rows of length about 1, so the logit of the own row stands out."""
    torch.manual_seed(0)
    table = TokenEmbedding(997, 128, scale=False)
    ids = torch.arange(997)[None]
    assert (table.logits(table(ids)).argmax(-1) == ids).all()


def test_initialisation():
    torch.manual_seed(0)
    table = TokenEmbedding(2003, 64)
    assert table.weight.std().item() == pytest.approx(1 / 8, rel=0.02)
    assert abs(table.weight.mean().item()) < 0.002
    out = table(torch.arange(2003)[None])
    assert out.std().item() == pytest.approx(1.0, rel=0.02)
    before = table.weight.clone()
    table.reset_parameters()
    assert not torch.equal(before, table.weight)


def test_no_tokens_give_no_vectors():
    assert make()(torch.zeros(B, 0, dtype=torch.long)).shape == (B, 0, D)


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    @pytest.mark.parametrize("bad", [-1, V, 99])
    def test_token_out_of_vocabulary(self, bad):
        ids = tokens()
        ids[1, 3] = bad
        refused(
            ValueError,
            f"TokenEmbedding: token {bad} at row 1, place 3 is not in the "
            "vocabulary, whose ids are 0 to 12. Was the text encoded with "
            "another vocabulary?",
            *(make(), ids),
        )

    def test_the_first_of_several_is_named(self):
        ids = torch.tensor([[1, 2, 3], [4, 14, -5]])
        with pytest.raises(ValueError, match="token 14 at row 1, place 1"):
            make()(ids)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int16])
    def test_tokens_of_another_type(self, dtype):
        refused(
            TypeError,
            f"TokenEmbedding: tokens must be int64 or int32, got {dtype}. "
            "They are numbers of rows.",
            *(make(), tokens().to(dtype)),
        )

    def test_one_sequence_without_a_batch(self):
        refused(
            ValueError,
            "TokenEmbedding: tokens must have shape (B, T), got (5,). For one "
            "sequence pass tokens[None].",
            *(make(), tokens()[0]),
        )

    @pytest.mark.parametrize("sizes", [(0, 7), (13, 0)])
    def test_sizes_below_one(self, sizes):
        refused(
            ValueError,
            "TokenEmbedding: sizes must be at least 1, got "
            f"vocab_size={sizes[0]}, d_model={sizes[1]}.",
            *(TokenEmbedding, *sizes),
        )


def test_its_rows_do_not_decay_even_where_they_are_the_output_layer_too():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = make()
            self.mix = nn.Linear(7, 7)
            self.head = nn.Linear(7, 13, bias=False)
            self.head.weight = self.embed.weight

    model = Tied()
    decay, rest = decay_groups(model, 0.1)
    assert [p is model.mix.weight for p in decay["params"]] == [True]
    assert any(p is model.embed.weight for p in rest["params"])
    assert rest["weight_decay"] == 0.0
