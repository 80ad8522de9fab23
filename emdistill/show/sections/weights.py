"""Layer weights over the steps: a line per layer, for student and teacher."""

from collections.abc import Mapping, Sequence

from emdistill.runs.distillation import Distillation
from emdistill.runs.flows import FlowRecord
from emdistill.show.charts import Figure, lines
from emdistill.show.page import Chart, Row, Section, Small, words
from emdistill.show.sections.flow import terms_of

Weights = tuple[tuple[float, ...], ...]


def weights(run: Distillation) -> Section | None:
    """None where the mapping has no layer weights."""
    rows = weight_rows(run.flows, run.stages)
    legend = Small("Cost attention gives cheap layers more mass; dashed: all layers alike.")
    return Section("Layer weights over the steps", [legend, *rows]) if rows else None


def weight_rows(records: Sequence[FlowRecord], offsets: Mapping[str, int]) -> list[Row]:
    """The student's and the teacher's chart per term; terms whose weights are the same share them."""
    groups: dict[tuple[tuple[int, ...], Weights, Weights], list[str]] = {}
    for term in terms_of(records):
        weighted = [record for record in records if term in record.student_weights and term in record.teacher_weights]
        if weighted:
            steps = tuple(offsets.get(record.stage, 0) + record.step for record in weighted)
            student = tuple(tuple(record.student_weights[term]) for record in weighted)
            teacher = tuple(tuple(record.teacher_weights[term]) for record in weighted)
            groups.setdefault((steps, student, teacher), []).append(words(term))
    return [
        Row(
            Chart(f"{side} layers: {', '.join(terms)}", _lines(steps, weights))
            for side, weights in (("student", student), ("teacher", teacher))
        )
        for (steps, student, teacher), terms in groups.items()
    ]


def _lines(steps: Sequence[float], weights: Weights) -> Figure:
    series = {f"layer {layer}": (steps, column) for layer, column in enumerate(zip(*weights, strict=True))}
    return lines(series, x="step", y="weight", layers=True, level=1 / len(series))
