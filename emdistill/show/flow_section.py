"""A report's parts on layers: the flow over the steps, and the layer weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from emdistill.runs.flows import FlowRecord
from emdistill.show.charts import Matrix, lines
from emdistill.show.flow_charts import flow_heatmap, flow_sankey, flow_updates
from emdistill.show.page import Block, Chart, Frame, Part, Row, Slider, Text

MOST_FRAMES = 120
READING = (
    "Left: teacher layers, right: student layers, counted from 0; a band is as wide as the mass that "
    "flows between them. In the grid a cell is the same mass, as a share of all that is moved: the cells add up to 1."
)


def flow_part(records: Sequence[FlowRecord], offsets: Mapping[str, int]) -> Part:
    """The flow of every term as a Sankey diagram and a heat-map, with one slider over the recorded steps.

    A mapping whose flows never change has no slider.
    offsets   steps that were made before each stage
    """
    terms = _terms(records)
    shown = thinned(records) if _moves(records) else records[-1:]
    flows = {term: [np.asarray(r.flows[term]) for r in records if term in r.flows] for term in terms}
    greatest = max(float((flow / (flow.sum() or 1.0)).max()) for found in flows.values() for flow in found)
    charts = []
    for term, found in flows.items():
        charts.append(Chart(f"{words(term)}: from teacher to student", flow_sankey(found[-1])))
        charts.append(Chart(f"{words(term)}: shares of mass", flow_heatmap(found[-1], greatest)))
    blocks: list[Block] = [Text(READING, "small")]
    if len(shown) > 1:
        frames = [Frame(_moment(record, offsets, terms), record.stage, _updates(record, terms)) for record in shown]
        blocks.append(Slider("step of the training", charts, frames))
        if len(shown) < len(records):
            blocks.append(Text(f"{len(shown)} of {len(records)} recorded steps are shown.", "small"))
    else:
        constant = "The mapping is fixed: the same at every recorded step." if len(records) > 1 else ""
        blocks += [Text(constant, "small"), Row(charts)]
    return Part("Flow: which layer teaches which", blocks)


def weights_part(records: Sequence[FlowRecord], offsets: Mapping[str, int]) -> Part:
    """A line a layer over the steps, for student and teacher; terms whose weights are the same share their charts."""
    charts: dict[tuple[tuple[float, ...], ...], tuple[list[str], list[Chart]]] = {}
    for term in _terms(records):
        having = [record for record in records if term in record.student_weights and term in record.teacher_weights]
        if not having:
            continue
        sides = {
            "student": [record.student_weights[term] for record in having],
            "teacher": [record.teacher_weights[term] for record in having],
        }
        steps = [offsets.get(record.stage, 0) + record.step for record in having]
        key = (tuple(steps), *(tuple(weights) for side in sides.values() for weights in side))
        names, _ = charts.setdefault(key, ([], [_weights(side, steps, rows) for side, rows in sides.items()]))
        names.append(words(term))
    blocks: list[Block] = []
    for names, pair in charts.values():
        titled = [Chart(f"{chart.title}: {', '.join(names)}", chart.figure) for chart in pair]
        blocks.append(Row(titled))
    if blocks:
        blocks.insert(0, Text("Cost attention gives cheap layers more mass; dashed: all layers alike.", "small"))
    return Part("Layer weights over the steps", blocks)


def thinned(records: Sequence[FlowRecord], most: int = MOST_FRAMES) -> list[FlowRecord]:
    """At most so many records, evenly chosen, each stage with its first and its last."""
    if len(records) <= most:
        return list(records)
    ends = {place for places in _stages(records) for place in (places[0], places[-1])}
    left = max(0, most - len(ends))
    even = {int(place) for place in np.linspace(0, len(records) - 1, left).round()}
    return [records[place] for place in sorted(ends | even)]


def words(term: str) -> str:
    """A term's name without underscores."""
    return term.replace("_", " ")


def _stages(records: Sequence[FlowRecord]) -> list[list[int]]:
    """The places of each stage's records."""
    return [list(places) for _, places in groupby(range(len(records)), key=lambda place: records[place].stage)]


def _terms(records: Sequence[FlowRecord]) -> list[str]:
    return list({term: None for record in records for term in record.flows})


def _moves(records: Sequence[FlowRecord]) -> bool:
    """Whether any term's flow changes, or is there in some records and not in others."""
    return any(record.flows != records[0].flows for record in records)


def _updates(record: FlowRecord, terms: Sequence[str]) -> list[Mapping[str, object] | None]:
    """What the record sets in the two charts of each term."""
    updates: list[Mapping[str, object] | None] = []
    for term in terms:
        flow = record.flows.get(term)
        updates += [None, None] if flow is None else flow_updates(np.asarray(flow))
    return updates


def _moment(record: FlowRecord, offsets: Mapping[str, int], terms: Sequence[str]) -> str:
    """'stage joint, step 40', and the mass where it is neither 1 nor a layer's each."""
    step = offsets.get(record.stage, 0) + record.step
    within = f" ({record.step:,} of its own)" if offsets.get(record.stage) else ""
    masses = {words(term): float(np.sum(record.flows[term])) for term in terms if term in record.flows}
    partial = {term: mass for term, mass in masses.items() if abs(mass - round(mass)) > 0.001}
    moved = "".join(f", {mass:.3f} of the mass moved ({term})" for term, mass in partial.items())
    return f"stage {record.stage}, step {step:,}{within}{moved}"


def _weights(side: str, steps: Sequence[int], rows: Sequence[Sequence[float]]) -> Chart:
    weights: Matrix = np.asarray(rows, dtype=np.float64)
    layers = weights.shape[1]
    series = {
        f"layer {layer}": (steps, [round(float(value), 5) for value in weights[:, layer]]) for layer in range(layers)
    }
    return Chart(f"{side} layers", lines(series, x="step", y="weight", layers=True, level=1 / layers))
