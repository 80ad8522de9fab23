import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from messages import names
from transformers import PreTrainedModel

from emdistill.errors import ConfigError, ModelError
from emdistill.ship import onnx as onnx_artifact
from emdistill.ship.onnx import export_onnx, is_onnx, open_onnx, open_session, reads_token_types, session_logits

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

SHAPES = [(1, 1), (1, 2), (3, 1), (1, 17), (2, 8), (5, 40), (3, 126)]
TOLERANCE = 1e-4


def random_batch(rows: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A padded batch whose first text is full; ids beyond padding's own 0."""
    drawn = np.random.default_rng(seed)
    lengths = [length, *drawn.integers(1, length + 1, rows - 1)]
    mask = np.array([[int(place < kept) for place in range(length)] for kept in lengths])
    ids = drawn.integers(1, 60, (rows, length)) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": drawn.integers(0, 2, (rows, length)) * mask}


def pytorch_logits(model: PreTrainedModel, batch: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return model(**{name: torch.from_numpy(values) for name, values in batch.items()}).logits.numpy()


@pytest.mark.parametrize(
    ("traced", "inputs"),
    [
        ("traced_classifier", ["input_ids", "attention_mask", "token_type_ids"]),
        ("traced_scorer", ["input_ids", "attention_mask"]),
    ],
)  # all families: tests/models/test_families.py
def test_logits_are_pytorchs_for_any_batch_and_length(
    request: pytest.FixtureRequest, traced: str, inputs: list[str]
) -> None:
    trained, path = request.getfixturevalue(traced)
    model = copy.deepcopy(trained).eval()
    session = open_session(path, threads=1)
    assert [item.name for item in session.get_inputs()] == inputs
    for seed, shape in enumerate(SHAPES):
        batch = random_batch(*shape, seed=seed)
        found = session_logits(session, batch)
        assert found.dtype == np.float32
        expected = pytorch_logits(model, {name: batch[name] for name in inputs})
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)
    assert np.ptp(expected, axis=0).max() > 10 * TOLERANCE  # texts differ by more than is tolerated


def test_exporting_leaves_model_and_process_as_they_were(traced_classifier: Any) -> None:
    model, _ = traced_classifier
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    assert logging.root.manager.disable == logging.NOTSET


def test_nodes_are_named_after_modules_and_nothing_names_the_machine(traced_classifier: Any) -> None:
    _, path = traced_classifier
    graph = onnx.load(path).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    modules = {"embeddings.word_embeddings", "layer.0.attention.self.query", "layer.0.intermediate.dense", "classifier"}
    assert modules <= set(names)
    assert b"site-packages" not in path.read_bytes()
    assert b"/" + Path.home().name.encode() + b"/" not in path.read_bytes()


def test_the_same_model_gives_the_same_file(
    traced_classifier: Any, tiny_encoder: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    export_onnx(tiny_encoder("bert", layers=1), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == traced_classifier[1].read_bytes()


def test_a_model_that_cannot_be_traced_is_refused(
    tiny_encoder: Callable[..., PreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_encoder("bert", layers=1)
    branches = model.forward

    def forward(input_ids: torch.Tensor, **rest: torch.Tensor) -> Any:
        return branches(input_ids, **rest) if input_ids.sum().item() > 3 else branches(input_ids * 0, **rest)

    monkeypatch.setattr(model, "forward", forward)
    with names(ModelError, "'bert'"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_token_types_are_read_where_there_is_more_than_one(tiny_encoder: Callable[..., PreTrainedModel]) -> None:
    assert reads_token_types(tiny_encoder("bert"))
    assert not reads_token_types(tiny_encoder("bert", type_vocab_size=1))
    assert not reads_token_types(tiny_encoder("distilbert"))


def test_without_the_packages_the_mend_is_named(
    tiny_encoder: Callable[..., PreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_artifact, "PACKAGES", ("onnx", "a_package_that_is_not_there"))
    with names(ConfigError, "emdistill[onnx]"):
        export_onnx(tiny_encoder("bert"), tmp_path / "model.onnx")
    with names(ConfigError, "emdistill[onnx]"):
        open_onnx(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_file_that_was_cut_short_is_refused(traced_classifier: Any, tmp_path: Path, share: float) -> None:
    whole = traced_classifier[1].read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: int(share * len(whole))])
    with names(ModelError, tmp_path / "cut.onnx"):
        open_session(tmp_path / "cut.onnx")


def test_text_and_graphs_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("a good movie\n", encoding="utf-8")
    with names(ModelError, tmp_path / "text.onnx"):
        open_session(tmp_path / "text.onnx")
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", [x], [y])
    other = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(other, tmp_path / "other.onnx")
    with names(ModelError, tmp_path / "other.onnx", "x", "y", "input_ids", "attention_mask", "logits"):
        open_session(tmp_path / "other.onnx")


def test_a_graph_beside_the_weights_of_a_model_is_not_what_its_folder_means(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"somebody's")
    assert is_onnx(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert not is_onnx(tmp_path)
    assert is_onnx(tmp_path / "model.onnx")
