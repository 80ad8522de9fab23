import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from messages import names
from transformers import PreTrainedModel

from emdistill.errors import ConfigError, ModelError
from emdistill.models.multi_task import TaskOutputs
from emdistill.ship.int8_choice import Sample, logits_of, quantize_best, quantize_within, sensitivities
from emdistill.ship.onnx import export_onnx
from emdistill.ship.quantize import groups, quantize_dynamic_int8, quantize_static_int8
from emdistill.students.several_heads import with_heads
from emdistill.tasks import KINDS

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


def unscored(logits: np.ndarray) -> float:
    raise AssertionError("nobody asks for a score here")


KIND = KINDS["classification"]
SAMPLE = Sample(BATCHES, unscored, KIND)
STATIC = partial(quantize_static_int8, calibration=BATCHES)
METHODS = pytest.mark.parametrize("quantise", [quantize_dynamic_int8, STATIC], ids=["dynamic", "static"])


@pytest.fixture(scope="module")
def fp32(tiny_encoder: Callable[..., PreTrainedModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fp32") / "model.onnx"
    export_onnx(tiny_encoder("bert", labels=3), path, token_types=False)
    return path


def weights(path: Path) -> dict[str, np.ndarray]:
    return {item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}


def one(path: Path) -> np.ndarray:
    (logits,) = logits_of(path, [SAMPLE])
    return logits


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
    reference = one(fp32)
    difference = one(tmp_path / "int8.onnx") - reference
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
    assert after[f"{query.input[1]}/scales"].shape == (width,)


@METHODS
def test_an_answer_depends_on_its_text_alone(fp32: Path, tmp_path: Path, quantise: Any) -> None:
    quantise(fp32, tmp_path / "int8.onnx")
    alone = [
        {name: values[row : row + 1, : batch["attention_mask"][row].sum()] for name, values in batch.items()}
        for batch in BATCHES
        for row in range(len(batch["input_ids"]))
    ]
    longer = [{name: np.pad(values, ((0, 0), (0, 7))) for name, values in batch.items()} for batch in reversed(BATCHES)]
    (answers,) = logits_of(tmp_path / "int8.onnx", [Sample(alone, unscored, KIND)])
    (padded,) = logits_of(tmp_path / "int8.onnx", [Sample(longer, unscored, KIND)])
    np.testing.assert_allclose(one(tmp_path / "int8.onnx"), answers, atol=1e-5, rtol=0)
    rows = len(BATCHES[0]["input_ids"])
    restored = np.concatenate([padded[start : start + rows] for start in range(len(padded) - rows, -1, -rows)])
    np.testing.assert_allclose(restored, answers, atol=1e-5, rtol=0)


@METHODS
def test_products_of_7_bit_weights_fit_in_16_bits(fp32: Path, tmp_path: Path, quantise: Any) -> None:
    quantise(fp32, tmp_path / "int8.onnx", bits=7)
    model = onnx.load(tmp_path / "int8.onnx")
    stored = weights(tmp_path / "int8.onnx")
    read = {name for node in model.graph.node if node.op_type != "Gather" for name in node.input}
    products = [item for name, item in stored.items() if name in read and item.ndim == 2 and item.dtype == np.int8]
    assert len(products) == 13  # six per layer, and the pooler's
    for matrix in products:  # two neighbours of a column times the largest activation, in the order they are added
        pairs = np.abs(matrix[0::2].astype(np.int64)) + np.abs(matrix[1::2].astype(np.int64))
        assert 255 * pairs.max() < 2**15
    reference = one(fp32)
    assert np.abs(one(tmp_path / "int8.onnx") - reference).max() < 0.2 * np.ptp(reference)


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
    assert np.abs(one(tmp_path / "int8.onnx") - one(fp32)).max() > 0


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


def test_sensitivity_is_the_share_of_the_logits_that_one_group_alone_changes(fp32: Path, tmp_path: Path) -> None:
    alone = "layer.0.feed_forward"
    quantize_dynamic_int8(fp32, tmp_path / "one.onnx", keep=[name for name in GROUPS if name != alone])
    difference = (one(tmp_path / "one.onnx") - one(fp32)).astype(np.float64)
    found = sensitivities(fp32, quantize_dynamic_int8, [SAMPLE])
    assert sorted(found) == sorted(GROUPS)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found[alone] == pytest.approx((difference**2).mean() / one(fp32).astype(np.float64).var(), rel=1e-4)


def test_the_most_sensitive_groups_are_kept_until_the_score_is_near_enough(fp32: Path, tmp_path: Path) -> None:
    reference = one(fp32)
    path = tmp_path / "int8.onnx"
    nearness = lambda logits: 1 - float(np.abs(logits - reference).max())  # noqa: E731
    within = partial(quantize_within, fp32, path, [Sample(BATCHES, nearness, KIND)], quantise=quantize_dynamic_int8)
    assert within(least=[-1e9]) == []
    whole = 100 * (1 - nearness(one(path)))
    kept = within(least=[1 - 0.7 * whole / 100])
    order = list(sensitivities(fp32, quantize_dynamic_int8, [SAMPLE]))
    assert 0 < len(kept) < len(order)
    assert kept == order[: len(kept)]
    assert 100 * (1 - nearness(one(path))) <= 0.7 * whole
    assert within(least=[1]) == order
    assert path.read_bytes() == fp32.read_bytes()


@pytest.mark.parametrize(
    ("overflows", "asked", "bits"), [(True, None, 7), (False, None, 8), (True, 8, 8), (False, 7, 7)]
)
def test_the_best_is_written_with_as_many_bits_as_are_asked_for_or_the_processor_can_add(
    fp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overflows: bool, asked: Any, bits: Any
) -> None:
    monkeypatch.setattr("emdistill.ship.int8_choice.int8_overflows", lambda: overflows)
    path, sample = tmp_path / "int8.onnx", Sample(BATCHES, agreement(one(fp32)), KIND)
    done = quantize_best(fp32, path, [sample], max_drop=100, threads=1, bits=asked)
    assert done is not None
    assert (done.in_float32, done.bits) == ((), bits)
    same = {"dynamic": quantize_dynamic_int8, "static": STATIC}[done.method]
    same(fp32, tmp_path / "same.onnx", bits=bits)
    assert path.read_bytes() == (tmp_path / "same.onnx").read_bytes()


def test_where_nothing_may_be_int8_nothing_is_written(fp32: Path, tmp_path: Path) -> None:
    exact = one(fp32)

    def score(logits: np.ndarray) -> float:
        return float(np.array_equal(logits, exact))

    path = tmp_path / "int8.onnx"
    assert quantize_best(fp32, path, [Sample(BATCHES, score, KIND)], max_drop=0, threads=1) is None
    assert not path.exists()


HEADS = {"mood": ("bad", "fine", "good"), "stars": ()}


@pytest.fixture(scope="module")
def two_heads(tiny_encoder: Callable[..., PreTrainedModel], tokenizer_factory: Any, tmp_path_factory: Any) -> Path:
    outputs = {
        "mood": TaskOutputs(HEADS["mood"], "single_label_classification"),
        "stars": TaskOutputs((), "regression"),
    }
    path: Path = tmp_path_factory.mktemp("heads") / "model.onnx"
    export_onnx(with_heads(tiny_encoder("bert"), tokenizer_factory(), outputs, {}, seed=0), path, token_types=False)
    return path


def test_of_several_tasks_each_is_held_to_the_limit_and_the_worst_decides(two_heads: Path, tmp_path: Path) -> None:
    """A task that loses nothing keeps nothing in float32; one that may lose nothing keeps all, whatever the other."""
    samples = [Sample(BATCHES, lambda _: 1.0, KIND, output=f"logits_{task}") for task in HEADS]
    mood, stars = logits_of(two_heads, samples)
    assert (mood.shape[1], stars.shape[1]) == (3, 1)
    path = tmp_path / "int8.onnx"
    found = quantize_best(two_heads, path, samples, max_drop=0, threads=1)
    assert found is not None
    assert found.in_float32 == ()
    differences = [np.abs(now - then).max() for now, then in zip(logits_of(path, samples), (mood, stars), strict=True)]
    assert min(differences) > 0
    strict = replace(samples[1], score=lambda logits: float(np.array_equal(logits, stars)))
    assert quantize_best(two_heads, tmp_path / "none.onnx", [samples[0], strict], max_drop=0, threads=1) is None


def test_a_task_of_large_logits_ranks_the_groups_no_more_than_another(two_heads: Path) -> None:
    """The mean over tasks of each one's own."""
    samples = [Sample(BATCHES, unscored, KIND, output=f"logits_{task}") for task in HEADS]
    found = sensitivities(two_heads, quantize_dynamic_int8, samples)
    alone = next(iter(found))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.onnx"
        quantize_dynamic_int8(two_heads, path, keep=[name for name in found if name != alone])
        parts = zip(logits_of(path, samples), logits_of(two_heads, samples), strict=True)
        expected = [np.mean((now - then) ** 2) / np.var(then) for now, then in parts]
    assert found[alone] == pytest.approx(np.mean(expected), rel=1e-4)
