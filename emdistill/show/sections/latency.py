"""How long each form of the model takes: a chart per batch size and length, so that each has its own scale."""

from __future__ import annotations

from emdistill.show.charts import GREY, VARIANTS, latency_bars
from emdistill.show.contents import Contents, Section
from emdistill.show.gate_tables import machine_line, name_of
from emdistill.show.page import Chart


def latency(contents: Contents) -> Section | None:
    """Bars at the median, whiskers up to the 95th percentile; None where nothing was timed."""
    gate = contents.gate
    if gate is None:
        return None
    cases = sorted({(case.batch, case.length) for variant in gate.variants.values() for case in variant.latency})
    charts = [
        Chart(
            f"batch {batch}, length {length}",
            latency_bars(
                [
                    (name_of(name), VARIANTS.get(name, GREY), case)
                    for name, variant in gate.variants.items()
                    for case in variant.latency
                    if (case.batch, case.length) == (batch, length)
                ]
            ),
        )
        for batch, length in cases
    ]
    return Section("Latency", {"charts": charts, "machine": machine_line(gate.machine)}) if charts else None
