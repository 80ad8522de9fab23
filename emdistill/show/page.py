"""A report as one HTML file that needs nothing else: pictures, values and scripts inside, no network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.metadata import version
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from emdistill.console import ABSENT, TABLE_CAPTION, ReportRow, table_cells, table_headings
from emdistill.errors import DataError
from emdistill.files import written_whole

IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
NO_SCRIPT = "The charts are drawn by a script in this file; they appear where JavaScript may run."


@dataclass(frozen=True)
class Text:
    """A paragraph; the tone sets a verdict apart."""

    text: str
    tone: Literal["plain", "small", "verdict go", "verdict no-go"] = "plain"


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Lines of cells under headings, the first cell naming its line; `text` for cells that are read, not compared."""

    headings: Sequence[str]
    lines: Sequence[Sequence[str]]
    caption: str = ""
    text: bool = False


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG file and the sentence below it, which is also read out in its place."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Chart:
    """A Plotly figure as {"data": [...], "layout": {"height": pixels, ...}}, its title, and the sentence below it.

    Colours are those of `charts.DARK`, which has each one's counterpart on a dark page.
    """

    title: str
    figure: Mapping[str, Any]
    caption: str = ""


@dataclass(frozen=True)
class Row:
    """Charts side by side where the page is wide enough, else below each other."""

    charts: Sequence[Chart]


@dataclass(frozen=True)
class Frame:
    """What a slider shows at one place: its label, the group it belongs to, and what it sets in each chart.

    updates   one a chart: attributes of its first trace by dotted path ({"link.value": [...]}), or None: nothing to see
    """

    label: str
    group: str
    updates: Sequence[Mapping[str, Any] | None]


@dataclass(frozen=True)
class Slider:
    """Charts that one slider moves through its frames; it stands at the last one at first."""

    label: str
    charts: Sequence[Chart]
    frames: Sequence[Frame]


@dataclass(frozen=True)
class Command:
    """A command to copy."""

    text: str


@dataclass(frozen=True)
class Fold:
    """Blocks behind a summary that opens them; open in print."""

    summary: str
    blocks: Sequence[Block]


Block = Text | Items | Table | Picture | Chart | Row | Slider | Command | Fold


@dataclass(frozen=True)
class Part:
    """A section of a page; one without heading stands right below the title."""

    heading: str
    blocks: Sequence[Block]


@dataclass
class _Embedded:
    """The values for the page's script, gathered while its HTML is written."""

    charts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    sliders: list[dict[str, Any]] = field(default_factory=list)


def write_page(path: Path, *, title: str, parts: Sequence[Part], dark: Mapping[str, str] | None = None) -> None:
    """Write a report as one HTML file in UTF-8.

    All texts are plain text, but those inside a chart's figure, which Plotly reads (see `charts.plain`).
    A part whose blocks show nothing is left out, and so is a picture whose file does not exist.
    dark   colours of charts on a dark page, by their colours on a light one
    The file is written whole or not at all; equal input gives equal bytes.
    Raises DataError for a picture that is neither PNG nor JPEG by its name.
    """
    embedded = _Embedded()
    sections = [(part.heading, body) for part in parts if (body := _blocks(part.blocks, embedded))]
    # A command line can hold bytes that are no UTF-8; a report shall not fail for them.
    page = _page(title, sections, embedded, dark or {}).encode("utf-8", "replace")
    with written_whole(path) as part:
        part.write_bytes(page)


def score_table(rows: Sequence[ReportRow], caption: str = "") -> Table:
    """The comparison of models that the terminal shows too, without the columns in which no model has anything."""
    columns = [
        (heading, cells)
        for heading, *cells in zip(table_headings(rows), *table_cells(rows), strict=True)
        if any(cell != ABSENT for cell in cells)
    ]
    about_time = [TABLE_CAPTION] if any(row.latency for row in rows) else []
    return Table(
        [heading for heading, _ in columns],
        [list(line) for line in zip(*(cells for _, cells in columns), strict=True)],
        "; ".join([*about_time, *([caption] if caption else [])]),
    )


def _page(title: str, sections: Sequence[tuple[str, str]], embedded: _Embedded, dark: Mapping[str, str]) -> str:
    headings = [heading for heading, _ in sections if heading]
    links = "".join(f'<a href="#part-{place}">{escape(heading)}</a>\n' for place, heading in enumerate(headings))
    places = iter(range(len(headings)))
    body = "".join(
        f'<section>\n<h2 id="part-{next(places)}">{escape(heading)}</h2>\n{html}</section>\n' if heading else html
        for heading, html in sections
    )
    scripts = _scripts() if embedded.charts else []
    policy = "; ".join(
        [
            "default-src 'none'",
            "script-src " + (" ".join(f"'sha256-{_digest(script)}'" for script in scripts) or "'none'"),
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    drawing = ""
    if embedded.charts:
        values = {"dark": dark, "charts": embedded.charts, "sliders": embedded.sliders}
        tags = "".join(f"<script>{script}</script>\n" for script in scripts)
        drawing = (
            f"<footer>Charts by plotly.js, in this file (plotly {escape(version('plotly'))}).</footer>\n</main>\n"
            f'<script type="application/json" id="page-data">{_json(values)}</script>\n{tags}'
        )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_own_file("page.css")}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{f'<nav aria-label="parts of this page">{chr(10)}{links}</nav>{chr(10)}' if len(headings) > 3 else ""}\
{f"<noscript><p>{NO_SCRIPT}</p></noscript>{chr(10)}" if scripts else ""}{body}{drawing or f"</main>{chr(10)}"}</body>
</html>
"""


def _scripts() -> list[str]:
    """Plotly, as its package brings it, and the script that draws; both stand in the page letter by letter."""
    plotly = (files("plotly") / "package_data" / "plotly.min.js").read_bytes().decode("utf-8")
    return [plotly, _own_file("page.js")]


def _own_file(name: str) -> str:
    return (files("emdistill.show") / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _json(values: Any) -> str:
    """JSON that may stand in a script element: nothing in it ends the element."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _blocks(blocks: Sequence[Block], embedded: _Embedded) -> str:
    return "".join(_block(block, embedded) for block in blocks)


def _block(block: Block, embedded: _Embedded) -> str:
    match block:
        case Text(text, tone):
            return f'<p class="{tone}">{escape(text)}</p>\n' if text else ""
        case Items(items):
            lines = "".join(f"<li>{escape(item)}</li>\n" for item in items)
            return f"<ul>\n{lines}</ul>\n" if lines else ""
        case Table():
            return _table(block) if block.lines else ""
        case Picture():
            return _picture(block) if block.path.is_file() else ""
        case Chart():
            return _chart(block, embedded)[1]
        case Row(charts):
            figures = "".join(_chart(chart, embedded)[1] for chart in charts)
            return f'<div class="row">\n{figures}</div>\n' if figures else ""
        case Slider():
            return _slider(block, embedded)
        case Command(text):
            return f'<pre tabindex="0">{escape(text.strip())}</pre>\n' if text.strip() else ""
        case Fold(summary, inner):
            body = _blocks(inner, embedded)
            return f"<details>\n<summary>{escape(summary)}</summary>\n{body}</details>\n" if body else ""


def _table(table: Table) -> str:
    headings = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in table.headings)
    names = [f' data-heading="{escape(heading)}"' if table.text else "" for heading in table.headings]
    lines = "".join(
        f'<tr><th scope="row"{names[0]}>{escape(first)}</th>'
        + "".join(f"<td{name}>{escape(cell)}</td>" for name, cell in zip(names[1:], cells, strict=True))
        + "</tr>\n"
        for first, *cells in table.lines
    )
    kind = ' class="text"' if table.text else ""
    body = f"<table{kind}>\n<thead>\n<tr>{headings}</tr>\n</thead>\n<tbody>\n{lines}</tbody>\n</table>\n"
    caption = f'<p class="small">{escape(table.caption)}</p>\n' if table.caption else ""
    return f'<div class="wide" tabindex="0">\n{body}</div>\n{caption}'


def _picture(picture: Picture) -> str:
    kind = IMAGE_TYPES.get(picture.path.suffix.lower())
    if kind is None:
        raise DataError(f"a page shows pictures of these kinds only: {', '.join(IMAGE_TYPES)}", file=picture.path)
    data = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    caption = escape(picture.caption)
    image = f'<img src="data:{kind};base64,{data}" alt="{caption}">'
    return f"<figure>\n{image}\n<figcaption>{caption}</figcaption>\n</figure>\n"


def _chart(chart: Chart, embedded: _Embedded) -> tuple[str, str]:
    """The chart's name in the page, and its HTML."""
    name = f"chart-{len(embedded.charts)}"
    embedded.charts[name] = chart.figure
    said = escape(". ".join(text.rstrip(".") for text in (chart.title, chart.caption) if text))
    height = int(chart.figure["layout"]["height"])
    title = f"<h3>{escape(chart.title)}</h3>\n" if chart.title else ""
    caption = f"<figcaption>{escape(chart.caption)}</figcaption>\n" if chart.caption else ""
    plot = f'<div class="plot" id="{name}" role="img" aria-label="{said}" style="height:{height}px"></div>\n'
    return name, f"<figure>\n{title}{plot}{caption}</figure>\n"


def _slider(slider: Slider, embedded: _Embedded) -> str:
    name = f"slider-{len(embedded.sliders)}"
    charts = [_chart(chart, embedded) for chart in slider.charts]
    frames = [{"label": frame.label, "updates": list(frame.updates)} for frame in slider.frames]
    embedded.sliders.append({"name": name, "charts": [chart for chart, _ in charts], "frames": frames})
    last = len(slider.frames) - 1
    groups = [(group, len(list(members))) for group, members in groupby(frame.group for frame in slider.frames)]
    marks = "".join(f'<span style="flex:{count}">{escape(group)}</span>' for group, count in groups)
    label = escape(slider.frames[last].label)
    return (
        f'<div class="slider">\n<button type="button" id="{name}-play">Play</button>\n'
        f'<input type="range" id="{name}" min="0" max="{last}" step="1" value="{last}" autocomplete="off" '
        f'aria-label="{escape(slider.label)}" aria-valuetext="{label}">\n'
        + (f'<div class="groups" aria-hidden="true">{marks}</div>\n' if len(groups) > 1 else "")
        + f'<output id="{name}-label" for="{name}">{label}</output>\n</div>\n'
        f'<div class="row">\n{"".join(html for _, html in charts)}</div>\n'
    )
