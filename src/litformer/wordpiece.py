# Written in chapters/tokenization.md; edit it there, then run make export.
"""WordPiece as BERT uses it: clean the text, cut words, match greedily.

A token that begins with ## continues a word. A word that cannot be spelled
becomes one unknown token, whatever its length.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import SupportsIndex

from litformer.tokenizer import check_ids, parts

__all__ = [
    "IDEOGRAPHS",
    "SPECIAL",
    "WordPieceTokenizer",
    "basic_split",
    "normalise",
]

# the blocks of Chinese characters, whose words have no spaces between them
IDEOGRAPHS = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df"
    "\U0002a700-\U0002b81f\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f]"
)


def normalise(text: str) -> str:
    """Lower case, no accents, no control characters, plain spaces.

    Source: the code that came with Devlin et al. (2019).
    """
    text = "".join(map(_cleaned, text))
    text = IDEOGRAPHS.sub(r" \g<0> ", text)
    marks = unicodedata.normalize("NFD", text)  # é -> e and an accent
    bare = (c for c in marks if unicodedata.category(c) != "Mn")
    return "".join(c.lower() for c in bare)  # one by one: no final sigma


def _cleaned(c: str) -> str:
    """A space for white space, nothing for what is not seen."""
    kind = unicodedata.category(c)
    if c in "\t\n\r" or kind[0] == "Z":
        return " "
    return "" if c == "\ufffd" or kind in ("Cc", "Cf", "Cs", "Co") else c


def basic_split(text: str) -> list[str]:
    """The words of a normalised text; punctuation marks are words."""
    return "".join(f" {c} " if _is_mark(c) else c for c in text).split()


def _is_mark(c: str) -> bool:
    if c < "\x80":  # all of ASCII that is neither letter nor digit
        return c.isprintable() and not c.isalnum() and c != " "
    return unicodedata.category(c)[0] == "P"


SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def _special(number: Mapping[str, int], size: int) -> dict[str, int]:
    """The ids of the special tokens of a vocabulary that has them all."""
    missing = [name for name in SPECIAL if name not in number]
    if missing or len(number) < size:
        raise ValueError(
            f"WordPieceTokenizer: the vocabulary has {size - len(number)} "
            f"repeated tokens, and lacks {missing or 'nothing else'}."
        )
    return {name: number[name] for name in SPECIAL}


def _room(max_len: int | None, ends: bool) -> int | None:
    """How many pieces fit between [CLS] and [SEP]."""
    if max_len is None:
        return None
    if max_len < 2 * ends:
        raise ValueError(
            f"WordPieceTokenizer: max_len={max_len} has no room for [CLS] and "
            "[SEP]."
        )
    return max_len - 2 * ends


class WordPieceTokenizer:
    """Words as the longest pieces of a vocabulary, from left to right.

    A text becomes [CLS] pieces [SEP]. Text that merely spells a special
    token stays text, unless `special=True`.

    Raises:
        ValueError: a vocabulary without the special tokens, unknown ids.

    Source: Wu et al. (2016), section 4.1; Devlin et al. (2019).
    """

    def __init__(
        self, tokens: Sequence[str], *, max_characters: int = 100
    ) -> None:
        self.tokens, self.max_characters = list(tokens), max_characters
        self._number = {token: i for i, token in enumerate(self.tokens)}
        self.special_tokens = _special(self._number, len(self.tokens))
        self._known: dict[str, list[int]] = {}

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, special ones included."""
        return len(self.tokens)

    def encode(
        self,
        text: str,
        *,
        ends: bool = True,
        special: bool = False,
        max_len: int | None = None,
    ) -> list[int]:
        """The ids of a text, between [CLS] and [SEP] unless `ends=False`.

        With `max_len` the text is cut at its end, and [SEP] stays.
        """
        names = self.special_tokens if special else {}
        ids = []
        for part in parts(text, names):
            if part in names:
                ids.append(names[part])
                continue
            for word in basic_split(normalise(part)):
                if word not in self._known:
                    self._known[word] = self._pieces(word)
                ids += self._known[word]
        start, end = (self.special_tokens[n] for n in ("[CLS]", "[SEP]"))
        ids = ids[: _room(max_len, ends)]
        return [start, *ids, end] if ends else ids

    def _pieces(self, word: str) -> list[int]:
        unknown, ids, start = [self._number["[UNK]"]], [], 0
        if len(word) > self.max_characters:
            return unknown
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = "##" * (start > 0) + word[start:end]
                if piece in self._number:
                    break
            else:
                return unknown
            ids.append(self._number[piece])
            start = end
        return ids

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """The pieces with a space between words; the text itself is lost."""
        ids = check_ids("WordPieceTokenizer", ids, len(self.tokens))
        return " ".join(self.tokens[i] for i in ids).replace(" ##", "")
