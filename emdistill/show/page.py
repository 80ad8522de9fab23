"""Pages and cards: templates filled in, and Plotly's script once per folder of pages.

A page is one HTML file with its texts, tables and the values of its charts; what draws them, plotly.min.js, stands
beside it, or above it where the pages of a comparison share it. Without that file all but the charts is there, and the
page says that they are missing. No page asks the network for anything.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from emdistill.console import Table, markdown
from emdistill.data.unlabelled import texts_kept
from emdistill.files import written_whole
from emdistill.runs.comparison import RUNS
from emdistill.show.charts import DARK

PLOTLY = "plotly.min.js"


class Text(str):
    """A paragraph; what stands between `backticks` is code."""

    look: ClassVar = ""


class Small(Text):
    """A quiet one, about what stands beside it."""

    look = "small"


class Verdict(Text):
    """A sentence that judges."""

    look = "verdict"


class Go(Verdict):
    look = "verdict go"


class NoGo(Verdict):
    look = "verdict no-go"


class Notes(tuple[str, ...]):
    """Sentences below each other."""


class Command(str):
    """A line for a shell."""


class Fold(Table):
    """A table that opens when its title is pressed."""


@dataclass(frozen=True)
class Chart:
    """A Plotly figure as {"data": [...], "layout": {"height": pixels, ...}}, its title, and the sentence below it.

    Colours are those of `charts.DARK`, which has each one's counterpart on a dark page.
    """

    title: str
    figure: Mapping[str, Any]
    caption: str = ""


class Row(tuple[Chart, ...]):
    """Charts beside each other, where there is room."""


@dataclass(frozen=True)
class Frame:
    """What a slider shows at one place: its label, its group, and what it sets in each chart.

    updates   one per chart: attributes of its first trace by dotted path ({"link.value": [...]}); None: not there
    """

    label: str
    group: str
    updates: Sequence[Mapping[str, Any] | None]


@dataclass(frozen=True)
class Slider:
    """Charts that one slider moves through its frames; it begins at the last one."""

    label: str
    charts: Sequence[Chart]
    frames: Sequence[Frame]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The groups in their order, each with how many of its frames follow each other."""
        return [(group, len(list(frames))) for group, frames in groupby(frame.group for frame in self.frames)]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The frames as the page's script reads them."""
        return [{"label": frame.label, "updates": frame.updates} for frame in self.frames]


Part = Text | Notes | Command | Table | Chart | Row | Slider
MACROS: dict[type[Any], str] = {
    Text: "text", Notes: "items", Command: "command", Fold: "fold", Table: "table", Chart: "chart", Row: "row",
    Slider: "slider",
}  # fmt: skip
"""What draws each kind of part, in templates/blocks.html."""


@dataclass(frozen=True)
class Section:
    """What stands below a heading; without a heading, what a page begins with.

    parts    from top to bottom; those that are None or empty are left out, and a section of no others with them
    anchor   of a link to it at the top of the page
    """

    heading: str
    parts: Sequence[Part | None]
    anchor: str = ""


def write_sections(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a page of these sections in UTF-8, whole or not at all; equal input gives equal bytes.

    All of it is plain text but what is inside a chart's figure, which Plotly reads (see `charts.plain`).
    """
    body = render("sections.html", sections=[section for section in sections if any(section.parts)])
    script = _script_for(path) if 'class="plot"' in body else None
    # Only scripts that bear this number may run. It is a hash of the texts, so that no text can hold it.
    nonce = hashlib.sha256(f"{title}\n{body}".encode("utf-8", "replace")).hexdigest()[:32]
    page = render("page.html", title=title, body=body, script=script, nonce=nonce, dark=DARK)
    with written_whole(path) as part:
        # A command line can hold bytes that are no UTF-8; a page shall not fail for them.
        part.write_bytes(page.encode("utf-8", "replace"))


def render(template: str, **values: Any) -> Markup:
    """A template filled in; in those of HTML every value is escaped, and one that is missing is an error."""
    return Markup(_environment().get_template(template).render(**values))


def share_script(folder: Path) -> None:
    """Put plotly.min.js into a folder: the pages in it need it, and those of the runs in folder/runs share it."""
    if not _has_script(folder):
        with written_whole(folder / PLOTLY) as part:
            part.write_bytes(_script())


def _script_for(page: Path) -> str:
    """Where the page finds plotly.min.js, which is put beside it where no comparison above has it."""
    folder = page.absolute().parent
    if folder.parent.name == RUNS and _has_script(folder.parent.parent):
        return f"../../{PLOTLY}"
    share_script(folder)
    return PLOTLY


def _script() -> bytes:
    return files("plotly").joinpath("package_data", PLOTLY).read_bytes()


def _has_script(folder: Path) -> bool:
    return (folder / PLOTLY).is_file() and (folder / PLOTLY).read_bytes() == _script()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("emdistill.show"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies |= {"json.dumps_function": _as_json, "json.dumps_kwargs": {}}
    environment.filters |= {
        "code": code_span, "line": plain_line, "words": words, "markdown": markdown, "thousands": "{:,}".format,
        "texts_kept": texts_kept, "macro": lambda part: next(MACROS[kind] for kind in MACROS if isinstance(part, kind)),
    }  # fmt: skip
    environment.globals["blocks"] = environment.get_template("blocks.html").module
    return environment


def _as_json(values: Any) -> str:
    return json.dumps(_rounded(values), allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _rounded(value: Any) -> Any:
    """Plain values with floats of five significant digits, which is more than a chart shows."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def words(name: str) -> str:
    """A name without underscores."""
    return name.replace("_", " ")


def plain_line(text: object) -> str:
    """A text in Markdown: one line, and no HTML."""
    return escape(" ".join(str(text).split()), quote=False)


def code_span(text: object) -> str:
    """A text as a code span of Markdown, whatever it holds."""
    line, ticks = " ".join(str(text).split()), "`"
    while ticks in line:
        ticks += "`"
    gap = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{ticks}{gap}{line}{gap}{ticks}"
