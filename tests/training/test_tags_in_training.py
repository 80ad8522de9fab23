"""Trainings whose rows have several answers: batches, caches, two vocabularies, the score of a checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from byte_pairs import byte_pair_tokenizer
from datasets import Dataset
from training_runs import SETTINGS

from emdistill.data.batches import PaddingCollator, tokenise
from emdistill.methods import METHODS
from emdistill.models.capture import capture
from emdistill.models.encoder import encoder_shape
from emdistill.models.teacher import Teacher
from emdistill.models.teacher_cache import open_teacher_cache
from emdistill.states import ANSWERS, NO_ANSWER, NO_CLASS, TEACHERS, teacher_part
from emdistill.students import make_student
from emdistill.tasks import KINDS
from emdistill.tasks.answers import flat
from emdistill.tasks.task import Task
from emdistill.tasks.words import SPACES
from emdistill.training.evaluate import predict_logits, score_features
from emdistill.training.lesson import Lesson
from emdistill.training.run_stages import run_stages
from emdistill.training.stage_arguments import stage_arguments
from emdistill.training.trainer import per_row
from emdistill.training.two_vocabularies import collator_for_both, teacher_examples, tokenise_for_both

KIND = KINDS["tagging"]
TASK = Task("t", KIND, ("O", "B-x", "I-x"), ("entity_f1", "accuracy"), words=SPACES)
WORDS = ("movie", "good", "goodish", "a", "book", "xyzzy")
HEAD: dict[str, Any] = {"head": KIND.head, "labels": 3, "problem_type": KIND.problem_type}


def tagged(rows: int, *, longest: int = 12, seed: int = 0) -> Dataset:
    """Sentences in which 'good' begins an x, and 'goodish' goes on with one."""
    rng = np.random.default_rng(seed)
    words = [rng.choice(WORDS, size=rng.integers(1, longest + 1)).tolist() for _ in range(rows)]
    labels = [[{"good": 1, "goodish": 2}.get(word, 0) for word in row] for row in words]
    return TASK.rows_of_text({"text": [" ".join(row) for row in words]}).add_column(
        "label", labels, feature=KIND.label_type
    )


def batch_of(examples: Dataset, collate: Any) -> dict[str, torch.Tensor]:
    return dict(collate(examples.remove_columns("length").to_list()))


def test_a_batch_has_places_and_labels_of_words_and_nothing_else(tiny_tokenizer):
    examples = tokenise(tagged(4), tiny_tokenizer, 64, KIND)
    batch = batch_of(examples, PaddingCollator(tiny_tokenizer))
    assert batch[ANSWERS].shape == batch["labels"].shape
    assert ((batch[ANSWERS] == NO_ANSWER) == (batch["labels"] == NO_CLASS)).all()
    again = batch_of(examples.select([2]), PaddingCollator(tiny_tokenizer))
    assert again[ANSWERS][0].tolist() == [place for place in batch[ANSWERS][2].tolist() if place >= 0]


@pytest.mark.parametrize("max_length", [10, 64])
def test_rows_are_answered_padded_as_alone(tiny_encoder, tiny_tokenizer, max_length):
    model, rows = tiny_encoder(**HEAD), tagged(6)
    together = predict_logits(model, tiny_tokenizer, rows, max_length=max_length)
    assert [len(logits) for logits in together] == [len(words) for words in rows["words"]]
    for place, logits in enumerate(together):
        (alone,) = predict_logits(model, tiny_tokenizer, rows.select([place]), max_length=max_length)
        np.testing.assert_allclose(logits, alone, atol=1e-5)


def test_a_cached_teacher_answers_as_a_live_one(tiny_encoder, tiny_tokenizer, tmp_path):
    teacher, rows = Teacher(tiny_encoder(**HEAD)), tokenise(tagged(9), tiny_tokenizer, 10, KIND)
    collate = PaddingCollator(tiny_tokenizer)
    needs = {"hidden", "attention"}
    cache = open_teacher_cache(teacher, rows, tmp_path, needs=needs, collate=collate)
    numbered = rows.add_column("row", list(range(len(rows))))
    batch = batch_of(numbered.select([5, 0, 7]), collate)
    cached, live = cache(batch, needs), teacher(batch, needs)
    torch.testing.assert_close(cached.logits, live.logits, atol=1e-5, rtol=1e-5)
    assert len(cached.logits) == (batch[ANSWERS] != NO_ANSWER).sum()
    assert cached.hidden[0] is not None
    again = open_teacher_cache(teacher, rows, tmp_path, needs=needs, collate=collate)
    assert torch.equal(again(batch).logits, cached.logits)


def test_two_vocabularies_answer_the_same_words(tiny_encoder, tiny_tokenizer):
    other = byte_pair_tokenizer()
    teacher = Teacher(tiny_encoder(vocab_size=len(other), **HEAD))
    rows = tagged(5)
    examples = tokenise_for_both(rows, tiny_tokenizer, 12, other, KIND)
    batch = batch_of(examples, collator_for_both(tiny_tokenizer, other))
    assert (batch[ANSWERS] != NO_ANSWER).tolist() == (batch[TEACHERS + ANSWERS] != NO_ANSWER).tolist()
    taught = teacher(batch, {"hidden"})
    student = capture(tiny_encoder(seed=1, **HEAD), batch, {"hidden"})
    assert taught.logits.shape == student.logits.shape == (sum(map(len, rows["words"])), 3)
    whole = tokenise_for_both(rows, tiny_tokenizer, 64, other, KIND)
    answers = teacher(batch_of(whole, collator_for_both(tiny_tokenizer, other))).logits
    alone = predict_logits(teacher.model, other, rows, max_length=64)
    np.testing.assert_allclose(answers.numpy(), flat(alone), atol=1e-5)
    assert set(teacher_part(batch)) == {"input_ids", "attention_mask", "words", ANSWERS}
    assert set(teacher_examples(examples).column_names) == {"input_ids", "attention_mask", "words", ANSWERS}


def test_a_checkpoints_score_is_that_of_its_rows(tiny_encoder, tiny_tokenizer):
    """Of windows in the order of an evaluation, padded with what processes pad with."""
    model, rows = tiny_encoder(**HEAD), tagged(7, longest=30)
    features = tokenise(rows, tiny_tokenizer, 12, KIND)
    assert len(features) > len(rows)
    order = np.argsort(features["length"])[::-1].tolist()
    batch = batch_of(features.select(order), PaddingCollator(tiny_tokenizer))
    logits = per_row(capture(model, batch, ()).logits, batch).detach().numpy()
    padded = np.pad(logits, ((0, 0), (0, 3), (0, 0)), constant_values=-100)
    score = score_features(TASK, rows, features, order)
    expected = TASK.score(predict_logits(model, tiny_tokenizer, rows, max_length=12), TASK.gold(rows))
    assert score(padded, batch["labels"].numpy()) == pytest.approx(expected)


@pytest.mark.parametrize("two_vocabularies", [False, True])
def test_a_student_learns_to_tag(tiny_encoder, tiny_tokenizer, tmp_path: Path, two_vocabularies: bool):
    own = byte_pair_tokenizer() if two_vocabularies else None
    vocabulary = {"vocab_size": len(own)} if own else {}
    teacher = Teacher(tiny_encoder(layers=3, width=16, heads=2, seed=1, **HEAD, **vocabulary))
    student = tiny_encoder(layers=2, width=8, heads=2, seed=2, **HEAD)
    stages = METHODS["bert-emd"](encoder_shape(student), teacher.shape, alpha=0.1, schedule="joint")
    settings = {**SETTINGS, "num_train_epochs": 6, "learning_rate": 1e-2}
    arguments = [
        stage_arguments(stage, settings, folder=tmp_path, choose=True, metric="entity_f1", seed=3) for stage in stages
    ]
    train = tokenise_for_both(tagged(64), tiny_tokenizer, 16, own, KIND)
    dev = tagged(20, seed=1)
    features = tokenise(dev, tiny_tokenizer, 16, KIND)
    lesson = Lesson(
        student, tiny_tokenizer, stages, arguments, train, teacher, features,
        score_features(TASK, dev, features, list(range(len(features)))), teacher_tokenizer=own,
    )  # fmt: skip
    log = run_stages(lesson, [teacher] * len(stages), tmp_path)[-1]["log"]
    scores = [entry["eval_accuracy"] for entry in log if "eval_accuracy" in entry]
    final = TASK.score(predict_logits(student, tiny_tokenizer, dev, max_length=16), TASK.gold(dev))
    assert final["accuracy"] > 0.75
    assert final["accuracy"] in [pytest.approx(score) for score in scores]


@pytest.mark.parametrize("spec", ["1", "1x16x2x32"])
def test_students_keep_the_teachers_head(tiny_encoder, tiny_tokenizer, spec):
    teacher = tiny_encoder(**HEAD)
    sample = batch_of(tokenise(tagged(4), tiny_tokenizer, 32, KIND), PaddingCollator(tiny_tokenizer))
    student, _ = make_student(
        spec, teacher, tiny_tokenizer, labels=TASK.labels, predictions=TASK.predictions, sample=lambda _: [sample],
        embedding_rank=8,
    )  # fmt: skip
    assert type(student).__name__ == "AlbertForTokenClassification"
    assert tuple(student.config.id2label.values()) == TASK.labels
    assert capture(student, sample, {"hidden"}).logits.shape[-1] == 3
