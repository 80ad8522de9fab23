"""The page: everything is in it, nothing outside it is asked for, and no text of it is taken for HTML."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from emdistill.artifact.figures import draw_flows
from emdistill.artifact.flows import FlowRecord
from emdistill.artifact.page import Picture, write_page
from emdistill.artifact.report import ReportRow, markdown_table
from emdistill.errors import DataError

ROWS = [
    ReportRow("teacher", {"accuracy": 0.8333, "f1": 0.881}, 22_713_216, 90_852_864, 12.34),
    ReportRow("student, bert-emd", {"accuracy": 0.8211}, 17_389_824, 69_559_296, 6.17),
]
NASTY = "</pre></title><script>alert('x')</script> \"q\" & <img src=x onerror=y>"
VOID = {"meta", "img", "br", "link"}


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


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    path = tmp_path / "flows.png"
    draw_flows([FlowRecord(5, "joint", {"hidden_states": [[0.75, 0.25]]})], path)
    return path


def test_a_page_holds_title_table_notes_pictures_and_command(tmp_path: Path, flows: Path) -> None:
    path = tmp_path / "report.html"
    command = "emdistill distill --teacher t \\\n    --data reviews.csv"
    pictures = [Picture(flows, "Who taught whom – μ"), Picture(tmp_path / "no.png", "was not drawn")]
    write_page(path, title="Wörter", rows=ROWS, pictures=pictures, notes=["one", "two"], command=f"\n{command}\n")
    page = Page(path)
    assert page.texts["title"] == page.texts["h1"] == ["Wörter"]
    assert page.texts["li"] == ["one", "two"]
    assert page.texts["pre"] == [command]
    assert page.texts["figcaption"] == ["Who taught whom – μ"]
    assert [image["alt"] for image in page.named("img")] == ["Who taught whom – μ"]
    data = (page.named("img")[0]["src"] or "").removeprefix("data:image/png;base64,")
    assert base64.b64decode(data, validate=True) == flows.read_bytes()


def test_the_table_is_the_one_of_the_other_reports(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", title="t", rows=ROWS, pictures=[])
    page = Page(tmp_path / "report.html")
    header, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in markdown_table(ROWS).splitlines())
    headings = [" ".join(heading.split()) for heading in page.texts["th"]]
    assert headings == header + [line[0] for line in lines]
    assert page.texts["td"] == [cell for line in lines for cell in line[1:]]
    assert page.texts["td"][:6] == ["0.833", "0.881", "22.7", "90.9", "12.3", "1.0×"]
    assert "–" in page.texts["td"]
    assert [cell["scope"] for cell in page.named("th")] == ["col"] * len(header) + ["row"] * len(ROWS)


def test_no_text_is_taken_for_html(tmp_path: Path, flows: Path) -> None:
    path = tmp_path / "report.html"
    rows = [ReportRow(NASTY, {NASTY: 0.5})]
    write_page(path, title=NASTY, rows=rows, pictures=[Picture(flows, NASTY)], notes=[NASTY], command=NASTY)
    page = Page(path)
    for tag in ("title", "h1", "li", "figcaption", "pre"):
        assert page.texts[tag] == [NASTY]
    assert page.texts["th"].count(NASTY) == 2  # the metric and the model
    assert [image["alt"] for image in page.named("img")] == [NASTY]
    assert not page.named("script")


def test_a_page_asks_for_nothing_outside_it(tmp_path: Path, flows: Path) -> None:
    path = tmp_path / "report.html"
    write_page(path, title="t", rows=ROWS, pictures=[Picture(flows, "c")], notes=["n"], command="c")
    page, text = Page(path), path.read_text(encoding="utf-8")
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "a", "base"})
    addresses = [
        attributes[name] for _, attributes in page.tags for name in ("src", "href", "srcset") if name in attributes
    ]
    assert len(addresses) == 1
    assert str(addresses[0]).startswith("data:image/png;base64,")
    assert not re.search(r"https?:|url\(|@import|//", re.sub(r"base64,[^\"]*", "", text))
    assert any("default-src 'none'" in str(meta.get("content")) for meta in page.named("meta"))
    assert str(tmp_path) not in text


def test_equal_input_gives_equal_bytes_and_an_old_page_is_replaced(tmp_path: Path, flows: Path) -> None:
    contents = []
    for name, title in (("a", "t"), ("b", "t"), ("b", "other")):
        write_page(tmp_path / name, title=title, rows=ROWS, pictures=[Picture(flows, "c")], command="c\nd")
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] != contents[2]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "flows.png"]


def test_what_there_is_nothing_of_is_left_out(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", title="t", rows=[], pictures=[Picture(tmp_path / "no.png", "c")], command=" ")
    page = Page(tmp_path / "report.html")
    assert page.texts["h1"] == ["t"]
    assert set(page.texts).isdisjoint({"h2", "table", "ul", "figure", "pre"})


def test_a_picture_of_an_unknown_kind_is_refused_and_the_old_page_stays(tmp_path: Path) -> None:
    page, drawing = tmp_path / "report.html", tmp_path / "flows.svg"
    page.write_text("old")
    drawing.write_text("<svg/>")
    with pytest.raises(DataError, match=r"flows\.svg: .*\.png"):
        write_page(page, title="t", rows=ROWS, pictures=[Picture(drawing, "c")])
    assert page.read_text() == "old"
    assert not (tmp_path / "report.html.part").exists()


def test_a_command_that_is_no_unicode_does_not_break_a_page(tmp_path: Path) -> None:
    write_page(
        tmp_path / "report.html", title="t", rows=ROWS, pictures=[], command="emdistill distill --data \udcff.csv"
    )
    assert Page(tmp_path / "report.html").texts["pre"] == ["emdistill distill --data ?.csv"]
