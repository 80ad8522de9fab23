from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from messages import names
from transformers import PreTrainedModel

from emdistill.errors import ConfigError, ModelError
from emdistill.ship.int8_choice import logits_of, quantize_best, quantize_within, sensitivities
from emdistill.ship.onnx import export_onnx
from emdistill.ship.quantize import groups, quantize_dynamic_int8, quantize_static_int8

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

GROUPS = [
    "embeddings",
    "layer.0.attention",
    "layer.0.feed_forward",
    "layer.1.attention",
    "layer.1.feed_forward",
    "head",
]


def random_batches(count: int = 3, rows: int = 8) -> list[dict[str, np.ndarray]]:
    drawn = np.random.default_rng(0)
    batches = []
    for length in range(6, 6 + 9 * count, 9):
        mask = (np.arange(length) < drawn.integers(2, length + 1, (rows, 1))).astype(np.int64)
        batches.append({"input_ids": drawn.integers(1, 60, (rows, length)) * mask, "attention_mask": mask})
    return batches


BATCHES = random_batches()
STATIC = partial(quantize_static_int8, calibration=BATCHES)
METHODS = pytest.mark.parametrize("quantise", [quantize_dynamic_int8, STATIC], ids=["dynamic", "static"])


@pytest.fixture(scope="module")
def fp32(tiny_encoder: Callable[..., PreTrainedModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fp32") / "model.onnx"
    export_onnx(tiny_encoder("bert", labels=3), path, token_types=False)
    return path


def weights(path: Path) -> dict[str, np.ndarray]:
    return {item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}


def agreement(reference: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda logits: float((logits.argmax(-1) == reference.argmax(-1)).mean())


def test_groups_are_read_from_node_names(fp32: Path) -> None:
    found = groups(fp32)
    assert list(found) == GROUPS
    assert any("word_embeddings" in name for name in found["embeddings"])
    assert [name.rpartition(".")[2] for name in found["layer.0.attention"]] == ["query", "key", "value", "dense"]
    assert all("classifier" not in name for name in found["head"])  # three columns: nothing to save


@METHODS
def test_int8_is_near_float32_and_smaller(fp32: Path, tmp_path: Path, quantise: Any) -> None:
    quantise(fp32, tmp_path / "int8.onnx")
    reference = logits_of(fp32, BATCHES)
    difference = logits_of(tmp_path / "int8.onnx", BATCHES) - reference
    assert 0 < np.abs(difference).max() < 0.2 * np.ptp(reference)
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]
    stored = weights(tmp_path / "int8.onnx").values()
    of_matrices = [item.dtype for item in stored if item.ndim == 2 and min(item.shape) >= 16]
    assert set(of_matrices) == {np.dtype(np.int8)}
    quantise(fp32, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "int8.onnx").read_bytes()


def test_weights_have_a_scale_a_column_and_tables_a_scale_a_row(fp32: Path, tmp_path: Path) -> None:
    quantize_dynamic_int8(fp32, tmp_path / "int8.onnx")
    before, after = weights(fp32), weights(tmp_path / "int8.onnx")
    (table,) = (name for name in before if "word_embeddings" in name)
    rows = np.abs(before[table]).max(1)
    np.testing.assert_allclose(after[f"{table}/scales"][:, 0], np.maximum(rows / 127, np.finfo(np.float32).tiny))
    restored = after[f"{table}/int8"] * after[f"{table}/scales"]
    assert (np.abs(restored - before[table]).max(1) <= rows / 127 / 2 * 1.001 + 1e-30).all()
    (query,) = (node for node in onnx.load(fp32).graph.node if node.name == "layer.0.attention.self.query")
    width = before[query.input[1]].shape[1]
    assert after[f"{query.input[1]}_scale"].shape == (width,)


@METHODS
def test_what_is_kept_stays_as_it_was(fp32: Path, tmp_path: Path, quantise: Any) -> None:
    quantise(fp32, tmp_path / "int8.onnx", keep=["embeddings", "layer.1.attention"])
    before, after = weights(fp32), weights(tmp_path / "int8.onnx")
    kept = [name for name in before if name in after and before[name].ndim == 2 and min(before[name].shape) >= 16]
    (table,) = (name for name in before if "word_embeddings" in name)
    assert table in kept
    for name in kept:
        np.testing.assert_array_equal(after[name], before[name])
    products = {node.name: node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert products["layer.1.attention.self.query"] == "MatMul"
    assert any(name in kept for name in weight_of(fp32, "layer.1.attention.self.query"))
    assert not any(name in kept for name in weight_of(fp32, "layer.0.attention.self.query"))


def weight_of(path: Path, node: str) -> list[str]:
    return [each.input[1] for each in onnx.load(path).graph.node if each.name == node]


def test_a_table_alone_can_be_quantised(fp32: Path, tmp_path: Path) -> None:
    quantize_dynamic_int8(fp32, tmp_path / "int8.onnx", keep=GROUPS[1:])
    assert not any("Quantize" in node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node)
    assert np.abs(logits_of(tmp_path / "int8.onnx", BATCHES) - logits_of(fp32, BATCHES)).max() > 0


def test_unknown_groups_and_nothing_left_are_refused(fp32: Path, tmp_path: Path) -> None:
    with names(ConfigError, "'layer.0.atention'", "'layer.0.attention'"):
        quantize_dynamic_int8(fp32, tmp_path / "int8.onnx", keep=["layer.0.atention"])
    with pytest.raises(ModelError):
        quantize_dynamic_int8(fp32, tmp_path / "int8.onnx", keep=GROUPS)
    with pytest.raises(ConfigError):
        quantize_static_int8(fp32, tmp_path / "int8.onnx", calibration=[])
    with names(ModelError, tmp_path / "none.onnx"):
        quantize_dynamic_int8(tmp_path / "none.onnx", tmp_path / "int8.onnx")
    (tmp_path / "text.onnx").write_text("a good movie")
    with names(ModelError, tmp_path / "text.onnx"):
        quantize_dynamic_int8(tmp_path / "text.onnx", tmp_path / "int8.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["text.onnx"]


def test_sensitivity_is_the_mean_squared_difference_of_one_group_alone(fp32: Path, tmp_path: Path) -> None:
    found = sensitivities(fp32, quantize_dynamic_int8, BATCHES)
    assert sorted(found) == sorted(GROUPS)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    alone = "layer.0.feed_forward"
    quantize_dynamic_int8(fp32, tmp_path / "one.onnx", keep=[name for name in GROUPS if name != alone])
    difference = logits_of(tmp_path / "one.onnx", BATCHES) - logits_of(fp32, BATCHES)
    assert found[alone] == pytest.approx(float((difference**2).mean()))


def test_the_most_sensitive_groups_are_kept_until_the_score_is_near_enough(fp32: Path, tmp_path: Path) -> None:
    reference = logits_of(fp32, BATCHES)
    path = tmp_path / "int8.onnx"
    options: dict[str, Any] = {"quantise": quantize_dynamic_int8, "batches": BATCHES}
    nearness = lambda logits: 1 - float(np.abs(logits - reference).max())  # noqa: E731
    assert quantize_within(fp32, path, score=nearness, least=-1e9, **options) == []
    whole = 100 * (1 - nearness(logits_of(path, BATCHES)))
    kept = quantize_within(fp32, path, score=nearness, least=1 - 0.7 * whole / 100, **options)
    order = list(sensitivities(fp32, quantize_dynamic_int8, BATCHES))
    assert 0 < len(kept) < len(order)
    assert kept == order[: len(kept)]
    assert 100 * (1 - nearness(logits_of(path, BATCHES))) <= 0.7 * whole
    assert quantize_within(fp32, path, score=nearness, least=1, **options) == order
    assert path.read_bytes() == fp32.read_bytes()


def test_the_best_of_both_methods_is_written(fp32: Path, tmp_path: Path) -> None:
    score = agreement(logits_of(fp32, BATCHES))
    done = quantize_best(fp32, tmp_path / "int8.onnx", BATCHES, score, max_drop=100, threads=1)
    assert done is not None
    assert done.method in ("dynamic", "static")
    assert done.in_float32 == ()
    (quantize_dynamic_int8 if done.method == "dynamic" else STATIC)(fp32, tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == (tmp_path / "int8.onnx").read_bytes()


def test_where_nothing_may_be_int8_nothing_is_written(fp32: Path, tmp_path: Path) -> None:
    exact = logits_of(fp32, BATCHES)

    def score(logits: np.ndarray) -> float:
        return float(np.array_equal(logits, exact))

    path = tmp_path / "int8.onnx"
    assert quantize_best(fp32, path, BATCHES, score, max_drop=0, threads=1) is None
    assert not path.exists()
