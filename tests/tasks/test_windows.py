import itertools
import random

import pytest

from emdistill.tasks.windows import Window, windows


def tokens(counts: list[int], room: int, first: int, end: int) -> int:
    return sum(min(count, room) for count in counts[first:end])


def test_a_text_that_fits_is_one_window() -> None:
    assert windows([[1, 2, 3]], room=6, overlap=2) == [Window(0, 0, 3, 3)]
    assert windows([[]], room=6, overlap=2) == []


def test_words_of_one_token() -> None:
    assert windows([[1] * 10], room=6, overlap=2) == [Window(0, 0, 5, 6), Window(4, 5, 10, 10)]


def test_the_tokenizer_with_more_tokens_decides() -> None:
    assert windows([[1] * 10, [2] * 10], 12, 4) == windows([[2] * 10], 12, 4)


def test_a_word_longer_than_the_room_has_a_window() -> None:
    assert [tuple(window) for window in windows([[1, 50, 1]], room=5, overlap=2)] == [
        (0, 0, 1, 1),
        (1, 1, 2, 2),
        (2, 2, 3, 3),
    ]


@pytest.mark.parametrize("seed", range(200))
def test_cores_tile_the_text_and_windows_fit(seed: int) -> None:
    draw = random.Random(seed)
    room, words = draw.randint(1, 40), draw.randint(0, 200)
    overlap = draw.randint(0, room)
    longest = draw.choice([1, 3, room, 2 * room])
    counts = [[draw.randint(0, longest) for _ in range(words)] for _ in range(draw.randint(1, 3))]
    parts = windows(counts, room, overlap)
    assert parts == windows(counts, room, overlap)
    covered = [word for part in parts for word in range(part.core_first, part.core_end)]
    assert covered == list(range(words))
    for part in parts:
        assert 0 <= part.first <= part.core_first < part.core_end <= part.end <= words
        assert all(tokens(one, room, part.first, part.end) <= room for one in counts)
    for before, after in itertools.pairwise(parts):
        assert before.first < after.first <= before.end < after.end
        assert all(tokens(one, room, after.first, before.end) <= overlap for one in counts)


@pytest.mark.parametrize("overlap", [4, 10, 20])
def test_every_core_has_half_the_overlap_on_both_sides(overlap: int) -> None:
    """With words of one to three tokens, context falls short of half the overlap by less than a word."""
    draw = random.Random(overlap)
    counts = [draw.randint(1, 3) for _ in range(500)]
    parts = windows([counts], 50, overlap)
    for before, after in itertools.pairwise(parts):
        assert overlap // 2 - 3 < tokens(counts, 50, before.core_end, before.end) <= overlap // 2
        assert overlap // 2 - 3 < tokens(counts, 50, after.first, after.core_first) <= overlap
