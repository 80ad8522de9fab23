"""The page that compares runs: size, latency and score of all they could ship, with the Pareto front."""

from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Literal

from emdistill.console import ABSENT, Table, cell, counted, spread
from emdistill.show.candidates import VARIANT_NAMES, Candidate, RunSet
from emdistill.show.charts import LEGEND_TOP, MARKS, SOFT, VARIANTS, Figure, cost_axis, figure, plain, points, whiskers
from emdistill.show.page import Chart, Notes, Row, Section, Small, Text, Verdict, write_sections
from emdistill.show.pareto import pareto_front

Cost = Literal["latency", "size"]
Front = dict[str, set[int]]

COSTS: dict[Cost, str] = {"latency": "milliseconds per call", "size": "megabytes"}
MARKER = 9  # pixels across
LARGEST_MARKER = 34  # of the largest model, where the area is its size
# PyTorch's and ONNX's models are of equal size: their numbers go to different sides.
NUMBER_AT = {"teacher": "top center", "student": "middle right", "onnx": "middle left", "int8": "top center"}


def write_runs_report(path: Path, runs: RunSet) -> None:
    """Write the comparing page: the front in a sentence, the table, score against latency and size, and the notes."""
    names = dict.fromkeys(candidate.name for candidate in runs.candidates if not candidate.is_teacher)
    numbers = {name: number for number, name in enumerate(names, start=1)}  # in the table and at the marks
    fronts = {cost: find_fronts(runs.candidates, cost) for cost in COSTS}
    several = any(candidate.deviation is not None for candidate in runs.candidates)
    charts = [
        Chart(f"{runs.metric} against {cost}", figure, _caption(runs, cost, len(front), several=several))
        for cost, front in fronts.items()
        if (figure := scatter(runs, cost, front, numbers))
    ]
    legend = [
        "Size: MB = 10⁶ bytes; front: of score against latency, size, or both",
        "±: standard deviation over seeds (n - 1)" if several else "",
        "ms per call: at batch 1 and the longest length timed; speed-up: against the teacher timed beside it"
        if runs.places
        else "",
    ]
    sections = [
        Section(
            "",
            [
                Verdict(_best(runs, fronts)),
                Small(f"Scores are {runs.metric} on {runs.dev} ({runs.dev_rows:,} rows)."),
            ],
        ),
        Section("Models", [_table(runs, fronts, numbers), Small("; ".join(filter(None, legend)) + ".")]),
        Section("What each costs, and what it scores", [Row(charts)]),
        Section("Notes", [_unmeasured(runs), Notes(runs.notes)]),
    ]
    write_sections(path, f"{runs.task}: {counted(len(numbers), 'configuration')} compared", sections)


def _caption(runs: RunSet, cost: Cost, lines: int, *, several: bool) -> str:
    """What the marks, their sizes, bars and lines mean."""
    of_latency, where = cost == "latency", f", {runs.places[0]}" if len(runs.places) == 1 else ""
    sentences = {
        "Numbers are those of the table.": True,
        "A mark's area is the model's size.": of_latency,
        f"What stands on {'the' if lines == 1 else 'each'} line, the Pareto front, is beaten by nothing in both {cost} "
        "and score.": True,
        "Bars: one standard deviation over seeds; the front takes the means as they are.": several,
        f"Medians at batch 1{where}.": of_latency,
    }
    return " ".join(compress(sentences, sentences.values()))


def _unmeasured(runs: RunSet) -> Text | None:
    if not runs.unmeasured:
        return None
    verbs = "has no latency and stands" if len(runs.unmeasured) == 1 else "have no latency and stand"
    return Text(
        f"{', '.join(runs.unmeasured)} {verbs} in the chart of sizes only; measured by: "
        "`emdistill export RUN --onnx --int8`"
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


def scatter(runs: RunSet, cost: Cost, fronts: Front, numbers: Mapping[str, int]) -> Figure | None:
    """Score against a cost as a Plotly figure: a mark per candidate, its number beside it, the front as steps.

    In the chart of latencies a mark's area is the model's size. None where no student has that cost.
    """
    measured = [candidate for candidate in runs.candidates if getattr(candidate, cost) is not None]
    if all(candidate.is_teacher for candidate in measured):
        return None
    data = [_front_line(runs, cost, place, front, len(fronts)) for place, front in fronts.items()]
    scale = 2 * max(candidate.size for candidate in measured) / LARGEST_MARKER**2
    areas = {"sizemode": "area", "sizeref": scale, "sizemin": MARKER / 2}
    for symbol, (variant, colour) in zip(MARKS, VARIANTS.items(), strict=False):
        members = [candidate for candidate in measured if candidate.variant == variant]
        marker = {"color": colour, "symbol": symbol, "size": MARKER, "opacity": 0.85}
        if cost == "latency":
            marker |= {"size": [member.size for member in members], **areas}
        if members:
            data.append(_marks(members, cost, marker, numbers))
    return figure(
        data, 420, x=COSTS[cost], y=plain(runs.metric), hovermode="closest", margin={"t": 56},
        legend={"itemsizing": "constant", **LEGEND_TOP},
        xaxis=cost_axis([_in_unit(candidate, cost) for candidate in measured]),
    )  # fmt: skip


def _marks(members: Sequence[Candidate], cost: Cost, marker: Figure, numbers: Mapping[str, int]) -> Figure:
    return points(
        VARIANT_NAMES[members[0].variant],
        [_in_unit(each, cost) for each in members],
        [each.score for each in members],
        mode="markers+text",
        marker=marker,
        error_y=whiskers([each.deviation or 0.0 for each in members], color=marker["color"], thickness=1, width=3),
        text=[str(numbers.get(each.name, "")) for each in members],
        textposition=NUMBER_AT[members[0].variant],
        textfont={"size": 12},
        customdata=[
            [plain(each.name), spread(each.score, each.deviation), f"{each.size / 1e6:.1f}", cell(each.latency, ".3g")]
            for each in members
        ],
        hovertemplate="%{customdata[0]}<br>score %{customdata[1]}<br>%{customdata[2]} MB<br>%{customdata[3]} ms",
    )


def _front_line(runs: RunSet, cost: Cost, place: str, front: set[int], count: int) -> Figure:
    """Steps: up to the next candidate's cost, no more than this one's score can be had."""
    members = sorted((_in_unit(runs.candidates[index], cost), runs.candidates[index].score) for index in front)
    return points(
        "Pareto front" + (f" ({place})" if count > 1 else ""),
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
        costs = [cost for cost in COSTS if index in _members(fronts[cost])]
        lines.append(
            [
                candidate.name if number is None else f"{number}  {candidate.name}",
                VARIANT_NAMES[candidate.variant],
                spread(candidate.score, candidate.deviation),
                cell(candidate.latency, ".3g"),
                cell(candidate.speed_up, ".1f", "×"),
                f"{candidate.size / 1e6:.1f}",
                "both" if len(costs) == len(COSTS) else next(iter(costs), ABSENT),
                f"{candidate.parameters / 1e6:.1f}",
                candidate.shape,
                candidate.method or ABSENT,
                str(len(candidate.scores)) if many and not candidate.is_teacher else ABSENT,
            ]
        )
    return Table(headings, lines, words=(0, 1, 6, 9)).without_empty_columns()


def _best(runs: RunSet, fronts: Mapping[Cost, Front]) -> str:
    """The students that nothing else beats, and by which costs; empty where there are none."""
    students = {index for index, candidate in enumerate(runs.candidates) if not candidate.is_teacher}
    of_cost = {cost: of_students for cost in COSTS if (of_students := _members(fronts[cost]) & students)}
    best = sorted(set.intersection(*of_cost.values())) if of_cost else []
    names = [f"{runs.candidates[at].name} ({VARIANT_NAMES[runs.candidates[at].variant]})" for at in best]
    return f"On the Pareto front of {' and '.join(of_cost)}: {', '.join(names)}." if names else ""


def _members(fronts: Front) -> set[int]:
    return set().union(*fronts.values())


def _in_unit(candidate: Candidate, cost: Cost) -> float:
    value: float = getattr(candidate, cost)
    return value / 1e6 if cost == "size" else value
