"""The page: everything is in it, nothing outside it is asked for, and no text of it is taken for HTML."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from emdistill.console import ReportRow, markdown_table
from emdistill.errors import DataError
from emdistill.runs.flows import FlowRecord
from emdistill.show.charts import lines
from emdistill.show.figures import draw_flows
from emdistill.show.page import (
    Chart,
    Command,
    Fold,
    Frame,
    Items,
    Part,
    Picture,
    Row,
    Slider,
    Table,
    Text,
    score_table,
    write_page,
)

ROWS = [
    ReportRow("teacher", {"accuracy": 0.8333, "f1": 0.881}, 22_713_216, 90_852_864, 12.34),
    ReportRow("student, bert-emd", {"accuracy": 0.8211}, 17_389_824, 69_559_296, 6.17),
]
NASTY = "</pre></title></script><script>alert('x')</script><!--<script> \"q\" & <img src=x onerror=y>"
VOID = {"meta", "img", "br", "link", "input"}
CHART = Chart("Title", lines({"a": ([0, 1], [1, 2])}, x="x", y="y"), "Caption.")


class Page(HTMLParser):
    """What a browser would make of a page: the texts by tag, the tags' attributes; refuses tags that do not nest."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(path.read_bytes().decode("utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def values(self) -> dict[str, Any]:
        """What the page's script reads."""
        place = next(i for i, attributes in enumerate(self.named("script")) if attributes.get("id") == "page-data")
        return json.loads(self.texts["script"][place])

    @property
    def policy(self) -> str:
        return next(str(meta["content"]) for meta in self.named("meta") if "http-equiv" in meta)


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    path = tmp_path / "flows.png"
    draw_flows([FlowRecord(5, "joint", {"hidden_states": [[0.75, 0.25]]})], path)
    return path


def written(folder: Path, *parts: Part, title: str = "t", dark: dict[str, str] | None = None) -> Page:
    write_page(folder / "report.html", title=title, parts=parts, dark=dark)
    return Page(folder / "report.html")


def slider(*labels: str) -> Slider:
    frames = [Frame(label, label[0], [{"z": [[place]]}, None]) for place, label in enumerate(labels)]
    return Slider("step", [CHART, CHART], frames)


def test_a_page_holds_title_texts_pictures_and_command(tmp_path: Path, flows: Path) -> None:
    command = "emdistill distill --teacher t \\\n    --data reviews.csv"
    pictures = [Picture(flows, "Who taught whom – μ"), Picture(tmp_path / "no.png", "was not drawn")]
    page = written(
        tmp_path,
        Part("", [Text("first", "verdict go")]),
        Part("Notes", [Items(["one", "two"]), Fold("more", [Text("inside", "small")])]),
        Part("Pictures", [*pictures, Command(f"\n{command}\n")]),
        title="Wörter",
    )
    assert page.texts["title"] == page.texts["h1"] == ["Wörter"]
    assert page.texts["h2"] == ["Notes", "Pictures"]
    assert page.texts["p"] == ["first", "inside"]
    assert page.texts["summary"] == ["more"]
    assert page.texts["li"] == ["one", "two"]
    assert page.texts["pre"] == [command]
    assert page.texts["figcaption"] == ["Who taught whom – μ"]
    data = (page.named("img")[0]["src"] or "").removeprefix("data:image/png;base64,")
    assert base64.b64decode(data, validate=True) == flows.read_bytes()


def test_the_table_is_the_one_of_the_other_reports(tmp_path: Path) -> None:
    page = written(tmp_path, Part("", [score_table(ROWS, "on some machine")]))
    header, _, *cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in markdown_table(ROWS).splitlines())
    headings = [" ".join(heading.split()) for heading in page.texts["th"]]
    assert headings == header + [line[0] for line in cells]
    assert page.texts["td"] == [cell for line in cells for cell in line[1:]]
    assert page.texts["td"][:6] == ["0.833", "0.881", "22.7", "90.9", "12.3", "1.0×"]
    assert [cell["scope"] for cell in page.named("th")] == ["col"] * len(header) + ["row"] * len(ROWS)
    assert page.texts["p"] == ["ms: the median; speed-up: against the first row; on some machine"]
    without = written(tmp_path, Part("", [score_table([ReportRow("a", {"f1": 1.0})])]))
    assert without.texts["th"] == ["model", "f1", "a"]


def test_no_text_is_taken_for_html(tmp_path: Path, flows: Path) -> None:
    page = written(
        tmp_path,
        Part(NASTY, [Text(NASTY), Items([NASTY]), Picture(flows, NASTY), Command(NASTY), Fold(NASTY, [Text(NASTY)])]),
        Part(
            NASTY, [score_table([ReportRow(NASTY, {NASTY: 0.5})]), Table([NASTY, "b"], [[NASTY, NASTY]], NASTY, True)]
        ),
        Part(NASTY, [Chart(NASTY, CHART.figure, NASTY)]),
        Part(NASTY, [Slider(NASTY, [CHART], [Frame(NASTY, NASTY, [None]), Frame("b", "b", [{"z": NASTY}])])]),
        title=NASTY,
    )
    for tag in ("title", "h1", "li", "pre", "summary"):
        assert page.texts[tag] == [NASTY]
    assert page.texts["h2"] == [text for text in page.texts["a"] if text] == [NASTY] * 4
    assert NASTY in page.texts["h3"]
    assert page.texts["th"].count(NASTY) == 4
    assert [image["alt"] for image in page.named("img")] == [NASTY]
    assert len(page.named("script")) == 3
    assert page.values["sliders"][0]["frames"][0]["label"] == NASTY
    assert "<" not in page.texts["script"][0]


def test_a_page_asks_for_nothing_outside_it(tmp_path: Path, flows: Path) -> None:
    page = written(tmp_path, Part("a", [score_table(ROWS), Picture(flows, "c"), CHART, slider("a1", "b1")]))
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object", "embed", "base", "form"})
    addresses = [
        str(attributes[name])
        for _, attributes in page.tags
        for name in ("src", "href", "srcset", "action")
        if name in attributes
    ]
    assert [address.partition(",")[0] for address in addresses] == ["data:image/png;base64"]
    style = "".join(page.texts["style"])
    assert not re.search(r"https?:|url\(|@import", style)
    assert str(tmp_path) not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_exactly_the_scripts_in_the_file_may_run(tmp_path: Path) -> None:
    page = written(tmp_path, Part("a", [CHART]))
    kinds = [attributes.get("type") for attributes in page.named("script")]
    assert kinds == ["application/json", None, None]
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text, kind in zip(page.texts["script"], kinds, strict=True)
        if kind is None
    ]
    rules = dict(rule.split(" ", 1) for rule in page.policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == " ".join(hashes)
    assert "unsafe-eval" not in page.policy
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.texts["noscript"]
    silent = written(tmp_path, Part("a", [Text("b")]))
    assert "script-src 'none'" in silent.policy
    assert not silent.named("script")
    assert "noscript" not in silent.texts


def test_charts_and_sliders_reach_the_script(tmp_path: Path) -> None:
    page = written(tmp_path, Part("a", [CHART, Row([CHART, CHART]), slider("a1", "a2", "b1")]), dark={"#000": "#fff"})
    values = page.values
    plots = [attributes for attributes in page.named("div") if attributes.get("class") == "plot"]
    assert [plot["id"] for plot in plots] == list(values["charts"]) == [f"chart-{place}" for place in range(5)]
    assert all(plot["role"] == "img" and plot["aria-label"] == "Title. Caption" for plot in plots)
    assert f"height:{CHART.figure['layout']['height']}px" in str(plots[0]["style"])
    assert values["charts"]["chart-0"] == json.loads(json.dumps(CHART.figure))
    assert values["dark"] == {"#000": "#fff"}
    found = values["sliders"][0]
    assert found["charts"] == ["chart-3", "chart-4"]
    assert found["frames"][2] == {"label": "b1", "updates": [{"z": [[2]]}, None]}
    control = page.named("input")[0]
    assert (control["min"], control["max"], control["value"], control["aria-label"]) == ("0", "2", "2", "step")
    assert page.texts["output"] == ["b1"]
    assert [text for text in page.texts["span"] if text] == ["a", "b"]


def test_equal_input_gives_equal_bytes_and_an_old_page_is_replaced(tmp_path: Path, flows: Path) -> None:
    contents = []
    for name, title in (("a", "t"), ("b", "t"), ("b", "other")):
        write_page(tmp_path / name, title=title, parts=[Part("p", [Picture(flows, "c"), CHART, Command("c\nd")])])
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] != contents[2]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "flows.png"]


def test_what_there_is_nothing_of_is_left_out(tmp_path: Path) -> None:
    nothing = [Picture(tmp_path / "no.png", "c"), Command(" "), Text(""), Items([]), Table([], []), Row([])]
    page = written(tmp_path, Part("nothing", [*nothing, Fold("still nothing", nothing)]))
    assert page.texts["h1"] == ["t"]
    assert set(page.texts).isdisjoint({"h2", "table", "ul", "figure", "pre", "details", "nav", "p"})


def test_a_picture_of_an_unknown_kind_is_refused_and_the_old_page_stays(tmp_path: Path) -> None:
    page, drawing = tmp_path / "report.html", tmp_path / "flows.svg"
    page.write_text("old")
    drawing.write_text("<svg/>")
    with pytest.raises(DataError, match=r"flows\.svg: .*\.png"):
        write_page(page, title="t", parts=[Part("", [Picture(drawing, "c")])])
    assert page.read_text() == "old"
    assert not list(tmp_path.glob("*.part"))


def test_a_command_that_is_no_unicode_does_not_break_a_page(tmp_path: Path) -> None:
    page = written(tmp_path, Part("", [Command("emdistill distill --data \udcff.csv")]))
    assert page.texts["pre"] == ["emdistill distill --data ?.csv"]
