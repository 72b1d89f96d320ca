"""Wrong answers to the exercises of chapters/tokenization.md.

id -> name of the mistake -> (code instead of the solution, what must be said).
"""


def _utf8(body):
    return f"def utf8(point):\n{body}"


def _run(formula):
    return f"def tokens_of_run(m, k):\n    return {formula}\n"


def _encode(body):
    return (
        "from itertools import pairwise\n\n\n"
        "def encode(word, merges):\n"
        "    rank = {pair: i for i, pair in enumerate(merges)}\n"
        "    out = [bytes([byte]) for byte in word]\n" + body
    )


_LOOP = """
    while True:
        known = [(rank[p], i) for i, p in enumerate(pairwise(out)) if p in rank]
        if not known:
            return out
        _, i = {choose}
        out[i : i + 2] = [out[i] + out[i + 1]]
"""


def _rule(digits):
    return (
        "from litformer.pretokenize import RULES\n\n\n"
        "def rule():\n"
        f"    return RULES['smollm2'].replace('|[{{N}}]|', {digits!r})\n"
    )


def _stream(body):
    return f"import codecs\n\n\ndef stream(tokenizer, ids):\n{body}"


def _chat(body):
    return f"def chat_ids(tokenizer, messages):\n{body}"


def _killer(words):
    return f"def killer():\n    return {words!r}\n"


MUTANTS = {
    "tokenization.utf8": {
        "one-too-far": (
            _utf8(
                "    if point <= 0x80:\n        return [point]\n"
                "    return list(chr(point).encode())\n"
            ),
            r"0x80, at the edge of a length",
        ),
        "bits-without-marks": (
            _utf8(
                "    data = list(chr(point).encode())\n"
                "    return data[:1] + [b & 63 for b in data[1:]]\n"
            ),
            r"must begin with 10: add 0x80",
        ),
        "low-bits-first": (
            _utf8(
                "    data = list(chr(point).encode())\n"
                "    return data[:1] + data[:0:-1]\n"
            ),
            r"the highest bits come first",
        ),
        "length-not-said": (
            _utf8(
                "    n = len(chr(point).encode())\n"
                "    if n == 1:\n        return [point]\n"
                "    return [point >> 6 * i & 63 for i in range(n)][::-1]\n"
            ),
            r"The first byte must say how many",
        ),
        "no-emoji": (
            _utf8(
                "    if point < 0x80:\n        return [point]\n"
                "    if point < 0x800:\n"
                "        return [0xC0 | point >> 6, 0x80 | point & 63]\n"
                "    return [0xE0 | point >> 12 & 15, 0x80 | point >> 6 & 63, "
                "0x80 | point & 63]\n"
            ),
            r"the code point 0x1f642",
        ),
        "short-by-one": (
            _utf8(
                "    if point == 0x7FF:\n        return [0xE0, 0x9F, 0xBF]\n"
                "    return list(chr(point).encode())\n"
            ),
            r"0x7ff, at the edge of a length",
        ),
        "floats": (
            _utf8("    return [float(b) for b in chr(point).encode()]\n"),
            r"whole numbers are asked for, as int",
        ),
    },
    "tokenization.run-of-letters": {
        "longest-only": (_run("m // 2**k"), r"What remains has tokens too"),
        "rounded-up": (_run("-(-m // 2**k)"), r"more than one token at times"),
        "single-letters": (_run("sum(divmod(m, 2**k))"), r"merged too"),
        "no-limit": (_run("m.bit_count()"), r"There are no longer ones"),
        "length-of-merges": (_run("sum(divmod(m, k + 1))"), r"not k \+ 1"),
        "one-merge-more": (
            _run("m // 2 ** (k + 1) + (m % 2 ** (k + 1)).bit_count()"),
            r"a run of 2 letters after 0 merges",
        ),
        "a-float": (
            _run("m // 2**k + float((m % 2**k).bit_count())"),
            r"as int",
        ),
    },
    "tokenization.by-rank": {
        "longest-token": (
            _encode(
                "    known = {bytes([b]) for b in range(256)}\n"
                "    known |= {a + b for a, b in merges}\n"
                "    out = []\n"
                "    while word:\n"
                "        n = max(n for n in range(1, len(word) + 1)\n"
                "                if word[:n] in known)\n"
                "        out.append(word[:n])\n"
                "        word = word[n:]\n"
                "    return out\n"
            ),
            r"The rank decides, not the length",
        ),
        "leftmost-pair": (
            _encode(_LOOP.format(choose="min(known, key=lambda k: k[1])")),
            r"lowest rank comes first, wherever",
        ),
        "latest-merge": (
            _encode(_LOOP.format(choose="max(known)")),
            r"learnt last",
        ),
        "first-place-only": (
            _encode(
                "    for pair in merges:\n"
                "        for i, here in enumerate(pairwise(out)):\n"
                "            if here == pair:\n"
                "                out[i : i + 2] = [here[0] + here[1]]\n"
                "                break\n"
                "    return out\n"
            ),
            r"more than once in a word",
        ),
        "rightmost-of-equals": (
            _encode(
                _LOOP.format(choose="min(known, key=lambda k: (k[0], -k[1]))")
            ),
            r"this begins at the right",
        ),
        "one-pass": (
            _encode(
                "    i = 0\n"
                "    while i + 1 < len(out):\n"
                "        if (out[i], out[i + 1]) in rank:\n"
                "            out[i : i + 2] = [out[i] + out[i + 1]]\n"
                "        else:\n"
                "            i += 1\n"
                "    return out\n"
            ),
            r"through the word once",
        ),
        "something-for-nothing": (
            "def encode(word, merges):\n    return [word]\n",
            r"Expected \[\]",
        ),
    },
    "tokenization.safe-chat": {
        "one-string": (
            _chat(
                "    text = ''.join(f'<|{r}|>{t}<|end|>' for r, t in "
                "messages)\n    return tokenizer.encode(text, special=True)\n"
            ),
            r"could end its own turn",
        ),
        "marks-as-letters": (
            _chat(
                "    text = ''.join(f'<|{r}|>{t}<|end|>' for r, t in "
                "messages)\n    return tokenizer.encode(text)\n"
            ),
            r"The marks are letters here",
        ),
        "message-changed": (
            _chat(
                "    mark, ids = tokenizer.special_tokens, []\n"
                "    for role, text in messages:\n"
                "        for name in mark:\n"
                "            text = text.replace(name, '')\n"
                "        ids += [mark[f'<|{role}|>'], *tokenizer.encode(text),"
                " mark['<|end|>']]\n"
                "    return ids\n"
            ),
            r"The message was changed",
        ),
        "never-ends": (
            _chat(
                "    mark, ids = tokenizer.special_tokens, []\n"
                "    for role, text in messages:\n"
                "        ids += [mark[f'<|{role}|>'], *tokenizer.encode(text)]"
                "\n    return ids\n"
            ),
            r"Each message ends with",
        ),
        "ends-once": (
            _chat(
                "    mark, ids = tokenizer.special_tokens, []\n"
                "    for role, text in messages:\n"
                "        ids += [mark[f'<|{role}|>'], *tokenizer.encode(text)]"
                "\n    return ids + [mark['<|end|>']]\n"
            ),
            r"not only the last one",
        ),
        "numbers-by-heart": (
            _chat(
                "    n, ids = tokenizer.vocab_size, []\n"
                "    for role, text in messages:\n"
                "        first = n - 3 if role == 'user' else n - 2\n"
                "        ids += [first, *tokenizer.encode(text), n - 1]\n"
                "    return ids\n"
            ),
            r"marks \{'<\|end\|>'",
        ),
        "spaces-trimmed": (
            _chat(
                "    mark, ids = tokenizer.special_tokens, []\n"
                "    for role, text in messages:\n"
                "        said = tokenizer.encode(text.strip())\n"
                "        ids += [mark[f'<|{role}|>'], *said, mark['<|end|>']]\n"
                "    return ids\n"
            ),
            r"spaces and all",
        ),
        "always-the-user": (
            _chat(
                "    mark, ids = tokenizer.special_tokens, []\n"
                "    for _, text in messages:\n"
                "        said = tokenizer.encode(text)\n"
                "        ids += [mark['<|user|>'], *said, mark['<|end|>']]\n"
                "    return ids\n"
            ),
            r"The role decides",
        ),
    },
    "tokenization.threes": {
        "from-the-left": (
            _rule("|[{N}]{1,3}|"),
            r"counted from the right",
        ),
        "only-whole-threes": (
            _rule("|[{N}]{3}(?=(?:[{N}]{3})*(?![{N}]))|"),
            r"leaves out '1'",
        ),
        "with-the-space": (
            _rule("| ?[{N}]{1,3}(?=(?:[{N}]{3})*(?![{N}]))|"),
            r"takes no space along",
        ),
        "numbers-and-nothing-else": (
            "def rule():\n"
            "    return '[{N}]{1,3}(?=(?:[{N}]{3})*(?![{N}]))|[^{N}]+'\n",
            r"The numbers are right; words and spaces",
        ),
        "any-number-of-digits": (_rule("|[{N}]+|"), r"not cut at all"),
        "one-three-to-the-right": (
            _rule("|[{N}]{1,3}(?=(?:[{N}]{3})?(?![{N}]))|[{N}]|"),
            r"1234567890",
        ),
        "to-the-end-of-the-text": (
            _rule("|[{N}]{1,3}(?=(?:[{N}]{3})*$)|[{N}]|"),
            r"costs 1234567 or 42",
        ),
        "ascii-digits": (
            _rule("|[0-9]{1,3}(?=(?:[0-9]{3})*(?![0-9]))|[{N}]|"),
            r"1 234",
        ),
    },
    "tokenization.stream": {
        "each-token-alone": (
            _stream("    for i in ids:\n        yield tokenizer.decode([i])\n"),
            r"Each token is decoded alone",
        ),
        "waits-for-all": (
            _stream("    yield tokenizer.decode(list(ids))\n"),
            r"as soon as it is whole",
        ),
        "the-end-is-lost": (
            _stream(
                "    decoder = codecs.getincrementaldecoder('utf-8')"
                "('replace')\n"
                "    for i in ids:\n"
                "        yield decoder.decode(tokenizer.decode_bytes([i]))\n"
            ),
            r"held back for ever",
        ),
        "no-generator": (
            _stream("    return tokenizer.decode(list(ids))\n"),
            r"A generator is asked for",
        ),
        "stuck-on-a-bad-byte": (
            _stream(
                "    held = b''\n"
                "    for i in ids:\n"
                "        held += tokenizer.decode_bytes([i])\n"
                "        try:\n"
                "            text = held.decode()\n"
                "        except UnicodeDecodeError:\n"
                "            continue\n"
                "        held = b''\n"
                "        yield text\n"
                "    yield held.decode(errors='replace')\n"
            ),
            r"Hand a character out as soon",
        ),
        "said-and-taken-back": (
            _stream(
                "    seen, shown = [], ''\n"
                "    for i in ids:\n"
                "        seen.append(i)\n"
                "        text = tokenizer.decode(seen)\n"
                "        yield text[len(shown) :]\n"
                "        shown = text\n"
            ),
            r"cannot be taken back",
        ),
        "bad-bytes-dropped": (
            _stream(
                "    decoder = codecs.getincrementaldecoder('utf-8')"
                "('ignore')\n"
                "    for i in ids:\n"
                "        yield decoder.decode(tokenizer.decode_bytes([i]))\n"
                "    yield decoder.decode(b'', final=True)\n"
            ),
            r"become U\+FFFD",
        ),
        "bytes": (
            _stream(
                "    for i in ids:\n        yield tokenizer.decode_bytes([i])\n"
            ),
            r"as a str",
        ),
    },
    "tokenization.kill-the-mutants": {
        "counts-do-not-matter": (
            _killer({"abbb": 1, "ac": 1}),
            r"counts each word once",
        ),
        "no-ties": (_killer({"cbbb": 4, "cbb": 2}), r"One mutant survives"),
        "no-runs": (
            _killer({"abcabc": 3, "cab": 2, "bca": 1}),
            r"One mutant survives: the version that",
        ),
        "too-short": (_killer({"ab": 3}), r"do not have three merges"),
        "a-list": (_killer(["abbb", "ac"]), r"A dict is asked for"),
        "counted-in-halves": (
            _killer({"cbbb": 4.5, "ccbc": 1}),
            r"A dict is asked for",
        ),
        "by-brute-force": (_killer({"abcab" * 13: 2}), r"Sixty letters"),
    },
}
