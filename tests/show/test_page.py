"""The page: what is in it, what may run in it, where its script stands; no text of it is taken for HTML."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pytest
from pages import Page

from emdistill.console import ReportRow, Table, comparison_table, markdown
from emdistill.show.charts import DARK, lines
from emdistill.show.page import (
    PLOTLY,
    Chart,
    Command,
    Frame,
    Notes,
    Row,
    Section,
    Slider,
    Small,
    code_span,
    plain_line,
    render,
    share_script,
    write_sections,
)

ROWS = [
    ReportRow("teacher", {"accuracy": 0.8333, "f1": 0.881}, 22_713_216, 90_852_864, 12.34),
    ReportRow("student, bert-emd", {"accuracy": 0.8211}, 17_389_824, 69_559_296, 6.17),
]
NASTY = "</pre></title></script><script>alert('x')</script><!--<script> \"q\" & <img src=x onerror=y>"
CHART = Chart("Title", lines({"a": ([0, 1], [1, 2])}, x="x", y="y"), "Caption.")


def written(
    folder: Path, *, title: str = "t", name: str = "report.html", table: Table | None = None,
    items: Sequence[str] = (), charts: Sequence[Chart] = (), slider: Slider | None = None, command: str = "c",
) -> Page:  # fmt: skip
    parts = [table or Table(["a"], [["b"]]), Notes(items), Row(charts), slider, Command(command)]
    folder.mkdir(parents=True, exist_ok=True)
    write_sections(folder / name, title, [Section("", parts)])
    return Page(folder / name)


def slider(*labels: str) -> Slider:
    frames = [Frame(label, label[0], [{"z": [[place]]}, None]) for place, label in enumerate(labels)]
    return Slider("step", [CHART, CHART], frames)


def test_sections_without_parts_are_left_out_and_links_lead_to_the_others(tmp_path: Path) -> None:
    said = Small("press `<b>` or `x`")
    sections = [Section(name, [None, said, Notes()], name) for name in "abcd"]
    write_sections(tmp_path / "page.html", "t", [*sections, Section("e", [None, Notes(), Row()], "e")])
    page = Page(tmp_path / "page.html")
    assert page.texts["h2"] == page.texts["a"][:4] == [*"abcd"]
    assert [link["href"] for link in page.named("a")] == ["#a", "#b", "#c", "#d"]
    assert page.texts["p"] == ["press <b> or x"] * 4
    assert page.named("p")[0] == {"class": "small"}
    assert len(page.named("code")) == 8


def test_the_table_is_the_one_of_the_other_reports(tmp_path: Path) -> None:
    table = comparison_table(ROWS, caption="on some machine")
    page = written(tmp_path, table=table)
    header, _, *cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in markdown(table).splitlines())
    headings = [" ".join(heading.split()) for heading in page.texts["th"]]
    assert headings == header + [line[0] for line in cells]
    assert page.texts["td"] == [cell for line in cells for cell in line[1:]]
    assert page.texts["td"][:6] == ["0.833", "0.881", "22.7", "90.9", "12.3", "1.0×"]
    assert [cell["scope"] for cell in page.named("th")] == ["col"] * len(header) + ["row"] * len(ROWS)
    assert page.texts["p"] == [table.caption]
    assert [cell.get("class") for cell in page.named("th")][:2] == ["words", None]
    text = written(tmp_path, table=Table(["a", "b"], [["x", "y"]], words=(0, 1)))
    assert text.named("table") == [{"class": "text"}]
    assert [cell["data-heading"] for cell in text.named("th")[2:] + text.named("td")] == ["a", "b"]


def test_no_text_is_taken_for_html(tmp_path: Path) -> None:
    frames = [Frame(NASTY, NASTY, [None]), Frame("b", "b", [{"z": NASTY}])]
    page = written(
        tmp_path,
        title=NASTY,
        table=Table([NASTY, "b"], [[NASTY, NASTY]], caption=NASTY, words=(0, 1)),
        items=[NASTY],
        charts=[Chart(NASTY, lines({NASTY: ([0], [1])}, x=NASTY, y=NASTY), NASTY)],
        slider=Slider(NASTY, [CHART], frames),
        command=NASTY,
    )
    for tag in ("title", "h1", "li", "pre", "td"):
        assert page.texts[tag] == [NASTY]
    assert NASTY in page.texts["h3"]
    assert page.texts["th"].count(NASTY) == 2
    assert NASTY in page.texts["p"]
    assert page.texts["span"] == [NASTY, "b"]
    runs = [attributes for attributes, _ in page.scripts if attributes.get("type") is None]
    assert len(runs) == 2
    assert [each["label"] for each in page.data[1]] == [NASTY, "b"]
    assert page.charts[0]["layout"]["xaxis"]["title"]["text"] == NASTY
    assert all("<" not in text for attributes, text in page.scripts if attributes.get("type"))
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_only_its_two_scripts_may_run_and_the_number_comes_of_the_page(tmp_path: Path) -> None:
    page = written(tmp_path, charts=[CHART])
    plotly, own = (attributes for attributes, _ in page.scripts if attributes.get("type") is None)
    assert plotly == {"nonce": own["nonce"], "src": PLOTLY}
    rules = dict(rule.split(" ", 1) for rule in page.policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'nonce-{own['nonce']}'"
    assert "unsafe-eval" not in page.policy
    assert any(PLOTLY in text for text in page.texts["p"])  # what is said where it is missing
    other = written(tmp_path, charts=[CHART], command="another")
    assert other.named("script")[-1]["nonce"] != own["nonce"]
    silent = written(tmp_path)
    assert "script-src 'none'" in silent.policy
    assert not silent.named("script")
    assert "p" not in silent.texts


def test_a_page_asks_for_its_script_and_nothing_else(tmp_path: Path) -> None:
    page = written(tmp_path, charts=[CHART], slider=slider("a1", "b1"))
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object", "embed", "base", "form", "img"})
    names = ("src", "href", "srcset", "action")
    assert [attributes[name] for _, attributes in page.tags for name in names if name in attributes] == [PLOTLY]
    style = "".join(page.texts["style"])
    assert "url(" not in style
    assert "@import" not in style
    assert str(tmp_path) not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_charts_and_sliders_reach_the_script(tmp_path: Path) -> None:
    page = written(tmp_path, charts=[CHART, CHART], slider=slider("a1", "a2", "b1"))
    plots = [attributes for attributes in page.named("div") if attributes.get("class") == "plot"]
    assert len(plots) == len(page.charts) == 4
    assert all(plot["role"] == "img" and plot["aria-label"] == "Title. Caption." for plot in plots)
    assert f"{CHART.figure['layout']['height']}px" in str(plots[0]["style"])
    assert page.charts[0] == json.loads(json.dumps(CHART.figure))
    dark = next(json.loads(text) for attributes, text in page.scripts if attributes.get("id") == "dark")
    assert dark == DARK
    assert page.data[2][2] == {"label": "b1", "updates": [{"z": [[2]]}, None]}
    control = page.named("input")[0]
    assert (control["min"], control["max"], control["value"], control["aria-label"]) == ("0", "2", "2", "step")
    assert page.texts["output"] == ["b1"]
    assert page.texts["span"] == ["a", "b"]


def test_equal_input_gives_equal_bytes_and_an_old_page_is_replaced(tmp_path: Path) -> None:
    contents = []
    for name, title in (("a", "t"), ("b", "t"), ("b", "other")):
        written(tmp_path, name=name, title=title, charts=[CHART])
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] != contents[2]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", PLOTLY]


def test_a_value_that_is_missing_is_an_error_and_the_old_page_stays(tmp_path: Path) -> None:
    with pytest.raises(jinja2.UndefinedError):
        render("sections.html")
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(ValueError, match="JSON"):
        written(tmp_path, charts=[Chart("NaN", {"data": [{"y": [math.nan]}], "layout": {"height": 1}})])
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("report.html", "old")]


def test_a_command_that_is_no_unicode_does_not_break_a_page(tmp_path: Path) -> None:
    page = written(tmp_path, command="emdistill distill --data \udcff.csv")
    assert page.texts["pre"] == ["emdistill distill --data ?.csv"]


# ---------------------------------------------------------------------------------------------- where the script is


def script_of(folder: Path) -> str:
    return str(
        next(attributes["src"] for attributes, _ in written(folder, charts=[CHART]).scripts if "src" in attributes)
    )


def test_a_folder_of_its_own_has_a_script_of_its_own(tmp_path: Path) -> None:
    share_script(tmp_path)
    assert script_of(tmp_path / "run") == PLOTLY
    assert (tmp_path / "run" / PLOTLY).read_bytes() == (tmp_path / PLOTLY).read_bytes()
    assert len((tmp_path / PLOTLY).read_bytes()) > 1e6


def test_the_runs_of_a_comparison_share_its_script(tmp_path: Path) -> None:
    share_script(tmp_path)
    assert script_of(tmp_path / "runs" / "a-0") == f"../../{PLOTLY}"
    assert script_of(tmp_path / "runs" / "b-0") == f"../../{PLOTLY}"
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.js")] == [PLOTLY]


@pytest.mark.parametrize("above", [None, b"of another version, or of another's"])
def test_what_stands_above_by_that_name_is_neither_needed_nor_touched(tmp_path: Path, above: bytes | None) -> None:
    if above is not None:
        (tmp_path / PLOTLY).write_bytes(above)
    assert script_of(tmp_path / "runs" / "mine") == PLOTLY
    assert above is None or (tmp_path / PLOTLY).read_bytes() == above


def test_an_old_script_beside_the_page_is_renewed(tmp_path: Path) -> None:
    (tmp_path / PLOTLY).write_bytes(b"old")
    assert script_of(tmp_path) == PLOTLY
    assert len((tmp_path / PLOTLY).read_bytes()) > 1e6


# ------------------------------------------------------------------------------------------------------- markdown


@pytest.mark.parametrize(
    ("text", "span"), [("a", "`a`"), ("a`b", "``a`b``"), ("`a", "`` `a ``"), ("a\n# b", "`a # b`")]
)
def test_a_code_span_holds_its_text(text: str, span: str) -> None:
    assert code_span(text) == span


def test_a_line_of_markdown_is_one_line_without_html() -> None:
    assert plain_line('a\n\n# <b>"b"</b> & c') == 'a # &lt;b&gt;"b"&lt;/b&gt; &amp; c'
