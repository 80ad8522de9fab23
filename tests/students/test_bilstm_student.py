"""How a BiLSTM student is born: its sizes, its table of tokens, and what it is not."""

import pytest
import torch
from messages import names

from emdistill.errors import CaptureError, ConfigError
from emdistill.methods import METHODS
from emdistill.models import Teacher, capture, encoder_shape
from emdistill.states import CLASSES, NOTHING, WORDS, Predictions
from emdistill.students import make_student
from emdistill.students.bilstm import bilstm_student, main_directions

LABELS = ("bad", "good")
OTHER_HEAD = Predictions("softmax", CLASSES.problem_type, "QuestionAnswering")


def test_its_tokens_stand_to_each_other_as_the_teachers(tiny_encoder, tiny_tokenizer) -> None:
    teacher = tiny_encoder(width=32)
    rows = teacher.get_input_embeddings().weight.detach()
    born, fresh = (
        make_student("bilstm:40", teacher, tiny_tokenizer, labels=LABELS, birth=birth)[0]
        for birth in ("importance", "fresh")
    )
    own, centred = born.get_input_embeddings().weight.detach(), rows - rows.mean(dim=0)
    torch.testing.assert_close(own @ own.T, centred @ centred.T, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(fresh.get_input_embeddings().weight, own)


def test_narrow_tables_keep_what_differs_most() -> None:
    """No other plane leaves less of the rows' variance outside: the singular values say how much that is."""
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.arange(1, 7)
    kept = main_directions(rows, 2)
    most = torch.linalg.svdvals(rows - rows.mean(dim=0))[:2].square().sum()
    torch.testing.assert_close(kept.square().sum(), most)


@pytest.mark.parametrize("predictions", [WORDS, NOTHING])
def test_without_a_task_it_has_no_head(tiny_encoder, tiny_tokenizer, predictions: Predictions) -> None:
    student, _ = make_student("bilstm:8", tiny_encoder(width=32), tiny_tokenizer, predictions=predictions)
    of_task, _ = make_student("bilstm:8", tiny_encoder(width=32), tiny_tokenizer, labels=LABELS)
    assert {f"bilstm.{name}" for name in student.state_dict()} < {*of_task.state_dict()}
    assert student.config.sep_token_id == of_task.config.sep_token_id == tiny_tokenizer.sep_token_id


def test_a_tagger_reads_all_as_one_text(tiny_encoder, tiny_tokenizer) -> None:
    tags = Predictions("softmax", CLASSES.problem_type, "TokenClassification")
    student, _ = make_student("bilstm:8", tiny_encoder(width=32), tiny_tokenizer, labels=LABELS, predictions=tags)
    assert student.config.sep_token_id is None


def test_what_it_cannot_answer_is_refused(tiny_encoder) -> None:
    with names(ConfigError, "--student bilstm", "--student 3"):
        bilstm_student(tiny_encoder(), labels=LABELS, predictions=OTHER_HEAD)
    with names(ConfigError, "--student bilstm:0"):
        bilstm_student(tiny_encoder(), 0, labels=LABELS)


def test_a_teachers_layers_map_onto_its_two(tiny_encoder, tiny_tokenizer) -> None:
    """Hidden states and embeddings can be learned; attention scores, which it has not, are refused by name."""
    teacher = Teacher(tiny_encoder(layers=5, width=32))
    student, _ = make_student("bilstm:8", teacher.model, tiny_tokenizer, labels=LABELS)
    batch = dict(tiny_tokenizer(["a good movie", "it was bad"], padding=True, return_tensors="pt"))
    batch["labels"] = torch.tensor([1, 0])
    (stage,) = METHODS["bert-emd"](encoder_shape(student), teacher.shape, attention_scores=0.0)
    objective = stage.objective
    own, taught = capture(student, batch, objective.student_needs), teacher(batch, objective.needs)
    total, terms = objective(own, taught, batch)
    total.backward()
    assert {"hidden_states", "embeddings"} <= terms.keys()
    for layer in student.get_submodule("bilstm.layers"):
        assert all(weight.grad is not None and weight.grad.any() for weight in layer.parameters())
    with names(ConfigError, "--objective.attention_scores 0"):
        METHODS["bert-emd"](encoder_shape(student), teacher.shape)
    with names(CaptureError, "'bilstm'", "--objective.attention_scores 0"):
        capture(student, batch, {"attention"})
