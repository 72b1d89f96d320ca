# Written in chapters/tokenization.md; edit it there, then run make export.
"""Where a text is cut before its bytes are merged: rules as data.

A rule is a regular expression that matches every character once. It may say
{L} for letters, {N} for numbers and {S} for white space, as Unicode has them.
"""

import re
import sys
import unicodedata
from functools import cache
from itertools import groupby

__all__ = ["RULES", "WHITE_SPACE", "classes", "split_text"]

RULES = {
    # contractions; words, numbers and signs with the space before them; the
    # spaces of a run but for the last, which goes with what follows
    "gpt2": "'(?:[sdmt]|ll|ve|re)"
    "| ?[{L}]+| ?[{N}]+| ?[^{S}{L}{N}]+"
    "|[{S}]+(?![^{S}])|[{S}]+",
    # the same, with every digit by itself
    "smollm2": "'(?:[sdmt]|ll|ve|re)"
    "| ?[{L}]+|[{N}]| ?[^{S}{L}{N}]+"
    "|[{S}]+(?![^{S}{N}])|[{S}]+",
}
WHITE_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


@cache
def classes() -> dict[str, str]:
    """What {L}, {N} and {S} stand for within brackets."""
    spans: dict[str, list[str]] = {"L": [], "N": [], "S": [WHITE_SPACE]}
    points = map(chr, range(sys.maxunicode + 1))
    for kind, run in groupby(points, lambda c: unicodedata.category(c)[0]):
        if kind in "LN":
            first, *rest = run
            spans[kind].append(f"{first}-{rest[-1]}" if rest else first)
    return {f"{{{name}}}": "".join(parts) for name, parts in spans.items()}


def split_text(text: str, rule: str = "gpt2") -> list[str]:
    """Cut a text by a rule: a name in `RULES`, or a pattern of your own.

    Joined, the pieces are the text again.

    Raises:
        ValueError: no such rule, or one that leaves characters out.

    Source: Radford et al. (2019), section 2.2, and the code that came with it.
    """
    pieces = _compiled(rule).findall(text)
    if sum(map(len, pieces)) != len(text):
        at = 0
        for match in _compiled(rule).finditer(text):
            if match.start() != at:
                break
            at = match.end()
        raise ValueError(
            f"split_text: the rule leaves out {text[at]!r} at place {at}. "
            "Every character must be in a piece, or it is lost."
        )
    return pieces


@cache
def _compiled(rule: str) -> re.Pattern[str]:
    if re.fullmatch(r"\w+", rule) and rule not in RULES:
        known = ", ".join(RULES)
        raise ValueError(f"split_text: no rule is called {rule!r}: {known}.")
    pattern = RULES.get(rule, rule)
    for name, characters in classes().items():
        pattern = pattern.replace(name, characters)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"split_text: {rule!r}: {error}.") from None
    if compiled.groups:
        raise ValueError(f"split_text: {rule!r}: write groups as (?:...).")
    return compiled
