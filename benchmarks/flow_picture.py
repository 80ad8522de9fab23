"""Flow: a picture of which teacher layer taught which student layer, for the documentation.

    python benchmarks/flow_picture.py RUN --output docs/flow.png

The last flow of each loss term in RUN/flows.jsonl as a heat-map of shares of mass, with the sums of rows and columns as
bars. Readers of a run have its page; this is for where a page cannot stand.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emdistill.runs.flows import FlowRecord, read_flows

INK, BAR = "#2f3437", "#5fa3dc"


def main(argv: Sequence[str] | None = None) -> None:
    """Read the flows and draw the last ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run whose method maps layers")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.png")
    options = parser.parse_args(argv)
    draw(read_flows(options.run / "flows.jsonl"), options.output)


def draw(records: Sequence[FlowRecord], path: Path) -> None:
    """Heat-maps side by side, each scaled to a mass of 1; shares below .005 stay blank."""
    from matplotlib.figure import Figure  # of the bench extra

    last = {term: (record, np.asarray(record.flows[term])) for record in records for term in record.flows}
    students, teachers = max((flow.shape for _, flow in last.values()), default=(1, 1))
    figure = Figure(figsize=(len(last) * (0.5 * teachers + 1.6), 0.5 * students + 1.8), dpi=160, layout="constrained")
    parts = figure.subfigures(1, len(last), squeeze=False)[0]
    for part, (term, (record, flow)) in zip(parts, last.items(), strict=True):
        part.suptitle(f"{term.replace('_', ' ')}\nstage {record.stage}, step {record.step:,}", fontsize=10, color=INK)
        _draw_flow(part, flow / (flow.sum() or 1.0))
    figure.savefig(path, format="png", metadata={"Software": None})  # equal pictures are equal bytes


def _draw_flow(part: Any, flow: NDArray[np.float64]) -> None:
    rows, columns = flow.shape
    axes = part.subplots(2, 2, width_ratios=(columns, 1.2), height_ratios=(1.2, rows), sharex="col", sharey="row")
    above, corner, heat, beside = axes.ravel()
    corner.set_visible(False)
    heat.imshow(flow, cmap="Blues", vmin=0, vmax=1.8 * (flow.max() or 1.0), aspect="auto")
    for (row, column), share in np.ndenumerate(flow):
        if share >= 0.005:
            heat.text(column, row, _share(share), ha="center", va="center", fontsize=8, color=INK)
    heat.set(xticks=range(columns), yticks=range(rows), xlabel="teacher layer", ylabel="student layer")
    above.bar_label(above.bar(range(columns), flow.sum(axis=0), width=0.35, color=BAR), map(_share, flow.sum(axis=0)))
    beside.bar_label(beside.barh(range(rows), flow.sum(axis=1), height=0.35, color=BAR), map(_share, flow.sum(axis=1)))
    for bars in (above, beside):
        bars.set_axis_off()


def _share(value: float) -> str:
    """A share without its leading zero: .25; 1.00 keeps its one."""
    return f"{value:.2f}".removeprefix("0")


if __name__ == "__main__":
    main()
