"""Graphs that several files look at: to trace one takes seconds."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedModel

TracedModel = tuple[PreTrainedModel, Path]  # and its graph


@pytest.fixture(autouse=True, scope="session")
def _trace_faster(onnx_operators_are_listed_once: None) -> None:
    """Most files here trace a graph."""


@pytest.fixture(scope="session")
def traced_classifier(
    tiny_encoder: Callable[..., PreTrainedModel], tmp_path_factory: pytest.TempPathFactory
) -> TracedModel:
    """Of two classes, reading token types; it was in train mode when it was exported."""
    onnx = pytest.importorskip("emdistill.ship.onnx")
    model, path = tiny_encoder("bert", layers=1).train(), tmp_path_factory.mktemp("traced") / "model.onnx"
    onnx.export_onnx(model, path)
    return model, path


@pytest.fixture(scope="session")
def traced_scorer(
    tiny_encoder: Callable[..., PreTrainedModel], tmp_path_factory: pytest.TempPathFactory
) -> TracedModel:
    """Of one score, exported without the token types that it would read."""
    onnx = pytest.importorskip("emdistill.ship.onnx")
    model, path = tiny_encoder("bert", layers=1, labels=1), tmp_path_factory.mktemp("traced") / "model.onnx"
    onnx.export_onnx(model, path, token_types=False)
    return model, path
