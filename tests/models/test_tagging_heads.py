"""The head of words on every family: the answers that are picked, what a student keeps, a smaller vocabulary."""

from typing import Any

import pytest
import torch
from messages import names
from transformers import AutoConfig

from emdistill.data.batches import PaddingCollator, tokenise
from emdistill.errors import ModelError
from emdistill.models.capture import capture
from emdistill.models.encoder import load_classifier, save_student
from emdistill.models.families import FAMILIES
from emdistill.models.teacher import Teacher
from emdistill.models.vocabulary import Encoder, prune, used_tokens
from emdistill.states import ANSWERS
from emdistill.students import make_student
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task
from emdistill.tasks.words import SPACES

KIND = KINDS["tagging"]
TASK = Task("t", KIND, ("O", "B-x", "I-x"), ("entity_f1",), words=SPACES)
TEXTS = ["a good movie", "it was not the bookish good and bad thing", "xyzzy"]


@pytest.fixture
def batch(tiny_tokenizer: Any) -> dict[str, Any]:
    rows = TASK.rows_of_text({"text": TEXTS})
    examples = tokenise(rows, tiny_tokenizer, 64, KIND).remove_columns("length")
    return dict(PaddingCollator(tiny_tokenizer)(examples.to_list()))


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "bag"])  # it answers whole texts
def test_every_family_answers_words(
    family: str, batch: dict[str, Any], tiny_encoder: Any, tiny_tokenizer: Any, tmp_path: Any
) -> None:
    model = tiny_encoder(family, head=KIND.head, labels=3, problem_type=None)
    assert Teacher(model).kind is KIND  # of a model that nobody trained here
    states = capture(model, batch, {"hidden"})
    whole = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = [whole[row, place] for row, places in enumerate(batch[ANSWERS]) for place in places if place >= 0]
    torch.testing.assert_close(states.logits, torch.stack(expected), atol=1e-5, rtol=1e-4)
    save_student(model, tiny_tokenizer, tmp_path)
    assert type(load_classifier(tmp_path)) is type(model)
    if "keep" not in FAMILIES[family].without:
        student, _ = make_student("1", model, tiny_tokenizer, labels=TASK.labels, predictions=TASK.predictions)
        assert type(student) is type(model)
        assert capture(student, batch, ()).logits.shape == states.logits.shape


def test_a_classifier_becomes_a_tagger(tiny_encoder: Any, tiny_tokenizer: Any, tmp_path: Any) -> None:
    save_student(tiny_encoder(), tiny_tokenizer, tmp_path / "classifier")
    tagger = load_classifier(
        tmp_path / "classifier", labels=TASK.labels, problem_type=KIND.problem_type, head=KIND.head
    )
    assert type(tagger).__name__ == "BertForTokenClassification"
    assert tagger.config.num_labels == 3


def test_a_family_without_such_a_head_is_refused_by_name(tmp_path: Any) -> None:
    AutoConfig.for_model("perceiver").save_pretrained(tmp_path)
    with names(ModelError, "perceiver", KIND.head):
        load_classifier(tmp_path, labels=TASK.labels, problem_type=KIND.problem_type, head=KIND.head)


def test_a_smaller_vocabulary_keeps_the_tags(batch: dict[str, Any], tiny_encoder: Any, tiny_tokenizer: Any) -> None:
    model = tiny_encoder(head=KIND.head, labels=3)
    pruned, ids = prune(Encoder(model, tiny_tokenizer), used_tokens(tiny_tokenizer, TEXTS))
    assert len(ids) < len(tiny_tokenizer)
    rows = tokenise(TASK.rows_of_text({"text": TEXTS}), pruned.tokenizer, 64, KIND).remove_columns("length")
    smaller = dict(PaddingCollator(pruned.tokenizer)(rows.to_list()))
    expected = capture(model, batch, ()).logits
    torch.testing.assert_close(capture(pruned.model, smaller, ()).logits, expected, atol=1e-5, rtol=1e-5)
