# Written in chapters/{translation,gpt}.md; edit it there, then run make export.
"""Generation: from the next token's distribution to a whole sequence.

Axes: B batch (sources), K hypotheses of each source, T tokens, V vocabulary.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from litformer.sampling import next_token_probabilities

__all__ = [
    "Beams",
    "beam_search",
    "greedy_decode",
    "length_norm",
    "sample",
    "stream",
]


def _check_search(who: str, model: nn.Module, max_new_tokens: int) -> None:
    """A model that is ready, and a length that it can write."""
    if model.training:
        raise ValueError(
            f"{who}: the model is in training mode, so that dropout would "
            "make its answers random. Call model.eval() first."
        )
    most = model.config.max_len
    if not 1 <= max_new_tokens <= most:
        raise ValueError(
            f"{who}: max_new_tokens must be between 1 and max_len={most}, got "
            f"{max_new_tokens}."
        )


class _Writer:
    """The next word's log-probabilities, with a cache or without one.

    For each source there are `copies` rows, one after another.
    """

    def __init__(
        self, model: nn.Module, source: Tensor, use_cache: bool, copies: int = 1
    ) -> None:
        self.model, self.copies = model, copies
        memory = model.encode(source)
        self.memory = memory if copies == 1 else memory.repeat(copies)
        self.session = model.session(self.memory) if use_cache else None
        shape = copies * len(source), 1
        self.start = source.new_full(shape, model.config.bos_id)

    def log_probs(self, words: Int[Tensor, "N T"]) -> Float[Tensor, "N V"]:
        """Of the word after each row. Nobody writes padding or a start."""
        tokens = torch.cat([self.start, words], dim=1)
        if self.session is None:
            logits = self.model.decode(tokens, self.memory)[:, -1]
        else:
            logits = self.session.step(tokens[:, -1:])
        config = self.model.config
        wide = torch.promote_types(logits.dtype, torch.float32)
        logits = logits.to(wide, copy=True)
        logits[:, [config.pad_id, config.bos_id]] = -math.inf
        return logits.log_softmax(dim=-1)

    def follow(self, row: Int[Tensor, "B K"]) -> None:
        """The k-th text of a source continues its text number row[k]."""
        if self.session is not None:
            first = self.copies * torch.arange(len(row), device=row.device)
            self.session.reorder((first[:, None] + row).flatten())


@torch.no_grad()
def greedy_decode(
    model: nn.Module,
    source: Int[Tensor, "B S"],
    *,
    max_new_tokens: int,
    use_cache: bool = True,
) -> Int[Tensor, "B T"]:
    """Write the likeliest next token until every row has ended.

    A row ends with eos_id and is filled up with pad_id; the start token is
    left out. The model has `encode` and `decode`, and `session` for the
    cache.

    Raises:
        ValueError: a model in training mode, or a length it cannot write.
    """
    _check_search("greedy_decode", model, max_new_tokens)
    config, writer = model.config, _Writer(model, source, use_cache)
    tokens = source.new_zeros((len(source), 0))
    ended = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    for _ in range(max_new_tokens):
        token = writer.log_probs(tokens).argmax(dim=-1)
        token = token.masked_fill(ended, config.pad_id)
        tokens = torch.cat([tokens, token[:, None]], dim=1)
        ended = ended | (token == config.eos_id)
        if ended.all():
            break
    return tokens


class Beams(NamedTuple):
    """K texts of each source with their scores, best first.

    Each ends with eos_id, or was cut off at the greatest length. If there are
    fewer than K, the rest is padding with a score of minus infinity.
    """

    tokens: Int[Tensor, "B K T"]
    scores: Float[Tensor, "B K"]

    def best(self, other: "Beams", pad_id: int) -> "Beams":
        """The K best of both; `other` has the longer texts."""
        more = other.tokens.shape[2] - self.tokens.shape[2]
        mine = F.pad(self.tokens, (0, more), value=pad_id)
        tokens = torch.cat([mine, other.tokens], dim=1)
        scores = torch.cat([self.scores, other.scores], dim=1)
        scores, kept = scores.topk(self.scores.shape[1])
        rows = kept[..., None].expand(-1, -1, tokens.shape[2])
        return Beams(tokens.gather(1, rows), scores)

    def tidy(self, pad_id: int) -> "Beams":
        """Padding where there is no text, and no column of padding alone."""
        nobody = self.scores.isneginf()[..., None]
        tokens = self.tokens.masked_fill(nobody, pad_id)
        used = int((tokens != pad_id).sum(dim=2).max())
        return Beams(tokens[..., :used], self.scores)


def length_norm(length: int, penalty: float) -> float:
    """What a log-probability is divided by: 1 without a penalty.

    Source: Wu et al. (2016), section 7.
    """
    return ((5 + length) / 6) ** penalty


def _beginnings(source: Tensor, k: int) -> tuple[Beams, Beams]:
    """One living text for each source, still empty; and none that is done.

    Each source has K rows from the start. All but the first score minus
    infinity, so that no copy of it is ever chosen.
    """
    nothing = source.new_zeros((len(source), k, 0))
    none = torch.full((len(source), k), -math.inf, device=source.device)
    one = none.index_fill(1, torch.tensor([0], device=source.device), 0.0)
    return Beams(nothing, one), Beams(nothing, none)


def _ended(living: Beams, log_probs: Tensor, eos_id: int) -> Beams:
    """Each living text, if it ended here."""
    tokens = F.pad(living.tokens, (0, 1), value=eos_id)
    return Beams(tokens, living.scores + log_probs[..., eos_id])


def _grown(
    living: Beams, log_probs: Tensor, eos_id: int
) -> tuple[Beams, Tensor]:
    """The K best texts with one more word, and the rows they grew from."""
    k, vocab_size = log_probs.shape[1:]
    scores = living.scores[..., None] + log_probs
    scores[..., eos_id] = -math.inf
    scores, kept = scores.flatten(1).topk(k)
    row, word = kept // vocab_size, kept % vocab_size
    tokens = living.tokens.gather(1, row[..., None].expand_as(living.tokens))
    return Beams(torch.cat([tokens, word[..., None]], dim=2), scores), row


def _check_beam(model: nn.Module, beam_size: int, penalty: float) -> None:
    """A beam that the first step can fill, and a penalty that is one."""
    vocab_size = model.config.target_vocab
    if not 1 <= beam_size <= vocab_size:
        raise ValueError(
            f"beam_search: beam_size must be between 1 and the vocabulary, "
            f"target_vocab={vocab_size}, got {beam_size}. The first step has "
            "no more candidates than words."
        )
    if penalty < 0:
        raise ValueError(
            f"beam_search: length_penalty must be 0 or more, got {penalty}. 0 "
            "compares plain log-probabilities."
        )


@torch.no_grad()
def beam_search(
    model: nn.Module,
    source: Int[Tensor, "B S"],
    *,
    beam_size: int,
    max_new_tokens: int,
    length_penalty: float = 0.0,
    use_cache: bool = True,
) -> Beams:
    """Keep the `beam_size` best beginnings at each step, not only one.

    Texts that have ended are set aside and take no place from the living.

    Raises:
        ValueError: a beam wider than the vocabulary, a negative penalty, a
            model in training mode, or a length that it cannot write.

    Source: Sutskever et al. (2014), section 3.2; Wu et al. (2016), section 7.
    """
    _check_search("beam_search", model, max_new_tokens)
    _check_beam(model, beam_size, length_penalty)
    writer = _Writer(model, source, use_cache, copies=beam_size)
    living, done = _beginnings(source, beam_size)
    c, shape = model.config, living.scores.shape
    most = length_norm(max_new_tokens, length_penalty)
    for length in range(1, max_new_tokens + 1):
        log_probs = writer.log_probs(living.tokens.flatten(0, 1))
        log_probs = log_probs.unflatten(0, shape)
        norm = length_norm(length, length_penalty)
        tokens, scores = _ended(living, log_probs, c.eos_id)
        done = done.best(Beams(tokens, scores / norm), c.pad_id)
        living, row = _grown(living, log_probs, c.eos_id)
        if (living.scores[:, 0] / most <= done.scores[:, -1]).all():
            break  # no living text can overtake one that is done
        writer.follow(row)
    else:
        cut_off = Beams(living.tokens, living.scores / norm)
        done = done.best(cut_off, c.pad_id)
    return done.tidy(c.pad_id)


def _check_prompt(model: nn.Module, ids: Tensor, max_new_tokens: int) -> None:
    """Everything that would fail in the middle of a text, said before it."""
    (b, t), limit = ids.shape, model.config.max_len
    if t == 0 or b == 0:
        raise ValueError(
            f"sample: the prompt is empty, shape {(b, t)}. Begin with a mark "
            "such as <|endoftext|>."
        )
    if max_new_tokens < 1:
        raise ValueError(
            f"sample: max_new_tokens must be at least 1, got {max_new_tokens}."
        )
    if t + max_new_tokens - 1 > limit:  # the last one is not read
        raise ValueError(
            f"sample: {t} prompt tokens and {max_new_tokens} new ones exceed "
            f"max_len={limit}. Shorten the prompt, or ask for at most "
            f"{max(0, limit + 1 - t)}."
        )
    if model.training:
        raise ValueError(
            "sample: the model is in training mode, where dropout is on. "
            "Call model.eval() first."
        )


@torch.no_grad()
def stream(
    model: nn.Module,
    ids: Int[Tensor, "B T"],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
    eos_id: int | None = None,
) -> Iterator[Int[Tensor, "B"]]:
    """Yield the next token of every row, again and again; see `sample`."""
    _check_prompt(model, ids, max_new_tokens)
    bend = dict(temperature=temperature, top_k=top_k, top_p=top_p)
    caches = model.new_caches() if use_cache else None
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    new = ids
    for _ in range(max_new_tokens):
        last = model.features(new, caches=caches)[:, -1]
        probs = next_token_probabilities(model.lm_head(last), **bend)
        token = torch.multinomial(probs, 1, generator=generator)
        if eos_id is not None:
            token[ended] = eos_id
            ended |= token[:, 0] == eos_id
        yield token[:, 0]
        if ended.all():
            return
        new = token if use_cache else torch.cat([new, token], dim=1)


def sample(
    model: nn.Module,
    ids: Int[Tensor, "B T"],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
    eos_id: int | None = None,
) -> Int[Tensor, "B S"]:
    """Go on with each row of `ids`; return prompt and continuation.

    `model` is a `GPT`, in eval mode; all prompts of a batch have one length.
    For `temperature`, `top_k` and `top_p` see `next_token_probabilities`. A
    row that has produced `eos_id` is filled up with it, and all stop when
    every row has. The same `generator` gives the same text, with or without
    the cache.

    Raises:
        ValueError: an empty prompt, more tokens than max_len, a model in
            training mode, or settings that are no distribution.
    """
    new = stream(
        model,
        ids,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        generator=generator,
        use_cache=use_cache,
        eos_id=eos_id,
    )
    return torch.cat([ids, *(token[:, None] for token in new)], dim=1)
