"""Words and their answers: where they stand, windows of long texts, entity F1, and what people read of it."""

from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from emdistill.data.batches import reader, tokenise
from emdistill.errors import ConfigError
from emdistill.states import ANSWERS, NO_CLASS
from emdistill.tasks import KINDS
from emdistill.tasks.answers import flat, ragged
from emdistill.tasks.features import Pieces, Reader
from emdistill.tasks.tagging import ReadText, answer
from emdistill.tasks.task import Task
from emdistill.tasks.words import SPACES, cut

TAGS = KINDS["tagging"]
NAMES = ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")
PLACES = Task("places", TAGS, NAMES, TAGS.metrics_of(NAMES), words=SPACES)


def one_hot(rows: list[list[str]]) -> Any:
    return ragged([np.eye(len(NAMES))[[NAMES.index(tag) for tag in tags]] for tags in rows])


def test_entity_f1_and_accuracy_are_seqevals() -> None:
    """Golden values of seqeval 1.2.2's f1_score and accuracy_score, its default mode."""
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "I-LOC", "I-LOC", "O"], ["B-LOC", "B-LOC"]]
    answers = [["B-PER", "O", "O", "B-LOC"], ["O", "B-LOC", "I-LOC", "I-PER"], ["B-LOC", "I-LOC"]]
    labels = ragged([np.array(TAGS.encoder(NAMES)(tags)) for tags in gold])
    found = PLACES.score(one_hot(answers), labels)
    assert found == pytest.approx({"entity_f1": 0.4, "accuracy": 0.6})
    assert PLACES.chance(labels) == 0


def test_words_without_a_tag_are_not_scored() -> None:
    labels = ragged([np.array([0, NO_CLASS]), np.array([1])])
    logits = ragged([np.eye(5)[[0, 3]], np.eye(5)[[1]]])
    task = Task("t", TAGS, NAMES, ("accuracy", "macro_f1"))
    assert task.score(logits, labels) == {"accuracy": 1.0, "macro_f1": 1.0}


def test_plain_classes_are_scored_by_accuracy_first() -> None:
    assert TAGS.metrics_of(("NOUN", "VERB")) == ("accuracy", "macro_f1")
    assert TAGS.label_names([["I-x"], ["O", "B-y"]]) == ("O", "B-x", "B-y", "I-x", "I-y")


def test_a_word_is_answered_at_its_first_piece() -> None:
    """Words ab|cd|ef|gh of the pieces a b, (a space), c d e (of two words), f; the last word has no piece."""
    words = [(0, 2), (3, 5), (5, 6), (7, 8), (9, 10)]
    pieces = Pieces([1, 2, 3, 4, 5], [(0, 1), (1, 2), (2, 3), (3, 6), (6, 8)])
    reader = Reader(lambda texts: [], ("input_ids",), alone=((), ()), pair=((), (), ()), types=())
    text = ReadText(reader, words, pieces)
    assert text.first.tolist() == [0, 3, 3, 4, 4]
    assert text.counts.sum() >= len(pieces.ids)
    assert ReadText(reader, [(0, 3)], Pieces([], [])).first.tolist() == [0]


def test_an_exported_folder_finds_no_words_in_blanks() -> None:
    assert [answer(text, {}, None, None) for text in ("", " \n")] == ["[]", "[]"]


def long_text(words: int) -> dict[str, list[Any]]:
    rng = np.random.default_rng(0)
    text = " ".join(str(word) for word in rng.choice(["movie", "good", "xyzzy", "a", "abcdefgh"], size=words))
    labels = rng.integers(0, 5, size=words).tolist()
    return {"text": [text], "words": [cut(text, SPACES)], "label": [labels]}


@pytest.mark.parametrize("max_length", [8, 64])
def test_every_word_of_a_long_text_is_answered_once_and_in_its_place(
    max_length: int, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = long_text(2000)
    features = TAGS.features(rows, [reader(tiny_tokenizer)], max_length)
    assert len(features) > 1
    assert [tag for feature in features for tag in feature.labels] == rows["label"][0]
    whole = tiny_tokenizer(rows["text"][0], add_special_tokens=False, verbose=False)
    firsts = [whole.char_to_token(start) for start, _ in rows["words"][0]]
    expected = [whole["input_ids"][place] for place in firsts]
    inputs = [feature.sides[0].inputs for feature in features]
    assert [each["input_ids"][place] for each in inputs for place in each[ANSWERS]] == expected
    assert max(len(each["input_ids"]) for each in inputs) <= max_length
    if max_length == 64:
        core_begins = [each[ANSWERS][0] for each in inputs]
        assert core_begins[0] == 1
        assert min(core_begins[1:]) > 8  # context before each other core


def test_two_tokenizers_share_their_windows(tiny_tokenizer: PreTrainedTokenizerFast, tokenizer_factory: Any) -> None:
    ids = tiny_tokenizer.get_vocab()
    vocabulary = sorted(ids, key=ids.__getitem__)
    other = tokenizer_factory((*vocabulary, "xyzzy", "abcd", "##efgh"))
    features = TAGS.features(long_text(300), [reader(tiny_tokenizer), reader(other)], 32)
    pairs = [[side.inputs for side in feature.sides] for feature in features]
    assert all(len(own[ANSWERS]) == len(others[ANSWERS]) for own, others in pairs)
    assert any(len(own["input_ids"]) != len(others["input_ids"]) for own, others in pairs)


def test_a_word_longer_than_a_window_and_odd_characters_have_answers(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    text = "a " + "z" * 50 + " \u200b good"
    rows = {"text": [text], "words": [cut(text, SPACES)]}
    features = TAGS.features(rows, [reader(tiny_tokenizer)], 16)
    answers = [place for feature in features for place in feature.sides[0].inputs[ANSWERS]]
    assert len(answers) == len(rows["words"][0]) == 4
    assert all(len(feature.sides[0].inputs["input_ids"]) <= 16 for feature in features)
    with pytest.raises(ConfigError):
        TAGS.features(rows, [reader(tiny_tokenizer)], 2)


def test_text_without_labels_has_answers_and_no_classes(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = PLACES.rows_of_text({"text": ["a good movie", "it"]})
    encoded = tokenise(rows.add_column("label", [TAGS.absent(5)] * 2), tiny_tokenizer, 32, TAGS)
    assert encoded["labels"][:] == [[NO_CLASS] * 3, [NO_CLASS]]
    assert list(map(len, encoded[ANSWERS])) == [3, 1]


def test_answers_name_words_and_entities() -> None:
    rows = Dataset.from_dict({"text": ["Ann is in New York"], "words": [[[0, 3], [4, 6], [7, 9], [10, 13], [14, 18]]]})
    logits = one_hot([["B-PER", "O", "O", "B-LOC", "I-LOC"]]) * 9
    (answer,) = TAGS.answers(logits, NAMES, rows)
    assert answer["prediction"] == ["B-PER", "O", "O", "B-LOC", "I-LOC"]
    ann = answer["predicted_words"][0]
    assert ann == {"word": "Ann", "tag": "B-PER", "probability": pytest.approx(0.9995, abs=1e-3)}
    assert answer["predicted_entities"] == [
        {"type": "PER", "start": 0, "end": 3, "text": "Ann"},
        {"type": "LOC", "start": 10, "end": 18, "text": "New York"},
    ]
    assert flat(TAGS.decode(logits, rows)).tolist() == [2, 0, 0, 1, 3]


@pytest.mark.parametrize("metric", ["entity_f1", "accuracy"])
def test_a_sample_of_rows_scores_as_its_counts(metric: str) -> None:
    rng = np.random.default_rng(3)
    labels = ragged([rng.integers(0, 5, size=size) for size in (3, 1, 7, 4, 2)])
    logits = ragged(
        [np.where(rng.random((len(row), 1)) < 0.6, np.eye(5)[row], rng.random((len(row), 5))) for row in labels]
    )
    task = Task("t", TAGS, NAMES, (metric,))
    counts = TAGS.row_counts(logits, labels, task)
    for sample in rng.integers(0, 5, size=(6, 5)):
        first, second = counts[sample].sum(axis=0)
        assert task.score(logits[sample], labels[sample])[metric] == pytest.approx(first / second)
