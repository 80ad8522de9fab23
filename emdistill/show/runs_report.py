"""The page that compares runs: size, latency and score of all they could ship, with the Pareto front."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from emdistill.console import ABSENT, Table, cell, counted, megabytes, spread
from emdistill.show.candidates import VARIANT_NAMES, Candidate, RunSet
from emdistill.show.charts import LEGEND_TOP, MARKS, SOFT, VARIANTS, Figure, cost_axis, figure, plain, points, whiskers
from emdistill.show.page import Chart, Notes, Row, Section, Small, Text, Verdict, write_sections
from emdistill.show.pareto import pareto_front

COSTS = {"latency": "milliseconds per call", "size": "megabytes"}
MARKER = 9  # pixels across
LARGEST_MARKER = 34  # of the largest model, where the area is its size
# PyTorch's and ONNX's models are of equal size: their numbers go to different sides.
NUMBER_AT = {"teacher": "top center", "student": "middle right", "onnx": "middle left", "int8": "top center"}


def write_runs_report(path: Path, runs: RunSet) -> None:
    """Write the comparing page: the front in a sentence, the table, score against latency and size, and the notes."""
    names = dict.fromkeys(candidate.name for candidate in runs.candidates if not candidate.is_teacher)
    numbers = {name: number for number, name in enumerate(names, start=1)}  # in the table and at the marks
    fronts = {cost: find_fronts(runs.candidates, cost) for cost in COSTS}
    charts = [
        Chart(f"{runs.metric} against {cost}", figure, _caption(runs, cost, len(of_cost)))
        for cost, of_cost in fronts.items()
        if (figure := scatter(runs, cost, of_cost, numbers))
    ]
    scored = f"Scores are {runs.metric} on {runs.dev} ({runs.dev_rows:,} rows)."
    timed = "ms per call: at batch 1 and the longest length timed; speed-up: against the teacher timed beside it"
    legend = [
        "Size: MB = 10⁶ bytes; front: of score against latency, size, or both",
        "±: standard deviation over seeds (n - 1)" if runs.has_seeds else "",
        timed if runs.places else "",
    ]
    verbs = "has no latency and stands" if len(runs.unmeasured) == 1 else "have no latency and stand"
    unmeasured = (
        f"{', '.join(runs.unmeasured)} {verbs} in the chart of sizes only; measured by: "
        "`emdistill export RUN --onnx --int8`"
    )
    on_fronts = {cost: set().union(*of_cost.values()) for cost, of_cost in fronts.items()}
    sections = [
        Section("", [Verdict(_best(runs, on_fronts)), Small(scored)]),
        Section("Models", [_table(runs, on_fronts, numbers), Small("; ".join(filter(None, legend)) + ".")]),
        Section("What each costs, and what it scores", [Row(charts)]),
        Section("Notes", [Text(unmeasured) if runs.unmeasured else None, Notes(runs.notes)]),
    ]
    write_sections(path, f"{runs.task}: {counted(len(numbers), 'configuration')} compared", sections)


def _caption(runs: RunSet, cost: str, lines: int) -> str:
    """What the marks, their sizes, bars and lines mean."""
    where = f", {runs.places[0]}" if len(runs.places) == 1 else ""
    sentences = [
        "Numbers are those of the table.",
        "A mark's area is the model's size." if cost == "latency" else "",
        f"What stands on {'the' if lines == 1 else 'each'} line, the Pareto front, is beaten by nothing in both {cost} "
        "and score.",
        "Bars: one standard deviation over seeds; the front takes the means as they are." if runs.has_seeds else "",
        f"Medians at batch 1{where}." if cost == "latency" else "",
    ]
    return " ".join(filter(None, sentences))


def find_fronts(candidates: Sequence[Candidate], cost: str) -> dict[str, set[Candidate]]:
    """The Pareto front of a lower cost and a higher score.

    Latencies compare within one place of measurement, so that each place has a front of its own; sizes have one, "".
    """
    groups: dict[str, list[Candidate]] = {}
    for each in candidates:
        if cost in each.costs:
            groups.setdefault(each.place or "" if cost == "latency" else "", []).append(each)
    fronts = {}
    for where, members in groups.items():
        counts = [each.costs | {"score": each.score} for each in members]
        fronts[where] = {members[place] for place in pareto_front(counts, lower=[cost], higher=["score"])}
    return fronts


def scatter(
    runs: RunSet, cost: str, fronts: Mapping[str, Collection[Candidate]], numbers: Mapping[str, int]
) -> Figure | None:
    """Score against a cost as a Plotly figure: a mark per candidate, its number beside it, the front as steps.

    In the chart of latencies a mark's area is the model's size. None where no student has that cost.
    """
    measured = [each for each in runs.candidates if cost in each.costs]
    if all(each.is_teacher for each in measured):
        return None
    data = []
    for place, front in fronts.items():
        # Steps: up to the next candidate's cost, no more than this one's score can be had.
        costs, scores = zip(*sorted((each.costs[cost], each.score) for each in front), strict=True)
        name = f"Pareto front ({place})" if len(fronts) > 1 else "Pareto front"
        look: Figure = {"line": {"width": 1.5, "dash": "dot", "shape": "hv"}, "hoverinfo": "skip"}
        data.append(points(name, costs, scores, colour=SOFT, **look))
    scale = 2 * max(each.size for each in measured) / LARGEST_MARKER**2
    areas = {"sizemode": "area", "sizeref": scale, "sizemin": MARKER / 2}
    for symbol, (variant, colour) in zip(MARKS, VARIANTS.items(), strict=False):
        members = [each for each in measured if each.variant == variant]
        marker = {"color": colour, "symbol": symbol, "size": MARKER, "opacity": 0.85}
        if cost == "latency":
            marker |= {"size": [member.size for member in members], **areas}
        if members:
            data.append(_marks(members, cost, marker, numbers))
    return figure(
        data, 420, x=COSTS[cost], y=plain(runs.metric), hovermode="closest", margin={"t": 56},
        legend={"itemsizing": "constant", **LEGEND_TOP},
        xaxis=cost_axis([each.costs[cost] for each in measured]),
    )  # fmt: skip


def _marks(members: Sequence[Candidate], cost: str, marker: Figure, numbers: Mapping[str, int]) -> Figure:
    return points(
        VARIANT_NAMES[members[0].variant],
        [each.costs[cost] for each in members],
        [each.score for each in members],
        mode="markers+text",
        marker=marker,
        error_y=whiskers([each.deviation or 0.0 for each in members], color=marker["color"], thickness=1, width=3),
        text=[str(numbers.get(each.name, "")) for each in members],
        textposition=NUMBER_AT[members[0].variant],
        textfont={"size": 12},
        customdata=[
            [plain(each.name), spread(each.score, each.deviation), megabytes(each.size), cell(each.latency, ".3g")]
            for each in members
        ],
        hovertemplate="%{customdata[0]}<br>score %{customdata[1]}<br>%{customdata[2]} MB<br>%{customdata[3]} ms",
    )


def _table(runs: RunSet, on_fronts: Mapping[str, set[Candidate]], numbers: Mapping[str, int]) -> Table:
    headings = [
        "", "form", runs.metric, "ms per call\n(median)", "speed-up", "size\n(MB)", "front", "params\n(millions)",
        "layers ×\nwidth", "method", "seeds",
    ]  # fmt: skip
    lines = []
    for each in runs.candidates:
        fronts = [cost for cost, members in on_fronts.items() if each in members]
        lines.append(
            [
                each.name if each.is_teacher else f"{numbers[each.name]}  {each.name}",
                VARIANT_NAMES[each.variant],
                spread(each.score, each.deviation),
                cell(each.latency, ".3g"),
                cell(each.speed_up, ".1f", "×"),
                megabytes(each.size),
                "both" if len(fronts) == len(COSTS) else "".join(fronts) or ABSENT,
                f"{each.parameters / 1e6:.1f}",
                each.shape,
                each.method or ABSENT,
                str(len(each.scores)) if runs.has_seeds and not each.is_teacher else ABSENT,
            ]
        )
    return Table(headings, lines, words=(0, 1, 6, 9)).without_empty_columns()


def _best(runs: RunSet, on_fronts: Mapping[str, set[Candidate]]) -> str:
    """The students that nothing else beats, and by which costs; empty where there are none."""
    students = [each for each in runs.candidates if not each.is_teacher]
    of_cost = {cost: members for cost, members in on_fronts.items() if members & {*students}}
    names = [
        f"{each.name} ({VARIANT_NAMES[each.variant]})"
        for each in students
        if of_cost and all(each in members for members in of_cost.values())
    ]
    return f"On the Pareto front of {' and '.join(of_cost)}: {', '.join(names)}." if names else ""
