"""Charts as plain Plotly figures, {"data": [...], "layout": {...}}, from plain values; nothing is read or drawn here.

Colours are those of a light page; DARK has each one's counterpart on a dark page, which the page's script puts in.
They are told apart by people who see fewer colours (after Okabe and Ito), and lines also by their marks and dashes.
"""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import accumulate
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emdistill.console import short
from emdistill.runs.gate_record import TimedCase

Figure = dict[str, Any]
Matrix = NDArray[np.float64]
Interval = tuple[float | None, float | None]

INK, SOFT, LINE, BACK = "#24292f", "#57606a", "#d9dee3", "#ffffff"
GREY, BLUE, ORANGE, GREEN, PURPLE, OLIVE = "#69737d", "#0072b2", "#c4510a", "#007a5a", "#8f3f83", "#846a00"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, OLIVE, GREY)
VARIANTS = {"teacher": GREY, "student": BLUE, "onnx": GREEN, "int8": ORANGE}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
HEAT = ("#f4f6f8", "#b3d2ed", "#5fa3dc")  # none, half, all; INK is readable on each
CLEAR = "rgba(0,0,0,0)"
NOTE = {"size": 12, "color": SOFT}  # a font
LEGEND_TOP = {"yref": "container", "y": 1.0, "yanchor": "top"}

LAYER_STOPS = ("#3b1c5e", "#33638d", "#1f968b", "#45a356")  # from the lowest layer to the highest
LAYER_STOPS_ON_DARK = ("#8a7fe0", "#55a8d8", "#48cfae", "#e8e04a")
STEPS = 64  # layers' colours are rounded to so many, so that each has one counterpart
WIDE_RANGE = 4  # largest over smallest value, from which an axis is logarithmic
FADED = 0.5  # of a Sankey diagram's links


def _mixed(stops: Sequence[str], place: float) -> str:
    """The colour at `place` (0 to 1) between the stops."""
    channels = np.array([list(bytes.fromhex(stop[1:])) for stop in stops]).T
    at = place * (len(stops) - 1)
    return "#" + bytes(round(float(np.interp(at, range(len(stops)), channel))) for channel in channels).hex()


def faded(colour: str) -> str:
    red, green, blue = bytes.fromhex(colour[1:])
    return f"rgba({red},{green},{blue},{FADED})"


_LAYERS = {_mixed(LAYER_STOPS, step / STEPS): _mixed(LAYER_STOPS_ON_DARK, step / STEPS) for step in range(STEPS + 1)}
DARK: dict[str, str] = {
    INK: "#e4e7ea", SOFT: "#a3adb7", LINE: "#363d45", BACK: "#16191d",
    GREY: "#a9b4be", BLUE: "#56b4e9", ORANGE: "#ff9a57", GREEN: "#3fcfa3", PURPLE: "#e29fce", OLIVE: "#e6c84b",
    HEAT[0]: "#20252b", HEAT[1]: "#1f4a70", HEAT[2]: "#1c68a5",
    **_LAYERS,
    **{faded(light): faded(dark) for light, dark in _LAYERS.items()},
}  # fmt: skip


def cut(text: str, most: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def plain(text: str, most: int = 60) -> str:
    """A text as Plotly shall show it: its own mark-up (<b>, <a href=…>) is letters here, and long texts are cut."""
    return escape(cut(text, most), quote=False)


def layer_colour(layer: int, layers: int) -> str:
    """A layer's colour, from the lowest to the highest."""
    return _mixed(LAYER_STOPS, round(STEPS * layer / max(1, layers - 1)) / STEPS)


# ------------------------------------------------------------------------------------------------ parts of a figure


def figure(data: Sequence[Figure], height: int, *, x: str = "", y: str = "", **further: Any) -> Figure:
    """Traces in the layout of all charts: quiet axes with titles, the legend above; `further` goes over it."""
    axis = {"gridcolor": LINE, "linecolor": LINE, "zerolinecolor": LINE, "automargin": True, "tickfont": {"size": 12}}
    layout = {
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
    return {"data": list(data), "layout": _over(layout, further)}


def points(
    name: str, x: Sequence[float], y: Sequence[float | None], *, place: int = 0, colour: str = "", **further: Any
) -> Figure:
    """A trace, as lines unless `further` says otherwise; its place among its like gives colour, mark and dash.

    A model by its name has its own colour.
    """
    colour = colour or VARIANTS.get(name, SERIES[place % len(SERIES)])
    trace = {
        "type": "scatter", "mode": "lines", "name": plain(name), "x": list(x), "y": list(y),
        "line": {"color": colour, "width": 2, "dash": DASHES[place % len(DASHES)]},
        "marker": {"color": colour, "size": 6, "symbol": MARKS[place % len(MARKS)]},
        "hovertemplate": "%{y:.4g}",
    }  # fmt: skip
    return _over(trace, further)


def heatmap(shares: Matrix, height: int, *, x: str, y: str, most: float, xaxis: Figure, **trace: Any) -> Figure:
    """Shares [rows, columns], the first row on top, as colours that are full at `most`; both axes have these ticks."""
    rows, columns = shares.shape
    cells = {
        "type": "heatmap", "x": list(range(columns)), "y": list(range(rows)), "z": shares.tolist(),
        "zmin": 0, "zmax": most, "colorscale": [[place / 2, colour] for place, colour in enumerate(HEAT)],
        "xgap": 1, "ygap": 1, "textfont": {"size": 12, "color": INK},
    }  # fmt: skip
    ticks = {"showgrid": False, "zeroline": False, "ticks": "", **xaxis}
    yaxis = ticks | {"autorange": "reversed"}
    return figure([cells | trace], height, x=x, y=y, xaxis=ticks, yaxis=yaxis, margin={"t": 8})


def whiskers(above: Sequence[float], below: Sequence[float] | None = None, **further: Any) -> Figure:
    """Error bars of these lengths; without `below` they go both ways."""
    sides = {"array": list(above)} if below is None else {"array": list(above), "arrayminus": list(below)}
    return {"type": "data", "symmetric": below is None, "color": INK, "thickness": 1.2, "width": 5, **sides, **further}


def cost_axis(values: Sequence[float]) -> Figure:
    """An axis of what models take, logarithmic where that spans WIDE_RANGE."""
    return log_axis(values) if max(values) >= WIDE_RANGE * min(values) > 0 else {"nticks": 6}


def log_axis(values: Sequence[float]) -> Figure:
    """A logarithmic axis with ticks at 1, 2 and 5, or at powers of ten alone where there are many."""
    low, high = np.floor(np.log10(min(values))), np.ceil(np.log10(max(values)))
    steps = (1, 2, 5) if high - low <= 4 else (1,)
    ticks = [float(f"{step * 10.0**power:.3g}") for power in np.arange(low, high + 1) for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def line(*, dash: str, width: float = 1, **ends: float) -> Figure:
    """A thin line, upright at an x or across at a y, from edge to edge."""
    along = {"yref": "paper", "y0": 0, "y1": 1} if "x0" in ends else {"xref": "paper", "x0": 0, "x1": 1}
    return {"type": "line", "line": {"color": SOFT, "dash": dash, "width": width}, **along, **ends}


def _over(shared: Figure, further: Mapping[str, Any]) -> Figure:
    """`further` over what is shared, also within its dictionaries."""
    for name, value in further.items():
        old = shared.get(name)
        shared[name] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
    return shared


# ---------------------------------------------------------------------------------------------------------- figures


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float | None]]],
    *,
    x: str,
    y: str,
    stages: Sequence[tuple[str, float]] = (),
    layers: bool = False,
    scale: Literal["log", "zero", "free"] = "zero",
    level: float | None = None,
) -> Figure:
    """Lines by name, each (x values, y values), with a mark at every point where there are few.

    stages    (name, x) of each stage's beginning; they are marked where there is more than one
    layers    the series are an encoder's layers, from the lowest to the highest: coloured in that order
    scale     "log" where all values are positive, else from zero; "free": around the values
    level     a thin dashed line across, such as the value of all weights if they were equal
    """
    data = []
    for place, (name, (steps, values)) in enumerate(series.items()):
        own: Figure = {"mode": "lines+markers" if len(steps) <= 40 else "lines"}
        if layers:
            own |= {"colour": layer_colour(place, len(series)), "line": {"dash": "solid"}}
        data.append(points(name, steps, values, place=place, **own))
    numbers = [value for _, values in series.values() for value in values if value is not None]
    is_log, starts = scale == "log" and min(numbers, default=0.0) > 0, stages if len(stages) > 1 else ()
    shapes = [line(x0=start, x1=start, dash="dot") for _, start in starts]
    shapes += [] if level is None else [line(y0=level, y1=level, dash="dash")]
    note = {"yref": "paper", "y": 1, "xanchor": "left", "yanchor": "top", "xshift": 3, "showarrow": False, "font": NOTE}
    legend = 34 + 19 * (sum(len(trace["name"]) + 6 for trace in data) // 44) if len(data) > 1 else 10
    return figure(
        data, 280 + legend, x=x, y=y, hovermode="x unified", margin={"t": legend}, shapes=shapes,
        legend={"traceorder": "normal", **LEGEND_TOP},
        annotations=[note | {"x": start, "text": plain(name)} for name, start in starts],
        yaxis=log_axis(numbers) if is_log else {"rangemode": "normal" if scale == "free" else "tozero"},
    )  # fmt: skip


def latency_bars(models: Sequence[tuple[str, str, TimedCase]]) -> Figure:
    """Milliseconds per call of (name, colour, times): a bar at the median, a whisker up to the 95th percentile."""
    names, cases = [plain(name) for name, _, _ in models], [case for _, _, case in models]
    ends = [max(case.p50, case.p95) for case in cases]
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": names,
        "x": [case.p50 for case in cases],
        "marker": {"color": [colour for _, colour, _ in models]},
        "error_x": whiskers([end - case.p50 for end, case in zip(ends, cases, strict=True)], [0.0] * len(cases)),
        "textposition": "none",
        "customdata": [[case.p95, case.p99] for case in cases],
        "hovertemplate": "%{y}: %{x:.3g} ms, p95 %{customdata[0]:.3g}, p99 %{customdata[1]:.3g}<extra></extra>",
    }
    # The numbers stand beyond the whiskers, where they cover nothing.
    note = {"xanchor": "left", "xshift": 6, "showarrow": False, "font": {"size": 12, "color": INK}}
    notes = [
        note | {"x": end, "y": name, "text": f"{short(case.p50)} ms"}
        for name, case, end in zip(names, cases, ends, strict=True)
    ]
    return figure(
        [trace], 70 + 36 * len(models), x="milliseconds per call", annotations=notes, bargap=0.35, showlegend=False,
        margin={"t": 6}, xaxis={"range": [0, 1.3 * max(ends)], "rangemode": "tozero"},
        yaxis={"autorange": "reversed", "showgrid": False, "ticks": ""},
    )  # fmt: skip


def differences(rows: Sequence[tuple[str, Sequence[float], float, Interval]], *, x: str) -> Figure:
    """Rows of (name, a value per seed, their mean, its interval): dots above, the mean below with its whiskers."""
    names, values, means, _ = zip(*rows, strict=True)
    places = list(range(len(rows)))
    look: Figure = {"mode": "markers", "hovertemplate": "%{x:+.4f}"}
    seeds = points(
        "a seed",
        [value for of_row in values for value in of_row],
        [place - 0.22 for place, of_row in enumerate(values) for _ in of_row],
        marker={"size": 7, "opacity": 0.7},
        **look,
    )
    reaches = [[0.0 if end is None else abs(end - mean) for end in ends] for _, _, mean, ends in rows]
    below, above = zip(*reaches, strict=True)
    diamonds: Figure = {"marker": {"size": 9, "symbol": "diamond"}, "error_x": whiskers(above, below)}
    ticks = {"tickvals": places, "ticktext": [plain(name, 40) for name in names], "range": [len(rows) - 0.5, -0.6]}
    return figure(
        [seeds, points("mean and 95 % interval", means, places, colour=INK, **diamonds, **look)],
        120 + 46 * len(rows), x=x, hovermode="closest", xaxis={"tickformat": "+.3f", "nticks": 6},
        yaxis=ticks | {"showgrid": False, "zeroline": False, "ticks": ""}, shapes=[line(x0=0, x1=0, dash="solid")],
    )  # fmt: skip


def progress(searches: Mapping[str, Sequence[float]], levels: Mapping[str, float], *, x: str, y: str) -> Figure:
    """Values in the order in which they were had, as dots, and the best so far as steps; `levels` as lines across."""
    data: list[Figure] = []
    for place, (name, values) in enumerate(searches.items()):
        counts, group = range(1, len(values) + 1), {"legendgroup": str(place)}
        dots: Figure = {"mode": "markers", "marker": {"opacity": 0.45}, "showlegend": False}
        best = list(accumulate(values, max))
        data.append(points(name, counts, values, place=place, **group, **dots))
        data.append(points(f"{name}, best so far", counts, best, place=place, **group, line={"shape": "hv"}))
    end = max((2, *map(len, searches.values())))
    look: Figure = {"mode": "lines+text", "textposition": "top left", "textfont": NOTE, "showlegend": False}
    for name, value in levels.items():
        thin: Figure = {"line": {"width": 1, "dash": "dash"}, "text": ["", plain(name)]}
        data.append(points(name, [1, end], [value, value], colour=SOFT, **look, **thin))
    return figure(data, 380, x=x, y=y, hovermode="closest")
