"""Plain text into words: by each rule, and by the one that a source's own words ask for."""

import itertools

import pytest

from emdistill.tasks.words import AT_ENDS, MARKS, SPACES, cut, rule_of

TOKENISED = "Ann 's dog , `` Rex '' , ran to New York ( U.S. ) . It did n't stop ! @user saw it : Ann 's . #tag"
GLUED = "Ann's dog, Rex, ran home. It didn't stop! (He said: stop.)"


def words(text: str, rule: str | None) -> list[str]:
    return [text[start:end] for start, end in cut(text, rule)]


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        (MARKS, "Ünï-x_1, don't\t(…)", "Ünï - x_1 , don ' t ( … )"),
        (None, "cafe\u0301 हिन्दी।", "cafe\u0301 हिन्दी ।"),
        (MARKS, "他在New York，北京。", "他 在 New York ， 北 京 。"),
        (SPACES, "Ann's  at home.\u00a0(Rome)", "Ann's at home. (Rome)"),
        (AT_ENDS + ".,!()\" 's", '(Ann\'s) at "U.S. home", x.y!', '( Ann \'s ) at " U.S. home " , x.y !'),
        (AT_ENDS + ".,!", "J. Smith... :-) #tag 1,000. ...", "J. Smith . . . :-) #tag 1,000 . ..."),
        (AT_ENDS + "，。", "他在New York，北京。", "他 在 New York ， 北 京 。"),
        (AT_ENDS + ".", "cafe\u0301.", "cafe\u0301 ."),
        (AT_ENDS + "abc.", "abc.", "a b c ."),
    ],
)
def test_a_rule_cuts_plain_text(rule: str | None, text: str, expected: str) -> None:
    assert words(text, rule) == expected.split()


@pytest.mark.parametrize("rule", [None, MARKS, SPACES, AT_ENDS + ".,", AT_ENDS])
def test_words_are_in_order_and_leave_only_white_space_out(rule: str | None) -> None:
    for text in ("a, b.", "...", "'s", "北京", "\u0301", " \n", "a\u200bb _ -- x."):
        found = cut(text, rule)
        assert found
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(found))
        between = set(range(len(text))) - {place for start, end in found for place in range(start, end)}
        assert rule in (None, MARKS) or not "".join(text[place] for place in between).strip()


def test_marks_and_endings_that_a_source_gives_as_words_are_words_of_plain_text() -> None:
    rule = rule_of(TOKENISED.split())
    assert words("Ann's in New York.", rule) == ["Ann", "'s", "in", "New", "York", "."]
    assert words('"Rex," said @user; U.S. #tag: don\'t!', rule) == [
        '"', "Rex", ",", '"', "said", "@user", ";", "U.S.", "#tag", ":", "don't", "!",
    ]  # fmt: skip


def test_characters_of_html_say_nothing_of_marks() -> None:
    assert words("Rex; Ann", rule_of(["&amp;"] * 20 + ["Rex"])) == ["Rex", ";", "Ann"]


def test_marks_that_a_source_leaves_at_its_words_stay_there() -> None:
    assert words("Rex, Ann's dog, ran. [sic]", rule_of(GLUED.split())) == [
        "Rex,",
        "Ann's",
        "dog,",
        "ran.",
        "[",
        "sic",
        "]",
    ]
