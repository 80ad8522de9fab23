"""Logits of masked words alone, against transformers' logits of all positions."""

import pytest
import torch
from messages import names
from transformers import AutoModelForMaskedLM, BertForPreTraining

from emdistill.errors import ModelError
from emdistill.models.families import FAMILIES
from emdistill.models.masked_lm import has_masked_lm_head, masked_word_logits

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

    logits = masked_word_logits(model, model.base_model(**inputs).last_hidden_state, labels)
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
    logits = masked_word_logits(model, hidden, torch.full((2, 5), -100))
    assert logits.shape == (0, model.config.vocab_size)
    logits.sum().backward()
    assert hidden.grad.abs().sum() == 0


def test_models_without_such_a_head(tiny_encoder):
    config = tiny_encoder().config
    unknown = AutoModelForMaskedLM.from_config(tiny_encoder("ernie").config)
    other_head = AutoModelForMaskedLM.from_config(tiny_encoder("deberta-v2", legacy=False).config)
    models = (tiny_encoder(), tiny_encoder("electra"), tiny_encoder().base_model, BertForPreTraining(config))
    for model in (*models, unknown, other_head):
        assert not has_masked_lm_head(model)
        with names(ModelError, type(model).__name__, "bert, roberta"):
            masked_word_logits(model, torch.zeros(1, 2, 32), torch.zeros(1, 2, dtype=torch.long))
