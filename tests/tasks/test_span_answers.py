"""What is read of a question and its text, what is learned of it, and which answer it gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from messages import names
from tokenizers import processors
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.data.batches import PaddingCollator, tokenise
from emdistill.errors import ConfigError
from emdistill.losses import HardLabels, SoftTargets
from emdistill.models import Teacher
from emdistill.models.capture import capture
from emdistill.models.teacher_cache import open_teacher_cache
from emdistill.states import ANSWERS, ENDS, NO_ANSWER, NO_CLASS, WINDOW, EncoderStates
from emdistill.tasks import KINDS
from emdistill.tasks.span_answers import UNKNOWN, answer
from emdistill.tasks.task import Task
from emdistill.training import predict_logits
from emdistill.training.two_vocabularies import collator_for_both, tokenise_for_both

Encoders = Callable[..., PreTrainedModel]
ALWAYS, OR_NONE = KINDS["span-answers"], KINDS["span-answers-or-none"]
TASK = Task("t", OR_NONE, ("start", "end"), OR_NONE.default_metrics)
LONG = " ".join(f"good{number} book" for number in range(60))
QUESTIONS = ("what was good?", "which book", "is it?")
TEXTS = ("the movie was good, and it was not bad.", LONG, "the book")
LABELS = [[[4, 9], [0, 3]], [[LONG.index("good40"), LONG.index("good40") + 11]], []]


def rows(labels: list[Any] | None = LABELS) -> Dataset:  # type: ignore[assignment]
    read = TASK.rows_of_text({"text": list(QUESTIONS), "text_pair": list(TEXTS)})
    return read if labels is None else read.add_column("label", labels, feature=OR_NONE.label_type)


def test_a_short_text_is_read_as_the_tokenizer_reads_a_pair(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    features = tokenise(rows(), tiny_tokenizer, 64, OR_NONE).to_list()
    first, last = features[0], features[-1]
    for feature, row in ((first, 0), (last, 2)):
        assert tiny_tokenizer(QUESTIONS[row], TEXTS[row]).items() <= feature.items()
        assert feature[WINDOW][:2] == [0, 0]
    tokens = tiny_tokenizer.convert_ids_to_tokens(first["input_ids"])
    words = ["the", "movie", "was", "good", ",", "and", "it", "was", "not", "bad", "."]
    assert [tokens[place] for place in first[ANSWERS]] == ["[CLS]", *words]
    assert first[ANSWERS] == first[ENDS]  # each word is one token
    assert first["labels"] == [2, 2]  # movie
    assert last["labels"] == [0, 0]


@pytest.mark.parametrize("single", ["[CLS] $A [SEP]", "$A"])
@pytest.mark.parametrize("pair", ["[CLS] $A [SEP] $B:1 [SEP]:1", "[CLS] $A [SEP] [SEP] $B [SEP]", "$A $B"])
def test_special_tokens_stand_where_the_tokenizer_has_them(tiny_tokenizer: Any, single: str, pair: str) -> None:
    """BERT's and RoBERTa's, BERT's with token types; whatever a text alone has around it."""
    special = [(token, tiny_tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tiny_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single, pair, special)
    if ":1" in pair:
        tiny_tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    features = tokenise(rows(), tiny_tokenizer, 64, OR_NONE).to_list()
    assert dict(tiny_tokenizer(QUESTIONS[0], TEXTS[0])).items() <= features[0].items()
    assert tiny_tokenizer.convert_ids_to_tokens(features[0]["input_ids"][features[0][ANSWERS][1]]) == "the"


def test_an_exported_folder_finds_no_answer_in_blanks() -> None:
    assert [answer("who?", text, {}, None, None) for text in ("", " \n")] == ["", ""]


def test_a_word_begins_at_its_first_piece_and_ends_at_its_last(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    (feature,) = tokenise(
        TASK.rows_of_text({"text": ["is it"], "text_pair": ["good12 a"]}), tiny_tokenizer, 64, OR_NONE
    ).to_list()
    tokens = tiny_tokenizer.convert_ids_to_tokens(feature["input_ids"])
    assert tokens[4:9] == ["good", "##1", "##2", "a", "[SEP]"]
    assert (feature[ANSWERS], feature[ENDS]) == ([0, 4, 7], [0, 6, 7])


def test_a_long_text_is_read_in_windows_with_the_question_in_each(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    features = tokenise(rows(), tiny_tokenizer, 48, OR_NONE).to_list()[1:-1]
    assert len(features) > 5
    asked = tiny_tokenizer(QUESTIONS[1])["input_ids"]
    cores = []
    for feature in features:
        assert len(feature["input_ids"]) <= 48
        assert feature["input_ids"][: len(asked)] == asked
        first, core_first, core_end, end = feature[WINDOW]
        assert len(feature[ANSWERS]) == 1 + end - first
        cores += range(core_first, core_end)
        holds = first <= 80 and end > 81  # good40 book
        assert feature["labels"] == ([81 - first, 82 - first] if holds else [0, 0])
    assert cores == list(range(120))
    assert any(feature["labels"] != [0, 0] for feature in features)


def test_a_question_is_cut_at_its_end(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    read = TASK.rows_of_text({"text": ["is it a good movie or a bad book"], "text_pair": ["the book"]})
    (feature,) = tokenise(read, tiny_tokenizer, 10, OR_NONE).to_list()
    tokens = tiny_tokenizer.convert_ids_to_tokens(feature["input_ids"])
    assert tokens == ["[CLS]", "is", "it", "a", "good", "movie", "[SEP]", "the", "book", "[SEP]"]
    with names(ConfigError, "--max-length", 4):
        tokenise(read, tiny_tokenizer, 4, OR_NONE)


def test_a_question_without_a_label_teaches_nothing(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    features = tokenise(rows([UNKNOWN] * 3), tiny_tokenizer, 64, OR_NONE)
    assert {tuple(labels) for labels in features["labels"]} == {(NO_CLASS, NO_CLASS)}
    assert "labels" not in tokenise(rows(None), tiny_tokenizer, 64, OR_NONE).column_names


# ------------------------------------------------------------------------------------------------------- losses


def batch_of_three(seed: int = 0) -> tuple[EncoderStates, EncoderStates, dict[str, torch.Tensor]]:
    """Logits of rows with 4, 2 and 3 answers, one row without a label; float64."""
    there = torch.tensor([[0, 5, 6, 7], [0, 3, NO_ANSWER, NO_ANSWER], [0, 2, 3, NO_ANSWER]])
    labels = torch.tensor([[2, 3], [NO_CLASS, NO_CLASS], [0, 0]])
    generator = torch.Generator().manual_seed(seed)
    states = [
        EncoderStates(3 * torch.randn(9, 2, generator=generator, dtype=torch.float64), torch.ones(3, 1))
        for _ in range(2)
    ]
    return states[0], states[1], {ANSWERS: there, ENDS: there, "labels": labels}


ROWS = (slice(0, 4), slice(4, 6), slice(6, 9))


def log_shares(logits: torch.Tensor, temperature: float) -> list[np.ndarray]:
    """By definition, row by row and end by end."""
    shares = [np.exp(logits[row].numpy() / temperature) for row in ROWS]
    return [np.log(share[:, end] / share[:, end].sum()) for share in shares for end in (0, 1)]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
def test_soft_targets_over_positions_are_their_definition(temperature: float) -> None:
    student, teacher, batch = batch_of_three()
    (value,) = SoftTargets(link="positions", temperature=temperature)(student, teacher, batch).values()
    pairs = zip(log_shares(student.logits, temperature), log_shares(teacher.logits, temperature), strict=True)
    expected = [-(temperature**2) * (np.exp(other) * own).sum() for own, other in pairs]
    assert len(expected) == 6
    assert value.item() == pytest.approx(np.mean(expected), rel=1e-12)


def test_hard_labels_over_positions_are_their_definition() -> None:
    student, teacher, batch = batch_of_three()
    (value,) = HardLabels(link="positions")(student, teacher, batch).values()
    shares = log_shares(student.logits, 1.0)
    expected = -(shares[0][2] + shares[1][3] + shares[4][0] + shares[5][0]) / 6  # of three rows' ends
    assert value.item() == pytest.approx(expected, rel=1e-12)


# ----------------------------------------------------------------------------------------------------- the model


@pytest.fixture
def model(tiny_encoder: Encoders) -> PreTrainedModel:
    return tiny_encoder(head="QuestionAnswering", problem_type=OR_NONE.problem_type)


def test_a_row_is_answered_alike_alone_and_in_a_batch(
    model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerBase
) -> None:
    together = predict_logits(model, tiny_tokenizer, rows(), max_length=48)
    alone = [predict_logits(model, tiny_tokenizer, rows().select([row]), max_length=48)[0] for row in range(3)]
    assert [row.shape for row in together] == [(12, 2), (121, 2), (3, 2)]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_logits_are_the_models_at_the_words(model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    """Of a text that fits: the model's own softmax over its words and the first token."""
    (row, *_) = predict_logits(model, tiny_tokenizer, rows(), max_length=64)
    (feature, *_) = tokenise(rows(), tiny_tokenizer, 64, OR_NONE).to_list()
    with torch.no_grad():
        outputs = model(**tiny_tokenizer(QUESTIONS[0], TEXTS[0], return_tensors="pt"))
    for column, logits in enumerate((outputs.start_logits[0], outputs.end_logits[0])):
        expected = logits[feature[ANSWERS]].double().log_softmax(0)
        np.testing.assert_allclose(row[:, column], expected, atol=1e-5)


def test_the_cached_teacher_is_the_live_one(
    model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    encoded = tokenise(rows(), tiny_tokenizer, 48, OR_NONE)
    collate, teacher = PaddingCollator(tiny_tokenizer), Teacher(model)
    examples = encoded.remove_columns("length")
    cache = open_teacher_cache(teacher, examples, tmp_path, collate=collate)
    features = [{**examples[row], "row": row} for row in (3, 0, len(examples) - 1)]
    batch = dict(collate(features))
    torch.testing.assert_close(cache(batch).logits, teacher(batch).logits, atol=1e-5, rtol=0)


def test_two_vocabularies_answer_at_the_same_words(
    model: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerBase, tokenizer_factory: Callable[..., Any]
) -> None:
    """The teacher's tokens are letters; the k-th answer of both is the same word."""

    ids = tiny_tokenizer.get_vocab()
    letters = tokenizer_factory(
        tuple(token for token in sorted(ids, key=ids.__getitem__) if token not in ("good", "book"))
    )
    encoded = tokenise_for_both(rows(), tiny_tokenizer, 48, letters, OR_NONE)
    for feature in encoded.to_list():
        words = [
            [
                side.decode(feature[prefix + "input_ids"][first : last + 1])
                for first, last in zip(feature[prefix + ANSWERS][1:], feature[prefix + ENDS][1:], strict=True)
            ]
            for prefix, side in (("", tiny_tokenizer), ("teacher_", letters))
        ]
        assert words[0] == words[1]
    batch = dict(collator_for_both(tiny_tokenizer, letters)(encoded.remove_columns("length").to_list()))
    student, teacher = capture(model, batch, ()), Teacher(model)(batch)
    assert student.logits.shape == teacher.logits.shape
    (value,) = SoftTargets(link="positions")(student, teacher, batch).values()
    assert torch.isfinite(value)
