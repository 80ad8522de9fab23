"""What graphs of random weights cost, and what one more layer costs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from emdistill.runs.search_record import FORMS
from emdistill.ship import operator_table
from emdistill.ship.onnx import export_onnx
from emdistill.ship.operator_table import FEW, MANY, GraphCost, along_layers, int8_cost, measure_graphs


def test_costs_lie_on_the_line_through_what_was_measured() -> None:
    few, many = GraphCost(2.0, 3.0, 100.0), GraphCost(8.0, 12.0, 400.0)
    assert along_layers(few, many, FEW) == few
    assert along_layers(few, many, MANY) == many
    assert along_layers(few, many, 2) == GraphCost(4.0, 6.0, 200.0)
    assert along_layers(few, many, 7) == GraphCost(14.0, 21.0, 700.0)


def test_int8_costs_what_export_will_take_and_the_dearer_where_it_may_take_either() -> None:
    dynamic, static = GraphCost(2.0, 2.2, 100.0), GraphCost(1.6, 1.8, 100.0)
    assert int8_cost(dynamic, static, 0.5) == static
    assert int8_cost(dynamic, static, 0.94) == dynamic
    assert int8_cost(dynamic, static, 1.1) == dynamic
    assert int8_cost(static, dynamic, 0.94) == dynamic
    far_slower = GraphCost(8.0, 9.0, 100.0)  # as a bag's static graph is
    assert int8_cost(dynamic, far_slower, 4.0) == dynamic


def test_the_size_of_a_graph_that_was_not_measured_is_told(
    tiny_encoder: Callable[..., PreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_table, "MANY", 3)  # layers take long to trace
    sizes = {"few": FEW, "many": 3}
    models = {name: tiny_encoder("bert", layers=layers, width=48, heads=4) for name, layers in sizes.items()}
    costs = measure_graphs(models, threads=1, seconds=0.0)
    assert {name: tuple(forms) for name, forms in costs.items()} == {"few": FORMS, "many": FORMS}
    for forms in costs.values():
        assert forms["int8"].bytes < forms["onnx"].bytes
        assert all(0 < cost.p50 <= cost.p95 for cost in forms.values())
    learned = tiny_encoder("bert", layers=2, width=48, heads=4)
    for weights in learned.parameters():  # no two biases are equal
        weights.data += 0.02 * torch.randn(weights.shape)
    export_onnx(learned, tmp_path / "two.onnx")
    told = along_layers(costs["few"]["onnx"], costs["many"]["onnx"], 2).bytes
    assert told == pytest.approx((tmp_path / "two.onnx").stat().st_size, rel=0.002)
