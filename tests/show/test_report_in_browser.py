"""The pages in a real browser: they open in silence, move, recolour, print and fit, and take no text for more."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from browser import Browser, Page, started_browser
from run_folders import HOSTILE, add_flows, add_gate, add_predictions, write_run_folder

from emdistill.runs.flows import FlowRecord
from emdistill.show.candidates import read_runs
from emdistill.show.page import PLOTLY, share_script
from emdistill.show.run_report import write_run_report
from emdistill.show.runs_report import write_runs_report

TIMES = {"teacher": 40.0, "student": 20.0, "onnx": 10.0, "int8": 4.0}
SLIDER = ".slider input"
PLOTS = "[...document.querySelectorAll('.plot')]"
INKS = ("xtick text", "xtitle")
# All that the pointer would be told.
HOVER_ALL = """
(() => {
  for (const plot of document.querySelectorAll(".plot"))
    plot.data.forEach((trace, curveNumber) => {
      const length = (trace.x ?? []).length;
      for (let pointNumber = 0; pointNumber < length && trace.type !== "heatmap"; pointNumber++)
        try { Plotly.Fx.hover(plot, [{ curveNumber, pointNumber }]); } catch {}
    });
})()
"""


PAGES = ("run", "runs", "hostile run", "hostile runs")
WITH_SLIDER = ("run", "hostile run")


@dataclass(frozen=True)
class Pages:
    """A run's page and the comparing page, of plain names and of hostile ones; and the flows that the run recorded.

    Each is opened once: a page brings all of Plotly, which takes a while to read.
    """

    browser: Browser
    files: dict[str, Path]
    flows: list[FlowRecord]
    _opened: dict[str, Page] = field(default_factory=dict)

    def script_of(self, name: str) -> str:
        """The address of the script beside a page."""
        return (self.files[name].parent / PLOTLY).as_uri()

    def show(self, name: str, *, width: int = 1400, scheme: Literal["light", "dark"] = "light") -> Page:
        """A page with all its charts drawn, on a screen, its slider at the end."""
        page = self._opened.get(name)
        if page is None:
            page = self._opened[name] = self.browser.open(self.files[name], width=width, scheme=scheme)
            page.wait_for("document.documentElement.dataset.drawn === 'true'")
        page.resize(width)
        page.show_as(scheme=scheme)
        if name in WITH_SLIDER:
            page.focus(SLIDER)
            page.press("End")
        return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Pages:
    top = tmp_path_factory.mktemp("pages")
    folders = [
        write_run_folder(top / f"{method}-{layers}-{seed}", method=method, layers=layers, seed=seed, score=score)
        for method, layers, seed, score in (("bert-emd", 3, 0, 0.8), ("bert-emd", 3, 1, 0.82), ("minilm", 4, 0, 0.84))
    ]
    flows = add_flows(folders[0])
    add_predictions(folders[0])
    for folder in folders[::2]:
        add_gate(folder, milliseconds=TIMES)
    write_runs_report(top / "runs.html", read_runs(folders))

    named = HOSTILE[1]
    hostile = [
        write_run_folder(top / "hostile" / name, labels=HOSTILE[:3], task=HOSTILE[0], method=HOSTILE[4], score=score)
        for name, score in ((named, 0.8), (HOSTILE[3], 0.7))
    ]
    add_flows(hostile[0], terms=(HOSTILE[2], HOSTILE[6]))
    add_predictions(hostile[0], texts=HOSTILE, labels=3)
    add_gate(hostile[0], milliseconds=TIMES, machine={"cpu": HOSTILE[4], "cores": 4, "threads": 2}, notes=HOSTILE)
    hostile_runs = top / "hostile" / f"{named}.html"
    write_runs_report(hostile_runs, read_runs(hostile))
    files = (write_run_report(folders[0]), top / "runs.html", write_run_report(hostile[0]), hostile_runs)
    return Pages(browser, dict(zip(PAGES, files, strict=True)), flows)


def traces(page: Page, kind: str) -> list[dict[str, Any]]:
    """The first traces of the charts of one kind, as they are drawn now."""
    script = "[...document.querySelectorAll('.plot')].map(plot => JSON.stringify(plot.data[0])).map(JSON.parse)"
    return [trace for trace in page.evaluate(script) if trace["type"] == kind]


def shares_of_sankey(trace: dict[str, Any], students: int, teachers: int) -> np.ndarray:
    """[student layers, teacher layers] by the labels of the nodes that each link joins."""
    shares = np.zeros((students, teachers))
    labels, link = trace["node"]["label"], trace["link"]
    for source, target, value in zip(link["source"], link["target"], link["value"], strict=True):
        sides = {labels[node].split()[0]: int(labels[node].split()[1]) for node in (source, target)}
        shares[sides["student"], sides["teacher"]] += value
    return shares


def check_flow(page: Page, record: FlowRecord) -> None:
    """Both pictures of every term show this record, and so does the label."""
    page.settle()
    terms = list(record.flows)
    flows = [np.asarray(record.flows[term]) for term in terms]
    assert f"step {record.step}" in page.evaluate("document.querySelector('.slider output').textContent")
    for flow, sankey, heat in zip(flows, traces(page, "sankey"), traces(page, "heatmap"), strict=False):
        share = flow / flow.sum()
        assert shares_of_sankey(sankey, *flow.shape) == pytest.approx(share, abs=2e-4)
        assert np.asarray(heat["z"]) == pytest.approx(share, abs=2e-4)


def drawn_flow(page: Page) -> str:
    """The shapes of the first Sankey diagram, and the numbers written in the first heat-map."""
    return page.evaluate(
        "[...document.querySelectorAll('.sankey-link')].slice(0, 18).map(path => path.getAttribute('d')).join()"
        " + [...document.querySelectorAll('.heatmap-label')].slice(0, 18).map(text => text.textContent).join()"
    )


def brightness(page: Page, script: str) -> float:
    """0 to 1, of a colour as CSS writes it."""
    red, green, blue = page.evaluate(f"({script}).match(/[0-9.]+/g).slice(0, 3).map(Number)")
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255


def test_the_harness_sees_what_goes_wrong(browser: Browser, tmp_path: Path) -> None:
    """Otherwise silence would prove nothing."""
    path = tmp_path / "bad.html"
    path.write_text(
        "<!DOCTYPE html><img src='absent.png'><script>console.error('said'); new WebSocket('ws://example.org');"
        "fetch('https://example.org/asked').catch(() => 0); setTimeout(() => { throw new Error('thrown'); });"
        "new Image().src = 'data:image/gif;base64,R0lGODlhAQABAAAAACw='; alert('shown')</script>"
    )
    page = browser.open(path)
    page.wait_for("performance.now() > 200")
    said = "\n".join(page.errors)
    assert all(part in said for part in ("said", "thrown", "dialog: shown", "ERR_FILE_NOT_FOUND"))
    assert {address.rstrip("/").rpartition("/")[2] for address in page.requests} == {
        "absent.png",
        "asked",
        "example.org",
    }


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_in_silence_and_asks_for_its_script_alone(pages: Pages, name: str) -> None:
    page = pages.show(name)
    plots = page.evaluate("[...document.querySelectorAll('.plot')].map(plot => plot.querySelectorAll('svg').length)")
    assert plots
    assert all(plots)
    page.evaluate(HOVER_ALL)
    page.settle()
    assert (page.errors, page.requests) == ([], [pages.script_of(name)])
    assert page.evaluate("document.getElementById('no-charts').offsetHeight") == 0


def test_without_its_script_a_page_is_read_and_says_so(pages: Pages, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_bytes(pages.files["run"].read_bytes())
    page = pages.browser.open(tmp_path / "report.html")
    assert page.requests == [(tmp_path / PLOTLY).as_uri()]
    assert page.errors  # that file is not found, and nothing else is wrong
    assert all("FILE_NOT_FOUND" in error for error in page.errors)
    shown = page.evaluate("document.body.innerText")
    assert PLOTLY in shown
    assert all(text in shown for text in ("student, int8", "Calibration and confusion", "Go: ship"))
    assert page.evaluate("Math.max(...[...document.querySelectorAll('.plot, .slider')].map(e => e.offsetHeight))") == 0
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_runs_of_a_comparison_find_the_script_above_them(pages: Pages, tmp_path: Path) -> None:
    share_script(tmp_path)
    folder = write_run_folder(tmp_path / "runs" / "bert-emd-0")
    page = pages.browser.open(write_run_report(folder))
    page.wait_for("document.documentElement.dataset.drawn === 'true'")
    assert (page.errors, page.requests) == ([], [(tmp_path / PLOTLY).as_uri()])
    assert page.evaluate(f"{PLOTS}.every(plot => plot.querySelector('svg'))")


def test_the_slider_moves_the_flow(pages: Pages) -> None:
    page = pages.show("run")
    assert len(traces(page, "sankey")) == len(pages.flows[0].flows) == 2
    check_flow(page, pages.flows[-1])
    last = drawn_flow(page)
    page.press("ArrowLeft")
    check_flow(page, pages.flows[-2])
    assert drawn_flow(page) != last
    page.press("Home")
    check_flow(page, pages.flows[0])
    page.press("ArrowRight", "ArrowRight")
    check_flow(page, pages.flows[2])
    page.press("End")
    check_flow(page, pages.flows[-1])
    assert drawn_flow(page) == last
    page.click(SLIDER)  # into its middle
    middle = int(page.evaluate(f"Number(document.querySelector('{SLIDER}').value)"))
    assert 0 < middle < len(pages.flows) - 1
    check_flow(page, pages.flows[middle])
    label = page.evaluate(f"document.querySelector('{SLIDER}').getAttribute('aria-valuetext')")
    assert f"step {pages.flows[middle].step}" in label
    assert page.errors == []


def test_play_runs_to_the_end(pages: Pages) -> None:
    page = pages.show("run")
    page.press("ArrowLeft")
    page.focus(".slider button")
    page.press("Enter")
    page.wait_for(f"Number(document.querySelector('{SLIDER}').value) === {len(pages.flows) - 1}", 5)
    check_flow(page, pages.flows[-1])


@pytest.mark.parametrize("name", ["hostile run", "hostile runs"])
def test_hostile_texts_are_texts(pages: Pages, name: str) -> None:
    page = pages.show(name)
    page.evaluate(HOVER_ALL)
    if name in WITH_SLIDER:
        page.press("ArrowLeft", "Home")
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    page.settle()
    assert page.evaluate("typeof window.hacked") == "undefined"
    run = "[...document.scripts].filter(script => !script.type).length"
    assert page.evaluate(run) == 2  # Plotly, and what draws
    assert page.evaluate("document.querySelectorAll('img, iframe, object, embed, base').length") == 0
    # A link in a chart would be one of SVG; the page's own lead into itself.
    links = page.evaluate("[...document.querySelectorAll('a')].map(a => a.href.baseVal ?? a.getAttribute('href'))")
    assert all(link.startswith("#") for link in links)
    attributes = "[...document.querySelectorAll('*')].flatMap(element => [...element.attributes])"
    assert page.evaluate(f"{attributes}.filter(attribute => /^on/.test(attribute.name)).length") == 0
    shown = page.evaluate("document.body.innerText")
    assert all(text in shown for text in (HOSTILE[1], HOSTILE[4]))
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = false)")
    assert (page.errors, page.requests) == ([], [pages.script_of(name)])


@pytest.mark.parametrize("name", ["run", "runs"])
def test_a_dark_page_is_dark_with_light_charts(pages: Pages, name: str) -> None:
    page = pages.show(name, scheme="dark")
    for scheme in ("dark", "light", "dark"):
        page.show_as(scheme=scheme)
        back = brightness(page, "getComputedStyle(document.body).backgroundColor")
        inks = [brightness(page, f"getComputedStyle(document.querySelector('.plot .{part}')).fill") for part in INKS]
        assert back < 0.2 if scheme == "dark" else back > 0.9
        assert min(inks) > 0.6 if scheme == "dark" else max(inks) < 0.5
    assert page.errors == []


@pytest.mark.parametrize("name", ["run", "runs"])
def test_paper_shows_everything_in_dark_ink(pages: Pages, name: str) -> None:
    page = pages.show(name, width=720, scheme="dark")
    page.show_as(media="print")
    page.wait_for("[...document.querySelectorAll('details')].every(fold => fold.open)", 5)
    assert brightness(page, "getComputedStyle(document.body).backgroundColor") > 0.9
    assert (
        max(brightness(page, f"getComputedStyle(document.querySelector('.plot .{part}')).fill") for part in INKS) < 0.5
    )
    assert page.evaluate(
        f"{PLOTS}.every(plot => plot.offsetHeight > 0 && plot.querySelector('svg').clientWidth <= 720)"
    )
    assert page.evaluate("[...document.querySelectorAll('button, input')].every(part => part.offsetHeight === 0)")
    parts = "[...document.querySelectorAll('section, figure, table, p:not([hidden]), li, pre')]"
    assert page.evaluate(f"{parts}.filter(part => !part.offsetHeight).map(part => part.outerHTML.slice(0, 99))") == []
    page.show_as(media="")
    assert page.evaluate("[...document.querySelectorAll('details')].some(fold => fold.open)") is False
    assert brightness(page, "getComputedStyle(document.body).backgroundColor") < 0.2
    assert page.errors == []


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_the_window(pages: Pages, name: str) -> None:
    for width in (820, 1400, 390):
        page = pages.show(name, width=width)
        assert page.evaluate("innerWidth") == width
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        # Charts follow the window a moment later.
        edges = f"{PLOTS}.flatMap(plot => [...plot.querySelectorAll('svg')]).map(e => e.getBoundingClientRect().right)"
        page.wait_for(f"Math.max(...{edges}) <= {width}", 5)


def test_the_comparing_page_shows_every_form_and_the_front(pages: Pages) -> None:
    page = pages.show("runs")
    charts = page.evaluate(f"{PLOTS}.map(plot => plot.data.map(t => [t.name, [...t.x], [...t.y], t.text]))")
    by_time, by_size = ({name: (x, y, text) for name, x, y, text in chart} for chart in charts)
    assert by_time["int8"] == ([4, 4], [0.79, 0.79], ["1", "2"])
    assert by_time["ONNX"] == ([10, 10], [0.8, 0.8], ["1", "2"])
    assert by_time["teacher"][:2] == ([40], [0.9])
    assert by_size["PyTorch"][1] == pytest.approx([0.81, 0.84])
    assert by_time["Pareto front"][0] == [4, 4, 10, 10, 20, 40]
    assert page.evaluate("document.querySelectorAll('.plot .scatterlayer .js-line').length") == 2
    assert page.evaluate("document.querySelectorAll('.plot')[0].querySelectorAll('.scatterlayer .point').length") == 7
