"""What a search for chains tells people: table, notes, the sentence of verdict, and the page; from its record alone."""

from collections.abc import Mapping
from pathlib import Path

from scipy.stats import spearmanr

from emdistill.console import Table, cell, counted, short
from emdistill.runs.chain_search import TEACHER, ChainSearch
from emdistill.search.chains import ChainCost, read_limits
from emdistill.show.charts import Figure, figure, plain, points
from emdistill.show.front import Axis, Point, front_section
from emdistill.show.page import Chart, Command, Notes, Row, Section, Small, Verdict, write_sections
from emdistill.show.verdict import beside

END_ERROR = "error of the last states"
HOVER = "%{text}<br>%{y:.4f} at %{x:.3g}"
FEWEST = 3  # different values that have an order to speak of


def limits_table(record: ChainSearch) -> Table:
    """The student of each limit: what it loses, takes and scores, and whether it keeps the limit as measured."""
    lines = []
    for limit, word in record.returned.items():
        row, measured = record.chains[word], record.measured[word]
        costs = row.cost.parameters / 1e6, row.cost.milliseconds, measured.milliseconds
        scores = [cell(score, ".4f") for score in (row.found, row.distilled)]
        missed = _missed(limit, measured)
        lines.append([limit, f"chain:{word}", *map(short, (row.loss, row.end_error, *costs)), *scores, missed or "yes"])
    headings = [
        "limit", "student", "loss of\nblocks", "error at\nthe end", "params\n(millions)", "ms\npredicted",
        "ms\nmeasured", f"{record.metric}\nas found", f"{record.metric}\ndistilled", "kept",
    ]  # fmt: skip
    return Table(headings, lines, words=(0, 1, 9)).without_empty_columns()


def verdict(record: ChainSearch) -> str:
    """How many limits are kept, and the best student that keeps its own, beside the teacher."""
    keeping = [(word, limit) for limit, word in record.returned.items() if not _missed(limit, record.measured[word])]
    share, kept = f"{len(keeping)} of {counted(len(record.returned), 'limit')} kept as measured", dict(keeping)
    if not kept:
        return f"{share}: ask for a little less than you can bear"
    scores = {word: record.chains[word].score or 0.0 for word in kept}
    best = max(scores, key=lambda word: scores[word])
    how = "with the supernet's weights" if record.chains[best].distilled is None else "distilled"
    takes, teacher = _costs(record.measured[best]), _costs(record.measured[TEACHER])
    return (
        f"{share}; the best student, chain:{best} (limit: {kept[best]}), {how}, has {record.metric} {scores[best]:.4f} "
        f"on dev, {beside(scores[best], record.teacher[record.metric], 'the teacher')}, with {takes} against {teacher}"
    )


def notes(record: ChainSearch) -> list[str]:
    """Those of the search, and how far the sum of the blocks' losses, by which chains are chosen, can be believed."""
    return record.notes + [
        f"the sum of the blocks' losses orders {len(values)} chains as their {measure} does: rank correlation {rho:.2f}"
        for measure, values in _outcomes(record).items()
        if (rho := _agreement(record, values, rising=measure == END_ERROR)) is not None
    ]


def write_chain_report(path: Path, record: ChainSearch) -> None:
    """Write the page: the verdict, the limits, the front, and the estimates against what came of them."""
    settings = (
        f"Limits are on parameters, and on the median of one text of {record.settings['length']} tokens in "
        f"{record.settings['runtime']} on {record.machine}. Scores are on {record.dev_rows:,} rows of dev, which "
        "nothing was chosen on."
    )
    chosen = (
        "Chains are chosen by the sum of their blocks' losses; the best of each limit were run whole, and those "
        "returned scored."
    )
    sections = [
        Section("", [Verdict(record.verdict), Small(settings)]),
        Section("A student for each limit", [limits_table(record), Notes(notes(record))]),
        _front(record),
        Section("What the estimate is worth", [_estimates(record), Small(chosen)]),
        Section("The command", [Command(record.command)]),
    ]
    write_sections(path, f"Chains of operators for {record.task}", sections)


def _front(record: ChainSearch) -> Section:
    """The students and the teacher, by score, milliseconds and parameters."""
    measured, limits = record.measured, [limit for name in record.returned for limit in read_limits(name)]
    scores = {f"chain:{word}": (word, score) for word, score in _outcomes(record)[record.metric].items()}
    scores[TEACHER] = (TEACHER, record.teacher[record.metric])
    made = [
        Point(
            name, "teacher" if name == TEACHER else "student", score,
            measured[word].milliseconds, measured[word].parameters / 1e6,
        )
        for name, (word, score) in scores.items()
    ]  # fmt: skip
    times = [limit.milliseconds for limit in limits if limit.milliseconds is not None]
    sizes = [limit.parameters / 1e6 for limit in limits if limit.parameters is not None]
    return front_section(
        made, record.metric, "dev",
        Axis("milliseconds", "ms", times),
        Axis("million parameters", "params\n(millions)", sizes),
        "Students as distilled, or else with the supernet's weights.",
    )  # fmt: skip


def _estimates(record: ChainSearch) -> Row:
    """A chart for each of the outcomes, against the sum of the blocks' losses."""
    charts = []
    for measure, values in _outcomes(record).items():
        losses = [record.chains[word].loss for word in values]
        look: Figure = {"mode": "markers", "text": [plain(f"chain:{word}") for word in values]}
        marks = points(measure, losses, list(values.values()), hovertemplate=HOVER, **look)
        axes = {"x": "sum of the blocks' losses", "y": plain(measure), "hovermode": "closest"}
        charts.append(Chart(f"Estimate and {measure}", figure([marks], 320, **axes)))
    return Row(charts)


def _outcomes(record: ChainSearch) -> dict[str, dict[str, float]]:
    """What came of chains, by word: the error of all that were run whole, the score of those returned."""
    scores = {word: row.score for word, row in record.students.items() if row.score is not None}
    return {END_ERROR: {word: row.end_error for word, row in record.chains.items()}, record.metric: scores}


def _agreement(record: ChainSearch, values: Mapping[str, float], *, rising: bool) -> float | None:
    """Spearman's correlation of estimates and outcomes, 1 where a smaller loss always is better; None of too few.

    rising   whether a smaller outcome is better, too
    """
    losses = [record.chains[word].loss for word in values]
    if len({*losses}) < FEWEST or len({*values.values()}) < FEWEST:
        return None
    return float(spearmanr(losses, [value if rising else -value for value in values.values()]).statistic)


def _missed(limit: str, cost: ChainCost) -> str:
    """'0.3 ms over', '' where the limit is kept."""
    (allowed,) = read_limits(limit)
    pairs = ((cost.milliseconds, allowed.milliseconds, 1, "ms"), (cost.parameters, allowed.parameters, 1e6, "M"))
    return ", ".join(
        f"{short((taken - most) / unit)} {name} over"
        for taken, most, unit, name in pairs
        if most is not None and taken > most
    )


def _costs(cost: ChainCost) -> str:
    return f"{short(cost.parameters / 1e6)}M parameters and {short(cost.milliseconds)} ms"
