"""Tags of words and the entities they spell: BIO, BIOES and BILOU schemes, and precision, recall and F1 of entities.

Entities are read as seqeval and conlleval read them by default: B-, S- or a change of type begins one, and so does an
I- or E- that continues nothing. Entities count as right where type, first and last word are right (Tjong Kim Sang and
De Meulder, CoNLL 2003).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

OUTSIDE = "O"
SCHEMES = {"BIO": "BI", "BIOES": "BIES", "BILOU": "BILU"}
UNTYPED = "_"  # the type of entities whose tags are a bare B and I


class Entity(NamedTuple):
    """Words first..end, end excluded."""

    type: str
    first: int
    end: int


class EntityScore(NamedTuple):
    """Precision, recall and F1; 0 where undefined. `support`: the entities of the gold tags."""

    precision: float
    recall: float
    f1: float
    support: int


def find_scheme(tags: Iterable[str]) -> str | None:
    """The scheme in which these tags spell entities; None where they are plain classes, such as parts of speech."""
    parts = {_split(tag) for tag in set(tags) if tag != OUTSIDE}
    letters = {letter for letter, _ in parts}
    fitting = [name for name, of_scheme in SCHEMES.items() if letters <= set(of_scheme)]
    return next(iter(fitting), None) if letters and "" not in letters else None


@lru_cache(maxsize=4096)
def _split(tag: str) -> tuple[str, str]:
    """(letter of a scheme, type); ("", tag) for any other tag."""
    letter, dash, name = tag.partition("-")
    if letter in tuple("BIESLU") and (name or not dash):
        return letter, name or UNTYPED
    return "", tag


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence's tags, in their order."""
    found: list[Entity] = []
    for word, tag in enumerate(tags):
        letter, type_ = _split(tag)
        if not letter:
            continue
        if letter in "BSU" or not _continues(tags, word):
            found.append(Entity(type_, word, word + 1))
        else:
            found[-1] = found[-1]._replace(end=word + 1)
    return found


def _continues(tags: Sequence[str], word: int) -> bool:
    """Whether the word before is an unfinished part of an entity of the same type."""
    letter, type_ = _split(tags[word - 1]) if word else ("", "")
    return letter in tuple("BI") and type_ == _split(tags[word])[1]


def without_beginning(tags: Sequence[str]) -> list[int]:
    """The words whose tag (I-, E- or L-) should continue an entity, but there is none to continue."""
    return [word for word, tag in enumerate(tags) if _split(tag)[0] in tuple("IEL") and not _continues(tags, word)]


def bio(spans: Sequence[Entity], words: int) -> list[str]:
    """The BIO tags of entities that do not overlap."""
    tags = [OUTSIDE] * words
    for type_, first, end in spans:
        tags[first:end] = [f"B-{type_}", *[f"I-{type_}"] * (end - first - 1)]
    return tags


def entity_score(gold: Sequence[Sequence[str]], answers: Sequence[Sequence[str]]) -> EntityScore:
    """The score of all entities together, whatever their type (micro average); arguments as of `entity_scores`."""
    return _score(*(count.total() for count in _counts(gold, answers)))


def entity_scores(gold: Sequence[Sequence[str]], answers: Sequence[Sequence[str]]) -> dict[str, EntityScore]:
    """The score of each type's entities, types in alphabetical order.

    gold, answers   tags per sentence; raises ValueError where the sentences' lengths differ
    """
    counts = _counts(gold, answers)
    return {name: _score(*(count[name] for count in counts)) for name in sorted(set().union(*counts))}


def _counts(gold: Sequence[Sequence[str]], answers: Sequence[Sequence[str]]) -> list[Counter[str]]:
    """Entities by type: right ones, answered ones, those of the gold tags."""
    counts: list[Counter[str]] = [Counter(), Counter(), Counter()]
    for gold_tags, answer_tags in zip(gold, answers, strict=True):
        if len(gold_tags) != len(answer_tags):
            raise ValueError(f"{len(answer_tags)} tags for a sentence of {len(gold_tags)} words")
        there, answered = set(entities(gold_tags)), set(entities(answer_tags))
        for count, found in zip(counts, (there & answered, answered, there), strict=True):
            count.update(entity.type for entity in found)
    return counts


def _score(right: int, answered: int, there: int) -> EntityScore:
    precision = right / answered if answered else 0.0
    recall = right / there if there else 0.0
    f1 = 2 * right / (answered + there) if answered + there else 0.0
    return EntityScore(precision, recall, f1, there)
