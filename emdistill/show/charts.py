"""Charts as plain Plotly figures, {"data": [...], "layout": {...}}, from plain values; nothing is read or drawn here.

Colours are those of a light page; DARK has each one's counterpart on a dark page, which the page's script puts in.
They are told apart by people who see fewer colours (after Okabe and Ito), and lines also by their marks and dashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emdistill.console import short
from emdistill.runs.gate_record import TimedCase

Figure = dict[str, Any]
Matrix = NDArray[np.float64]

INK, SOFT, LINE, BACK = "#24292f", "#57606a", "#d9dee3", "#ffffff"
GREY, BLUE, ORANGE, GREEN, PURPLE, OLIVE = "#69737d", "#0072b2", "#c4510a", "#007a5a", "#8f3f83", "#846a00"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, OLIVE, GREY)
TEACHER, STUDENT = GREY, BLUE
VARIANTS = {"teacher": TEACHER, "student": STUDENT, "onnx": GREEN, "int8": ORANGE}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
HEAT = ("#f4f6f8", "#b3d2ed", "#5fa3dc")  # none, half, all; INK is readable on each
CLEAR = "rgba(0,0,0,0)"

LAYER_STOPS = ("#3b1c5e", "#33638d", "#1f968b", "#45a356")  # from the lowest layer to the highest
LAYER_STOPS_ON_DARK = ("#8a7fe0", "#55a8d8", "#48cfae", "#e8e04a")
STEPS = 64  # layers' colours are rounded to so many, so that each has one counterpart
FADED = 0.5  # of a Sankey diagram's links


def _mixed(stops: Sequence[str], place: float) -> str:
    """The colour at `place` (0 to 1) between the stops."""
    index = min(int(place * (len(stops) - 1)), len(stops) - 2)
    part = place * (len(stops) - 1) - index
    ends = [[int(stop[at : at + 2], 16) for at in (1, 3, 5)] for stop in stops[index : index + 2]]
    return "#" + "".join(f"{round(low + part * (high - low)):02x}" for low, high in zip(*ends, strict=True))


def faded(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{FADED})"


_LAYERS = {_mixed(LAYER_STOPS, step / STEPS): _mixed(LAYER_STOPS_ON_DARK, step / STEPS) for step in range(STEPS + 1)}
DARK: dict[str, str] = {
    INK: "#e4e7ea", SOFT: "#a3adb7", LINE: "#363d45", BACK: "#16191d",
    GREY: "#a9b4be", BLUE: "#56b4e9", ORANGE: "#ff9a57", GREEN: "#3fcfa3", PURPLE: "#e29fce", OLIVE: "#e6c84b",
    HEAT[0]: "#20252b", HEAT[1]: "#1f4a70", HEAT[2]: "#1c68a5",
    **_LAYERS,
    **{faded(light): faded(dark) for light, dark in _LAYERS.items()},
}  # fmt: skip


def plain(text: str, most: int = 60) -> str:
    """A text as Plotly shall show it: its own mark-up (<b>, <a href=…>) is letters here, and long texts are cut."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return escape(cut, quote=False)


def layer_colour(layer: int, layers: int) -> str:
    """A layer's colour, from the lowest to the highest."""
    return _mixed(LAYER_STOPS, round(STEPS * layer / max(1, layers - 1)) / STEPS)


def layout(height: int, *, x: str = "", y: str = "", **further: Any) -> Figure:
    """What all charts share: transparent ground, quiet axes with titles, the legend above; `further` goes over it."""
    axis = {"gridcolor": LINE, "linecolor": LINE, "zerolinecolor": LINE, "automargin": True, "tickfont": {"size": 12}}
    shared = {
        "height": height,
        "autosize": True,
        "margin": {"l": 8, "r": 12, "t": 28, "b": 8},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "hoverlabel": {"bgcolor": BACK, "bordercolor": SOFT, "font": {"color": INK, "size": 13}, "namelength": -1},
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "font": {"size": 12}},
        "xaxis": axis | {"title": {"text": x, "font": {"size": 13}, "standoff": 8}},
        "yaxis": axis | {"title": {"text": y, "font": {"size": 13}, "standoff": 10}},
    }
    return _over(shared, further)


def points(
    name: str, x: Sequence[float], y: Sequence[float | None], *, place: int = 0, colour: str = "", **further: Any
) -> Figure:
    """A trace, as lines unless `further` says otherwise; its place among its like gives colour, mark and dash."""
    colour = colour or SERIES[place % len(SERIES)]
    shared = {
        "type": "scatter",
        "mode": "lines",
        "name": plain(name),
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, "width": 2, "dash": DASHES[place % len(DASHES)]},
        "marker": {"color": colour, "size": 6, "symbol": MARKS[place % len(MARKS)]},
        "hovertemplate": "%{y:.4g}",
    }
    return _over(shared, further)


def _over(shared: Figure, further: Mapping[str, Any]) -> Figure:
    """`further` over what is shared, also within its dictionaries."""
    for name, value in further.items():
        old = shared.get(name)
        shared[name] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
    return shared


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float | None]]],
    *,
    x: str,
    y: str,
    stages: Sequence[tuple[str, float]] = (),
    layers: bool = False,
    logarithmic: bool = False,
    from_zero: bool = True,
    level: float | None = None,
) -> Figure:
    """Lines by name, each (x values, y values), with a mark at every point where there are few.

    stages    (name, x) of each stage's beginning; they are marked where there is more than one
    layers    the series are an encoder's layers, from the lowest to the highest: coloured in that order
    level     a thin dashed line across, such as the value of all weights if they were equal
    """
    data = []
    for place, (name, (steps, values)) in enumerate(series.items()):
        own: Figure = {"mode": "lines+markers" if len(steps) <= 40 else "lines"}
        if layers:
            own |= {"colour": layer_colour(place, len(series)), "line": {"dash": "solid"}}
        data.append(points(name, steps, values, place=place, **own))
    shapes = [_line(x0=start, x1=start, dash="dot") for _, start in stages] if len(stages) > 1 else []
    if level is not None:
        shapes.append(_line(y0=level, y1=level, dash="dash"))
    note = {"yref": "paper", "y": 1, "xanchor": "left", "yanchor": "top", "xshift": 3, "showarrow": False}
    notes = [note | {"x": start, "text": plain(name), "font": {"size": 12, "color": SOFT}} for name, start in stages]
    letters = sum(len(trace["name"]) + 6 for trace in data)
    legend = 34 + 19 * (letters // 44) if len(data) > 1 else 10
    return {
        "data": data,
        "layout": layout(
            280 + legend,
            x=x,
            y=y,
            yaxis=_logarithmic(data) if logarithmic else {"rangemode": "tozero" if from_zero else "normal"},
            hovermode="x unified",
            shapes=shapes,
            annotations=notes if len(stages) > 1 else [],
            legend={"traceorder": "normal", "yref": "container", "y": 1.0, "yanchor": "top"},
            margin={"t": legend},
        ),
    }


def latency_bars(models: Sequence[tuple[str, str, TimedCase]]) -> Figure:
    """Milliseconds per call of (name, colour, times): a bar at the median, a whisker up to the 95th percentile."""
    cases = [case for _, _, case in models]
    ends = [max(case.p50, case.p95) for case in cases]
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": [plain(name) for name, _, _ in models],
        "x": [case.p50 for case in cases],
        "marker": {"color": [colour for _, colour, _ in models]},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [end - case.p50 for end, case in zip(ends, cases, strict=True)],
            "arrayminus": [0.0] * len(cases),
            "color": INK,
            "thickness": 1.2,
            "width": 5,
        },
        "textposition": "none",
        "customdata": [[case.p95, case.p99] for case in cases],
        "hovertemplate": "%{y}: %{x:.3g} ms, p95 %{customdata[0]:.3g}, p99 %{customdata[1]:.3g}<extra></extra>",
    }
    # The numbers stand beyond the whiskers, where they cover nothing.
    notes = [
        {"x": end, "y": plain(name), "text": f"{short(case.p50)} ms", "xanchor": "left", "xshift": 6,
         "showarrow": False, "font": {"size": 12, "color": INK}}
        for (name, _, case), end in zip(models, ends, strict=True)
    ]  # fmt: skip
    return {
        "data": [trace],
        "layout": layout(
            70 + 36 * len(models), x="milliseconds per call", annotations=notes, bargap=0.35, showlegend=False,
            margin={"t": 6}, xaxis={"range": [0, 1.3 * max(ends)], "rangemode": "tozero"},
            yaxis={"autorange": "reversed", "showgrid": False, "ticks": ""},
        ),
    }  # fmt: skip


def differences(rows: Sequence[tuple[str, Sequence[float], float, tuple[float, float] | None]], *, x: str) -> Figure:
    """Rows of (name, a value per seed, their mean, its interval): dots above, the mean below with its whiskers."""
    places, names = list(range(len(rows))), [plain(name, 40) for name, *_ in rows]
    seeds = points(
        "a seed",
        [value for _, values, _, _ in rows for value in values],
        [place - 0.22 for place, (_, values, _, _) in enumerate(rows) for _ in values],
        mode="markers",
        marker={"size": 7, "opacity": 0.7},
        hovertemplate="%{x:+.4f}",
    )
    whiskers = {
        "type": "data",
        "symmetric": False,
        "array": [ends[1] - mean if ends else 0.0 for _, _, mean, ends in rows],
        "arrayminus": [mean - ends[0] if ends else 0.0 for _, _, mean, ends in rows],
        "color": INK,
        "thickness": 1.5,
        "width": 6,
    }
    means = points(
        "mean and 95 % interval",
        [mean for _, _, mean, _ in rows],
        places,
        colour=INK,
        mode="markers",
        marker={"size": 9, "symbol": "diamond"},
        error_x=whiskers,
        hovertemplate="%{x:+.4f}",
    )
    ticks = {"tickvals": places, "ticktext": names, "range": [len(rows) - 0.5, -0.6], "showgrid": False}
    return {
        "data": [seeds, means],
        "layout": layout(
            120 + 46 * len(rows), x=x, hovermode="closest", xaxis={"tickformat": "+.3f", "nticks": 6},
            yaxis=ticks | {"zeroline": False, "ticks": ""}, shapes=[_line(x0=0, x1=0, dash="solid")],
        ),
    }  # fmt: skip


def progress(searches: Mapping[str, Sequence[float]], levels: Mapping[str, float], *, x: str, y: str) -> Figure:
    """Values in the order in which they were had, as dots, and the best so far as steps; `levels` as lines across."""
    data: list[Figure] = []
    for place, (name, values) in enumerate(searches.items()):
        counts = range(1, len(values) + 1)
        dots: Figure = {"mode": "markers", "marker": {"opacity": 0.45}, "showlegend": False}
        data.append(points(name, counts, values, place=place, legendgroup=str(place), **dots))
        best = list(accumulate(values, max))
        data.append(
            points(f"{name}, best so far", counts, best, place=place, legendgroup=str(place), line={"shape": "hv"})
        )
    end = max((2, *map(len, searches.values())))
    written: Figure = {"mode": "lines+text", "textposition": "top left", "textfont": {"size": 12, "color": SOFT}}
    for name, value in levels.items():
        thin: Figure = {"line": {"width": 1, "dash": "dash"}, "showlegend": False, "text": ["", plain(name)]}
        data.append(points(name, [1, end], [value, value], colour=SOFT, **written, **thin))
    return {"data": data, "layout": layout(380, x=x, y=y, hovermode="closest")}


def _line(*, dash: str, **ends: float) -> Figure:
    """A thin line, upright at an x or across at a y, from edge to edge."""
    along = {"yref": "paper", "y0": 0, "y1": 1} if "x0" in ends else {"xref": "paper", "x0": 0, "x1": 1}
    return {"type": "line", "line": {"color": SOFT, "width": 1, "dash": dash}, **along, **ends}


def _logarithmic(data: Sequence[Figure]) -> Figure:
    """A logarithmic axis with ticks at 1, 2 and 5, or at powers of ten alone where there are many."""
    values = [value for trace in data for value in trace["y"] if value is not None]
    low, high = np.floor(np.log10(min(values))), np.ceil(np.log10(max(values)))
    steps = (1, 2, 5) if high - low <= 4 else (1,)
    ticks = [float(f"{step * 10.0**power:.3g}") for power in np.arange(low, high + 1) for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def heat_scale() -> list[list[Any]]:
    return [[place / (len(HEAT) - 1), colour] for place, colour in enumerate(HEAT)]


def rounded(values: Any, digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]
