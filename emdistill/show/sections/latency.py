"""How long each form of the model takes: a chart per batch size and length, so that each has its own scale."""

from emdistill.runs.distillation import Distillation
from emdistill.show.charts import GREY, VARIANTS, latency_bars
from emdistill.show.gate_tables import name_of
from emdistill.show.page import Chart, Row, Section, Small


def latency(run: Distillation) -> Section | None:
    """Bars at the median, whiskers up to the 95th percentile; None where nothing was timed."""
    gate = run.gate
    if gate is None or not gate.cases:
        return None
    charts = []
    for (batch, length), times in gate.cases.items():
        bars = [(name_of(variant), VARIANTS.get(variant, GREY), case) for variant, case in times.items()]
        charts.append(Chart(f"batch {batch}, length {length}", latency_bars(bars)))
    scales = f"Bars: the median; whiskers: up to the 95th percentile. {gate.machine}; each chart has its own scale."
    return Section("Latency", [Small(scales), Row(charts)])
