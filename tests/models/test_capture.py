"""Capture against transformers' own eager attention probabilities and an uncaptured pass."""

import math

import pytest
import torch
from messages import names
from torch import nn
from transformers import AttentionInterface

from emdistill.errors import CaptureError
from emdistill.models.capture import OF_LAYERS, capture, check_capture, field_of

EVERYTHING = ("hidden", "attention", "embeddings")


@pytest.fixture
def batch():
    """Three sentences of 9, 6 and 4 tokens, padded to 9."""
    ids = torch.randint(5, 90, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(9)[None, :] < torch.tensor([[9], [6], [4]])).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_softmax_of_scores_is_the_models_own_attention(tiny_encoder, batch, implementation):
    model = tiny_encoder(layers=3)
    model.set_attn_implementation(implementation)
    reference = tiny_encoder(layers=3)
    reference.set_attn_implementation("eager")
    expected = reference(**batch, output_attentions=True, output_hidden_states=True)
    states = capture(model, batch, EVERYTHING)

    assert len(states.attention_scores) == len(states.hidden) == 3
    hidden_keys = torch.zeros(3, 1, 1, 9).masked_fill(batch["attention_mask"][:, None, None] == 0, -math.inf)
    for scores, probabilities in zip(states.attention_scores, expected.attentions, strict=True):
        assert scores.shape == (3, 4, 9, 9)
        assert torch.isfinite(scores).all()
        torch.testing.assert_close((scores + hidden_keys).softmax(-1), probabilities, atol=1e-6, rtol=0)
    for ours, theirs in zip((states.embeddings, *states.hidden), expected.hidden_states, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert states.mask is batch["attention_mask"]


@pytest.mark.parametrize(
    ("family", "implementation"), [("bert", "sdpa"), ("bert", "eager"), ("mpnet", "eager"), ("deberta-v2", "eager")]
)
def test_capture_changes_no_output_even_with_dropout(tiny_encoder, batch, family, implementation):
    model = tiny_encoder(family).train()
    model.set_attn_implementation(implementation)
    torch.manual_seed(7)
    plain = model(**batch).logits
    after = torch.get_rng_state()
    torch.manual_seed(7)
    states = capture(model, batch, EVERYTHING)
    torch.testing.assert_close(states.logits, plain, atol=1e-5, rtol=1e-5)
    assert torch.equal(torch.get_rng_state(), after)


def test_only_what_is_needed_is_recorded(tiny_encoder, batch):
    model = tiny_encoder()
    bare = capture(model, {**batch, "labels": torch.tensor([0, 1, 5])}, ())  # label 5 would break the model's loss
    assert (bare.embeddings, bare.hidden, bare.attention_scores) == (None, (), ())
    attention = capture(model, batch, {"attention"})
    assert (attention.embeddings, attention.hidden, len(attention.attention_scores)) == (None, (), 2)
    assert capture(model, batch, {"hidden"}).embeddings is None
    torch.testing.assert_close(bare.logits, attention.logits, atol=1e-5, rtol=1e-5)


def test_without_a_mask_every_position_is_a_token(tiny_encoder, batch):
    states = capture(tiny_encoder(), {"input_ids": batch["input_ids"]}, ())
    assert states.mask.shape == (3, 9)
    assert states.mask.all()


def test_gradients_flow_through_scores_as_through_a_plain_computation(tiny_encoder, batch):
    model = tiny_encoder()
    capture(model, batch, {"attention"}).attention_scores[0].square().sum().backward()
    attention = model.base_model.encoder.layer[0].attention.self
    ours = attention.query.weight.grad.clone()

    model.zero_grad()
    embeddings = model.base_model.embeddings(batch["input_ids"])
    query, key = (linear(embeddings).view(3, 9, 4, 8).transpose(1, 2) for linear in (attention.query, attention.key))
    (query @ key.transpose(-1, -2) / math.sqrt(8)).square().sum().backward()
    torch.testing.assert_close(ours, attention.query.weight.grad, rtol=1e-4, atol=1e-4)
    assert model.base_model.encoder.layer[1].attention.self.query.weight.grad is None


def test_inside_autocast_and_without_gradient(tiny_encoder, batch):
    model = tiny_encoder()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = model(**batch).logits
        states = capture(model, batch, EVERYTHING)
    torch.testing.assert_close(states.logits, plain, atol=1e-2, rtol=1e-2)
    assert states.attention_scores[0].dtype is torch.bfloat16
    full = capture(model, batch, EVERYTHING)
    torch.testing.assert_close(states.attention_scores[0].float(), full.attention_scores[0], rtol=0.1, atol=0.1)
    with torch.no_grad():
        assert not any(score.requires_grad for score in capture(model, batch, EVERYTHING).attention_scores)


def test_the_implementation_is_restored_also_after_an_exception(tiny_encoder, batch):
    model = tiny_encoder()
    registered = set(AttentionInterface().keys())
    capture(model, batch, {"attention"})
    assert model.config._attn_implementation == "sdpa"
    assert {name for name in AttentionInterface().keys() - registered if "emdistill" not in name} == set()

    def fail(*_arguments):
        raise KeyboardInterrupt

    handle = model.base_model.encoder.layer[1].register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        capture(model, batch, {"attention"})
    assert model.config._attn_implementation == "sdpa"
    handle.remove()
    assert len(capture(model, batch, {"attention"}).attention_scores) == 2


def test_passes_of_other_models_in_between_are_not_recorded(tiny_encoder, batch):
    model, inner, twin = tiny_encoder(), tiny_encoder(seed=1, layers=3), tiny_encoder(seed=2)
    for part in twin.modules():  # a second model on the same config object
        if "config" in vars(part):
            part.config = model.config
    alone = capture(inner, batch, {"attention"})
    expected, twin_logits = capture(model, batch, {"attention"}), twin(**batch).logits
    nested = []

    def run_others(*_arguments):
        nested.extend([capture(inner, batch, {"attention"}), twin(**batch).logits])

    model.base_model.encoder.layer[1].register_forward_pre_hook(run_others)
    states = capture(model, batch, {"attention"})
    assert all(map(torch.equal, states.attention_scores, expected.attention_scores))
    assert all(map(torch.equal, nested[0].attention_scores, alone.attention_scores))
    assert torch.equal(nested[1], twin_logits)


def test_through_a_wrapper(tiny_encoder, batch):
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, **inputs):
            return self.module(**inputs)

    model = tiny_encoder()
    wrapped, plain = capture(Wrapper(model), batch, EVERYTHING), capture(model, batch, EVERYTHING)
    assert all(map(torch.equal, wrapped.attention_scores, plain.attention_scores))


def test_what_cannot_be_had_is_refused_before_anything_is_done(tiny_encoder, batch):
    check_capture(tiny_encoder(), EVERYTHING)
    unknown, shared = tiny_encoder("ernie"), tiny_encoder("albert", inner_group_num=2)
    check_capture(unknown, {"hidden", "embeddings"})
    for check in (check_capture, lambda model, needs: capture(model, batch, needs)):
        for need in ("attention", "queries", "keys", "values"):
            with names(CaptureError, "'ernie'", "--objective.attention_scores 0"):
                check(unknown, {need})
        with names(CaptureError, "'albert'", "--objective.hidden_states 0"):
            check(shared, {"hidden"})


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta-v2", "modernbert"])
def test_gradient_checkpointing_changes_no_state_and_no_gradient(tiny_encoder, batch, family):
    model = tiny_encoder(family).train()
    everything = (*EVERYTHING, "queries", "keys", "values")

    def gradients():
        torch.manual_seed(7)  # dropout
        states = capture(model, batch, everything, layers=[1])
        parts = [getattr(states, field_of(kind))[1] for kind in (*OF_LAYERS,)]
        loss = sum(part.square().sum() for part in (states.logits, states.embeddings, *parts))
        loss.backward()
        found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
        model.zero_grad()
        return loss, found

    expected = gradients()
    model.gradient_checkpointing_enable()
    torch.testing.assert_close(gradients(), expected)


def test_what_a_tokenizer_makes_of_pairs_is_captured(tiny_encoder, tiny_tokenizer):
    pairs = tiny_tokenizer(["a good movie", "it"], ["the book was bad", "is not"], padding=True, return_tensors="pt")
    states = capture(tiny_encoder(), pairs, EVERYTHING)
    assert states.attention_scores[0].shape == (2, 4, *pairs["input_ids"].shape[1:] * 2)
    assert torch.equal(states.mask, pairs["attention_mask"])


def test_misuse(tiny_encoder, batch):
    with names(CaptureError, "'attentions'", "attention"):
        capture(tiny_encoder(), batch, {"attentions"})
    assert capture(tiny_encoder().base_model, batch, ()).logits.shape == (3, 0)
    with names(CaptureError, "Linear"):
        capture(nn.Linear(2, 2), batch, ())
