"""Charts: Plotly takes every property, they show what they are given, and no text of them is mark-up."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as plotly
import pytest

from emdistill.runs.gate_record import TimedCase
from emdistill.show import answer_charts, charts, flow_charts
from emdistill.show.charts import DARK, Figure

FLOW = np.array([[0.5, 0.0, 0.25, 0.0], [0.0, 0.0, 0.0, 0.25]])  # teacher layer 1 teaches nobody
MODELS = ("teacher", "student <b>")
BINS = [(0.0, 0.0, 0), (0.6, 0.5, 3), (0.9, 1.0, 2)]
TIMES = TimedCase(1, 128, 3.0, 4.0, 5.0, 300.0, 50)


DIFFERENCES = [("a", [0.01, 0.03], 0.02, (-0.01, 0.05)), ("b <b>", [0.4], 0.4, (None, None))]


def all_charts() -> dict[str, Figure]:
    series = {"loss": ([1.0, 2.0], [3.0, None]), "a_term": ([1.0, 2.0], [0.02, 0.01])}
    layers = {str(layer): ([0.0, 1.0], [0.1, 0.2]) for layer in range(12)}
    return {
        "lines": charts.lines(series, x="step", y="loss", stages=[("a", 0), ("b", 2)], scale="log"),
        "layers": charts.lines(layers, x="step", y="weight", layers=True, level=0.5),
        "sankey": flow_charts.flow_sankey(FLOW),
        "heatmap": flow_charts.flow_heatmap(FLOW, 0.5),
        "wide heatmap": flow_charts.flow_heatmap(np.ones((3, 24)), 0.1),
        "latency": charts.latency_bars([("a", charts.GREY, TIMES), ("b", charts.BLUE, replace(TIMES, p95=2.0))]),
        "reliability": answer_charts.reliability(dict.fromkeys(MODELS, BINS)),
        "confidence": answer_charts.confidence_bars(dict.fromkeys(MODELS, BINS)),
        "confusion": answer_charts.confusion_heatmap(["a", "<b>"], np.array([[3, 1], [0, 0]])),
        "scores": answer_charts.predicted_against_gold(dict.fromkeys(MODELS, (1.0, 2.0)), [1.5, 1.0]),
        "differences": charts.differences(DIFFERENCES, x="accuracy"),
        "progress": charts.progress({"<b> search": [0.5, 0.4, 0.6]}, {"uniform": 0.55}, x="mappings", y="score"),
        "errors": answer_charts.error_histogram(dict.fromkeys(MODELS, np.array([-1.0, 0.0, 1.0]))),
    }


@pytest.mark.parametrize("name", all_charts())
def test_plotly_takes_every_property(name: str) -> None:
    figure = all_charts()[name]
    assert plotly.Figure(figure).layout.height == figure["layout"]["height"] > 0


def colours(value: Any, *, within: bool = False) -> set[str]:
    """Every text that stands somewhere below a property whose name speaks of a colour."""
    if isinstance(value, str):
        return {value} if within else set()
    if isinstance(value, dict):
        return set().union(*(colours(item, within=within or "color" in name) for name, item in value.items()))
    return set().union(*(colours(item, within=within) for item in value)) if isinstance(value, list) else set()


def test_every_colour_has_a_counterpart_on_a_dark_page() -> None:
    used = set().union(*map(colours, all_charts().values()))
    texts = {text for text in used if re.match(r"#|rgb", text)} - {charts.CLEAR}
    assert len(texts) > 15
    assert texts <= set(DARK)
    assert all(dark != light for light, dark in DARK.items())


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """WCAG 2.2, definition of the contrast ratio."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_texts_and_lines_stand_out_in_both_schemes() -> None:
    for back, scheme in ((charts.BACK, {}), (DARK[charts.BACK], DARK)):
        for text in (charts.INK, charts.SOFT):
            assert contrast(scheme.get(text, text), back) >= 4.5
        for cell in charts.HEAT:
            assert contrast(scheme.get(charts.INK, charts.INK), scheme.get(cell, cell)) >= 4.5
        for line in charts.SERIES:
            assert contrast(scheme.get(line, line), back) >= 4.5
        for layer in range(12):
            line = charts.layer_colour(layer, 12)
            assert contrast(scheme.get(line, line), back) >= 2.5


def test_text_is_no_mark_up() -> None:
    assert charts.plain("<a href='javascript:x'>b</a>") == "&lt;a href='javascript:x'&gt;b&lt;/a&gt;"
    assert charts.plain("&lt;b&gt;") == "&amp;lt;b&amp;gt;"
    assert charts.plain("x" * 100) == "x" * 59 + "…"
    assert all("<b>" not in str(figure) for figure in all_charts().values())


def test_the_sankey_diagram_and_the_heat_map_hold_the_flow() -> None:
    sankey, heat = flow_charts.flow_sankey(2 * FLOW)["data"][0], flow_charts.flow_heatmap(2 * FLOW, 0.5)["data"][0]
    found = np.zeros(FLOW.shape)
    link = sankey["link"]
    for source, target, value in zip(link["source"], link["target"], link["value"], strict=True):
        found[target - 4, source] += value
    np.testing.assert_allclose(found, FLOW, atol=1e-6)
    assert heat["z"] == FLOW.tolist()
    assert heat["text"] == [[".50", "", ".25", ""], ["", "", "", ".25"]]
    assert sankey["node"]["label"][0] == "teacher 0"
    assert sankey["node"]["label"][4:] == ["student 0", "student 1"]


def test_nodes_of_the_sankey_diagram_keep_order_and_gaps() -> None:
    """Each node's middle, found again from masses and gaps in pixels."""
    figure = flow_charts.flow_sankey(FLOW)
    height = figure["layout"]["height"] - 2 * flow_charts.SANKEY_MARGIN
    scale = height - 3 * flow_charts.NODE_GAP  # pixels of the mass 1 where the side with four nodes fills the height
    top, middles = 0.0, []
    for mass in FLOW.sum(axis=0):
        middles.append((top + mass * scale / 2) / height)
        top += mass * scale + flow_charts.NODE_GAP
    places = figure["data"][0]["node"]["y"]
    assert places[:4] == pytest.approx(middles, abs=1e-4)
    assert places[4] == pytest.approx(0.75 * scale / 2 / height, abs=1e-4)
    assert places[5] == pytest.approx(1 - 0.25 * scale / 2 / height, abs=1e-4)
    assert all(0 < place < 1 for place in flow_charts.flow_sankey(np.eye(1))["data"][0]["node"]["y"])
    assert not np.isnan(flow_charts.flow_sankey(np.zeros((2, 3)))["data"][0]["node"]["y"]).any()


def test_logarithmic_axes_have_few_ticks() -> None:
    axis = all_charts()["lines"]["layout"]["yaxis"]
    assert (
        axis["tickvals"] == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0][: len(axis["tickvals"])]
    )
    wide = charts.lines({"a": ([0, 1], [1e-6, 1e3])}, x="", y="", scale="log")["layout"]["yaxis"]
    assert all(np.log10(tick) == pytest.approx(round(np.log10(tick))) for tick in wide["tickvals"])


def test_whiskers_reach_the_95th_percentile_and_never_below_the_bar() -> None:
    trace = all_charts()["latency"]["data"][0]
    assert trace["error_x"]["array"] == [1.0, 0.0]


def test_differences_have_a_dot_per_seed_and_whiskers_where_there_is_an_interval() -> None:
    seeds, means = all_charts()["differences"]["data"]
    assert seeds["x"] == [0.01, 0.03, 0.4]
    assert [round(place) for place in seeds["y"]] == [0, 0, 1]
    assert means["x"] == [0.02, 0.4]
    assert means["error_x"]["arrayminus"] == pytest.approx([0.03, 0.0])
    assert means["error_x"]["array"] == pytest.approx([0.03, 0.0])


def test_a_search_shows_every_value_and_the_best_so_far() -> None:
    dots, steps, level = all_charts()["progress"]["data"]
    assert (dots["x"], dots["y"]) == ([1, 2, 3], [0.5, 0.4, 0.6])
    assert steps["y"] == [0.5, 0.5, 0.6]
    assert level["y"] == [0.55, 0.55]
