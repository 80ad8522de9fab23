"""The front of a search on its page: score against time and size of what was tried, and of what stands beside it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from emdistill.console import Table, short
from emdistill.show.charts import GREY, LEGEND_TOP, SOFT, VARIANTS, Figure, cost_axis, figure, plain, points
from emdistill.show.page import Chart
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


def front_of(made: Iterable[Point]) -> list[Point]:
    """The points that none beats in score, milliseconds and size at once, the best score first."""
    every = list(made)
    counts = [{"score": point.score, "ms": point.ms, "size": point.size} for point in every]
    front = [every[place] for place in pareto_front(counts, lower=["ms", "size"], higher=["score"])]
    return sorted(front, key=lambda point: -point.score)


def front_table(made: Iterable[Point], score: str, ms: str, size: str) -> Table:
    """The front, under these headings."""
    lines = [
        [point.name, LOOKS[point.kind][0], f"{point.score:.4f}", short(point.ms), short(point.size)]
        for point in front_of(made)
    ]
    return Table(["model", "form", score, ms, size], lines, words=(0, 1))


def front_charts(
    made: Sequence[Point], metric: str, size: str, limits: Mapping[str, Sequence[float]], caption: str
) -> list[Chart]:
    """The score against milliseconds and against size, in the unit of this name; none of no points.

    limits   of "ms" and "size"
    """
    axes = {"ms": "milliseconds", "size": size} if made else {}
    return [
        Chart(f"{metric} against {title}", _scatter(made, metric, cost, title, limits[cost]), f"{caption} {BRIGHT}")
        for cost, title in axes.items()
    ]


def _scatter(made: Sequence[Point], metric: str, cost: str, title: str, limits: Sequence[float]) -> Figure:
    front, data = front_of(made), []
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
    ends = {"yref": "paper", "y0": 0, "y1": 1}
    line = {"type": "line", "line": {"color": SOFT, "dash": "dash", "width": 1.5}, **ends}
    return figure(
        data, 400, x=title, y=plain(metric), hovermode="closest", margin={"t": 56}, legend=LEGEND_TOP,
        xaxis=cost_axis([*(getattr(point, cost) for point in made), *limits]),
        shapes=[line | {"x0": limit, "x1": limit} for limit in limits],
    )  # fmt: skip
