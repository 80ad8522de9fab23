"""Layer weights over the steps: a line per layer, for student and teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from emdistill.runs.flows import FlowRecord
from emdistill.show.charts import Matrix, lines
from emdistill.show.contents import Contents, Section
from emdistill.show.page import Chart, words
from emdistill.show.sections.flow import terms_of

Rows = tuple[tuple[float, ...], ...]


def weights(contents: Contents) -> Section | None:
    """None where the mapping has no layer weights."""
    rows = weight_rows(contents.flows, contents.stages)
    return Section("Layer weights over the steps", {"rows": rows}) if rows else None


def weight_rows(records: Sequence[FlowRecord], offsets: Mapping[str, int]) -> list[list[Chart]]:
    """The student's and the teacher's chart per term; terms whose weights are the same share them."""
    groups: dict[tuple[tuple[int, ...], Rows, Rows], list[str]] = {}
    for term in terms_of(records):
        having = [record for record in records if term in record.student_weights and term in record.teacher_weights]
        if having:
            steps = tuple(offsets.get(record.stage, 0) + record.step for record in having)
            student = tuple(tuple(record.student_weights[term]) for record in having)
            teacher = tuple(tuple(record.teacher_weights[term]) for record in having)
            groups.setdefault((steps, student, teacher), []).append(words(term))
    return [
        [_chart(f"{side} layers: {', '.join(terms)}", steps, np.asarray(rows)) for side, rows in sides.items()]
        for (steps, student, teacher), terms in groups.items()
        for sides in [{"student": student, "teacher": teacher}]
    ]


def _chart(title: str, steps: Sequence[float], layers: Matrix) -> Chart:
    """Weights [records, layers] as lines."""
    series = {
        f"layer {layer}": (steps, [round(float(value), 5) for value in column]) for layer, column in enumerate(layers.T)
    }
    return Chart(title, lines(series, x="step", y="weight", layers=True, level=1 / layers.shape[1]))
