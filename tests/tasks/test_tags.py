import random

import pytest

from emdistill.tasks.tags import (
    Entity,
    bio,
    entities,
    entity_score,
    entity_scores,
    find_scheme,
    without_beginning,
)


def sentences(letters: str, seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Random gold tags, one in five answered at random."""
    draw = random.Random(seed)
    tags = ["O", *[f"{letter}-{name}" for letter in letters for name in ("a", "b-c")]]
    gold = [[draw.choice(tags) for _ in range(draw.randint(1, 12))] for _ in range(30)]
    answers = [[tag if draw.random() < 0.8 else draw.choice(tags) for tag in sentence] for sentence in gold]
    return gold, answers


@pytest.mark.parametrize(
    ("letters", "seed", "micro", "a", "bc", "count"),
    [
        ("BI", 0, 0.782312925170068, 0.7662337662337663, 0.8, 149),
        ("BI", 1, 0.8158844765342961, 0.7887323943661971, 0.8444444444444444, 140),
        ("BI", 2, 0.8221343873517786, 0.8, 0.8405797101449276, 126),
        ("BIES", 0, 0.8050314465408805, 0.8271604938271605, 0.782051282051282, 161),
        ("BIES", 1, 0.827338129496403, 0.8396946564885497, 0.8163265306122449, 140),
        ("BIES", 2, 0.814569536423841, 0.8029197080291971, 0.8242424242424242, 151),
    ],
)
def test_f1_is_seqevals(letters: str, seed: int, micro: float, a: float, bc: float, count: int) -> None:
    """Values of seqeval 1.2.2, f1_score and classification_report of these sentences, mode None."""
    gold, answers = sentences(letters, seed)
    by_type = entity_scores(gold, answers)
    assert entity_score(gold, answers).f1 == pytest.approx(micro, abs=1e-12)
    assert list(by_type) == ["a", "b-c"]
    assert [by_type["a"].f1, by_type["b-c"].f1] == pytest.approx([a, bc], abs=1e-12)
    assert sum(score.support for score in by_type.values()) == entity_score(gold, answers).support == count


def test_precision_and_recall() -> None:
    score = entity_score([["B-x", "I-x", "O", "B-y"]], [["B-x", "O", "O", "B-y"]])
    assert score == (0.5, 0.5, 0.5, 2)
    assert entity_score([["O"]], [["O"]]) == (0, 0, 0, 0)
    with pytest.raises(ValueError, match="2"):
        entity_score([["O"]], [["O", "O"]])


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-x I-x B-x O", [("x", 0, 2), ("x", 2, 3)]),
        ("I-x I-x O I-y I-x", [("x", 0, 2), ("y", 3, 4), ("x", 4, 5)]),
        ("S-x B-x E-x E-x I-x", [("x", 0, 1), ("x", 1, 3), ("x", 3, 4), ("x", 4, 5)]),
        ("U-x B-x L-x O", [("x", 0, 1), ("x", 1, 3)]),
        ("B I O B", [("_", 0, 2), ("_", 3, 4)]),
        ("B-creative-work I-creative-work", [("creative-work", 0, 2)]),
    ],
)
def test_entities(tags: str, found: list[tuple[str, int, int]]) -> None:
    assert [tuple(entity) for entity in entities(tags.split())] == found


def test_tags_that_continue_nothing() -> None:
    assert without_beginning(["I-x", "I-x", "O", "B-y", "I-x", "S-x", "E-x", "B-x", "E-x"]) == [0, 4, 6]


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("O B-x I-x", "BIO"),
        ("O I-x", "BIO"),
        ("O B I", "BIO"),
        ("O B-x S-x", "BIOES"),
        ("O B-x L-x", "BILOU"),
        ("O", None),
        ("NOUN VERB X", None),
        ("O B-x NOUN", None),
        ("E-x L-x", None),
    ],
)
def test_the_scheme_is_found(tags: str, scheme: str | None) -> None:
    assert find_scheme(tags.split()) == scheme


def test_bio_of_entities_gives_the_entities_back() -> None:
    spans = [Entity("x", 0, 2), Entity("x", 2, 3), Entity("y", 4, 5)]
    assert bio(spans, 6) == ["B-x", "I-x", "B-x", "O", "B-y", "O"]
    assert entities(bio(spans, 6)) == spans
