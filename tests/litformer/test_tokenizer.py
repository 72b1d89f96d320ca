"""Tokenisers against the `tokenizers` library, laws, and refusals.

The oracles are Hugging Face's trainer and encoder (Rust). For SmolLM2 one is
built from the file's metadata, with the rule for digits that the file names:
the conversion of `transformers` forgets it.
"""

import itertools
import json
import random
import sys
import unicodedata
from collections import Counter
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    models,
    pre_tokenizers,
    trainers,
)

from litformer.checked_file import read_checked, write_checked
from litformer.merges import PairIndex, apply_merges, learn_merges
from litformer.pretokenize import RULES, split_text
from litformer.pretrained import SMOLLM2, smollm2_tokenizer
from litformer.tokenizer import BPETokenizer, byte_letters, train_bpe

PROSE = (
    "It was the best of times, it was the worst of times; it wasn't 1859 "
    "yet. They'll say: we've seen 3.14159 and 2,000,000 people, haven't we?\n"
)
CODE = (
    "def f(x):\n    if x  >= 10:\n\t\treturn  [12 * y for y in x]\n\n\n"
    "    # done   \n"
)
MIXED = (
    "naïve café 東京 มกราคม שלום عربي ١٢٣ ½ Ⅷ 12 apples\u00a0and\u3000more "
    "🙂👩‍👩‍👧🇩🇪 e\u0301 \u200b x\u0085y\u2028z  42   7 \r\n\r\n end  "
)
TEXTS = [
    "",
    " ",
    "a",
    PROSE,
    CODE,
    MIXED,
    "    12 apples",
    "a  42",
    "x\n\n 7\t8",
    "'s 'S 'll can't'",
    "<|im_start|>user\nhi<|im_end|>\n",
    "1234567890" * 3,
    "a" * 3001,
    "\ufffd\ufeff\x00\x1c\x1f\x7f",
]
# what people type, and what nobody does
UNICODE = st.text(
    st.one_of(
        st.sampled_from(" \n\t'0123456789abestlIreTm.,!\u00a0é東🙂\u0301½"),
        st.characters(exclude_categories=["Cs", "Cn"]),
    ),
    max_size=60,
)
WORDS = st.dictionaries(
    st.binary(min_size=1, max_size=12).map(
        lambda word: bytes(97 + byte % 3 for byte in word)
    ),
    st.integers(1, 9),
    min_size=1,
    max_size=12,
)


# ----------------------------------------------------------- where to cut


def byte_level():
    """Hugging Face's form of GPT-2's rule."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def smollm2_cuts():
    """What SmolLM2 was trained with."""
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level()]
    )


def cuts(pre_tokenizer, text):
    """The pieces of a text, by the places that a pre-tokeniser reports."""
    found = pre_tokenizer.pre_tokenize_str(text)
    return [text[a:b] for _, (a, b) in found]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    ("rule", "theirs"), [("gpt2", byte_level()), ("smollm2", smollm2_cuts())]
)
def test_cuts_are_those_of_the_library(rule, theirs, text):
    assert split_text(text, rule) == cuts(theirs, text)


@settings(max_examples=300, deadline=None)
@given(UNICODE)
def test_cuts_are_those_of_the_library_on_any_text(text):
    assert split_text(text, "gpt2") == cuts(byte_level(), text)
    assert split_text(text, "smollm2") == cuts(smollm2_cuts(), text)


def kind_by(cut, character):
    """Letter, number, space or other, by what a character sticks to."""
    for kind, neighbour in (("letter", "a"), ("number", "1"), ("other", "!")):
        if len(cut(neighbour + character)) == 1:
            return kind
    return "space"


def test_every_character_of_this_unicode_has_the_librarys_class():
    """All code points; the library may know a newer Unicode than Python."""
    theirs = byte_level()
    differ, seen = [], Counter()
    for point in range(sys.maxunicode + 1):
        c = chr(point)
        category = unicodedata.category(c)
        if category in ("Cs", "Co") or (category == "Cn" and point % 61):
            continue
        kind = kind_by(lambda t: theirs.pre_tokenize_str(t), c)
        seen[kind] += 1
        if kind_by(split_text, c) != kind:
            differ.append(c)
    assert {unicodedata.category(c) for c in differ} <= {"Cn"}
    assert seen["letter"] > 130_000
    assert seen["number"] > 1_700
    assert seen["space"] == 25
    assert seen["other"] > 10_000


@given(st.text(max_size=40))
@pytest.mark.parametrize("rule", RULES)
def test_cutting_loses_nothing(rule, text):
    assert "".join(split_text(text, rule)) == text


def test_a_rule_of_ones_own():
    """Three digits at a time, as newer models have it."""
    rule = "[{L}]+|[{N}]{1,3}|[^{L}{N}]+"
    assert split_text("abc12345 é", rule) == ["abc", "123", "45", " ", "é"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("gpt5", "no rule is called 'gpt5': gpt2, smollm2"),
        ("[{L}]+", "leaves out ' ' at place 1"),
        ("([{L}])|.", r"write groups as \(\?:"),
        ("[{L}", "unterminated character set"),
    ],
)
def test_a_bad_rule_is_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        split_text("a b", rule)


# --------------------------------------------------------------- training


def learn_slowly(words, vocab_size, min_count=2):
    """The definition: recount everything in each round."""
    spelled = [list(word) for word in words]
    tokens = [bytes([byte]) for byte in range(256)]
    merges = []
    while len(tokens) < vocab_size:
        pairs = Counter()
        for ids, times in zip(spelled, words.values(), strict=True):
            for pair in itertools.pairwise(ids):
                pairs[pair] += times
        if not pairs or max(pairs.values()) < min_count:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        joined = tokens[best[0]] + tokens[best[1]]
        new = tokens.index(joined) if joined in tokens else len(tokens)
        tokens += [joined] if new == len(tokens) else []
        merges.append(best)
        for ids in spelled:
            i = 0
            while i < len(ids) - 1:
                if (ids[i], ids[i + 1]) == best:
                    ids[i : i + 2] = [new]
                i += 1
    return merges, tokens


@settings(max_examples=300, deadline=None)
@given(WORDS, st.integers(256, 290), st.integers(0, 4))
def test_the_fast_way_learns_what_the_slow_way_learns(words, size, least):
    """Three letters: repetitions, overlaps and ties without end."""
    assert learn_merges(words, size, min_count=least) == learn_slowly(
        words, size, max(least, 1)
    )


def library_trained(words, vocab_size, min_count=2):
    """Hugging Face's trainer, its alphabet in the order of the bytes."""
    spelled = {
        "".join(chr(0x4E00 + byte) for byte in word): times
        for word, times in words.items()
    }
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_count,
        initial_alphabet=[chr(0x4E00 + byte) for byte in range(256)],
        show_progress=False,
    )
    texts = [word for word, times in spelled.items() for _ in range(times)]
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    number = model["vocab"]
    return [tuple(number[half] for half in merge) for merge in model["merges"]]


@settings(max_examples=100, deadline=None)
@given(WORDS, st.integers(256, 300))
def test_merges_are_those_of_the_library(words, vocab_size):
    merges, _ = learn_merges(words, vocab_size)
    assert merges == library_trained(words, vocab_size)


def test_merges_of_prose_are_those_of_the_library():
    """Ties included: the same 700 in the same order."""
    from pydoc_data.topics import topics

    text = "".join(topics.values())[:60_000]
    ours = train_bpe(text, 956)
    words = Counter(piece.encode() for piece in split_text(text))
    assert len(ours.merges) == 700
    assert ours.merges == library_trained(words, 956)


def test_the_index_counts_what_is_there():
    """After any replacements the counts are those of a recount."""
    make = random.Random(0)
    words = {
        bytes(make.choices(b"ab", k=make.randrange(1, 9))): make.randrange(1, 5)
        for _ in range(20)
    }
    index = PairIndex(words)
    for new in range(256, 270):
        count, pair = index.most_frequent()
        if not count:
            break
        index.replace(pair, new)
        again = Counter()
        for ids, times in zip(index.spelled, index.times, strict=True):
            for neighbours in itertools.pairwise(ids):
                again[neighbours] += times
        assert +index.counts == again


def test_several_texts_are_counted_together_and_not_joined():
    both = train_bpe(["ab" * 3, "ba"], 300)
    assert both.merges == train_bpe("ab" * 3 + " ba", 300, rule=r"\w+| ").merges
    assert train_bpe("", 300).vocab_size == 256


def test_training_knows_its_frequencies():
    assert train_bpe("ab ab", 300, rule=r"\w+| ").merges == [(97, 98)]
    assert train_bpe("ab", 300).merges == []
    assert train_bpe("ab", 300, min_count=1).merges == [(97, 98)]


@pytest.mark.parametrize(
    ("size", "special", "message"),
    [
        (255, (), "vocab_size=255 with 0 special tokens leaves no room"),
        (257, ("<a>", "<b>"), "vocab_size=257 with 2 special tokens"),
        (300, ("<a>", "<a>"), "must differ and not be empty"),
        (300, ("",), "must differ and not be empty"),
    ],
)
def test_a_vocabulary_without_room_is_refused(size, special, message):
    with pytest.raises(ValueError, match=message):
        train_bpe("abc", size, special_tokens=special)


# ------------------------------------------------------ encode and decode


@settings(max_examples=300, deadline=None)
@given(WORDS, st.lists(st.integers(97, 99), max_size=40))
def test_the_heap_merges_as_the_definition_does(words, ids):
    """One merge after the other, in the order of learning, from the left."""
    merges, tokens = learn_merges(words, 290, min_count=1)
    number = {token: i for i, token in enumerate(tokens)}
    ranks, slow = {}, list(ids)
    for rank, pair in enumerate(merges):
        new = number[tokens[pair[0]] + tokens[pair[1]]]
        ranks[pair] = rank, new
    while True:
        found = [
            (ranks[pair], i)
            for i, pair in enumerate(itertools.pairwise(slow))
            if pair in ranks
        ]
        if not found:
            break
        (_, new), i = min(found)
        slow[i : i + 2] = [new]
    assert apply_merges(ids, ranks) == slow


def test_a_long_word_takes_no_square_of_time():
    """A million letters without a space; minutes if it were quadratic."""
    ours = train_bpe("ab" * 50 + "abc" * 30, 270)
    text = "abcab" * 200_000
    assert ours.decode(ours.encode(text)) == text


OURS = train_bpe(
    PROSE * 3 + CODE * 3 + MIXED * 3,
    600,
    special_tokens=("<|end|>", "<|e|>", "<|e|>+"),
)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_come_back(data):
    assert OURS.decode_bytes(OURS.encode(data)) == data


@settings(max_examples=300)
@given(st.text(max_size=100))
def test_any_text_comes_back(text):
    ids = OURS.encode(text)
    assert OURS.decode(ids) == text
    assert ids == OURS.encode(text.encode())
    assert OURS.decode(OURS.encode(text, special=True)) == text


def test_bytes_that_are_no_text_are_shown_as_such():
    ids = OURS.encode(b"a\xf0\x9f\x99")
    assert OURS.decode(ids) == "a\ufffd"
    assert OURS.decode(ids, errors="ignore") == "a"
    with pytest.raises(UnicodeDecodeError):
        OURS.decode(ids, errors="strict")


def test_half_a_character_is_refused():
    with pytest.raises(ValueError, match=r"'\\ud83d' at place 2.*Pass bytes"):
        OURS.encode("ab\ud83d")


@pytest.mark.parametrize("bad", [-1, OURS.vocab_size, 10**9])
def test_an_id_out_of_range_is_refused(bad):
    message = rf"id {bad} at place 1 is not among 0 to {OURS.vocab_size - 1}"
    for decode in (OURS.decode, OURS.decode_bytes):
        with pytest.raises(ValueError, match=message):
            decode([97, bad])


def test_ids_may_come_as_tensors_and_not_as_fractions(unchecked):
    import torch

    ids = OURS.encode("the best")
    assert OURS.decode(torch.tensor(ids)) == "the best"
    with pytest.raises(TypeError):
        OURS.decode([97.0])


def test_special_tokens_only_when_asked_for():
    end, short, long = OURS.special_tokens.values()
    text = "a<|end|>b<|e|>+<|e|>"
    plain = OURS.encode(text)
    assert not {end, short, long} & set(plain)
    assert OURS.decode(plain) == text
    assert OURS.encode(text, special=True) == [97, end, 98, long, short]
    assert OURS.decode([end]) == "<|end|>"


def test_merges_never_make_a_special_token():
    """Even if the training text is full of its spelling."""
    ours = train_bpe(
        "<|e|>" * 50, 400, special_tokens=["<|e|>"], rule="(?s:.+)"
    )
    (i,) = ours.special_tokens.values()
    assert b"<|e|>" in ours.tokens[:i]
    assert i not in ours.encode("<|e|>")
    assert ours.encode("<|e|>", special=True) == [i]


def test_a_vocabulary_without_all_bytes_says_which_is_missing():
    ours = BPETokenizer([b"a", b"b", b"ab"], [(0, 1)])
    assert ours.encode("abba") == [2, 1, 0]
    with pytest.raises(ValueError, match=r"byte 0x63 in 'acb' has no token"):
        ours.encode("acb")
    assert ours.encode("acb", errors="ignore") == [2]
    with pytest.raises(ValueError, match="byte 0x63"):  # was it remembered?
        ours.encode("acb")
    with pytest.raises(ValueError, match="errors='replace': strict or ignore"):
        ours.encode("ab", errors="replace")


@pytest.mark.parametrize(
    ("tokens", "merges", "special", "message"),
    [
        ([b"a", b"a"], [], {}, "tokens 0 and 1 are both b'a'"),
        ([b"a"], [(0, 1)], {}, "merge 0 joins tokens 0 and 1"),
        ([b"a"], [(-1, 0)], {}, "merge 0 joins tokens -1 and 0"),
        ([b"a"], [(0, 0)], {}, "merge 0 makes b'aa', which is not among"),
        ([b"a", b"aa"], [(0, 0)] * 2, {}, "merge 1 makes b'aa'.*before"),
        ([b"a"], [], {"x": 0}, "token 'x' has id 0, where the token is b'a'"),
        ([b"a"], [], {"x": 1}, "'x' has id 1, where the token is None"),
        ([b"a", b""], [], {"": 1}, "special token '' has id 1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tokens, merges, special, message):
    with pytest.raises(ValueError, match=message):
        BPETokenizer(tokens, merges, special_tokens=special)


# ----------------------------------------------------------- save and load


def test_what_is_loaded_is_what_was_saved(tmp_path):
    path = tmp_path / "ours.json"
    OURS.save(path)
    again = BPETokenizer.load(path)
    assert vars(again).keys() == vars(OURS).keys()
    for name in ("tokens", "merges", "rule", "special_tokens"):
        assert getattr(again, name) == getattr(OURS, name)
    assert again.encode(MIXED, special=True) == OURS.encode(MIXED, special=True)
    assert [p.name for p in tmp_path.iterdir()] == ["ours.json"]


def test_every_changed_byte_is_noticed(tmp_path):
    """Any byte of the file changed, anywhere: refused, or the same content."""
    small = train_bpe("abab", 258, special_tokens=["<|e|>"])
    path = tmp_path / "small.json"
    small.save(path)
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        path.write_bytes(
            data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        )
        with pytest.raises(ValueError, match=r"small\.json: "):
            BPETokenizer.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "cut short or damaged"),
        (lambda text: "", "cut short or damaged"),
        (lambda text: "[]", "no file of the format 'litformer byte pairs"),
        (lambda text: text.replace("pairs 1", "pairs 9"), "no file of the fo"),
        (lambda text: text.replace("gpt2", "none"), "its checksum is not"),
    ],
)
def test_a_damaged_file_says_what_is_wrong(tmp_path, change, message):
    path = tmp_path / "ours.json"
    OURS.save(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message):
        BPETokenizer.load(path)


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "ours.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="cut short or damaged"):
        read_checked(path, "any")
    with pytest.raises(FileNotFoundError):
        read_checked(tmp_path / "none.json", "any")


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "table.json"
    write_checked(path, "table", {"a": 1})
    with pytest.raises(TypeError):
        write_checked(path, "table", {"a": object()})
    assert read_checked(path, "table") == {"a": 1}


# ----------------------------------------------------------------- SmolLM2


@cache
def library_smollm2():
    """An independent tokeniser from the same file's metadata."""
    from gguf import GGUFReader

    fields = GGUFReader(SMOLLM2.find()).fields
    names, kinds, merges = (
        fields[f"tokenizer.ggml.{key}"].contents()
        for key in ("tokens", "token_type", "merges")
    )
    model = models.BPE(
        {name: i for i, name in enumerate(names)},
        [tuple(merge.split(" ")) for merge in merges],
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = smollm2_cuts()
    special = [names[i] for i, kind in enumerate(kinds) if kind == 3]
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in special]
    )
    return tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_smollm2_ids_are_the_librarys(text):
    """Bytes that SmolLM2 does not know are dropped, as the library does."""
    expected = library_smollm2().encode(text).ids
    got = smollm2_tokenizer().encode(text, special=True, errors="ignore")
    assert got == expected


@settings(max_examples=500, deadline=None)
@given(UNICODE)
def test_smollm2_ids_are_the_librarys_on_any_text(text):
    expected = library_smollm2().encode(text).ids
    ours = smollm2_tokenizer()
    assert ours.encode(text, special=True, errors="ignore") == expected


def test_smollm2_ids_of_a_long_text_are_the_librarys():
    """Half a million characters of prose and code."""
    from pydoc_data.topics import topics

    text = "\n".join(topics.values())
    ids = smollm2_tokenizer().encode(text)
    assert ids == library_smollm2().encode(text).ids
    assert smollm2_tokenizer().decode(ids) == text


def test_smollm2_cuts_digits_apart():
    """The file names its rule; GPT-2's would differ where spaces precede."""
    from litformer.pretrained import smollm2_file

    ours = smollm2_tokenizer()
    assert smollm2_file().fields["tokenizer.ggml.pre"].contents() == "smollm"
    assert ours.rule == "smollm2"
    careless = BPETokenizer(ours.tokens, ours.merges, rule="gpt2")
    assert careless.encode("a 42") == ours.encode("a 42")
    assert careless.encode("a  42") != ours.encode("a  42")


def test_smollm2_special_tokens():
    ours = smollm2_tokenizer()
    assert ours.vocab_size == 49_152
    assert len(ours.special_tokens) == 17
    assert ours.encode("<|im_end|>", special=True) == [2]
    assert len(ours.encode("<|im_end|>")) > 1
    library = library_smollm2()
    library.encode_special_tokens = True
    try:
        for text in TEXTS[:-1]:
            assert ours.encode(text) == library.encode(text).ids
    finally:
        library.encode_special_tokens = False


def test_smollm2_lacks_some_bytes():
    """They are those of no text, and a few control characters."""
    ours = smollm2_tokenizer()
    missing = []
    for byte in range(256):
        try:
            ours.encode(bytes([byte]))
        except ValueError:
            missing.append(byte)
    assert len(missing) == 21
    assert {0xC0, 0xC1, 0xF5, 0xFF} < set(missing)
    assert not {*b"\t\n\r", *range(32, 128)} & set(missing)


def test_byte_letters_are_those_of_the_library():
    assert set(byte_letters()) == set(pre_tokenizers.ByteLevel.alphabet())
    for c in ("a", " ", "\n", "é", "東"):
        ((seen, _),) = byte_level().pre_tokenize_str(c)
        assert seen == "".join(byte_letters()[byte] for byte in c.encode())


def test_a_converter_in_wide_use_is_careless(monkeypatch):
    """When this fails, the chapter can say that it was mended."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    file = SMOLLM2.find()
    theirs = AutoTokenizer.from_pretrained(
        str(file.parent), gguf_file=file.name
    )
    ours = smollm2_tokenizer()
    assert theirs.encode("a 42") == ours.encode("a 42")
    assert theirs.encode("a  42") != ours.encode("a  42")
    careless = BPETokenizer(ours.tokens, ours.merges, rule="gpt2")
    assert theirs.encode("a  42") == careless.encode("a  42")
