"""Loss and terms, gradient norms, and the score by which checkpoints are chosen, over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from emdistill.show.charts import lines
from emdistill.show.contents import Contents, Section, has_step
from emdistill.show.page import Chart, words

MOST_POINTS = 500

Entries = Sequence[tuple[int, Mapping[str, Any]]]
Series = dict[str, tuple[list[float], list[float | None]]]


def loss(contents: Contents) -> Section | None:
    """None where nothing was logged."""
    record, stages = contents.run.record, contents.stages
    entries: list[tuple[int, dict[str, Any]]] = []
    for stage in record.log:
        # Lines break where a stage begins, for it has another objective.
        entries.append((stages[stage.stage], {}))
        entries += [(stages[stage.stage] + entry["step"], entry) for entry in stage.log if has_step(entry)]
    terms, total = _series(entries, "terms/"), _series(entries, "loss", name="loss")
    shown = total if len(terms) == 1 else total | terms
    if not shown:
        return None
    marks = list(stages.items())
    known = [value for _, values in shown.values() for value in values if value is not None]
    main = Chart("", lines(shown, x="step", y="loss", stages=marks, logarithmic=min(known, default=0.0) > 0))
    charts = []
    if norms := _series(entries, "grad_norm", name="all terms together") | _series(entries, "gradient_norms/"):
        charts.append(Chart("Gradient norms", lines(norms, x="step", y="norm", stages=marks)))
    metric = contents.run.task.metric if contents.run.task else "loss"
    if scores := _series(entries, f"eval_{metric}", name=words(metric)):
        figure = lines(scores, x="step", y=words(metric), stages=marks, from_zero=False)
        charts.append(Chart("Score while training", figure))
    equations = [f"{stage}: {equation}" for stage, equation in record.objective.items()]
    return Section("Loss", {"equations": equations, "chart": main, "charts": charts, "has_terms": len(terms) > 1})


def _series(entries: Entries, prefix: str, *, name: str = "") -> Series:
    """Values over the steps by name, for the names that begin so; what is not finite is left open.

    name   of the one series, where `prefix` is a whole name and no beginning
    """
    keys = {
        key: None for _, entry in entries for key in entry if key == prefix or (not name and key.startswith(prefix))
    }
    series = {}
    for key in keys:
        points = [(step, entry.get(key)) for step, entry in entries if not entry or key in entry]
        every = math.ceil(len(points) / MOST_POINTS)
        kept = [(step, value) for place, (step, value) in enumerate(points) if value is None or place % every == 0]
        kept = kept if kept[-1] == points[-1] else [*kept, points[-1]]
        series[name or words(key.removeprefix(prefix))] = (
            [float(step) for step, _ in kept],
            [float(f"{value:.5g}") if _is_finite(value) else None for _, value in kept],
        )
    return series


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
