"""Teacher: frozen, always in eval mode, and refused where it would teach nonsense."""

import pytest
import torch
from messages import names

from emdistill.errors import TeacherError
from emdistill.models import Teacher, check_above_chance, fingerprint
from emdistill.states import EncoderShape
from emdistill.tasks import KINDS

BATCH = {"input_ids": torch.tensor([[2, 40, 41, 42, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}


def named(model, names):
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    return Teacher(model)


def test_outputs_are_constants_without_dropout(tiny_encoder):
    model = tiny_encoder()
    expected = model(**BATCH).logits
    teacher = Teacher(model.train())
    first = teacher(BATCH, {"hidden", "attention"})
    model.train()  # somebody switches it; the next call switches it back
    second = teacher(BATCH, {"hidden", "attention"})
    torch.testing.assert_close(first.logits, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(first.logits, second.logits)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    constants = (second.logits, *second.hidden, *second.attention_scores)
    assert not any(tensor.requires_grad or tensor.is_inference() for tensor in constants)
    student = torch.zeros_like(second.logits, requires_grad=True)
    (student * second.logits).sum().backward()  # usable in autograd
    assert torch.equal(student.grad, second.logits)


def test_is_no_module_and_knows_its_shape(tiny_encoder):
    model = tiny_encoder("distilbert", layers=3)
    teacher = Teacher(model)
    assert not isinstance(teacher, torch.nn.Module)
    assert teacher.to("cpu") is teacher
    assert teacher.shape == EncoderShape(layers=3, width=32, heads=4)
    assert teacher.fingerprint == fingerprint(model)
    assert (teacher.labels, teacher.outputs) == (("LABEL_0", "LABEL_1"), 2)


def test_it_tells_its_kind_and_labels(tiny_encoder):
    assert named(tiny_encoder(labels=3), ["Entailment", "Neutral", "Contradiction"]).labels[0] == "Entailment"
    assert Teacher(tiny_encoder()).kind is KINDS["classification"]
    assert Teacher(tiny_encoder(labels=1)).kind is KINDS["regression"]
    assert Teacher(tiny_encoder(head="TokenClassification")).kind is KINDS["tagging"]  # whatever problem_type says
    assert Teacher(tiny_encoder(problem_type="multi_label_classification")).kind is KINDS["multi-label"]


@pytest.mark.parametrize(("score", "chance"), [(0.54, 0.5), (0.0, 0.0), (0.09, 0.0), (float("nan"), 0.5), (0.75, 0.75)])
def test_near_chance_is_refused(score, chance):
    with names(TeacherError, "matthews", f"{score:.3f}", f"{chance:.3f}"):
        check_above_chance(score, chance, "matthews")


@pytest.mark.parametrize(("score", "chance"), [(0.56, 0.5), (0.11, 0.0), (1.0, 0.99)])
def test_clearly_above_chance_passes(score, chance):
    check_above_chance(score, chance, "accuracy")
