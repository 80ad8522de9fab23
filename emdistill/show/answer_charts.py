"""What models answer as Plotly figures, by model: calibration and confusion of classes, errors of scores."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from emdistill.show.answer_statistics import Bins
from emdistill.show.charts import SOFT, VARIANTS, Figure, Matrix, figure, heatmap, plain, points

PROBABILITY = {"range": [0, 1.02], "dtick": 0.2}  # an axis
HEIGHT = 340
ERROR_BINS = 40


def reliability(models: Mapping[str, Bins]) -> Figure:
    """Share that held against probability given; on the diagonal a model is right as often as it says."""
    data = [_diagonal(0.0, 1.0, "as sure as right")]
    look: Figure = {"mode": "lines+markers", "marker": {"size": 8}}
    look["hovertemplate"] = "probability %{x:.2f}, held %{y:.2f} (%{customdata})"
    for place, (name, bins) in enumerate(models.items()):
        means, shares, counts = zip(*(each for each in bins if each[2]), strict=True)
        data.append(points(name, means, shares, place=place, customdata=counts, **look))
    return figure(data, HEIGHT, x="probability", y="share that held", xaxis=PROBABILITY, yaxis=PROBABILITY)


def confidence_bars(models: Mapping[str, Bins], y: str = "rows") -> Figure:
    """How many answers are given with which probability, in bins of equal width."""
    data = []
    for name, bins in models.items():
        edges = list(pairwise(np.linspace(0.0, 1.0, len(bins) + 1).tolist()))
        data.append(
            {
                "type": "bar",
                "name": plain(name),
                "x": [(low + high) / 2 for low, high in edges],
                "y": [count for _, _, count in bins],
                "customdata": [f"{low:.1f} to {high:.1f}" for low, high in edges],
                "marker": {"color": VARIANTS.get(name, SOFT)},
                "hovertemplate": f"%{{customdata}}: %{{y}} {y}",
            }
        )
    return figure(data, HEIGHT, x="probability", y=y, xaxis=PROBABILITY, barmode="group", bargap=0.2)


def confusion_heatmap(names: Sequence[str], counts: NDArray[np.int64], of: str = "rows") -> Figure:
    """Given answers (columns) by gold label (rows), as shares of each row; the counts are for the pointer."""
    labels = [plain(name, 24) for name in names]
    texts = [
        [[count, row, column] for count, column in zip(of_row, labels, strict=True)]
        for row, of_row in zip(labels, counts.tolist(), strict=True)
    ]
    return heatmap(
        counts / np.maximum(counts.sum(axis=1, keepdims=True), 1),
        130 + max(150, min(30 * len(names), 460)),
        x="answer",
        y="gold label",
        most=1,
        xaxis={"tickvals": list(range(len(names))), "ticktext": labels},
        customdata=texts,
        showscale=False,
        texttemplate="%{z:.2f}" if len(names) <= 8 else "",
        hovertemplate="gold %{customdata[1]}<br>answer %{customdata[2]}<br>"
        f"%{{customdata[0]}} {of}, %{{z:.3f}} of the gold label's<extra></extra>",
    )


def predicted_against_gold(models: Mapping[str, Sequence[float]], gold: Sequence[float]) -> Figure:
    """Predicted scores against gold ones; on the diagonal both agree."""
    scores = [*gold, *(score for of_model in models.values() for score in of_model)]
    data = [_diagonal(min(scores), max(scores), "as labelled")]
    look: Figure = {"mode": "markers", "marker": {"size": 5, "opacity": 0.5}}
    look["hovertemplate"] = "gold %{x:.3g}, predicted %{y:.3g}"
    for place, (name, predicted) in enumerate(models.items()):
        data.append(points(name, gold, predicted, place=place, **look))
    return figure(data, HEIGHT, x="gold score", y="predicted score")


def error_histogram(models: Mapping[str, Matrix]) -> Figure:
    """How many rows have which error, predicted - gold."""
    edges = np.histogram_bin_edges(np.concatenate(list(models.values())), bins=ERROR_BINS)
    middles = ((edges[:-1] + edges[1:]) / 2).tolist()
    look: Figure = {"line": {"shape": "hvh"}, "hovertemplate": "error %{x:.3g}: %{y} rows"}
    data = [
        points(name, middles, np.histogram(errors, edges)[0].tolist(), place=place, **look)
        for place, (name, errors) in enumerate(models.items())
    ]
    return figure(data, HEIGHT, x="predicted − gold", y="rows", yaxis={"rangemode": "tozero"})


def _diagonal(low: float, high: float, name: str) -> Figure:
    return points(name, [low, high], [low, high], colour=SOFT, line={"width": 1, "dash": "dot"}, hoverinfo="skip")
