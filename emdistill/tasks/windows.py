"""A long text as overlapping windows whose cores tile it: every word is answered once, with context on both sides."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Window(NamedTuple):
    """Words first..end are read; the answers of core_first..core_end are taken."""

    first: int
    core_first: int
    core_end: int
    end: int


def windows(counts: Sequence[Sequence[int] | NDArray[np.int64]], room: int, overlap: int) -> list[Window]:
    """The windows of a text's words, each as long as fits; one where all words fit, none where there are no words.

    counts   tokens per word, a list per tokenizer: a window fits all of them. A word longer than the room counts as
             the room: its first pieces are read
    room     tokens for words in a window, special tokens apart; at least 1
    overlap  tokens that neighbours share at most; half of them are a core's context on that side
    """
    # ends[k][i]: tokens before word i
    ends = [np.concatenate([[0], np.cumsum(np.minimum(one, room), dtype=np.int64)]) for one in counts]
    words = len(ends[0]) - 1

    def furthest(first: int) -> int:
        return min(int(np.searchsorted(end, end[first] + room, side="right")) - 1 for end in ends)

    def earliest(end: int, size: int) -> int:
        return max(int(np.searchsorted(before, before[end] - size, side="left")) for before in ends)

    result: list[Window] = []
    first = core_first = 0
    while core_first < words:
        end = furthest(first)
        if end == words:
            return [*result, Window(first, core_first, words, words)]
        # the next window also holds word `end`, so each one reaches further
        following = max(earliest(end, overlap), earliest(end + 1, room))
        core_end = max(following, earliest(end, overlap // 2), core_first + 1)
        result.append(Window(first, core_first, core_end, end))
        first, core_first = following, core_end
    return result
