"""The page that compares runs: size, latency and score of all they could ship, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from emdistill.console import ABSENT, Table, shown
from emdistill.show.candidates import VARIANT_NAMES, Candidate, RunSet
from emdistill.show.charts import INK, MARKS, SOFT, VARIANTS, layout, plain, points
from emdistill.show.page import Chart, write_page
from emdistill.show.pareto import pareto_front

Cost = Literal["latency", "size"]
Front = dict[str, set[int]]

COSTS: dict[Cost, str] = {"latency": "milliseconds per call", "size": "megabytes"}
MEASURE = "emdistill export RUN --onnx --int8"
MARKER = 9  # pixels across
LARGEST_MARKER = 34  # of the largest model, where the area is its size
WIDE_RANGE = 4  # largest over smallest value, from where on an axis is logarithmic
# PyTorch's and ONNX's models are of equal size: their numbers go to different sides.
NUMBER_AT = {"teacher": "top center", "student": "middle right", "onnx": "middle left", "int8": "top center"}


def write_runs_report(path: Path, runs: RunSet) -> None:
    """Write the comparing page: the front in a sentence, the table, score against latency and size, and the notes."""
    numbers = _numbers(runs.candidates)
    fronts = {cost: find_fronts(runs.candidates, cost) for cost in COSTS}
    charts = [
        Chart(f"{_titled(runs.metric)} against {cost}", figure, _caption(cost, runs, fronts[cost]))
        for cost in COSTS
        if (figure := scatter(runs, cost, fronts[cost], numbers)) is not None
    ]
    write_page(
        path,
        "runs",
        title=f"{runs.task}: {len(numbers)} configuration{'s' * (len(numbers) != 1)} compared",
        runs=runs,
        best=_on_both(runs, fronts),
        table=_table(runs, fronts, numbers),
        charts=charts,
        measure=MEASURE,
    )


def find_fronts(candidates: Sequence[Candidate], cost: Cost) -> Front:
    """The Pareto front of a lower cost and a higher score: places of the candidates on it.

    Latencies compare within one place of measurement, so that each place has a front of its own; sizes have one, "".
    """
    groups: dict[str, list[int]] = {}
    for index, candidate in enumerate(candidates):
        if getattr(candidate, cost) is not None:
            groups.setdefault(candidate.place or "" if cost == "latency" else "", []).append(index)
    fronts = {}
    for where, members in groups.items():
        counts = [{cost: getattr(candidates[index], cost), "score": candidates[index].score} for index in members]
        fronts[where] = {members[place] for place in pareto_front(counts, lower=[cost], higher=["score"])}
    return fronts


def scatter(runs: RunSet, cost: Cost, fronts: Front, numbers: Mapping[str, int]) -> dict[str, Any] | None:
    """Score against a cost as a Plotly figure: a mark per candidate, its number beside it, the front as steps.

    In the chart of latencies a mark's area is the model's size. None where no student has that cost.
    """
    measured = [candidate for candidate in runs.candidates if getattr(candidate, cost) is not None]
    if all(candidate.is_teacher for candidate in measured):
        return None
    largest = max(candidate.size for candidate in measured)
    data = [_front_line(runs, cost, place, front, len(fronts)) for place, front in fronts.items()]
    for kind, (variant, colour) in enumerate(VARIANTS.items()):
        members = [candidate for candidate in measured if candidate.variant == variant]
        if members:
            data.append(_marks(members, cost, colour, MARKS[kind], numbers, largest))
    further = {
        "xaxis": _axis([_in_unit(candidate, cost) for candidate in measured]),
        "hovermode": "closest",
        "margin": {"t": 56},
    }
    legend = {"itemsizing": "constant", "yref": "container", "y": 1.0, "yanchor": "top"}
    return {"data": data, "layout": layout(420, x=COSTS[cost], y=plain(runs.metric), legend=legend, **further)}


def _marks(
    members: Sequence[Candidate], cost: Cost, colour: str, mark: str, numbers: Mapping[str, int], largest: int
) -> dict[str, Any]:
    marker: dict[str, Any] = {"color": colour, "symbol": mark, "size": MARKER, "opacity": 0.85}
    if cost == "latency":
        sizes = [member.size for member in members]
        marker |= {"size": sizes, "sizemode": "area", "sizeref": 2 * largest / LARGEST_MARKER**2, "sizemin": MARKER / 2}
    bars = {"type": "data", "array": [each.deviation or 0.0 for each in members], "color": colour, "thickness": 1}
    return points(
        VARIANT_NAMES[members[0].variant],
        [_in_unit(each, cost) for each in members],
        [each.score for each in members],
        colour=colour,
        mode="markers+text",
        marker=marker,
        error_y=bars | {"width": 3},
        text=[str(numbers.get(each.name, "")) for each in members],
        textposition=NUMBER_AT[members[0].variant],
        textfont={"size": 12, "color": INK},
        customdata=[
            [plain(each.name), _score(each), f"{each.size / 1e6:.1f}", shown(each.latency, ".3g")] for each in members
        ],
        hovertemplate="%{customdata[0]}<br>score %{customdata[1]}<br>%{customdata[2]} MB<br>%{customdata[3]} ms",
    )


def _axis(values: Sequence[float]) -> dict[str, Any]:
    """Logarithmic with 1, 2, 5, 10, … marked, where the values lie far apart."""
    if max(values) < WIDE_RANGE * min(values) or min(values) <= 0:
        return {"nticks": 6}
    marks = [digit * 10.0**power for power in range(-3, 6) for digit in (1, 2, 5)]
    return {"type": "log", "tickvals": marks, "ticktext": [f"{mark:g}" for mark in marks]}


def _front_line(runs: RunSet, cost: Cost, place: str, front: set[int], count: int) -> dict[str, Any]:
    """Steps: up to the next candidate's cost, no more than this one's score can be had."""
    members = sorted((_in_unit(runs.candidates[index], cost), runs.candidates[index].score) for index in front)
    return points(
        "Pareto front" + (f" ({place[:40]})" if count > 1 else ""),
        [value for value, _ in members],
        [score for _, score in members],
        colour=SOFT,
        line={"width": 1.5, "dash": "dot", "shape": "hv"},
        hoverinfo="skip",
    )


def _table(runs: RunSet, fronts: Mapping[Cost, Front], numbers: Mapping[str, int]) -> Table:
    many = any(len(candidate.scores) > 1 for candidate in runs.candidates)
    headings = [
        "", "form", runs.metric, "ms per call\n(median)", "speed-up", "size\n(MB)", "front", "params\n(millions)",
        "layers ×\nwidth", "method", "seeds",
    ]  # fmt: skip
    lines = []
    for index, candidate in enumerate(runs.candidates):
        number = numbers.get(candidate.name)
        on = [cost for cost, of_cost in fronts.items() if any(index in front for front in of_cost.values())]
        lines.append(
            [
                candidate.name if number is None else f"{number}  {candidate.name}",
                VARIANT_NAMES[candidate.variant],
                _score(candidate),
                shown(candidate.latency, ".3g"),
                _times(candidate.speed_up),
                f"{candidate.size / 1e6:.1f}",
                "both" if len(on) == len(COSTS) else next(iter(on), ABSENT),
                f"{candidate.parameters / 1e6:.1f}",
                candidate.shape,
                candidate.method or ABSENT,
                str(len(candidate.scores)) if many and not candidate.is_teacher else ABSENT,
            ]
        )
    caption = "size: MB = 10⁶ bytes; front: of score against latency, size, or both"
    if many:
        caption += "; ±: standard deviation over seeds (n - 1)"
    if runs.places:
        caption += (
            "; ms per call: at batch 1 and the longest length timed; speed-up: against the teacher timed beside it"
        )
    return Table(headings, lines, caption=caption, words=(0, 1, 6, 9)).without_empty_columns()


def _numbers(candidates: Sequence[Candidate]) -> dict[str, int]:
    """A number a configuration, which stands at its marks and in the table; teachers have none."""
    names = dict.fromkeys(candidate.name for candidate in candidates if not candidate.is_teacher)
    return {name: number for number, name in enumerate(names, start=1)}


def _caption(cost: Cost, runs: RunSet, fronts: Front) -> str:
    area = "A mark's area is the model's size. " if cost == "latency" else ""
    where = ""
    if cost == "latency":
        where = " Medians at batch 1" + (f", {runs.places[0]}." if len(runs.places) == 1 else ".")
    lines = "each line" if len(fronts) > 1 else "the line"
    bars = ""
    if any(candidate.deviation is not None for candidate in runs.candidates):
        bars = " Bars: one standard deviation over seeds; the front takes the means as they are."
    return (
        f"Numbers are those of the table. {area}What stands on {lines}, the Pareto front, is beaten by nothing in both "
        f"{cost} and score.{bars}{where}"
    )


def _on_both(runs: RunSet, fronts: Mapping[Cost, Front]) -> str:
    """The students that nothing else beats, in words; "" where there are none."""
    on = {cost: {index for front in found.values() for index in front} for cost, found in fronts.items()}
    costs = [cost for cost in COSTS if any(not runs.candidates[index].is_teacher for index in on[cost])]
    both = sorted(set.intersection(*(on[cost] for cost in costs))) if costs else []
    names = [
        f"{runs.candidates[index].name} ({VARIANT_NAMES[runs.candidates[index].variant]})"
        for index in both
        if not runs.candidates[index].is_teacher
    ]
    return f"On the Pareto front of {' and '.join(costs)}: {', '.join(names)}." if names else ""


def _in_unit(candidate: Candidate, cost: Cost) -> float:
    value: float = getattr(candidate, cost)
    return value / 1e6 if cost == "size" else value


def _score(candidate: Candidate) -> str:
    spread = "" if candidate.deviation is None else f" ± {candidate.deviation:.3f}".replace("0.", ".")
    return f"{candidate.score:.3f}{spread}"


def _titled(text: str) -> str:
    return text[:1].upper() + text[1:]


def _times(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.1f}×" if value < 9.95 else f"{value:.0f}×"
