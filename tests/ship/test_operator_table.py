"""What graphs of random weights cost, and what one more layer costs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from emdistill.ship.onnx import export_onnx
from emdistill.ship.operator_table import FEW, FORMS, MANY, GraphCost, along_layers, measure_graphs


def test_costs_lie_on_the_line_through_what_was_measured() -> None:
    few, many = GraphCost(2.0, 3.0, 100.0), GraphCost(8.0, 12.0, 400.0)
    assert along_layers(few, many, FEW) == few
    assert along_layers(few, many, MANY) == many
    assert along_layers(few, many, 2) == GraphCost(4.0, 6.0, 200.0)
    assert along_layers(few, many, 7) == GraphCost(14.0, 21.0, 700.0)


def test_the_size_of_a_graph_that_was_not_measured_is_told_within_a_percent(
    tiny_encoder: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    sizes = {"few": FEW, "many": MANY}
    models = {name: tiny_encoder("bert", layers=layers, width=48, heads=4) for name, layers in sizes.items()}
    costs = measure_graphs(models, threads=1, seconds=0.0)
    assert {name: tuple(forms) for name, forms in costs.items()} == {"few": FORMS, "many": FORMS}
    for forms in costs.values():
        assert forms["int8"].bytes < forms["onnx"].bytes
        assert all(0 < cost.p50 <= cost.p95 for cost in forms.values())
    export_onnx(tiny_encoder("bert", layers=3, width=48, heads=4), tmp_path / "three.onnx")
    told = along_layers(costs["few"]["onnx"], costs["many"]["onnx"], 3).bytes
    assert told == pytest.approx((tmp_path / "three.onnx").stat().st_size, rel=0.01)
