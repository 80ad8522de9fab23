"""What models answer as Plotly figures: calibration and confusion of classes, errors of scores.

A model is given as (name, colour, its values).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from emdistill.show.charts import INK, SOFT, Figure, heat_scale, layout, plain, points, rounded


def reliability(models: Sequence[tuple[str, str, Sequence[tuple[float, float, int]]]]) -> Figure:
    """Share that held against probability given; on the diagonal a model is right as often as it says.

    models   (name, colour, its bins that hold any: (mean probability, share that held, count))
    """
    data = [_diagonal(0.0, 1.0, "as sure as right")]
    for place, (name, colour, bins) in enumerate(models):
        means, shares = [round(mean, 4) for mean, _, _ in bins], [round(share, 4) for _, share, _ in bins]
        counts = [count for _, _, count in bins]
        hover = "said %{x:.2f}, was so %{y:.2f} (%{customdata})"
        further = {"mode": "lines+markers", "marker": {"size": 8}, "customdata": counts, "hovertemplate": hover}
        data.append(points(name, means, shares, place=place, colour=colour, **further))
    axis = {"range": [0, 1.02], "dtick": 0.2}
    return {"data": data, "layout": layout(340, x="probability", y="share that held", xaxis=axis, yaxis=axis)}


def confidence_bars(models: Sequence[tuple[str, str, Sequence[int]]], y: str = "rows") -> Figure:
    """How many answers are given with which probability: the models' values are counts per bin of equal width."""
    data = []
    for name, colour, rows in models:
        edges = [place / len(rows) for place in range(len(rows) + 1)]
        data.append(
            {
                "type": "bar",
                "name": plain(name),
                "x": [round((low + high) / 2, 4) for low, high in pairwise(edges)],
                "y": list(rows),
                "customdata": [f"{low:.1f} to {high:.1f}" for low, high in pairwise(edges)],
                "marker": {"color": colour},
                "hovertemplate": f"%{{customdata}}: %{{y}} {y}",
            }
        )
    axis = {"range": [0, 1.02], "dtick": 0.2}
    return {"data": data, "layout": layout(340, x="probability", y=y, xaxis=axis, barmode="group", bargap=0.2)}


def confusion_heatmap(names: Sequence[str], counts: NDArray[np.int64]) -> Figure:
    """Given answers (columns) by gold label (rows), as shares of each row; the counts are for the pointer."""
    totals = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(totals, 1)
    labels = [plain(name, 24) for name in names]
    small = len(names) <= 8
    trace = {
        "type": "heatmap",
        "x": list(range(len(names))),
        "y": list(range(len(names))),
        "z": [rounded(row, 4) for row in share],
        "customdata": [
            [[int(count), labels[row], labels[column]] for column, count in enumerate(line)]
            for row, line in enumerate(counts)
        ],
        "zmin": 0,
        "zmax": 1,
        "colorscale": heat_scale(),
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "texttemplate": "%{z:.2f}" if small else "",
        "textfont": {"size": 13, "color": INK},
        "hovertemplate": "gold %{customdata[1]}<br>answer %{customdata[2]}<br>"
        "%{customdata[0]} rows, %{z:.3f} of the row<extra></extra>",
    }
    ticks = {"tickvals": list(range(len(names))), "ticktext": labels, "showgrid": False, "zeroline": False, "ticks": ""}
    return {
        "data": [trace],
        "layout": layout(
            130 + max(150, min(30 * len(names), 460)), x="answer", y="gold label", margin={"t": 8},
            xaxis=ticks, yaxis=ticks | {"autorange": "reversed"},
        ),
    }  # fmt: skip


def predicted_against_gold(models: Sequence[tuple[str, str, Sequence[float]]], gold: Sequence[float]) -> Figure:
    """Predicted scores against gold ones: models as (name, colour, scores); on the diagonal both agree."""
    every = [*gold, *(score for _, _, scores in models for score in scores)]
    data = [_diagonal(min(every, default=0.0), max(every, default=1.0), "as labelled")]
    look = {"mode": "markers", "marker": {"size": 5, "opacity": 0.5}}
    hover = "gold %{x:.3g}, predicted %{y:.3g}"
    for place, (name, colour, scores) in enumerate(models):
        data.append(points(name, gold, scores, place=place, colour=colour, hovertemplate=hover, **look))
    return {"data": data, "layout": layout(340, x="gold score", y="predicted score")}


def error_histogram(models: Sequence[tuple[str, str, Sequence[int]]], edges: Sequence[float]) -> Figure:
    """How many rows have which error (predicted - gold): models as (name, colour, rows in each bin)."""
    middles = [round((low + high) / 2, 6) for low, high in pairwise(edges)]
    look = {"line": {"shape": "hvh"}, "hovertemplate": "error %{x:.3g}: %{y} rows"}
    data = [
        points(name, middles, rows, place=place, colour=colour, **look)
        for place, (name, colour, rows) in enumerate(models)
    ]
    return {"data": data, "layout": layout(340, x="predicted − gold", y="rows", yaxis={"rangemode": "tozero"})}


def _diagonal(low: float, high: float, name: str) -> Figure:
    return points(name, [low, high], [low, high], colour=SOFT, line={"width": 1, "dash": "dot"}, hoverinfo="skip")
