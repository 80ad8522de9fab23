"""Logits of masked words alone, against transformers' logits of all positions."""

import pytest
import torch
from messages import names
from plain_losses import hard_cross_entropy, soft_cross_entropy
from transformers import AutoModelForMaskedLM, BertForPreTraining

from emdistill.errors import ModelError
from emdistill.methods.distilbert import distilbert
from emdistill.models import encoder_shape
from emdistill.models.capture import capture
from emdistill.models.families import FAMILIES
from emdistill.models.masked_lm import has_masked_lm_head, word_logits
from emdistill.states import ASKED, WORDS

WITH_HEAD = [name for name, family in FAMILIES.items() if family.masked_lm]


@pytest.fixture
def masked_lm(tiny_encoder):
    """Factory: masked_lm("bert") is a random masked-LM of the family in which every tensor matters, biases too."""

    def make(family):
        torch.manual_seed(0)
        model = AutoModelForMaskedLM.from_config(tiny_encoder(family, layers=1).config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture
def batch():
    """Three sentences padded to 9 tokens, some of them masked; none in the last."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 90, (3, 9), generator=generator)
    mask = (torch.arange(9)[None, :] < torch.tensor([[9], [6], [4]])).long()
    labels = torch.full((3, 9), -100)
    labels[0, [1, 5, 7]] = ids[0, [1, 5, 7]]
    labels[1, 2] = 0  # token 0 is a label like any other
    return {"input_ids": ids * mask, "attention_mask": mask}, labels


@pytest.mark.parametrize("family", WITH_HEAD)
def test_they_are_the_models_own_logits_and_gradients(masked_lm, batch, family):
    model = masked_lm(family)
    inputs, labels = batch
    assert has_masked_lm_head(model)

    every = model(**inputs).logits
    expected = torch.stack([every[0, 1], every[0, 5], every[0, 7], every[1, 2]])
    targets = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    parameters = list(model.parameters())
    expected_gradients = torch.autograd.grad((expected * targets).sum(), parameters)

    logits = word_logits(model, model.base_model(**inputs).last_hidden_state, labels != -100)
    assert logits.shape == (4, model.config.vocab_size)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad((logits * targets).sum(), parameters)
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)

    loss = torch.nn.functional.cross_entropy(logits, labels[labels != -100])
    torch.testing.assert_close(loss, model(**inputs, labels=labels).loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", WITH_HEAD)
def test_no_masked_word_gives_no_logits(masked_lm, family):
    model = masked_lm(family)
    hidden = torch.randn(2, 5, 32, requires_grad=True)
    logits = word_logits(model, hidden, torch.zeros(2, 5, dtype=torch.bool))
    assert logits.shape == (0, model.config.vocab_size)
    logits.sum().backward()
    assert hidden.grad.abs().sum() == 0


def test_the_answers_of_all_tokens(masked_lm, batch):
    """DistilBERT's released default: soft targets over all unpadded tokens, labels over the masked ones alone."""
    student, teacher = masked_lm("bert").double(), masked_lm("bert").double()
    with torch.no_grad():
        teacher.cls.predictions.bias.add_(torch.randn(teacher.config.vocab_size))
    inputs, labels = batch
    tokens = inputs["attention_mask"] != 0
    (stage,) = distilbert(encoder_shape(student), encoder_shape(teacher), predictions=WORDS, cosine=0.0)
    given = {**inputs, "labels": labels, ASKED: tokens}
    _, terms = stage.objective(capture(student, given, ()), capture(teacher, given, ()), given)

    own, other = student(**inputs).logits, teacher(**inputs).logits
    expected = {
        "soft_targets": 5 * soft_cross_entropy(own[tokens], other[tokens], 2.0),
        "hard_labels": 2 * hard_cross_entropy(own[labels != -100], labels[labels != -100]),
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-10, atol=0)
    weights = [student.cls.predictions.bias, student.base_model.embeddings.word_embeddings.weight]
    for name, value in expected.items():
        gradients = (torch.autograd.grad(total, weights, retain_graph=True) for total in (terms[name], value))
        for found, wanted in zip(*gradients, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-12)

    given[ASKED] = labels != -100
    alone = {name: values for name, values in given.items() if name != ASKED}
    for batch in (given, alone):
        _, masked = stage.objective(capture(student, batch, ()), capture(teacher, batch, ()), batch)
        expected["soft_targets"] = 5 * soft_cross_entropy(own[given[ASKED]], other[given[ASKED]], 2.0)
        torch.testing.assert_close(masked, expected, rtol=1e-10, atol=0)


def test_models_without_such_a_head(tiny_encoder):
    config = tiny_encoder().config
    unknown = AutoModelForMaskedLM.from_config(tiny_encoder("ernie").config)
    other_head = AutoModelForMaskedLM.from_config(tiny_encoder("deberta-v2", legacy=False).config)
    models = (tiny_encoder(), tiny_encoder("electra"), tiny_encoder().base_model, BertForPreTraining(config))
    for model in (*models, unknown, other_head):
        assert not has_masked_lm_head(model)
        with names(ModelError, type(model).__name__, "bert, roberta"):
            word_logits(model, torch.zeros(1, 2, 32), torch.ones(1, 2, dtype=torch.bool))
