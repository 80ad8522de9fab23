"""Flows and layer weights as pictures, drawn from the records of `flows.jsonl`; equal records give equal bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from emdistill.errors import DataError
from emdistill.runs.flows import FlowRecord

Matrix = NDArray[np.float64]

INK = "#2f3437"
FAINT = "#dfe3e7"
# Without the darkest end of "Blues", white numbers stand out on every dark cell.
FLOW_COLORS = LinearSegmentedColormap.from_list("flow", colormaps["Blues"](np.linspace(0.0, 0.88, 256)))
WEIGHT_COLORS = colormaps["RdBu_r"]
BAR_COLOR = FLOW_COLORS(0.55)

# Lengths are inches. Figures are laid out by hand: cells stay square, and bars line up with their layers.
DOTS_PER_INCH = 160
MARGIN = 0.15
BAR = 0.45  # the longest bar; its number comes on top
BAR_GAP = 0.07
AXIS_LABEL = 0.26


@dataclass(frozen=True)
class _Box:
    """A rectangle on the figure, in inches."""

    left: float
    bottom: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def top(self) -> float:
        return self.bottom + self.height


def draw_flows(records: Sequence[FlowRecord], path: Path, *, student_layers: Sequence[str] | None = None) -> None:
    """Draw the last flow of each loss term, side by side, as a PNG of heat-maps.

    Rows are student layers (named by `student_layers`, else counted from 0), columns teacher layers, from 0.
    A cell is its share of all mass moved, so that a picture's cells add up to 1; shares below .005 stay blank.
    Bars are the sums of the rows and the columns: the layer weights under which the flow was found.
    Raises DataError where no flow was recorded, or `student_layers` are not as many as the flow's rows.
    """
    flows = _last_flows(records)
    if not flows:
        raise DataError("no flow was recorded, so there is none to draw: this objective compares no layers")
    norm = Normalize(0.0, max(float(flow.max()) for _, flow in flows.values()) or 1.0)
    rows, columns = (max(flow.shape[axis] for _, flow in flows.values()) for axis in (0, 1))
    names = _layer_names(rows, student_layers)
    cell = 0.46 if columns <= 12 else 0.31
    numbers = 8.5 if columns <= 12 else 6.0

    left = MARGIN + AXIS_LABEL + 0.12 + 0.075 * max(2, *map(len, names))
    bottom = MARGIN + AXIS_LABEL + 0.22
    bars = BAR_GAP + BAR + 0.3
    boxes: list[_Box] = []
    for _, flow in flows.values():
        start = left + (boxes[-1].right + bars if boxes else 0.0)
        boxes.append(_Box(start, bottom, flow.shape[1] * cell, flow.shape[0] * cell))
    scale = _Box(boxes[-1].right + bars + 0.1, bottom, 0.13, rows * cell)
    figure = _new_figure(scale.right + 0.75, scale.top + bars + 0.5)

    for box, (term, (record, flow)) in zip(boxes, flows.items(), strict=True):
        axes = _add_axes(figure, box)
        _draw_matrix(axes, flow, norm, names[: flow.shape[0]], numbers)
        _draw_sums(figure, box, flow, cell, numbers)
        _text(figure, box.left, box.top + bars + 0.27, _words(term), size=12, weight="bold")
        _text(figure, box.left, box.top + bars + 0.06, _moment(record), size=8.5)
    _draw_scale(figure, scale, ScalarMappable(norm, FLOW_COLORS), "share of mass")
    _save(figure, path)


def draw_layer_weights(records: Sequence[FlowRecord], path: Path) -> None:
    """Draw how the layer weights of student and teacher moved over the recorded steps, as a PNG of heat-maps.

    Rows are layers, from 0; columns the records, from the first to the last; a cell is weight × number of layers,
    so that 1 (white) is the uniform weight. The number behind a row is its last weight, as a share of 1.
    Terms whose weights are equal throughout (coupled) share one row of pictures.
    Raises DataError where no layer weights were recorded.
    """
    groups = _weight_groups(records)
    if not groups:
        raise DataError("no layer weights were recorded, so there are none to draw: this layer mapping has none")
    furthest = max(float(abs(side * side.shape[0] - 1.0).max()) for _, _, *sides in groups for side in sides)
    furthest = max(furthest, 0.25)  # weights that hardly move shall look as if they hardly move
    norm = TwoSlopeNorm(vmin=max(0.0, 1.0 - furthest), vcenter=1.0, vmax=1.0 + furthest)

    width, gap = 4.4, 1.3
    left = bottom = MARGIN + AXIS_LABEL + 0.26
    stage_names = 0.16 if len({record.stage for record in records}) > 1 else 0.0
    above = 0.62 + stage_names
    heights = [0.24 * max(5, *(side.shape[0] for side in sides)) for _, _, *sides in groups]
    total = sum(heights) + len(groups) * (bottom + above)
    scale = _Box(left + 2 * width + gap + 0.75, total - above - heights[0], 0.13, heights[0])
    figure = _new_figure(scale.right + 0.75, total)

    top = total
    for height, (terms, steps, *sides) in zip(heights, groups, strict=True):
        for index, (side, weights) in enumerate(zip(("student", "teacher"), sides, strict=True)):
            box = _Box(left + index * (width + gap), top - above - height, width, height)
            _draw_weights(_add_axes(figure, box), weights, steps, norm, side)
            _text(figure, box.left, box.top + stage_names + 0.3, f"{side} layer weights", size=12, weight="bold")
            _text(figure, box.left, box.top + stage_names + 0.09, ", ".join(map(_words, terms)), size=8.5)
            _text(figure, box.right + 0.07, box.top + 0.05, "last", size=7.5)
        top -= above + height + bottom
    _draw_scale(figure, scale, ScalarMappable(norm, WEIGHT_COLORS), "× uniform weight")
    _save(figure, path)


def _last_flows(records: Sequence[FlowRecord]) -> dict[str, tuple[FlowRecord, Matrix]]:
    """Each term's last record and its flow, scaled to a mass of 1."""
    last = {term: record for record in records for term in record.flows}
    flows = {term: np.asarray(record.flows[term], dtype=np.float64) for term, record in last.items()}
    return {term: (last[term], flow / (flow.sum() or 1.0)) for term, flow in flows.items()}


def _weight_groups(records: Sequence[FlowRecord]) -> list[tuple[list[str], list[tuple[str, int]], Matrix, Matrix]]:
    """Terms with equal weights together: their names, the (stage, step) of each record, student and teacher weights."""
    groups: list[tuple[list[str], list[tuple[str, int]], Matrix, Matrix]] = []
    for term in {term: None for record in records for term in record.student_weights if term in record.teacher_weights}:
        having = [record for record in records if term in record.student_weights and term in record.teacher_weights]
        steps = [(record.stage, record.step) for record in having]
        student = np.asarray([record.student_weights[term] for record in having], dtype=np.float64).T
        teacher = np.asarray([record.teacher_weights[term] for record in having], dtype=np.float64).T
        for terms, other_steps, other_student, other_teacher in groups:
            same_weights = np.array_equal(student, other_student) and np.array_equal(teacher, other_teacher)
            if steps == other_steps and same_weights:
                terms.append(term)
                break
        else:
            groups.append(([term], steps, student, teacher))
    return groups


def _layer_names(layers: int, names: Sequence[str] | None) -> list[str]:
    if names is None:
        return [str(layer) for layer in range(layers)]
    if len(names) != layers:
        raise DataError(f"the flow has {layers} student layers, but {len(names)} names were given: {', '.join(names)}")
    return list(names)


def _draw_matrix(axes: Axes, flow: Matrix, norm: Normalize, names: Sequence[str], numbers: float) -> None:
    rows, columns = flow.shape
    axes.imshow(flow, cmap=FLOW_COLORS, norm=norm, aspect="auto", interpolation="nearest")
    for (row, column), share in np.ndenumerate(flow):
        if share >= 0.005:
            color = "white" if norm(share) > 0.6 else INK
            axes.text(column, row, _share(share), ha="center", va="center", fontsize=numbers, color=color)
    axes.hlines(np.arange(rows - 1) + 0.5, -0.5, columns - 0.5, color="white", linewidth=1.2)
    axes.vlines(np.arange(columns - 1) + 0.5, -0.5, rows - 0.5, color="white", linewidth=1.2)
    axes.set_xticks(range(columns), [str(layer) for layer in range(columns)])
    axes.set_yticks(range(rows), list(names))
    axes.set_xlabel("teacher layer", fontsize=9.5, color=INK)
    axes.set_ylabel("student layer", fontsize=9.5, color=INK)
    _tidy(axes)


def _draw_sums(figure: Figure, box: _Box, flow: Matrix, cell: float, numbers: float) -> None:
    """Bars for the flow's column sums above the heat-map and its row sums at its right, each side to its own scale."""
    columns, rows = flow.sum(axis=0), flow.sum(axis=1)
    above = _add_axes(figure, _Box(box.left, box.top + BAR_GAP, box.width, BAR))
    beside = _add_axes(figure, _Box(box.right + BAR_GAP, box.bottom, BAR, box.height))
    above_bars = above.bar(range(len(columns)), columns, width=0.16 / cell, color=BAR_COLOR)
    beside_bars = beside.barh(range(len(rows)), rows, height=0.16 / cell, color=BAR_COLOR)
    above.set(xlim=(-0.5, len(columns) - 0.5), ylim=(0.0, columns.max() or 1.0))
    beside.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0.0, rows.max() or 1.0))
    for axes, bars, sums in ((above, above_bars, columns), (beside, beside_bars, rows)):
        axes.set_axis_off()
        axes.bar_label(bars, [_share(value) for value in sums], padding=2, fontsize=numbers - 0.5, color=INK)


def _draw_weights(axes: Axes, weights: Matrix, steps: Sequence[tuple[str, int]], norm: Normalize, side: str) -> None:
    layers, records = weights.shape
    axes.imshow(weights * layers, cmap=WEIGHT_COLORS, norm=norm, aspect="auto", interpolation="nearest")
    axes.hlines(np.arange(layers - 1) + 0.5, -0.5, records - 0.5, color="white", linewidth=1.0)
    for layer, weight in enumerate(weights[:, -1]):
        end = (records - 0.5, layer)
        axes.annotate(_share(weight, 3), end, (5, 0), textcoords="offset points", fontsize=8, color=INK, va="center")
    ticks = np.unique(np.linspace(0, records - 1, min(records, 6)).round().astype(int))
    axes.set_xticks(ticks, [f"{steps[tick][1]:,}" for tick in ticks])
    axes.set_yticks(range(layers), [str(layer) for layer in range(layers)])
    axes.set_xlabel("step", fontsize=9.5, color=INK)
    axes.set_ylabel(f"{side} layer", fontsize=9.5, color=INK)
    _mark_stages(axes, [stage for stage, _ in steps])
    _tidy(axes)


def _mark_stages(axes: Axes, stages: Sequence[str]) -> None:
    """Where there is more than one stage, a line at each beginning and the stages' names on the heat-map's edge."""
    starts = [index for index in range(len(stages)) if index == 0 or stages[index] != stages[index - 1]]
    if len(starts) == 1:
        return
    for start in starts:
        if start:
            axes.axvline(start - 0.5, color=INK, linewidth=1.2)
        at = (start - 0.5, 1.0)
        axes.annotate(
            stages[start],
            at,
            (1, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=7.5,
            color=INK,
        )


def _draw_scale(figure: Figure, box: _Box, colors: ScalarMappable, label: str) -> None:
    axes = _add_axes(figure, box)
    colorbar = figure.colorbar(colors, cax=axes)
    colorbar.set_label(label, fontsize=8.5, color=INK)
    colorbar.outline.set_visible(False)
    axes.tick_params(labelsize=7.5, length=2, color=INK, labelcolor=INK)


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _add_axes(figure: Figure, box: _Box) -> Axes:
    width, height = figure.get_size_inches()
    return figure.add_axes((box.left / width, box.bottom / height, box.width / width, box.height / height))


def _text(figure: Figure, left: float, bottom: float, text: str, *, size: float, weight: str = "normal") -> None:
    width, height = figure.get_size_inches()
    figure.text(left / width, bottom / height, text, fontsize=size, color=INK, fontweight=weight)


def _tidy(axes: Axes) -> None:
    axes.tick_params(length=0, labelsize=8.5, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_color(FAINT)


def _words(term: str) -> str:
    return term.replace("_", " ")


def _moment(record: FlowRecord) -> str:
    return f"stage {record.stage}, step {record.step:,}"


def _share(value: float, digits: int = 2) -> str:
    """A share without its leading zero: .25; 1.00 keeps its one."""
    return f"{value:.{digits}f}".removeprefix("0")


def _save(figure: Figure, path: Path) -> None:
    # Without the library's name and version in the file, equal pictures are equal bytes.
    figure.savefig(path, format="png", metadata={"Software": None})
