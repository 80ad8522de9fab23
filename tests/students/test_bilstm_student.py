"""How a BiLSTM student is born: its sizes, its table of tokens, and what it is not."""

import pytest
import torch
from messages import names

from emdistill.errors import ConfigError
from emdistill.models import encoder_shape, fingerprint
from emdistill.states import CLASSES, NOTHING, WORDS, EncoderShape, Predictions
from emdistill.students import make_student
from emdistill.students.bilstm import bilstm_student, main_directions

LABELS = ("bad", "good")


def test_the_spec_says_its_units(tiny_encoder, tiny_tokenizer) -> None:
    teacher, random_state = tiny_encoder(width=32), torch.get_rng_state()
    for spec, units in {"bilstm": 256, "bilstm:8": 8}.items():
        student, tokenizer = make_student(spec, teacher, tiny_tokenizer, labels=LABELS, seed=1)
        assert tokenizer is tiny_tokenizer
        assert encoder_shape(student) == EncoderShape(2, 2 * units, 0)
        assert student.get_input_embeddings().weight.shape == (teacher.config.vocab_size, min(32, units))
        assert fingerprint(student) == fingerprint(
            make_student(spec, teacher, tiny_tokenizer, labels=LABELS, seed=1)[0]
        )
        assert fingerprint(student) != fingerprint(
            make_student(spec, teacher, tiny_tokenizer, labels=LABELS, seed=2)[0]
        )
    assert torch.equal(torch.get_rng_state(), random_state)


def test_its_tokens_stand_to_each_other_as_the_teachers(tiny_encoder, tiny_tokenizer) -> None:
    teacher = tiny_encoder(width=32)
    rows = teacher.get_input_embeddings().weight.detach()
    student, _ = make_student("bilstm:40", teacher, tiny_tokenizer, labels=LABELS)
    torch.testing.assert_close(
        torch.cdist(student.get_input_embeddings().weight, student.get_input_embeddings().weight),
        torch.cdist(rows, rows),
        rtol=1e-4,
        atol=1e-4,
    )
    fresh, _ = make_student("bilstm:40", teacher, tiny_tokenizer, labels=LABELS, birth="fresh")
    assert not torch.allclose(fresh.get_input_embeddings().weight, student.get_input_embeddings().weight)


def test_narrow_tables_keep_what_differs_most() -> None:
    """No other plane leaves less of the rows' variance outside: the singular values say how much that is."""
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.arange(1, 7)
    centred = rows - rows.mean(dim=0)
    kept = main_directions(rows, 2)
    torch.testing.assert_close(kept.square().sum(), torch.linalg.svdvals(centred)[:2].square().sum())


@pytest.mark.parametrize(
    "predictions", [WORDS, NOTHING, Predictions("softmax", CLASSES.problem_type, "QuestionAnswering")]
)
def test_what_it_cannot_answer_is_refused(tiny_encoder, predictions: Predictions) -> None:
    with names(ConfigError, "--student bilstm", "--student 3"):
        bilstm_student(tiny_encoder(), labels=LABELS, predictions=predictions)
    with names(ConfigError, "--student bilstm:0"):
        bilstm_student(tiny_encoder(), 0, labels=LABELS)
