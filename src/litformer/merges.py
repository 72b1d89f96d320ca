# Written in chapters/tokenization.md; edit it there, then run make export.
"""Byte pairs: which merges a text asks for, and how they are applied.

A token is a sequence of bytes with a number; 0 to 255 are the bytes. A merge
(left, right) says that two tokens, side by side, become one. Its rank is its
place in the order of learning.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise

__all__ = ["Pair", "PairIndex", "apply_merges", "learn_merges"]

Pair = tuple[int, int]


class PairIndex:
    """How often each pair of neighbours occurs in the words, and in which.

    Counts are kept while pairs are replaced, so that nothing is counted
    twice. In the heap a count may be too high, and never too low.
    """

    def __init__(self, words: Mapping[bytes, int]) -> None:
        self.spelled = [list(word) for word in words]
        self.times = list(words.values())
        self.counts: Counter[Pair] = Counter()
        self.holders: defaultdict[Pair, set[int]] = defaultdict(set)
        for word, ids in enumerate(self.spelled):
            for pair in pairwise(ids):
                self.counts[pair] += self.times[word]
                self.holders[pair].add(word)
        self._heap = [(-count, pair) for pair, count in self.counts.items()]
        heapify(self._heap)

    def most_frequent(self) -> tuple[int, Pair]:
        """The largest count and its pair, the smallest one of equals."""
        while self._heap:
            count, pair = heappop(self._heap)
            if -count == self.counts[pair]:
                return -count, pair
            if self.counts[pair]:  # it fell while it waited
                heappush(self._heap, (-self.counts[pair], pair))
        return 0, (0, 0)

    def replace(self, pair: Pair, new: int) -> None:
        """Write `new` for `pair` in the words that hold it, and only there."""
        risen = set()
        for word in self.holders.pop(pair):
            ids, times = self.spelled[word], self.times[word]
            for old in pairwise(ids):
                self.counts[old] -= times
            ids = self.spelled[word] = _replaced(ids, pair, new)
            for fresh in pairwise(ids):
                self.counts[fresh] += times
                if new in fresh:
                    self.holders[fresh].add(word)
                    risen.add(fresh)
        for fresh in risen:
            heappush(self._heap, (-self.counts[fresh], fresh))


def _replaced(ids: list[int], pair: Pair, new: int) -> list[int]:
    """`ids` with each `pair`, from left to right, replaced by `new`."""
    out, i, last = [], 0, len(ids) - 1
    while i <= last:
        if i < last and ids[i] == pair[0] and ids[i + 1] == pair[1]:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def learn_merges(
    words: Mapping[bytes, int], vocab_size: int, *, min_count: int = 2
) -> tuple[list[Pair], list[bytes]]:
    """The merges that byte-pair encoding finds, and the tokens they make.

    `words` says how often each piece of the text occurs. It stops at
    `vocab_size` tokens, or when no pair occurs `min_count` times.

    Source: Sennrich, Haddow and Birch (2016), section 3.2.
    """
    index = PairIndex(words)
    tokens = [bytes([byte]) for byte in range(256)]
    number = {token: i for i, token in enumerate(tokens)}
    merges = []
    while len(tokens) < vocab_size:
        count, pair = index.most_frequent()
        if count < max(min_count, 1):
            break
        joined = tokens[pair[0]] + tokens[pair[1]]
        if joined not in number:  # ab-c may have made it before a-bc
            number[joined] = len(tokens)
            tokens.append(joined)
        index.replace(pair, number[joined])
        merges.append(pair)
    return merges, tokens


def apply_merges(
    ids: Iterable[int], ranks: Mapping[Pair, tuple[int, int]]
) -> list[int]:
    """Merge neighbours, lowest rank first, until no pair has a rank.

    `ranks` maps a pair to its rank and to the token that it becomes. A list
    linked in both directions makes a merge cost the same at any length.
    """
    ids = list(ids)
    n = len(ids)
    before, after = list(range(-1, n - 1)), list(range(1, n + 1))
    heap = [(ranks[p][0], i) for i, p in enumerate(pairwise(ids)) if p in ranks]
    heapify(heap)
    while heap:
        rank, i = heappop(heap)
        j = after[i]
        found = ranks.get((ids[i], ids[j])) if j < n else None
        if found is None or found[0] != rank:
            continue  # one of the two has been merged meanwhile
        ids[i], ids[j] = found[1], -1  # -1: swallowed by its left neighbour
        after[i] = after[j]
        if after[j] < n:
            before[after[j]] = i
        for left, right in ((before[i], i), (i, after[i])):
            if 0 <= left and right < n and (ids[left], ids[right]) in ranks:
                heappush(heap, (ranks[ids[left], ids[right]][0], left))
    return [i for i in ids if i >= 0]
