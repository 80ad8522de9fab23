"""One encoder, several heads: each answers as transformers' own model, and is saved and opened by name."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from messages import names
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from emdistill.errors import ModelError
from emdistill.models import load_classifier
from emdistill.models.capture import capture
from emdistill.models.encoder import load_tasks, tasks_of
from emdistill.models.families import FAMILIES, family_of
from emdistill.models.multi_task import MultiTaskModel, TaskOutputs, build_task_model, head_end
from emdistill.models.stored_config import class_with_head
from emdistill.models.task_head import HeadParts, TaskHead

PARTS = {
    "plain": HeadParts(),
    "private": HeadParts(private=True),
    "gate": HeadParts(gate=True),
    "label embedding": HeadParts(private=True, label_embedding=True),
}
TEXTS = ["the movie was good", "a bad book and it is not very good"]


def several(first: PreTrainedModel, parts: HeadParts = PARTS["plain"], layer: int | None = None) -> MultiTaskModel:
    outputs = {
        "sure": TaskOutputs(("no", "yes"), "single_label_classification", parts=parts),
        "stars": TaskOutputs((), "regression", layer=layer, parts=parts),
        "words": TaskOutputs(("B", "I", "O"), "token_classification", "TokenClassification", parts=parts),
        "tags": TaskOutputs(("a", "b", "c"), "multi_label_classification", parts=parts),
    }
    if family_of(first).name == "Bag":  # it answers whole texts
        del outputs["words"]
    torch.manual_seed(1)
    models = {
        name: build_task_model(class_with_head(first.config, each.head), first.config, each)
        for name, each in outputs.items()
    }
    return MultiTaskModel(models, outputs)


def read(tokenizer: Any, model: MultiTaskModel) -> dict[str, Tensor]:
    batch = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
    takes = inspect.signature(type(model.body).forward).parameters
    return {name: ids for name, ids in batch.items() if name in takes}


@pytest.mark.parametrize("family", sorted({"bert", "roberta", "distilbert", *FAMILIES} - {"xlm-roberta", "camembert"}))
def test_a_head_answers_as_transformers_own_classifier(tiny_encoder: Any, tiny_tokenizer: Any, family: str) -> None:
    model = several(tiny_encoder(family))
    batch = read(tiny_tokenizer, model)
    for task in model.outputs:
        one = model.of(task)
        alone = type(one)(one.config)
        alone.load_state_dict({name: one.state_dict()[name] for name in alone.state_dict()})  # tags need no pooler
        assert torch.equal(alone.eval()(**batch).logits, one(**batch).logits)
    shared = {id(weight) for weight in model.of("sure").parameters()}
    own = [name for name, weight in model.of("tags").named_parameters() if id(weight) not in shared]
    assert {name.rpartition(".")[2] for name in own} == {"weight", "bias"}
    assert len(own) == 2  # the last matrix


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("layer", [None, 1])
def test_what_is_saved_is_opened_again(
    tiny_encoder: Any, tiny_tokenizer: Any, tmp_path: Path, parts: str, layer: int | None
) -> None:
    model = several(tiny_encoder("bert"), PARTS[parts], layer)
    batch = read(tiny_tokenizer, model)
    model.save_pretrained(tmp_path)
    assert tasks_of(tmp_path) == ("sure", "stars", "words", "tags")
    again = load_tasks(tmp_path)
    for task in model.outputs:
        expected = model.of(task)(**batch).logits
        assert torch.equal(load_classifier(tmp_path, task=task)(**batch).logits, expected)
        assert torch.equal(again.of(task)(**batch).logits, expected)
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in model.parameters())
    encoder = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(encoder(**batch).last_hidden_state, model.body.base_model(**batch).last_hidden_state)


def test_a_task_below_the_top_reads_that_layer(tiny_encoder: Any, tiny_tokenizer: Any) -> None:
    model = several(tiny_encoder("bert", layers=3), layer=2)
    batch = read(tiny_tokenizer, model)
    lower = capture(model, {**batch, "task": torch.tensor([1, 1])}, {"hidden"})
    whole = capture(model, {**batch, "task": torch.tensor([0, 0])}, {"hidden"})
    assert (len(lower.hidden), len(whole.hidden)) == (2, 3)
    torch.testing.assert_close(lower.hidden[1], whole.hidden[1])
    lower.logits.sum().backward()
    layers = model.body.base_model.encoder.layer
    assert layers[1].output.dense.weight.grad is not None
    assert layers[2].output.dense.weight.grad is None


def test_a_batch_is_answered_by_its_tasks_head(tiny_encoder: Any, tiny_tokenizer: Any) -> None:
    model = several(tiny_encoder("bert"), PARTS["private"])
    batch = read(tiny_tokenizer, model)
    for number, task in enumerate(model.outputs):
        states = capture(model, {**batch, "task": torch.tensor([number, number])}, {"features", "attention"})
        expected = model.of(task)(**batch).logits
        torch.testing.assert_close(states.logits, expected.flatten(0, -2))
        shared, private = states.features
        assert shared is not None
        head = head_end(model.of(task))
        assert isinstance(head, TaskHead)
        torch.testing.assert_close(head(shared), expected)
        assert head.private is not None
        torch.testing.assert_close(private, head.private(shared))
    plain = capture(several(tiny_encoder("bert")), {**batch, "task": torch.tensor([0, 0])}, {"features"})
    assert plain.features[1] is None


def test_a_gate_between_shared_and_private_features(tiny_encoder: Any) -> None:
    """z = g ⊙ s + (1 − g) ⊙ p, in float64 by hand."""
    head = head_end(several(tiny_encoder("bert"), PARTS["gate"]).of("tags"))
    assert isinstance(head, TaskHead)
    head.double()
    s = torch.randn(5, 32, dtype=torch.float64)
    weights = {name: value.detach().numpy() for name, value in head.named_parameters()}
    x = s.numpy()
    p = np.tanh(x @ weights["private.0.weight"].T + weights["private.0.bias"])
    both = np.concatenate([x, p], axis=1)
    g = 1 / (1 + np.exp(-(both @ weights["gate.weight"].T + weights["gate.bias"])))
    z = g * x + (1 - g) * p
    expected = z @ weights["output.weight"].T + weights["output.bias"]
    np.testing.assert_allclose(head(s).detach().numpy(), expected, rtol=1e-10)


def test_private_features_count_for_nothing_at_first(tiny_encoder: Any) -> None:
    head = TaskHead(matrix := torch.nn.Linear(8, 3), HeadParts(private=True))
    features = torch.randn(4, 8)
    torch.testing.assert_close(head(features), matrix(features))


def test_tasks_share_one_space_of_label_embeddings(tiny_encoder: Any) -> None:
    model = several(tiny_encoder("bert"), PARTS["label embedding"])
    spaces = {id(head_end(model.of(task)).output.transform) for task in model.outputs}  # type: ignore[union-attr]
    assert len(spaces) == 1
    head = TaskHead(torch.nn.Linear(8, 3), HeadParts(label_embedding=True)).double()
    s = torch.randn(4, 8, dtype=torch.float64)
    output: Any = head.output
    torch.testing.assert_close(head(s), s @ output.transform.weight.T @ output.embeddings.T + output.bias)


def test_what_cannot_be_opened_is_named(tiny_encoder: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    several(tiny_encoder("bert")).save_pretrained(tmp_path / "several")
    with names(ModelError, "sure", "stars", "tags", "--head"):
        load_classifier(tmp_path / "several")
    with names(ModelError, "'star'", "stars"):
        load_classifier(tmp_path / "several", task="star")
    tiny_encoder("bert").save_pretrained(tmp_path / "one")
    with names(ModelError, tmp_path / "one", "'sure'", "--head"):
        load_classifier(tmp_path / "one", task="sure")
    with names(ModelError, 5, 2):
        several(tiny_encoder("bert"), layer=5)
