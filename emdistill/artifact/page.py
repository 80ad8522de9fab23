"""A report as one HTML file that needs nothing else: no script, no network, pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from emdistill.artifact.report import ABSENT, TABLE_CAPTION, ReportRow, table_cells, table_headings
from emdistill.errors import DataError

IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}

STYLE = """\
:root { color-scheme: light dark; --ink: #24292f; --soft: #5a636d; --line: #d9dee3; --back: #ffffff; --tint: #f4f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --soft: #9aa4ae; --line: #363d45; --back: #16191d; --tint: #20252b; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { margin: 0 0 1.5rem; font-size: 1.75rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 2.25rem 0 .75rem; font-size: 1.1rem; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { white-space: pre; vertical-align: bottom; font-size: .85rem; line-height: 1.3; font-weight: 600;
  color: var(--soft); border-bottom-width: 2px; }
tr > :first-child { padding-left: 0; min-width: 9rem; text-align: left; white-space: normal; }
tbody th { font-weight: 600; overflow-wrap: anywhere; }
.small, figcaption { color: var(--soft); font-size: .875rem; }
.small { margin: .5rem 0 0; }
ul { margin: 0; padding-left: 1.2rem; }
li { margin: .3rem 0; overflow-wrap: anywhere; }
figure { margin: 0 0 2rem; }
figure img { display: block; max-width: 100%; height: auto; padding: .5rem; background: #ffffff;
  border: 1px solid var(--line); border-radius: 6px; }
figcaption { margin-top: .5rem; }
pre { margin: 0; padding: .9rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--tint);
  border: 1px solid var(--line); border-radius: 6px; font: .875rem/1.6 ui-monospace, monospace; user-select: all; }
@media print { main { max-width: none; padding: 0; } figure, tr { break-inside: avoid; } }
@media (max-width: 40rem) { table { font-size: .875rem; } th, td { padding: .4rem; } }
"""
# The browser itself then refuses whatever is not in the file.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG file and the sentence below it, which is also read out in its place."""

    path: Path
    caption: str


def write_page(
    path: Path,
    *,
    title: str,
    rows: Sequence[ReportRow],
    pictures: Sequence[Picture],
    notes: Sequence[str] = (),
    command: str = "",
) -> None:
    """Write a report as one HTML file in UTF-8: the comparison table, notes, pictures and a command to copy.

    All texts are plain text. A part with nothing to show is left out, and so is a picture whose file does not exist.
    The file is written whole or not at all; equal input gives equal bytes.
    Raises DataError for a picture that is neither PNG nor JPEG by its name.
    """
    figures = "".join(_figure(picture) for picture in pictures if picture.path.is_file())
    items = "".join(f"<li>{escape(note)}</li>\n" for note in notes)
    parts = [
        _table(rows) if rows else "",
        f"<h2>Notes</h2>\n<ul>\n{items}</ul>\n" if items else "",
        f"<h2>Pictures</h2>\n{figures}" if figures else "",
        f"<h2>Command</h2>\n<pre>{escape(command.strip())}</pre>\n" if command.strip() else "",
    ]
    # A command line can hold bytes that are no UTF-8; a report shall not fail for them.
    page = _page(title, "".join(parts)).encode("utf-8", "replace")
    part = path.with_name(path.name + ".part")
    part.write_bytes(page)
    part.replace(path)


def _page(title: str, body: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}</main>
</body>
</html>
"""


def _table(rows: Sequence[ReportRow]) -> str:
    columns = [
        (heading, cells)
        for heading, *cells in zip(table_headings(rows), *table_cells(rows), strict=True)
        if any(cell != ABSENT for cell in cells)
    ]
    headings = "".join(f'<th scope="col">{escape(heading)}</th>' for heading, _ in columns)
    lines = "".join(
        f'<tr><th scope="row">{escape(model)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>\n"
        for model, *cells in zip(*(cells for _, cells in columns), strict=True)
    )
    table = f"<table>\n<thead>\n<tr>{headings}</tr>\n</thead>\n<tbody>\n{lines}</tbody>\n</table>\n"
    caption = f'<p class="small">{escape(TABLE_CAPTION)}</p>\n' if any(row.latency for row in rows) else ""
    return f'<div class="wide" tabindex="0">\n{table}</div>\n{caption}'


def _figure(picture: Picture) -> str:
    kind = IMAGE_TYPES.get(picture.path.suffix.lower())
    if kind is None:
        raise DataError(f"a page shows pictures of these kinds only: {', '.join(IMAGE_TYPES)}", file=picture.path)
    data = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    caption = escape(picture.caption)
    image = f'<img src="data:{kind};base64,{data}" alt="{caption}">'
    return f"<figure>\n{image}\n<figcaption>{caption}</figcaption>\n</figure>\n"
