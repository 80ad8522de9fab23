"""The front of a search on its page: score against time and size of what was tried, and of what stands beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

from emdistill.console import Table, short
from emdistill.show.charts import GREY, LEGEND_TOP, VARIANTS, Figure, cost_axis, figure, line, plain, points
from emdistill.show.page import Chart, Row, Section
from emdistill.show.pareto import pareto_front

# Of the kinds of points: title, colour, mark.
LOOKS = {
    "baseline": ("no student", GREY, "square"),
    "teacher": ("teacher", GREY, "square"),
    "student": ("student", VARIANTS["student"], "circle"),
    "onnx": ("float32", VARIANTS["onnx"], "circle"),
    "int8": ("int8", VARIANTS["int8"], "diamond"),
}
BRIGHT = "Bright: beaten by nothing in score, time and size at once. Dashed: the limits."


@dataclass(frozen=True)
class Point:
    """A model in the charts, of a kind of LOOKS: its score, milliseconds, and size in the unit of its page."""

    name: str
    kind: str
    score: float
    ms: float
    size: float


@dataclass(frozen=True)
class Axis:
    """What a point's `ms` or `size` is called in its chart and in the table, and its limits."""

    title: str
    heading: str
    limits: Sequence[float]


def front_section(made: Sequence[Point], metric: str, rows: str, ms: Axis, size: Axis, caption: str) -> Section:
    """The score on these rows against milliseconds and size, and the front as a table; without parts if none is made.

    On the front is what nothing beats in score, milliseconds and size at once.
    """
    if not made:
        return Section("The front", [])
    places = pareto_front([vars(point) for point in made], lower=["ms", "size"], higher=["score"])
    front = sorted((made[place] for place in places), key=lambda point: -point.score)
    lines = [
        [point.name, LOOKS[point.kind][0], f"{point.score:.4f}", short(point.ms), short(point.size)] for point in front
    ]
    charts = [
        Chart(f"{metric} against {axis.title}", _scatter(made, front, metric, cost, axis), f"{caption} {BRIGHT}")
        for cost, axis in (("ms", ms), ("size", size))
    ]
    headings = ["model", "form", f"{metric}\n{rows}", ms.heading, size.heading]
    return Section("The front", [Row(charts), Table(headings, lines, words=(0, 1))])


def _scatter(made: Sequence[Point], front: Sequence[Point], metric: str, cost: str, axis: Axis) -> Figure:
    data = []
    for kind, (name, colour, symbol) in LOOKS.items():
        members = [point for point in made if point.kind == kind]
        opacity = [0.95 if point in front else 0.4 for point in members]
        trace = points(
            name,
            [getattr(point, cost) for point in members],
            [point.score for point in members],
            colour=colour,
            mode="markers",
            marker={"color": colour, "size": 10, "symbol": symbol, "opacity": opacity},
            text=[plain(point.name) for point in members],
            hovertemplate="%{text}<br>%{y:.4f} at %{x:.3g}",
        )
        data += [trace] if members else []
    return figure(
        data, 400, x=axis.title, y=plain(metric), hovermode="closest", margin={"t": 56}, legend=LEGEND_TOP,
        xaxis=cost_axis([*(getattr(point, cost) for point in made), *axis.limits]),
        shapes=[line(x0=limit, x1=limit, dash="dash", width=1.5) for limit in axis.limits],
    )  # fmt: skip
