"""The page of a run: what stands in the folder is on it, and what does not is left out or asked for."""

import json
import re
import shutil
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as plotly
import pytest
from messages import names, unnamed
from pages import Page, of_kind
from run_folders import add_flows, add_gate, add_predictions, read_record, write_record, write_run_folder

from emdistill.errors import DataError, OutputError
from emdistill.runs.baseline_record import BaselineRecord, ModelRow, write_baselines
from emdistill.runs.flows import FlowRecord
from emdistill.runs.gate_record import Machine
from emdistill.show import sections
from emdistill.show.page import PLOTLY, Row, Slider
from emdistill.show.run_report import write_run_report
from emdistill.show.sections import SECTIONS
from emdistill.show.sections.flow import flow_section, thinned
from emdistill.show.sections.weights import weight_rows

TIMES = {"teacher": 24.0, "student": 9.0, "onnx": 5.0, "int8": 3.0}


def page_of(folder: Path) -> Page:
    path = write_run_report(folder)
    assert path == folder / "report.html"
    page = Page(path)
    for figure in page.charts if page.named("input") else ():
        plotly.Figure(figure)
    return page


def cells(page: Page) -> dict[str, list[str]]:
    """The first table's cells by its rows' names."""
    names, texts = page.texts["th"], iter(page.texts["td"])
    columns = next(place for place, name in enumerate(names) if name == "teacher") - 1
    rows = takewhile(lambda name: name.startswith(("teacher", "student")), names[columns + 1 :])
    return {name: [next(texts) for _ in range(columns)] for name in rows}


def change(folder: Path, **values: Any) -> None:
    write_record(folder, read_record(folder) | values)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run_folder(tmp_path / "run")


def test_every_section_is_a_file_and_stands_in_the_table() -> None:
    files = {file.stem for file in Path(sections.__file__).parent.glob("*.py")} - {"__init__"}
    assert list(SECTIONS) == [make.__name__ for make in SECTIONS.values()]
    assert files == set(SECTIONS)


def test_a_whole_run_has_every_part(run: Path) -> None:
    add_flows(run)
    add_predictions(run)
    add_gate(run, milliseconds=TIMES, notes=["int8 is not faster"])
    page = page_of(run)
    assert page.texts["h1"] == ["reviews: a bert-emd student"]
    assert page.texts["h2"] == [
        "At a glance",
        "Latency",
        "Loss",
        "Flow: which layer teaches which",
        "Layer weights over the steps",
        "Calibration and confusion",
        "Where student and teacher disagree most",
        "Configuration",
    ]
    table = cells(page)
    assert list(table) == ["teacher", "student", "student, ONNX", "student, int8"]
    assert not unnamed(page.texts["p"][1], "0.800", "accuracy", "10.0 points", "0.900", "77%")
    assert not unnamed(page.texts["p"][2], "Go", "int8")
    assert table["student, int8"] == ["0.790", "0.780", "17.4", "17.6", "3.0", "8.0×"]
    assert "int8 is not faster" in page.texts["li"]
    assert "limits: --max-latency-ms 5" in page.texts["li"]
    assert any("student, ONNX: p95 of 6 ms" in item for item in page.texts["li"])
    assert page.texts["h3"][:4] == [f"batch {b}, length {n}" for b in (1, 32) for n in (32, 128)]
    assert any(text.startswith("emdistill distill ") for text in page.texts["pre"])
    for value in ("0.0001", "t" * 64, "reviews.csv", "2.13.0"):
        assert value in page.texts["td"] + page.texts["th"]


def test_what_the_run_has_not_recorded_is_asked_for(run: Path) -> None:
    page = page_of(run)
    assert page.texts["h2"] == ["At a glance", "Loss", "Answers", "Configuration"]
    said = " ".join(page.texts["p"])
    assert "emdistill export run --onnx --int8" in said
    assert "--method hard-labels" in said
    assert "--overwrite" in said
    assert not page.named("input")


def test_a_run_that_has_not_finished_has_a_page(run: Path) -> None:
    record = read_record(run)
    del record["log"], record["timings"], record["scores"]["student"]
    write_record(run, record | {"status": "running"})
    page = page_of(run)
    assert page.texts["h2"] == ["At a glance", "Configuration"]
    assert not unnamed(" ".join(page.texts["p"]), "--resume")
    assert list(cells(page)) == ["teacher"]


def test_a_run_of_raw_text_shows_its_loss(run: Path) -> None:
    record = read_record(run)
    record["task"], record["scores"] = None, {}
    record["config"]["task"] = "text"
    losses = {"before": {"loss": 3.0, "hidden_states": 3.0}, "after": {"loss": 1.25, "hidden_states": 1.25}}
    write_record(run, record | {"held_out_loss": losses, "rows": {"train": 200, "held out": 20}})
    add_flows(run)
    page = page_of(run)
    assert page.texts["h1"] == ["raw text: a bert-emd student"]
    assert page.texts["td"][:2] == ["3.000", "3.000"]
    assert page.texts["td"][4] == "1.250"
    assert "Answers" not in page.texts["h2"]
    assert "Flow: which layer teaches which" in page.texts["h2"]


def test_the_student_of_labels_alone_is_the_one_of_the_same_teacher_data_and_seed(run: Path) -> None:
    beside = run.parent
    write_run_folder(beside / "a-other-seed", method="hard-labels", seed=43, score=0.1)
    write_run_folder(beside / "b-other-data", method="hard-labels", train="b" * 64, score=0.1)
    write_run_folder(beside / "c-other-teacher", method="hard-labels", teacher="u" * 64, score=0.1)
    write_run_folder(beside / "d-running", method="hard-labels", status="running", score=0.1)
    write_run_folder(beside / "e-other-student", method="hard-labels", layers=4, score=0.1)
    write_run_folder(beside / "f-other-rows", method="hard-labels", config={"rows": 100}, score=0.1)
    write_run_folder(beside / "g-other-method", method="minilm", score=0.1)
    write_run_folder(beside / "i-other-label", method="hard-labels", config={"label": "another"}, score=0.1)
    write_run_folder(beside / "j-less", method="hard-labels", config={"training": {"num_train_epochs": 0.1}}, score=0.1)
    by_tokens = {"training": {"num_train_epochs": 2.0, "learning_rate": 1e-4, "tokens_per_batch": 512}}
    write_run_folder(beside / "k-other-batches", method="hard-labels", config=by_tokens, score=0.1)
    foreign = ("{", "[]", "3", '{"config": null}', '{"status": "finished", "config": {"method": "hard-labels"}}')
    for number, text in enumerate(foreign):
        (beside / f"k-{number}").mkdir()
        (beside / f"k-{number}" / "run.json").write_text(text)
    (beside / "l" / "run.json").mkdir(parents=True)
    assert list(cells(page_of(run))) == ["teacher", "student"]
    write_run_folder(beside / "z", method="hard-labels", score=0.75)
    page = page_of(run)
    assert cells(page)["student, labels alone"][0] == "0.750"
    assert any(not unnamed(text, "z") for text in page.texts["p"])
    assert list(cells(page_of(beside / "z"))) == ["teacher", "student"]


def test_losses_break_where_a_stage_begins(run: Path) -> None:
    entries = [{"loss": 2.0, "terms/a_b": 1.5, "terms/c": 0.5, "grad_norm": float("nan"), "step": 10}]
    change(run, log=[{"stage": "first", "log": entries}, {"stage": "second", "log": [{"loss": 1.0, "step": 5}]}])
    charts = page_of(run).charts
    loss, term, _ = charts[0]["data"]
    assert (loss["x"], loss["y"]) == ([0, 10, 10, 15], [None, 2.0, None, 1.0])
    assert (term["name"], term["y"]) == ("a b", [None, 1.5, None])
    assert [note["text"] for note in charts[0]["layout"]["annotations"]] == ["first", "second"]
    assert [shape["x0"] for shape in charts[0]["layout"]["shapes"]] == [0, 10]
    assert charts[1]["data"][0]["y"] == [None, None, None]


def test_long_logs_and_records_are_thinned(run: Path) -> None:
    change(run, log=[{"stage": "joint", "log": [{"loss": 1.0, "step": step} for step in range(1, 5001)]}])
    loss = page_of(run).charts[0]["data"][0]
    assert 400 < len(loss["x"]) <= 502
    assert loss["x"][-1] == 5000
    records = [FlowRecord(step, stage, {"t": [[step + 1.0, 1.0]]}) for stage in ("a", "b") for step in range(200)]
    kept = thinned(records)
    assert len(kept) <= 120
    assert kept == sorted(kept, key=records.index)
    for end in (records[0], records[199], records[200], records[-1]):
        assert end in kept
    assert thinned(records[:120]) == records[:120]


def test_the_slider_has_every_record_of_all_stages() -> None:
    flows = {"one": [[0.75, 0.25]], "two": [[0.5, 0.0]]}
    records = [
        FlowRecord(1, "a", flows),
        FlowRecord(2, "a", {"one": [[1.0, 0.0]]}),
        FlowRecord(1, "b", {"one": [[0.0, 3.0]]}),
    ]
    (slider,) = of_kind(Slider, flow_section(records, {"a": 0, "b": 10}).parts)
    assert [frame.label for frame in slider.frames] == [
        "stage a, step 1, 0.500 of the mass moved (two)",
        "stage a, step 2",
        "stage b, step 11 (1 of its own)",
    ]
    assert [frame.group for frame in slider.frames] == ["a", "a", "b"]
    assert [chart.title.partition(":")[0] for chart in slider.charts] == ["one", "one", "two", "two"]
    assert slider.frames[0].updates[1] == {"z": [[0.75, 0.25]], "text": [[".75", ".25"]]}
    assert slider.frames[0].updates[3] == {"z": [[1.0, 0.0]], "text": [["1.00", ""]]}
    assert slider.frames[1].updates[2:] == [None, None]
    assert slider.frames[2].updates[1]["z"] == [[0.0, 1.0]]


def test_a_fixed_mapping_has_one_picture() -> None:
    records = [FlowRecord(step, "a", {"one": [[1.0, 0.0], [0.0, 1.0]]}) for step in (1, 2)]
    parts = flow_section(records, {}).parts
    assert not of_kind(Slider, parts)
    assert [len(row) for row in of_kind(Row, parts)] == [2]
    assert weight_rows(records, {}) == []


def test_a_mapping_is_fixed_where_each_step_is_of_another_task() -> None:
    records = [FlowRecord(step, "a", {term: [[1.0, 0.0]]}) for step, term in enumerate(("one/h", "two/h", "one/h"))]
    parts = flow_section(records, {}).parts
    assert not of_kind(Slider, parts)
    assert [len(row) for row in of_kind(Row, parts)] == [4]


def test_terms_of_equal_weights_share_their_charts() -> None:
    flow = [[0.75, 0.25]]
    side = {"one": [1.0], "two": [1.0], "three": [1.0]}
    teacher = {"one": [0.75, 0.25], "two": [0.75, 0.25], "three": [0.5, 0.5]}
    rows = weight_rows([FlowRecord(4, "b", dict.fromkeys(side, flow), side, teacher)], {"b": 10})
    assert [chart.title for row in rows for chart in row] == [
        "student layers: one, two",
        "teacher layers: one, two",
        "student layers: three",
        "teacher layers: three",
    ]
    trace = rows[0][1].figure["data"][0]
    assert (trace["name"], trace["x"], trace["y"]) == ("layer 0", [14], [0.75])


def write_answers(folder: Path, answers: list[tuple[Any, list[float], list[float]]]) -> None:
    lines = [
        {"set": "dev", "row": row, "text": f"t{row}", "text_pair": f"p{row}", "label": label, "teacher": teacher,
         "student": student}
        for row, (label, teacher, student) in enumerate(answers)
    ]  # fmt: skip
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_disagreement_of_classes_is_told_with_both_answers(run: Path) -> None:
    write_answers(run, [(0, [2.0, 0.0], [2.0, 0.0]), (1, [0.0, 1.0], [1.0, 0.0]), (1, [0.0, 3.0], [4.0, 0.0])])
    page = page_of(run)
    place = page.texts["td"].index("bad (0.98)")
    teacher, student = 1 / (1 + np.exp(-3.0)), 1 / (1 + np.exp(4.0))
    divergence = sum((p - q) * (np.log(p) - np.log(q)) for p, q in ((teacher, student), (1 - teacher, 1 - student)))
    assert page.texts["td"][place - 2 : place + 3] == ["good", "good (0.95)", "bad (0.98)", f"{divergence:.2f}", "2"]
    assert [text for text in page.texts["th"] if re.fullmatch(r"t\d\np\d", text)] == ["t2\np2", "t1\np1"]
    assert any("1 of 3 rows" in text for text in page.texts["p"])


def test_scores_have_errors_and_their_own_disagreement(run: Path) -> None:
    task = read_record(run)["task"] | {"kind": "regression", "labels": [], "metrics": ["pearson"]}
    scores = {name: {"pearson": 0.5} for name in ("teacher", "student")}
    change(run, task=task, scores=scores)
    write_answers(run, [(1.5, [1.0], [2.0]), (3.0, [3.0], [0.25])])
    page = page_of(run)
    assert "Scores and errors" in page.texts["h2"]
    assert "Calibration and confusion" not in page.texts["h2"]
    place = page.texts["td"].index("0.250")
    assert page.texts["td"][place - 2 : place + 3] == ["3", "3.00", "0.250", "2.75", "1"]
    assert not any("several" in text for text in page.texts["p"])
    assert any("teacher -0.25 ± 0.25, student -1.12" in text for text in page.texts["figcaption"])
    scatter = next(figure for figure in page.charts if figure["data"][0].get("name") == "as labelled")
    assert [trace["y"] for trace in scatter["data"][1:]] == [[1.0, 3.0], [2.0, 0.25]]


def test_many_classes_are_gathered(run: Path) -> None:
    names = [f"class {index}" for index in range(30)]
    change(run, task=read_record(run)["task"] | {"labels": names})
    add_predictions(run, labels=30)
    page = page_of(run)
    confusion = [figure for figure in page.charts if figure["data"][0]["type"] == "heatmap"]
    assert [len(figure["data"][0]["z"]) for figure in confusion] == [20, 20]
    assert sum(cell[0] for line in confusion[0]["data"][0]["customdata"] for cell in line) == 40
    assert any(not unnamed(text, 19, 30) for text in page.texts["p"])


def test_equal_folders_give_equal_bytes(run: Path) -> None:
    add_flows(run)
    add_predictions(run)
    add_gate(run, milliseconds=TIMES)
    first = write_run_report(run).read_bytes()
    assert write_run_report(run).read_bytes() == first
    assert sorted(file.name for file in run.iterdir()) == [
        "flows.jsonl", "onnx", PLOTLY, "predictions.jsonl", "report.html", "run.json",
    ]  # fmt: skip


def test_a_gate_that_has_not_finished_is_passed_over_and_a_broken_one_refused(run: Path) -> None:
    add_gate(run, milliseconds=TIMES, status="running")
    assert "Latency" not in page_of(run).texts["h2"]
    (run / "onnx" / "gate.json").write_text("{")
    with names(OutputError, run / "onnx" / "gate.json", "emdistill export"):
        write_run_report(run)


def test_folders_that_are_no_distillation_and_broken_records_are_refused(run: Path) -> None:
    with names(OutputError, run.parent, "run.json"):
        write_run_report(run.parent)
    (run / "predictions.jsonl").write_text("{}\n")
    with names(DataError, f"{run}/predictions.jsonl:1"):
        write_run_report(run)
    record = read_record(run)
    del record["student"]
    write_record(run, record)
    with names(OutputError, run, "emdistill distill"):
        write_run_report(run)


def test_labels_alone_are_found_where_the_page_says(tmp_path: Path) -> None:
    run = write_run_folder(tmp_path / "run")
    own = write_run_folder(run / "baselines" / "labels", method="hard-labels")
    assert any("baselines/labels" in text for text in Page(write_run_report(run)).texts["p"])
    shutil.rmtree(own)
    write_run_folder(tmp_path / "other", method="hard-labels")
    assert any("../other" in text for text in Page(write_run_report(run)).texts["p"])


def test_a_run_too_short_for_a_logged_loss_still_shows_its_scores(tmp_path: Path) -> None:
    run = write_run_folder(tmp_path / "run")
    record = read_record(run)
    record["log"] = [{"stage": "joint", "log": [{"eval_accuracy": 0.8, "epoch": 1.0, "step": 10}]}]
    write_record(run, record)
    page = Page(write_run_report(run))
    assert any("Score while training" in text for text in page.texts["h3"])
    assert any("higher is better" in text.lower() for text in page.texts["figcaption"])


def test_the_gap_to_the_teacher_has_its_error_where_it_is_known(tmp_path: Path) -> None:
    run = write_run_folder(tmp_path / "run")
    teacher = ModelRow(scores={"accuracy": 0.9}, lead=-10.0, lead_error=2.5)
    machine = Machine("a processor", 2, 1)
    student = ModelRow(scores={"accuracy": 0.8})
    measured = BaselineRecord(
        metric="accuracy", dev_rows=40, machine=machine, teacher=teacher, student=student, baselines={}
    )
    write_baselines(run, measured)
    assert any("10.0 ± 2.5 points below" in text for text in Page(write_run_report(run)).texts["p"])
