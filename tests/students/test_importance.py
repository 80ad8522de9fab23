"""Taylor scores against gradients of gates and finite differences, over families, losses, batches and padding."""

from contextlib import ExitStack
from itertools import pairwise

import pytest
import torch
from messages import names
from torch.nn import functional
from transformers import AutoModel, AutoModelForMaskedLM

from emdistill.errors import ConfigError, ModelError
from emdistill.models import encoder_layers, fingerprint
from emdistill.students.importance import Importance, random_importance, taylor_importance

NAN = float("nan")
FAMILIES = ("bert", "roberta", "distilbert", "electra", "mpnet")
NAMES = {  # query, key, attention output, feed-forward output, LayerNorms after attention and after the layer
    "bert": (
        "attention.self.query",
        "attention.self.key",
        "attention.output.dense",
        "output.dense",
        "attention.output.LayerNorm",
        "output.LayerNorm",
    ),
    "distilbert": (
        "attention.q_lin",
        "attention.k_lin",
        "attention.out_lin",
        "ffn.lin2",
        "sa_layer_norm",
        "output_layer_norm",
    ),
    "mpnet": (
        "attention.attn.q",
        "attention.attn.k",
        "attention.attn.o",
        "output.dense",
        "attention.LayerNorm",
        "output.LayerNorm",
    ),
}
IDS = torch.tensor([[2, 40, 41, 42, 43, 3], [2, 50, 51, 3, 0, 0], [2, 60, 3, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]])
BATCH = {"input_ids": IDS, "attention_mask": MASK}
WORDS = torch.where(torch.tensor([[0, 1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0]]).bool(), IDS, -100)


def scores_of(importance: Importance) -> list[torch.Tensor]:
    return [
        importance.residual,
        *importance.heads,
        *importance.query_key,
        *importance.value,
        *importance.feed_forward,
    ]


def assert_same(one: Importance, other: Importance, **tolerance: float) -> None:
    for scores, others in zip(scores_of(one), scores_of(other), strict=True):
        torch.testing.assert_close(scores, others, check_dtype=False, **(tolerance or {"rtol": 1e-4, "atol": 1e-7}))


def gate_scores(model, batch, loss_of, per="text") -> Importance:
    """|∂L/∂g| where every activation a is written g · a with g = 1: the same scores by another way, in float64."""
    model = model.double()
    gates: dict[tuple[str, int], torch.Tensor] = {}

    def gate(kind: str, layer: int, states: torch.Tensor) -> torch.Tensor:
        gates[kind, layer] = torch.ones_like(states, requires_grad=True)
        return states * gates[kind, layer]

    def at_input(module, kind: str, layer: int):
        return module.register_forward_pre_hook(lambda module, inputs: (gate(kind, layer, inputs[0]), *inputs[1:]))

    def at_output(module, kind: str, layer: int):
        return module.register_forward_hook(lambda module, inputs, output: gate(kind, layer, output))

    query, key, context, neurons, middle, last = NAMES.get(model.config.model_type, NAMES["bert"])
    layers = encoder_layers(model)
    begin = "embeddings_project" if model.config.model_type == "electra" else "embeddings"
    with ExitStack() as stack:
        handles = [at_output(model.base_model.get_submodule(begin), "stream", -1)]
        for number, layer in enumerate(layers):
            handles += [
                at_output(layer.get_submodule(query), "query", number),
                at_output(layer.get_submodule(key), "key", number),
                at_input(layer.get_submodule(context), "context", number),
                at_input(layer.get_submodule(neurons), "neurons", number),
                at_output(layer.get_submodule(middle), "middle", number),
                at_output(layer.get_submodule(last), "stream", number),
            ]
        for handle in handles:
            stack.callback(handle.remove)
        loss = loss_of(model, batch)
    values = torch.autograd.grad(loss, list(gates.values()))
    padding = batch["attention_mask"][..., None] == 0
    apart = {place: value.masked_fill(padding, 0) for place, value in zip(gates, values, strict=True)}
    gradients = {
        place: value.sum(dim=1) if per == "text" else value.flatten(0, 1) for place, value in apart.items()
    }  # [texts or positions, units]

    def total(kind: str) -> list[torch.Tensor]:
        return [gradients[kind, layer].abs().sum(dim=0) for layer in range(len(layers))]

    heads = model.config.num_attention_heads
    streams = [value.abs().sum(dim=0) for (kind, _), value in gradients.items() if kind in ("stream", "middle")]
    contexts = [gradients["context", layer] for layer in range(len(layers))]
    return Importance(
        residual=torch.stack(streams).sum(dim=0),
        heads=tuple(context.unflatten(-1, (heads, -1)).sum(dim=-1).abs().sum(dim=0) for context in contexts),
        query_key=tuple(query + key for query, key in zip(total("query"), total("key"), strict=True)),
        value=tuple(total("context")),
        feed_forward=tuple(total("neurons")),
    )


def class_loss(model, batch):
    return functional.cross_entropy(model(**without_labels(batch)).logits, batch["labels"], reduction="sum")


def score_loss(model, batch):
    return (model(**without_labels(batch)).logits[:, 0] - batch["labels"]).square().sum()


def labels_loss(model, batch):
    logits, labels = model(**without_labels(batch)).logits, batch["labels"]
    there = ~labels.isnan()
    return functional.binary_cross_entropy_with_logits(logits[there], labels[there], reduction="sum")


def word_loss(model, batch):
    logits = model(**without_labels(batch)).logits
    return functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum", ignore_index=-100)


def without_labels(batch):
    return {name: value for name, value in batch.items() if name != "labels"}


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_gradients_of_gates(tiny_encoder, family):
    config = tiny_encoder(family).config
    words = AutoModelForMaskedLM.from_config(config).eval()
    several = tiny_encoder(family, labels=3)
    several.config.problem_type = "multi_label_classification"
    cases = [
        (tiny_encoder(family, labels=3), {**BATCH, "labels": torch.tensor([0, 2, 1])}, class_loss),
        (tiny_encoder(family, labels=1), {**BATCH, "labels": torch.tensor([0.5, 3.0, -1.0])}, score_loss),
        (several, {**BATCH, "labels": torch.tensor([[0.0, 1, 1], [1, 0, 0], [NAN, NAN, NAN]])}, labels_loss),
        (words, {**BATCH, "labels": WORDS}, word_loss),
    ]
    for model, batch, loss in cases:
        found = taylor_importance(model, [batch])
        assert_same(taylor_importance(model, [batch], per="position"), gate_scores(model, batch, loss, "position"))
        assert_same(found, gate_scores(model, batch, loss))
        assert [len(part) for part in scores_of(found)] == [32, 4, 4, 32, 32, 32, 32, 64, 64]


def test_a_score_is_what_removing_the_unit_does_to_first_order(tiny_encoder):
    """Central differences of each text's loss where a unit, or a head, fades at all positions; in float64."""
    model = tiny_encoder(seed=3).double()
    batch = {**BATCH, "labels": torch.tensor([1, 0, 1])}
    scores, layer = taylor_importance(model, [batch]), encoder_layers(model)[1]

    def slope(module, units: slice) -> float:
        def losses(factor: float) -> torch.Tensor:
            def scale(module, inputs):
                states = inputs[0].clone()
                states[..., units] *= factor
                return (states,)

            handle = module.register_forward_pre_hook(scale)
            try:
                with torch.no_grad():
                    logits = model(**without_labels(batch)).logits
                    return functional.cross_entropy(logits, batch["labels"], reduction="none")
            finally:
                handle.remove()

        return ((losses(1.001) - losses(0.999)) / 0.002).abs().sum().item()

    for unit in (0, 17, 63):
        found = slope(layer.output.dense, slice(unit, unit + 1))
        assert found == pytest.approx(scores.feed_forward[1][unit].item(), rel=1e-4)
    for head in range(4):
        found = slope(layer.attention.output.dense, slice(8 * head, 8 * head + 8))
        assert found == pytest.approx(scores.heads[1][head].item(), rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_batches_do_not_matter(tiny_encoder, family):
    model = tiny_encoder(family)
    labels = torch.tensor([0, 1, 1])
    whole = taylor_importance(model, [{**BATCH, "labels": labels}])
    single = []
    for ids, mask, label in zip(IDS, MASK, labels, strict=True):
        text = ids[mask.bool()][None]
        single.append({"input_ids": text, "attention_mask": torch.ones_like(text), "labels": label[None]})
    assert_same(whole, taylor_importance(model, single))
    unmasked = [{name: values for name, values in batch.items() if name != "attention_mask"} for batch in single]
    assert_same(whole, taylor_importance(model, unmasked))


def test_no_more_than_the_asked_number_of_texts(tiny_encoder):
    model = tiny_encoder()
    batch = {**BATCH, "labels": torch.tensor([0, 1, 1]), "row": torch.tensor([0, 1, 2])}
    first = {name: values[:1] for name, values in batch.items()}
    assert_same(taylor_importance(model, [batch, first], examples=4), taylor_importance(model, [first, batch]))
    assert_same(taylor_importance(model, [batch, first], examples=1), taylor_importance(model, [first]))
    with names(ConfigError, "--student-birth random"):
        taylor_importance(model, [])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_without_a_head_is_scored_by_what_it_says(tiny_encoder, family):
    model = AutoModel.from_config(tiny_encoder(family).config).eval()
    found, again = (taylor_importance(model, [BATCH], seed=1) for _ in range(2))
    assert_same(found, again, rtol=0, atol=0)
    assert not torch.equal(taylor_importance(model, [BATCH], seed=2).residual, found.residual)
    with torch.no_grad():
        last = model(**BATCH).last_hidden_state[MASK.bool()].abs().sum(dim=0)
    by_position = taylor_importance(model, [BATCH], seed=1, per="position")
    assert (by_position.residual >= 4 * last * 0.999).all()  # |h · ±1| of the last states, in each of four draws
    classifier = tiny_encoder(family)
    unlabelled = taylor_importance(classifier, [BATCH], seed=1)
    assert_same(unlabelled, taylor_importance(classifier.base_model, [BATCH], seed=1))


def test_a_dead_unit_scores_nothing_and_a_decisive_one_most(tiny_encoder):
    model = tiny_encoder(heads=2)
    with torch.no_grad():
        layer = encoder_layers(model)[1]
        layer.output.dense.weight[:, 5] = 0
        layer.output.dense.weight[:, 6] *= 30
        layer.attention.output.dense.weight[:, :16] = 0
        layer.attention.self.query.weight[16:20] = 0
        layer.attention.self.query.bias[16:20] = 0
        layer.attention.self.key.weight[16:20] = 0
        layer.attention.self.key.bias[16:20] = 0
    scores = taylor_importance(model, [{**BATCH, "labels": torch.tensor([0, 1, 1])}])
    assert scores.feed_forward[1][5] == 0
    assert scores.feed_forward[1].argmax() == 6
    assert scores.heads[1][0] == 0 < scores.heads[1][1]
    assert (scores.value[1][:16] == 0).all()
    assert (scores.query_key[1][:20] == 0).all()
    assert (scores.query_key[1][20:] > 0).all()


@pytest.mark.parametrize("frozen", [True, False])
def test_the_teacher_is_left_as_it_was(tiny_encoder, frozen):
    model = tiny_encoder().requires_grad_(not frozen).train()
    model.bert.pooler.eval()
    modes = [module.training for module in model.modules()]
    before, random_state = fingerprint(model), torch.get_rng_state()
    batch = {**BATCH, "labels": torch.tensor([0, 1, 1])}
    with torch.no_grad():
        scores = taylor_importance(model, [batch])
    assert fingerprint(model) == before
    assert [module.training for module in model.modules()] == modes
    assert all(part.grad is None and part.requires_grad != frozen for part in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(part.requires_grad for part in scores_of(scores))
    with names(ValueError, 3, 2):  # texts and labels
        taylor_importance(model, [{**batch, "labels": torch.tensor([0, 1])}])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert [module.training for module in model.modules()] == modes


def test_random_scores_follow_the_seed(tiny_encoder):
    model = tiny_encoder(layers=3)
    random_state = torch.get_rng_state()
    one, again, other = (scores_of(random_importance(model, seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(map(torch.equal, one, again))
    assert not any(map(torch.equal, one, other))
    assert not any(torch.equal(first, second) for first, second in pairwise(one) if len(first) == len(second))
    assert [len(part) for part in one] == [32, 4, 4, 4, *[32] * 6, *[64] * 3]


def test_a_family_whose_layers_are_unknown_is_refused(tiny_encoder):
    model = tiny_encoder()
    model.config.model_type = "mystery"
    with names(ModelError, "'mystery'"):
        taylor_importance(model, [BATCH])
