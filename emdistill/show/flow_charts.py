"""Flows as Plotly figures: a Sankey diagram from teacher to student layers, and a heat-map."""

import numpy as np

from emdistill.show.charts import CLEAR, INK, SOFT, Figure, Matrix, faded, figure, heatmap, layer_colour

MOST_CELLS_WRITTEN = 12  # columns beyond which a heat-map's numbers are for the pointer alone
NODE_GAP, SANKEY_MARGIN = 8, 12  # pixels
LEAST_MASS = 1e-7  # of the link that keeps the place of a layer without mass


def flow_updates(flow: Matrix) -> tuple[Figure, Figure]:
    """What one flow [student layers, teacher layers] sets in the Sankey diagram and in the heat-map.

    Values are shares of all mass moved, so that they sum to 1, whatever mass the mapping states.
    """
    shares = _shares(flow)
    sides = shares.sum(axis=0), shares.sum(axis=1)
    placeholders = [np.where(masses > 0, 0.0, LEAST_MASS) for masses in sides]
    places = [place for masses in sides for place in _centres(masses, max(flow.shape))]
    sankey = {"link.value": np.concatenate([shares.T.ravel(), *placeholders]).tolist(), "node.y": places}
    heat: Figure = {"z": shares.tolist()}
    if flow.shape[1] <= MOST_CELLS_WRITTEN:
        heat["text"] = [[f"{value:.2f}".removeprefix("0") if value >= 0.005 else "" for value in row] for row in shares]
    return sankey, heat


def flow_sankey(flow: Matrix) -> Figure:
    """A Sankey diagram from teacher layers (left) to student layers (right); a link is as wide as its mass.

    Nodes are the teacher's layers, then the student's. Links are all pairs, teacher layer by teacher layer, and an
    invisible one for each layer: Plotly leaves out a node without mass.
    """
    students, teachers = flow.shape
    names = [f"teacher {layer}" for layer in range(teachers)] + [f"student {layer}" for layer in range(students)]
    pairs = [(teacher, student) for teacher in range(teachers) for student in range(students)]
    unseen = [(teacher, 0) for teacher in range(teachers)] + [(0, student) for student in range(students)]
    updates = flow_updates(flow)[0]
    trace = {
        "type": "sankey",
        "arrangement": "fixed",
        "node": {
            "label": names,
            "color": [layer_colour(layer, teachers) for layer in range(teachers)] + [SOFT] * students,
            "x": [0.001] * teachers + [0.999] * students,
            "y": updates["node.y"],
            "pad": NODE_GAP,
            "thickness": 14,
            "line": {"width": 0},
            "hovertemplate": "%{label}: %{value:.3f} of all mass<extra></extra>",
        },
        "link": {
            "source": [teacher for teacher, _ in (*pairs, *unseen)],
            "target": [teachers + student for _, student in (*pairs, *unseen)],
            "value": updates["link.value"],
            "color": [faded(layer_colour(teacher, teachers)) for teacher, _ in pairs] + [CLEAR] * len(unseen),
            "hovertemplate": "%{source.label} → %{target.label}: %{value:.3f}<extra></extra>",
        },
        "textfont": {"size": 12, "color": INK},
    }
    margin = {"l": 2, "r": 2, "t": SANKEY_MARGIN, "b": SANKEY_MARGIN}
    return figure([trace], _sankey_height(max(flow.shape)), margin=margin)


def flow_heatmap(flow: Matrix, greatest: float) -> Figure:
    """A heat-map of a flow: a row per student layer, a column per teacher layer; full colour at `greatest`."""
    students, teachers = flow.shape
    bar = {"title": {"text": "share", "font": {"size": 12}}, "thickness": 10, "tickfont": {"size": 12}}
    cells = flow_updates(flow)[1]
    return heatmap(
        _shares(flow),
        max(200, min(_sankey_height(max(flow.shape)), 34 * students + 90)),
        x="teacher layer",
        y="student layer",
        most=greatest or 1,
        xaxis={"dtick": 1 if teachers <= 16 else 2},
        colorbar=bar | {"outlinewidth": 0, "xpad": 4},
        hovertemplate="teacher %{x} → student %{y}: %{z:.3f}<extra></extra>",
        texttemplate="%{text}" if "text" in cells else "",
        **cells,
    )


def _shares(flow: Matrix) -> Matrix:
    return flow / (flow.sum() or 1.0)


def _sankey_height(layers: int) -> int:
    return max(220, 30 * layers + 2 * SANKEY_MARGIN)


def _centres(masses: Matrix, most_layers: int) -> list[float]:
    """Where the nodes of one side stand, from 0 (top) to 1: in their order, with gaps, filling the height.

    Plotly scales mass to pixels so that the side with more nodes fills the height; it is told each node's middle.
    """
    height = _sankey_height(most_layers) - 2 * SANKEY_MARGIN
    scale = (height - (most_layers - 1) * NODE_GAP) / (masses.sum() or 1.0)
    sizes = masses * scale
    gap = (height - sizes.sum()) / max(1, len(masses) - 1)
    tops = np.concatenate([[0.0], np.cumsum(sizes + gap)[:-1]])
    return [max(0.001, float(value)) for value in (tops + sizes / 2) / height]  # Plotly takes 0 for: none given
