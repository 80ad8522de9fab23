"""The flow of every term as a Sankey diagram and a heat-map, with one slider over the recorded steps."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from emdistill.runs.distillation import Distillation
from emdistill.runs.flows import FlowRecord
from emdistill.show.flow_charts import flow_heatmap, flow_sankey, flow_updates
from emdistill.show.page import Chart, Frame, Part, Row, Section, Slider, Small, words

MOST_FRAMES = 120


def flow(run: Distillation) -> Section | None:
    """None for a method without layer mapping; a mapping whose flows never change has no slider."""
    return flow_section(run.flows, run.stages) if run.flows else None


def flow_section(records: Sequence[FlowRecord], offsets: Mapping[str, int]) -> Section:
    """offsets: how many steps came before each stage."""
    terms = terms_of(records)
    flows = {term: [np.asarray(record.flows[term]) for record in records if term in record.flows] for term in terms}
    # A step of one task among several has flows of that task alone.
    moves = any(not np.array_equal(flow, of_term[0]) for of_term in flows.values() for flow in of_term)
    moments = thinned(records) if moves else records[-1:]
    greatest = max(float((flow / (flow.sum() or 1.0)).max()) for of_term in flows.values() for flow in of_term)
    charts = []
    for term, of_term in flows.items():
        charts.append(Chart(f"{words(term)}: from teacher to student", flow_sankey(of_term[-1])))
        charts.append(Chart(f"{words(term)}: shares of mass", flow_heatmap(of_term[-1], greatest)))
    frames = [Frame(_moment(record, offsets), record.stage, _updates(record, terms)) for record in moments]
    legend = (
        "Left: teacher layers, right: student layers, counted from 0; a band is as wide as the mass that flows between "
        "them. In the grid a cell is the same mass, as a share of all that is moved: the cells add up to 1."
    )
    if len(moments) > 1:
        shown = f"{len(moments)} of {len(records)} recorded steps are shown."
        slider = Slider("step of the training", charts, frames)
        parts: list[Part | None] = [Small(legend), slider, Small(shown) if len(moments) < len(records) else None]
    else:
        fixed = "The mapping is fixed: the same at every recorded step."
        parts = [Small(legend), Small(fixed) if len(records) > 1 else None, Row(charts)]
    return Section("Flow: which layer teaches which", parts)


def terms_of(records: Sequence[FlowRecord]) -> list[str]:
    """The loss terms that have a flow in any record."""
    return list(dict.fromkeys(term for record in records for term in record.flows))


def thinned(records: Sequence[FlowRecord]) -> list[FlowRecord]:
    """At most MOST_FRAMES records, evenly chosen, each stage with its first and its last."""
    if len(records) <= MOST_FRAMES:
        return list(records)
    stages = [list(places) for _, places in groupby(range(len(records)), key=lambda place: records[place].stage)]
    ends = {place for places in stages for place in (places[0], places[-1])}
    even = {int(place) for place in np.linspace(0, len(records) - 1, max(0, MOST_FRAMES - len(ends))).round()}
    return [records[place] for place in sorted(ends | even)]


def _updates(record: FlowRecord, terms: Sequence[str]) -> list[Mapping[str, object] | None]:
    absent = (None, None)
    pairs = [flow_updates(np.asarray(record.flows[term])) if term in record.flows else absent for term in terms]
    return [update for pair in pairs for update in pair]


def _moment(record: FlowRecord, offsets: Mapping[str, int]) -> str:
    """'stage joint, step 40', and the mass moved where it is no whole number."""
    step = offsets.get(record.stage, 0) + record.step
    within = f" ({record.step:,} of its own)" if offsets.get(record.stage) else ""
    masses = {words(term): float(np.sum(flow)) for term, flow in record.flows.items()}
    partial = {term: mass for term, mass in masses.items() if abs(mass - round(mass)) > 0.001}
    moved = "".join(f", {mass:.3f} of the mass moved ({term})" for term, mass in partial.items())
    return f"stage {record.stage}, step {step:,}{within}{moved}"
