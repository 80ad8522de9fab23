"""Runs side by side: what is read from their folders, what is refused, the fronts, the table and the page."""

import json
import re
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from messages import names, unnamed
from run_folders import HOSTILE, MACHINE, add_gate, read_record, write_record, write_run_folder

from emdistill.errors import ConfigError, OutputError
from emdistill.show.candidates import Candidate, RunSet, read_runs
from emdistill.show.page import PLOTLY
from emdistill.show.runs_report import find_fronts, scatter, write_runs_report

TIMES = {"teacher": 40.0, "student": 20.0, "onnx": 10.0, "int8": 4.0}


def by_form(runs: RunSet) -> dict[tuple[str, str], Candidate]:
    found = {(candidate.name, candidate.variant): candidate for candidate in runs.candidates}
    assert len(found) == len(runs.candidates)
    return found


def text_of(path: Path) -> str:
    """What a page says, its values and scripts left out."""
    page = re.sub(r"<(script|style).*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"<[^>]+>", "|", page)


def test_seeds_of_one_configuration_are_taken_together(tmp_path: Path) -> None:
    scores = {0: 0.80, 1: 0.83, 2: 0.82}
    folders = [write_run_folder(tmp_path / f"emd-{seed}", seed=seed, score=score) for seed, score in scores.items()]
    add_gate(folders[0], milliseconds=TIMES, scores={"onnx": 0.8, "int8": 0.78})
    add_gate(folders[2], milliseconds=TIMES | {"int8": 6.0}, scores={"onnx": 0.82, "int8": 0.81})
    folders.append(write_run_folder(tmp_path / "other", method="minilm", layers=4))
    runs = read_runs(folders)
    found = by_form(runs)
    assert list(found) == [
        ("teacher", "teacher"), ("emd", "student"), ("emd", "onnx"), ("emd", "int8"), ("other", "student"),
    ]  # fmt: skip
    student = found["emd", "student"]
    assert student.scores == tuple(scores.values())
    assert (student.score, student.deviation) == (fmean(scores.values()), stdev(scores.values()))
    assert (student.parameters, student.shape, student.method) == (17_400_000, "3 × 384", "bert-emd")
    int8 = found["emd", "int8"]
    assert (int8.scores, int8.latency, int8.size) == ((0.78, 0.81), 5.0, 17_600_000)
    assert int8.speed_up == pytest.approx((40 / 4 + 40 / 6) / 2)
    assert int8.place == "128 tokens, 2 threads of 4 cores, Some Processor"
    assert found["teacher", "teacher"].latency == 40.0
    assert found["other", "student"].latency is None
    assert found["other", "student"].deviation is None
    assert runs.unmeasured == ("other",)
    assert (runs.task, runs.metric, runs.dev, runs.dev_rows) == ("reviews", "accuracy", "dev", 40)
    assert runs.notes == ()


def test_an_option_of_a_later_version_does_not_part_seeds(tmp_path: Path) -> None:
    folders = [write_run_folder(tmp_path / f"emd-{seed}", seed=seed) for seed in (0, 1)]
    folders.append(write_run_folder(tmp_path / "emd-2", seed=2, config={"of_a_later_version": None}))
    assert [len(found.scores) for (_, form), found in by_form(read_runs(folders)).items() if form == "student"] == [3]


def test_a_seed_that_comes_twice_is_another_run(tmp_path: Path) -> None:
    folders = [write_run_folder(tmp_path / place / "run", score=0.8) for place in ("a", "b")]
    names = [candidate.name for candidate in read_runs(folders).candidates]
    assert names == ["teacher", "a/run", "b/run"]


def test_teachers_are_named_where_there_are_several(tmp_path: Path) -> None:
    folders = [
        write_run_folder(tmp_path / name, teacher=name * 64, config={"teacher": f"models/large-{name}"})
        for name in "ab"
    ]
    runs = read_runs(folders)
    assert [candidate.name for candidate in runs.candidates] == ["teacher large-a", "teacher large-b", "a", "b"]
    assert any("teachers" in note for note in runs.notes)


def test_other_training_rows_are_noted(tmp_path: Path) -> None:
    runs = read_runs([write_run_folder(tmp_path / "a"), write_run_folder(tmp_path / "b", train="e" * 64)])
    assert any("training rows" in note for note in runs.notes)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"task": "sst-2"}, ["reviews", "sst-2"]),
        ({"labels": ("no", "yes")}, []),
        ({"dev": "f" * 64}, ["dev, 40 rows"]),
    ],
)
def test_scores_that_do_not_compare_are_refused(tmp_path: Path, other: dict[str, Any], named: list[str]) -> None:
    folders = [write_run_folder(tmp_path / "a"), write_run_folder(tmp_path / "b", **other)]
    with names(ConfigError, *folders, *named):
        read_runs(folders)


def test_what_is_no_finished_distillation_is_refused(tmp_path: Path) -> None:
    with names(OutputError, tmp_path / "nothing", "run.json"):
        read_runs([tmp_path / "nothing"])
    with names(OutputError, tmp_path / "half", "--resume"):
        read_runs([write_run_folder(tmp_path / "half", status="running")])
    losses = {"before": {"loss": 2.0}, "after": {"loss": 1.0}}
    for name, changed in (
        ("teacher", {"student": None}),
        ("general", {"task": None, "scores": {}, "held_out_loss": losses}),
    ):
        folder = write_run_folder(tmp_path / name)
        write_record(folder, read_record(folder) | changed)
        with names(OutputError, folder):
            read_runs([folder])


def test_a_gate_of_another_metric_is_refused(tmp_path: Path) -> None:
    folder = write_run_folder(tmp_path / "run")
    add_gate(folder, milliseconds=TIMES)
    gate = json.loads((folder / "onnx" / "gate.json").read_text()) | {"metric": "macro_f1"}
    (folder / "onnx" / "gate.json").write_text(json.dumps(gate))
    with names(OutputError, folder / "onnx" / "gate.json", "macro_f1", "accuracy"):
        read_runs([folder])


def test_a_gate_that_is_not_finished_measured_nothing(tmp_path: Path) -> None:
    folder = write_run_folder(tmp_path / "run")
    add_gate(folder, milliseconds=TIMES, status="running")
    assert read_runs([folder]).unmeasured == ("run",)


def test_latencies_of_other_places_have_fronts_of_their_own(tmp_path: Path) -> None:
    folders = [write_run_folder(tmp_path / name, method=name) for name in ("here", "there")]
    add_gate(folders[0], milliseconds=TIMES)
    add_gate(
        folders[1], milliseconds={name: 10 * time for name, time in TIMES.items()}, machine=MACHINE | {"threads": 1}
    )
    runs = read_runs(folders)
    assert len(runs.places) == 2
    assert any(not unnamed(note, "2 places", "1 thread of 4 cores") for note in runs.notes)
    fronts = find_fronts(runs.candidates, "latency")
    assert set(fronts) == set(runs.places)
    there = {each.name for each in fronts["128 tokens, 1 thread of 4 cores, Some Processor"]}
    assert there == {"there"}  # slower than all of those that were timed here, and not held against them
    figure = scatter(runs, "latency", fronts, {"here": 1, "there": 2})
    assert figure is not None
    assert sum(trace["name"].startswith("Pareto front (") for trace in figure["data"]) == 2


def test_a_seed_measured_elsewhere_is_left_out_of_the_latency(tmp_path: Path) -> None:
    folders = [write_run_folder(tmp_path / f"emd-{seed}", seed=seed) for seed in (0, 1)]
    add_gate(folders[0], milliseconds=TIMES)
    add_gate(folders[1], milliseconds={"int8": 99.0}, machine=MACHINE | {"cpu": "Other"})
    runs = read_runs(folders)
    assert by_form(runs)["emd", "int8"].latency == 4.0
    assert any(note.startswith("emd: ") for note in runs.notes)


def candidates() -> tuple[Candidate, ...]:
    place = "2 threads"
    return (
        Candidate("teacher", "teacher", "", "6 × 8", 100, 400_000_000, (0.9,), 40.0, 1.0, place),
        Candidate("a", "student", "emd", "3 × 8", 50, 200_000_000, (0.8, 0.82), 20.0, 2.0, place),
        Candidate("a", "int8", "emd", "3 × 8", 50, 50_000_000, (0.79,), 5.0, 8.0, place),
        Candidate("b", "student", "kd", "3 × 8", 50, 200_000_000, (0.7,)),
    )


def test_the_fronts_by_hand() -> None:
    assert find_fronts(candidates(), "latency") == {"2 threads": {*candidates()[:3]}}
    assert find_fronts(candidates(), "size") == {"": {*candidates()[:3]}}


def test_the_charts_hold_the_candidates() -> None:
    runs = RunSet("reviews", "accuracy", "dev", 40, candidates(), ("b",))
    numbers = {"a": 1, "b": 2}
    figure = scatter(runs, "latency", find_fronts(runs.candidates, "latency"), numbers)
    assert figure is not None
    traces = {trace["name"]: trace for trace in figure["data"]}
    assert traces["PyTorch"]["x"] == [20.0]  # b has no latency
    assert traces["PyTorch"]["y"] == [pytest.approx(0.81)]
    assert traces["PyTorch"]["error_y"]["array"] == [pytest.approx(stdev((0.8, 0.82)))]
    assert traces["teacher"]["marker"]["size"] == [400_000_000]  # the area is the size
    assert traces["Pareto front"]["x"] == [5.0, 20.0, 40.0]
    assert figure["layout"]["xaxis"]["type"] == "log"
    sizes = scatter(runs, "size", find_fronts(runs.candidates, "size"), numbers)
    assert sizes is not None
    assert next(t for t in sizes["data"] if t["name"] == "PyTorch")["x"] == [200.0, 200.0]
    unmeasured = RunSet("reviews", "accuracy", "dev", 40, candidates()[3:], ("b",))
    assert scatter(unmeasured, "latency", {}, numbers) is None


def test_the_page_says_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.html"
    write_runs_report(path, RunSet("reviews", "accuracy", "dev", 40, candidates(), ("b",), ("a note",)))
    text = text_of(path)
    assert not unnamed(text, "reviews", 2, "a (PyTorch), a (int8)", "accuracy", "dev (40 rows)", "0.810 ± 0.014")
    assert re.search(r"\bb\b[^|]*\|emdistill export RUN", text)  # what would measure the one without a latency
    assert "a note" in text
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    first = path.read_bytes()
    write_runs_report(path, RunSet("reviews", "accuracy", "dev", 40, candidates(), ("b",), ("a note",)))
    assert path.read_bytes() == first
    assert sorted(file.name for file in tmp_path.iterdir()) == [PLOTLY, "runs.html"]


def test_names_are_text_in_charts_too(tmp_path: Path) -> None:
    for text in HOSTILE:
        runs = RunSet(text, text, "dev", 40, (Candidate(text, "student", text, "3 × 8", 5, 10, (0.5,)),))
        figure = scatter(runs, "size", find_fronts(runs.candidates, "size"), {text: 1})
        assert "<" not in json.dumps(figure).replace("<br>", "")
        write_runs_report(tmp_path / "runs.html", runs)
        assert text not in (tmp_path / "runs.html").read_text(encoding="utf-8") or "<" not in text
