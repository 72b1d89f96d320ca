"""WordPiece against MiniLM's own tokenizer.json, laws, and refusals."""

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from litformer import pretrained
from litformer.pretrained import minilm_tokenizer
from litformer.wordpiece import WordPieceTokenizer, basic_split, normalise

TEXTS = [
    "",
    "The cat sat on the mat.",
    "Tokenisation, naïvely: Über-Café! costs $5, or 3.14€ (50%).",
    "東京は日本の首都です。 한국어 ภาษาไทย हिन्दी",
    "ΟΔΥΣΣΕΥΣ İstanbul STRASSE ẞ ﬁ Å e\u0301",
    "a\tb\nc\r\nd\u00a0e\u200bf\u2028g\x00h\ufffdi\x1cj",
    "🙂👩‍👩‍👧 don't it's",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "x" * 100 + " " + "x" * 101,
    "[CLS] is text here, [MASK] too, [mask] always",
    "def f(x):\n    return x_1 ** 2  # 12345",
]
LIBRARY = Tokenizer.from_file(
    str(pretrained.MINILM_WEIGHTS.find().with_name("tokenizer.json"))
)
LIBRARY.no_truncation()
LIBRARY.no_padding()
BERT = normalizers.BertNormalizer(
    clean_text=True, handle_chinese_chars=True, strip_accents=None,
    lowercase=True,
)  # fmt: skip


def same_since_3_2(c):
    """A character that Unicode has not changed its mind about.

    The library's tables of categories are of Unicode 8, Python's of 14 or
    later; of what both knew in 2002, most is as it was.
    """
    return unicodedata.category(c) == unicodedata.ucd_3_2_0.category(c) != "Cn"


STABLE = st.text(
    st.one_of(
        st.sampled_from(" \n'[]#aAeEiIsStTnN0129.,!éÉßΣ東🙂\u0301\u200d"),
        st.characters(exclude_categories=["Cs", "Cn"]).filter(same_since_3_2),
    ),
    max_size=50,
)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_the_librarys(text):
    ours = minilm_tokenizer()
    assert ours.encode(text, special=True) == LIBRARY.encode(text).ids
    LIBRARY.encode_special_tokens = True
    try:
        assert ours.encode(text) == LIBRARY.encode(text).ids
    finally:
        LIBRARY.encode_special_tokens = False


@settings(max_examples=500, deadline=None)
@given(STABLE)
def test_ids_are_the_librarys_on_any_text(text):
    ours = minilm_tokenizer()
    assert ours.encode(text, special=True) == LIBRARY.encode(text).ids


def test_a_long_text():
    from pydoc_data.topics import topics

    text = "\n".join(topics.values())
    assert minilm_tokenizer().encode(text) == LIBRARY.encode(text).ids


def test_every_character_is_normalised_as_by_the_library():
    """Few differ, all of them newer than the library's tables."""
    differ = []
    for point in range(sys.maxunicode + 1):
        c = chr(point)
        if unicodedata.category(c) in ("Cs", "Co", "Cn"):
            continue
        if normalise(c) != BERT.normalize_str(c):
            differ.append(c)
    assert not [c for c in differ if same_since_3_2(c)]
    assert len(differ) < 800


def test_every_mark_is_cut_as_by_the_library():
    differ = []
    for point in range(sys.maxunicode + 1):
        c = chr(point)
        if unicodedata.category(c) in ("Cs", "Co", "Cn"):
            continue
        theirs = LIBRARY.pre_tokenizer.pre_tokenize_str(f"a{c}a")
        kept = [part for part, _ in theirs]
        if kept != basic_split(f"a{c}a") and not c.isspace():
            differ.append(c)
    assert not [c for c in differ if same_since_3_2(c)]
    assert len(differ) < 250


def test_normalising_twice_changes_nothing():
    for text in TEXTS:
        assert basic_split(normalise(normalise(text))) == basic_split(
            normalise(text)
        )


def test_ends_and_length():
    ours = minilm_tokenizer()
    whole = ours.encode("the cat sat on the mat")
    assert whole[0] == 101
    assert whole[-1] == 102
    assert ours.encode("the cat sat on the mat", ends=False) == whole[1:-1]
    assert ours.encode("the cat sat", max_len=4) == [*whole[:3], 102]
    assert ours.encode("the cat sat", max_len=2) == [101, 102]
    assert ours.encode("the cat", max_len=1, ends=False) == whole[1:2]
    with pytest.raises(ValueError, match="max_len=1 has no room"):
        ours.encode("the", max_len=1)


def test_decoding_gives_words():
    ours = minilm_tokenizer()
    ids = ours.encode("Tokenisation of Zürich", ends=False)
    assert ours.decode(ids) == "tokenisation of zurich"
    for bad in (-1, ours.vocab_size):
        with pytest.raises(ValueError, match=rf"id {bad} at place 0 is not"):
            ours.decode([bad])


def test_a_word_that_cannot_be_spelled_is_unknown_as_a_whole():
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    ours = WordPieceTokenizer([*names, "un", "##known", "##k", "a"])
    assert ours.encode("unknown", ends=False) == [5, 6]
    assert ours.encode("unk a unkn", ends=False) == [5, 7, 8, 1]
    short = WordPieceTokenizer(ours.tokens, max_characters=3)
    assert short.encode("unk unknown", ends=False) == [5, 7, 1]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["a"], r"lacks \['\[PAD\]', '\[UNK\]', '\[CLS\]'"),
        (
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "a"],
            "1 repeated tokens, and lacks nothing else",
        ),
    ],
)
def test_a_vocabulary_that_lacks_something_is_refused(tokens, message):
    with pytest.raises(ValueError, match=message):
        WordPieceTokenizer(tokens)
