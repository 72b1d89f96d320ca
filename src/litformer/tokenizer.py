# Written in chapters/tokenization.md; edit it there, then run make export.
"""A byte-pair tokeniser: trained, encoding, decoding, saved and loaded."""

import operator
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import SupportsIndex

from litformer.checked_file import read_checked, write_checked
from litformer.merges import Pair, apply_merges, learn_merges
from litformer.pretokenize import split_text

__all__ = [
    "FORMAT",
    "KEEP",
    "BPETokenizer",
    "byte_letters",
    "check_ids",
    "parts",
    "train_bpe",
]

FORMAT = "litformer byte pairs 1"
KEEP = 100_000  # pieces that a tokeniser remembers


def _as_text(text: str | bytes) -> str:
    """A string in which bytes that are not UTF-8 stand as lone surrogates."""
    if isinstance(text, bytes):
        return text.decode("utf-8", "surrogateescape")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"encode: the text holds {text[error.start]!r} at place "
            f"{error.start}, half of a character, which UTF-8 cannot write. "
            "Pass bytes if they may be anything."
        ) from None
    return text


def parts(text: str, names: Iterable[str]) -> list[str]:
    """The text cut at these names, which are parts too; the longest wins."""
    longest_first = sorted(names, key=len, reverse=True)
    if not longest_first:
        return [text]
    return re.split(f"({'|'.join(map(re.escape, longest_first))})", text)


def _spell(
    piece: str, byte_ids: Sequence[int | None], errors: str
) -> tuple[list[int], bool]:
    """The ids of a piece's bytes, and whether all of them have one."""
    data = piece.encode("utf-8", "surrogateescape")
    ids = [byte_ids[byte] for byte in data]
    if None not in ids:
        return ids, True
    if errors == "strict":
        raise ValueError(
            f"encode: byte {data[ids.index(None)]:#04x} in {piece!r} has no "
            "token in this vocabulary. errors='ignore' leaves it out."
        )
    return [i for i in ids if i is not None], False


def check_ids(
    who: str, ids: Iterable[SupportsIndex], vocab_size: int
) -> list[int]:
    """The ids (of any integer type, a tensor's too) as a list of int."""
    ids = [operator.index(i) for i in ids]
    for place, i in enumerate(ids):
        if not 0 <= i < vocab_size:  # -1 would be the last token
            raise ValueError(
                f"{who}: id {i} at place {place} is not among 0 to "
                f"{vocab_size - 1}. Was it another tokeniser's?"
            )
    return ids


def _numbers(
    tokens: Sequence[bytes], special: Mapping[str, int]
) -> dict[bytes, int]:
    """Ordinary token -> its id; special ones are never made by merges."""
    who = "BPETokenizer"
    for name, i in special.items():
        there = tokens[i] if 0 <= i < len(tokens) else None
        if not name or there != name.encode():
            raise ValueError(
                f"{who}: the special token {name!r} has id {i}, where the "
                f"token is {there!r}."
            )
    number: dict[bytes, int] = {}
    for i, token in enumerate(tokens):
        if i not in special.values() and number.setdefault(token, i) != i:
            raise ValueError(
                f"{who}: tokens {number[token]} and {i} are both {token!r}."
            )
    return number


def _ranks(
    tokens: Sequence[bytes], merges: Sequence[Pair], number: Mapping[bytes, int]
) -> dict[Pair, tuple[int, int]]:
    """Pair -> its rank, and the token that it becomes."""
    ranks: dict[Pair, tuple[int, int]] = {}
    for rank, (left, right) in enumerate(merges):
        if not (0 <= left < len(tokens) and 0 <= right < len(tokens)):
            raise ValueError(
                f"BPETokenizer: merge {rank} joins tokens {left} and {right}, "
                f"and there are {len(tokens)}."
            )
        joined = tokens[left] + tokens[right]
        if joined not in number or (left, right) in ranks:
            raise ValueError(
                f"BPETokenizer: merge {rank} makes {joined!r}, which is not "
                "among the tokens, or is a merge that was there before."
            )
        ranks[left, right] = rank, number[joined]
    return ranks


class BPETokenizer:
    """Text to numbers and back, by byte pairs merged in the order of ranks.

    Text that merely spells a special token stays text, unless `special=True`.
    `encode` takes bytes too, valid UTF-8 or not; every byte comes back.

    Raises:
        ValueError: parts that do not fit, unknown ids, text without tokens.

    Source: Radford et al. (2019), section 2.2.
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        merges: Iterable[Sequence[int]],
        *,
        rule: str = "gpt2",
        special_tokens: Mapping[str, int] | None = None,
    ) -> None:
        self.tokens, self.rule = list(tokens), rule
        self.merges = [(left, right) for left, right in merges]
        self.special_tokens = dict(special_tokens or {})
        number = _numbers(self.tokens, self.special_tokens)
        self._ranks = _ranks(self.tokens, self.merges, number)
        self._byte_ids = [number.get(bytes([byte])) for byte in range(256)]
        self._known: dict[str, list[int]] = {}
        split_text("", rule)  # a rule that does not exist is refused now

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, special ones included."""
        return len(self.tokens)

    def encode(
        self, text: str | bytes, *, special: bool = False, errors="strict"
    ) -> list[int]:
        """The ids of a text, or of bytes.

        With `errors="ignore"` bytes without a token are left out. What is
        trained by `train_bpe` has a token for every byte.
        """
        if errors not in ("strict", "ignore"):
            raise ValueError(f"encode: errors={errors!r}: strict or ignore.")
        names, ids = self.special_tokens if special else {}, []
        for part in parts(_as_text(text), names):
            if part in names:
                ids.append(names[part])
                continue
            for piece in split_text(part, self.rule):
                known = self._known.get(piece)
                ids += self._piece(piece, errors) if known is None else known
        return ids

    def _piece(self, piece: str, errors: str) -> list[int]:
        ids, whole = _spell(piece, self._byte_ids, errors)
        ids = apply_merges(ids, self._ranks)
        if whole and len(self._known) < KEEP:
            self._known[piece] = ids
        return ids

    def decode(
        self, ids: Iterable[SupportsIndex], *, errors: str = "replace"
    ) -> str:
        """The text; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    def decode_bytes(self, ids: Iterable[SupportsIndex]) -> bytes:
        """The bytes that the tokens stand for, joined."""
        ids = check_ids("BPETokenizer", ids, len(self.tokens))
        return b"".join([self.tokens[i] for i in ids])

    def save(self, path: str | Path) -> None:
        """Write JSON with a checksum; an older file is replaced at once."""
        content = dict(rule=self.rule, special_tokens=self.special_tokens)
        content["merges"] = self.merges
        content["tokens"] = [t.decode("latin-1") for t in self.tokens]
        write_checked(path, FORMAT, content)

    @classmethod
    def load(cls, path: str | Path) -> "BPETokenizer":
        """Read what `save` wrote; anything else is refused with the reason."""
        content = read_checked(path, FORMAT)
        tokens = [token.encode("latin-1") for token in content.pop("tokens")]
        return cls(tokens, **content)


def train_bpe(
    text: str | Iterable[str],
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = (),
    rule: str = "gpt2",
    min_count: int = 2,
) -> BPETokenizer:
    """A tokeniser learnt from a text, or from several.

    Ids: 0 to 255 are the bytes, then the merges in order, then the special
    tokens. A short text may give fewer than `vocab_size`.

    Raises:
        ValueError: a vocabulary that has no room for all bytes.

    Source: Sennrich, Haddow and Birch (2016); Radford et al. (2019).
    """
    room = vocab_size - len(special_tokens)
    if room < 256:
        raise ValueError(
            f"train_bpe: vocab_size={vocab_size} with {len(special_tokens)} "
            "special tokens leaves no room for the 256 bytes, without which "
            "some texts have no tokens."
        )
    if len(set(special_tokens)) < len(special_tokens) or "" in special_tokens:
        raise ValueError(
            "train_bpe: special tokens must differ and not be empty, got "
            f"{list(special_tokens)}."
        )
    counts: Counter[str] = Counter()
    for part in [text] if isinstance(text, str) else text:
        counts.update(split_text(_as_text(part), rule))
    words = {piece.encode("utf-8"): n for piece, n in counts.items()}
    merges, tokens = learn_merges(words, room, min_count=min_count)
    special = {name: i for i, name in enumerate(special_tokens, len(tokens))}
    tokens += [name.encode("utf-8") for name in special]
    return BPETokenizer(tokens, merges, rule=rule, special_tokens=special)


def byte_letters() -> list[str]:
    """A visible character for each byte, as in GPT-2's vocabulary files.

    Source: the code that came with Radford et al. (2019).
    """
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in seen else next(others)) for byte in range(256)]
