"""How plain text is cut into words, for kinds that answer words: a rule by its name, which a model remembers.

marks      runs of letters, digits and _, each Han character by itself, and single other marks
spaces     at white space: of taggers that an earlier version trained
ends …     at white space; the marks that are listed are words of their own where a piece begins or ends with them,
           so are the endings listed behind them ('s), and each Han character
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

Words = list[tuple[int, int]]
"""(start, end) in characters of a text."""

MARKS, SPACES, AT_ENDS = "marks", "spaces", "ends "
# Where Han is written there is no white space between words, and BERT reads each of its characters by itself.
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
ABBREVIATION = re.compile(r"(?:[^\W\d_]{1,2}\.)+")  # U.S., e.g., Ph.D.; or an initial
RARE = 1e-4  # of the words: a rarer ending is chance
ESCAPED = re.compile(r"&#?\w+;")  # a character of HTML, as in messages: its marks end no word
ENDING = re.compile(r"['’][^\W\d_]{1,2}$")
USUAL_ENDS = '.,;:!?…()[]{}"“”„«»‹›¡¿。，、；：！？（）「」『』《》〈〉【】'


def cut(text: str, rule: str | None) -> Words:
    """The words of a plain text; all of it where there are none. rule: None is `marks`."""
    if rule == SPACES:
        words = [match.span() for match in re.finditer(r"\S+", text)]
    elif rule is not None and rule.startswith(AT_ENDS):
        words = cut_ends(text, rule.removeprefix(AT_ENDS))
    else:
        words = cut_words(text)
    return words or [(0, len(text))]


def cut_words(text: str) -> Words:
    """By `marks`."""
    return [match.span() for match in word_pattern().finditer(text)]


def cut_ends(text: str, listed: str) -> Words:
    """By `ends`; a run of marks alone and an abbreviation with its points stay whole."""
    marks, *endings = listed.split(" ")
    words: Words = []
    for run in re.finditer(rf"[{HAN}]|[^\s{HAN}]+", text):
        (first, end), last = run.span(), run.end()
        if not any(map(str.isalnum, run[0])):
            words.append(run.span())
            continue
        while first < last - 1 and text[first] in marks:
            first += 1
        while first < last - 1 and text[last - 1] in marks:
            last -= 1
        if (short := ABBREVIATION.match(text, first, end)) and short.end() == last + 1:
            last += 1
        ending = next((each for each in endings if text.endswith(each, first + 1, last)), "")
        borders = [*range(run.start(), first + 1), last - len(ending), *range(last, end + 1)]
        words += [pair for pair in pairwise(borders) if pair[0] < pair[1]]
    return words


def rule_of(words: Iterable[str]) -> str:
    """The rule that cuts plain text as a source does that gives words one by one.

    `ends` lists the marks, and the endings of an apostrophe and one or two letters, that stand alone more often than at
    an end of a longer word; of USUAL_ENDS those that stand there up to ten times as often too, as in emoticons. So
    `York ,` makes a comma a word, `York,` does not, and the @ of `@user` stays where it is.
    """
    alone, at_end, count = Counter[str](), Counter[str](), 0
    for word in words:
        count += 1
        ending = ENDING.search(word)
        if len(word) == 1 or (ending and ending[0] == word):
            alone[word] += 1
        elif any(map(str.isalnum, word)) and not ESCAPED.fullmatch(word):
            at_end.update({word[0], word[-1], *([ending[0]] if ending else [])})
    own = {each for each in alone if alone[each] > at_end[each]}
    marks = {each for each in own if len(each) == 1 and unicodedata.category(each)[0] in "PS" and each != "_"}
    marks |= {mark for mark in USUAL_ENDS if 10 * alone[mark] >= at_end[mark]}
    endings = {each for each in own if ENDING.fullmatch(each) and alone[each] >= RARE * count}
    return AT_ENDS + " ".join(["".join(sorted(marks)), *sorted(endings)])


@cache
def word_pattern() -> re.Pattern[str]:
    """Accents and vowel signs that are characters of their own belong to their letter's word."""
    combining = "".join(sign for sign in map(chr, range(0x300, 0x20000)) if unicodedata.category(sign)[0] == "M")
    return re.compile(rf"[{HAN}][{combining}]*|[^\W{HAN}]+(?:[{combining}]+[^\W{HAN}]*)*|[^\w\s]")


CUTTING = (word_pattern, cut_words, cut_ends, cut)


def constants() -> str:
    """Source of what CUTTING needs, for a shipped folder's example.py."""
    return f"""MARKS, SPACES, AT_ENDS, HAN = {MARKS!r}, {SPACES!r}, {AT_ENDS!r}, {HAN!a}
ABBREVIATION = re.compile({ABBREVIATION.pattern!r})"""
