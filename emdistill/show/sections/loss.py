"""Loss and terms, gradient norms, and the score by which checkpoints are chosen, over the steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from emdistill.runs.distillation import Distillation
from emdistill.show.charts import lines
from emdistill.show.page import Chart, Notes, Row, Section, Small, words

MOST_POINTS = 500

Entries = Sequence[tuple[int, Mapping[str, Any]]]
Series = dict[str, tuple[list[int], list[float | None]]]


def loss(run: Distillation) -> Section | None:
    """None where nothing was logged."""
    record, stages = run.record, run.stages
    entries: list[tuple[int, dict[str, Any]]] = []
    for stage in record.log:
        # Lines break where a stage begins, for it has another objective.
        entries.append((stages[stage.stage], {}))
        entries += [(stages[stage.stage] + step, entry) for step, entry in stage.steps]
    terms, total = _series(entries, "terms/"), _series(entries, "loss", name="loss")
    series = total if len(terms) == 1 else total | terms
    marks, charts = list(stages.items()), []
    if norms := _series(entries, "grad_norm", name="all terms together") | _series(entries, "gradient_norms/"):
        pull = "How hard each term pulls: the norm of its gradient, with its weight."
        charts.append(Chart("Gradient norms", lines(norms, x="step", y="norm", stages=marks), pull))
    metric = run.task.metric if run.task else "loss"
    if scores := _series(entries, f"eval_{metric}", name=metric):
        figure = lines(scores, x="step", y=metric, stages=marks, scale="free")
        better = "Higher" if run.task else "Lower"
        charts.append(Chart("Score while training", figure, f"{better} is better; {record.selection}."))
    if not series and not charts:
        return None
    equations = [f"{stage}: {equation}" for stage, equation in record.objective.items()]
    if not series:  # short of the first of --training.logging_steps, where that is given
        return Section("Training", [Notes(equations), Row(charts)])
    main = Chart("", lines(series, x="step", y="loss", stages=marks, scale="log"))
    meaning = "Lower is better. A point is the mean since the one before."
    meaning += " Each term has its weight: together they are the loss." if len(terms) > 1 else ""
    if run.of_tasks:
        meaning += " A step is of one task, so that the lines jump from one task's loss to another's."
    return Section("Loss", [Notes(equations), Small(meaning), main, Row(charts)])


def _series(entries: Entries, prefix: str, *, name: str = "") -> Series:
    """Values over the steps by name, for the names that begin with `prefix`; a value that is not finite is a gap.

    name   of the one series, where `prefix` is a whole name and no beginning
    """
    keys = dict.fromkeys(
        key for _, entry in entries for key in entry if key == prefix or (not name and key.startswith(prefix))
    )
    series = {}
    for key in keys:
        points = [(step, entry.get(key)) for step, entry in entries if not entry or key in entry]
        every, last = math.ceil(len(points) / MOST_POINTS), len(points) - 1
        thinned = [each for place, each in enumerate(points) if each[1] is None or place % every == 0 or place == last]
        series[name or words(key.removeprefix(prefix))] = (
            [step for step, _ in thinned],
            [value if isinstance(value, int | float) and math.isfinite(value) else None for _, value in thinned],
        )
    return series
