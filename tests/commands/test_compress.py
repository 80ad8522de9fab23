"""A budget in, a folder out: the whole of `emdistill compress` on tiny models, hardly timed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from messages import names, unnamed
from pages import Page

from emdistill.cli import main
from emdistill.commands import _candidate_runs, _compression, search_chain
from emdistill.commands.compress import compress
from emdistill.errors import BusyError, ConfigError, Interrupted, ModelError, OutputError, TokenizerError, TrainingError
from emdistill.models.arithmetic import has_bfloat16
from emdistill.runs.compression import TEACHER, CompressionRecord
from emdistill.runs.record import read_run
from emdistill.runs.search_record import read_search
from emdistill.search.chains import ChainCost
from emdistill.ship import candidates as _candidates
from emdistill.ship import operator_table
from emdistill.ship.onnx import open_onnx
from emdistill.ship.operator_table import GraphCost, measure_graphs
from emdistill.show.compress_report import chart_points

ROOMY = "100s, 10MB"


MEASURED: dict[str, Any] = {}


def measure_once(models: dict[str, Any], *, threads: int, typical: int) -> dict[str, Any]:
    """What graphs cost, those of one name measured once for all tests, and hardly timed."""
    new = {name: model for name, model in models.items() if name not in MEASURED}
    MEASURED.update(measure_graphs(new, threads=threads, typical=typical, seconds=0.0) if new else {})
    return {name: MEASURED[name] for name in models}


@pytest.fixture(autouse=True)
def _hardly_timed(monkeypatch: pytest.MonkeyPatch, quick_export: None) -> None:
    monkeypatch.setattr(_candidates, "measure_graphs", measure_once)
    for module in (_candidates, operator_table):  # layers take long to trace
        monkeypatch.setattr(module, "MANY", 2)
    monkeypatch.setattr(_compression, "FEWEST_TEXTS", 50)  # and texts to learn from
    monkeypatch.setattr(_compression, "BESIDE", ("tfidf",))


@pytest.fixture
def options(place, tmp_path: Path) -> dict[str, Any]:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"the book {row} was {('bad', 'good')[row % 2]}" for row in range(250)), "utf-8")
    return {
        "teacher": f"{place.folder}/teacher", "data": f"{place.folder}/reviews.csv", "text": "body", "label": "stars",
        "budget": ROOMY, "unlabelled": str(text), "students": "2 1", "methods": "soft-targets", "finals": 1,
        "training": {"learning_rate": 5e-3, "per_device_train_batch_size": 16}, "threads": 1,
        "output": str(tmp_path / "out"),
    }  # fmt: skip


@pytest.fixture
def no_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher itself is out of the question, as where it is too large."""
    monkeypatch.setattr(_compression.Compression, "_teacher_fits", property(lambda self: False))


def test_the_best_within_the_budget_is_a_folder_that_answers(options, no_teacher, capsys) -> None:
    record = compress(**options)
    folder = Path(options["output"])
    assert record.delivered in record.candidates
    assert open_onnx(folder / "model").logits is not None
    assert {trial.candidate for trial in record.trials} == {"2 soft-targets", "1 soft-targets"}
    assert all(trial.score is not None and 0 < trial.score <= 1 for trial in record.trials)
    assert [final.candidate for final in record.finals] == [record.delivered]
    run = read_run(folder / record.finals[0].folder)
    assert run.config["training"].get("bf16", False) == record.bfloat16 == has_bfloat16()
    assert run.scores["student"]["held-out/accuracy"] == record.finals[0].held_out
    assert run.unlabelled is not None
    assert run.unlabelled["scored"] == 50  # those that choose are not learned from
    assert record.held_out_rows == 50  # a fifth of the text, answered by the teacher
    assert read_search(folder, CompressionRecord) == record
    printed = capsys.readouterr().out
    assert not unnamed(printed, "2 soft-targets", "TF-IDF", record.verdict)
    page = Page(folder / "report.html")
    assert record.verdict in " ".join(page.texts["p"])
    assert not (folder / "teacher_cache").exists()


def test_a_finished_search_is_left_as_it_is_and_another_one_refused(options, no_teacher) -> None:
    options |= {"students": "1"}
    first = compress(**options)
    assert compress(**options) == first
    for name in ("model", "trials"):
        shutil.rmtree(Path(options["output"]) / name)
    assert compress(**options).finals == first.finals
    assert open_onnx(Path(options["output"]) / "model").logits is not None
    with names(OutputError, "students", "--overwrite"):
        compress(**options | {"students": "2"})
    with names(OutputError, "budget"):
        compress(**options | {"budget": "90s"})
    assert compress(**options | {"budget": "90s", "overwrite": True}).budget == "90000 ms"


def test_a_teacher_that_keeps_the_budget_in_int8_is_delivered_without_training(options) -> None:
    options["training"] |= {"bf16": False}
    record = compress(**options)
    assert record.delivered == TEACHER
    assert not record.trials
    assert not record.bfloat16
    assert open_onnx(Path(options["output"]) / "model").logits is not None


def test_a_teacher_of_other_makers_is_read_by_the_columns_that_are_given(options, place, tmp_path: Path) -> None:
    """It does not say which columns it was trained on."""
    teacher = Path(shutil.copytree(place.folder / "teacher", tmp_path / "teacher"))
    config = json.loads((teacher / "config.json").read_text("utf-8"))
    del config["emdistill"]
    (teacher / "config.json").write_text(json.dumps(config), "utf-8")
    record = compress(**options | {"teacher": str(teacher)})
    assert record.delivered == TEACHER
    assert not record.failed
    assert TEACHER in {point.name for point in chart_points(record)}  # by dev: no short training chose


def test_a_baseline_is_delivered_where_the_teacher_alone_fits_and_cannot_be_exported(options, monkeypatch) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise ModelError("an operator of this encoder has no form in ONNX")

    monkeypatch.setattr(_candidate_runs, "export_subject", failing)
    monkeypatch.setattr(_compression.Compression, "_trainable", property(lambda self: {}))
    record = compress(**options)
    assert (record.delivered, record.finals) == ("tfidf", [])
    assert not unnamed(record.verdict, "teacher", "ONNX", "TF-IDF")


@pytest.mark.parametrize("error", [OutputError("the disk is full"), BusyError("another process is at it")])
def test_what_is_no_fault_of_a_candidate_stops_the_search_and_not_the_candidate(
    options, no_teacher, monkeypatch, error: Exception
) -> None:
    whole = _candidate_runs.distill

    def failing(config: Any, **further: Any) -> Any:
        if "trials/2" in config.output:
            raise error
        return whole(config, **further)

    with monkeypatch.context() as patch:
        patch.setattr(_candidate_runs, "distill", failing)
        with pytest.raises(type(error)):
            compress(**options)
    record = compress(**options)
    assert all(trial.score is not None for trial in record.trials)


def test_a_candidate_that_cannot_be_trained_is_out(options, no_teacher, monkeypatch) -> None:
    whole = _candidate_runs.distill

    def failing(config: Any, **further: Any) -> Any:
        if Path(config.output).name == "2-soft-targets-0":
            raise TrainingError("the loss is NaN")
        return whole(config, **further)

    monkeypatch.setattr(_candidate_runs, "distill", failing)
    record = compress(**options)
    assert record.delivered == "1 soft-targets"
    assert [trial.problem for trial in record.trials if trial.score is None] == ["the loss is NaN"]


def test_a_second_process_at_one_search_is_refused(options, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), names(BusyError, tmp_path / "out", "--output"):
        compress(**options)
    assert not (tmp_path / "out" / "trials").exists()


def test_a_budget_that_nothing_keeps_is_answered_with_the_nearest_before_any_training(options) -> None:
    options |= {"budget": "100s, 1kB"}
    record = compress(**options)
    assert record.delivered is None
    assert not record.trials
    assert not unnamed(record.verdict, "--budget", "0.001 MB")
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if name != "training"]
    words += [f"--training.{name}={value}" for name, value in options["training"].items()]
    assert main(["compress", *words]) == 1  # for scripts: nothing was delivered


def test_a_search_that_is_stopped_goes_on_where_it_was(options, no_teacher, monkeypatch) -> None:
    done: list[str] = []
    whole = _candidate_runs.distill

    def stopped(config: Any, **further: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(config.output)
        return whole(config, **further)

    with monkeypatch.context() as patch:
        patch.setattr(_candidate_runs, "distill", stopped)
        with pytest.raises(Interrupted):
            compress(**options)
    before = read_search(Path(options["output"]), CompressionRecord)
    assert before is not None
    assert len(before.trials) == 1  # beside the one that told the speed
    record = compress(**options)
    assert record.trials[0] == before.trials[0]
    assert record.delivered is not None
    assert record.spent > before.spent


@pytest.fixture
def misses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Exports of these candidates' folders take longer than the budget allows."""
    folders: list[str] = []
    whole = _candidate_runs.export

    def export(run: str, /, **options: Any) -> Any:
        limit = {"max_latency_ms": 1e-9} if Path(run).name in folders else {}
        return whole(run, **options | limit)

    monkeypatch.setattr(_candidate_runs, "export", export)
    return folders


def test_the_next_best_is_trained_where_the_best_misses_once_measured(options, no_teacher, misses) -> None:
    first = compress(**options | {"output": options["output"] + "-1"})
    misses += [Path(first.finals[0].folder).name]
    record = compress(**options)
    missed, kept = record.finals
    assert (missed.ship, missed.candidate) == (None, first.delivered)
    assert kept.candidate == record.delivered != first.delivered
    assert open_onnx(Path(options["output"]) / "model").logits is not None


def test_a_baseline_is_delivered_where_no_time_is_left_for_another_student(options, no_teacher, misses) -> None:
    misses += ["1-soft-targets", "2-soft-targets"]
    record = compress(**options | {"hours": 1e-6})
    assert [final.ship for final in record.finals] == [None]
    assert record.delivered == "tfidf"
    assert not unnamed(record.verdict, record.finals[0].candidate, "--budget", "TF-IDF")
    run = [sys.executable, str(Path(options["output"]) / "model" / "example.py"), "it was good", "it was bad"]
    lines = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    (*good, text), (*bad, _) = (line.split("\t") for line in lines)
    assert text == "it was good"
    assert good != bad


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_baseline_that_is_ahead_of_the_student_is_delivered_instead(options, no_teacher, monkeypatch, share) -> None:
    """By the rows that choose: `share` of the baseline's score there is the student's."""

    whole = _candidate_runs.CandidateRuns._add

    def add(runs: _candidate_runs.CandidateRuns, *given: Any, held_out: float, **training: float) -> None:
        score = runs.study.record.baselines["tfidf"].held_out
        assert score is not None
        assert 0 < held_out <= 1
        whole(runs, *given, held_out=share * score, **training)

    monkeypatch.setattr(_candidate_runs.CandidateRuns, "_add", add)
    record = compress(**options)
    assert record.finals[0].ship is not None  # the student keeps the budget
    assert record.delivered == (record.finals[0].candidate if share else "tfidf")
    assert not unnamed(record.verdict, "TF-IDF", record.finals[0].candidate)
    assert (Path(options["output"]) / "model" / "example.py").is_file()


def test_a_student_too_large_gets_a_smaller_table_of_tokens(options, no_teacher) -> None:
    whole = compress(**options | {"output": options["output"] + "-1", "students": "1"})
    before = whole.candidates["1 soft-targets"].predicted
    limit = (before["int8"].bytes - 30) / 1e6
    record = compress(**options | {"students": "1", "budget": f"{limit:.6f}MB"})
    assert [final.candidate for final in record.finals] == ["1 soft-targets, own vocabulary"]
    after = record.candidates[record.finals[0].candidate].predicted
    saved = whole.finals[0].forms["onnx"].bytes - record.finals[0].forms["onnx"].bytes
    assert before["onnx"].bytes - after["onnx"].bytes == saved > 0


def test_wrong_options_are_refused_before_anything_is_read(options, tmp_path) -> None:
    with names(ConfigError, "--budget"):
        compress(**options | {"budget": "fast"})
    with names(ConfigError, "--hours"):
        compress(**options | {"hours": 0.0})
    with names(ConfigError, "--task"):
        compress(**options | {"task": "text"})
    with names(ConfigError, "--training.num_train_epochs", "--epochs"):
        compress(**options | {"training": {"num_train_epochs": 1}})
    with names(ConfigError, "99x"):
        compress(**options | {"students": "99x"})
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with names(OutputError, "out"):
        compress(**options)


@pytest.mark.parametrize("teacher", ["{0},{0}", "none"])
def test_only_one_teacher_that_is_a_model_has_layers_for_students(options, teacher: str) -> None:
    teacher = teacher.format(options["teacher"])
    with names(ConfigError, "--teacher", teacher):
        compress(**options | {"teacher": teacher})
    assert not Path(options["output"]).exists()


def test_a_tokenizer_that_needs_transformers_is_refused_before_anything_is_written(options, monkeypatch) -> None:
    monkeypatch.setattr(_candidates, "load_tokenizer", lambda _: object())
    with names(TokenizerError, "tokenizer.json"):
        compress(**options)
    assert not Path(options["output"]).exists()


def test_what_a_search_reads_it_does_not_replace(options, tmp_path: Path) -> None:
    text = tmp_path / "out" / "finals" / "text.txt"
    for folder in (text.parent, tmp_path / "out" / "trials"):
        folder.mkdir(parents=True)
    text.write_text("the book", "utf-8")
    with names(OutputError, text, "--output"):
        compress(**options | {"unlabelled": str(text), "overwrite": True})
    assert text.is_file()


def test_without_text_labelled_rows_choose(options, no_teacher) -> None:
    record = compress(**options | {"unlabelled": None, "students": "1"})
    assert record.held_out_rows == 14  # a tenth of train
    assert record.delivered is not None
    assert json.loads((Path(options["output"]) / "compress.json").read_text("utf-8"))["status"] == "finished"


@pytest.fixture
def searched(options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a search for chains of the same teacher."""
    costs = {"a": ChainCost(2448, 2.0), "c3": ChainCost(744, 0.5)}
    monkeypatch.setattr(search_chain, "operator_costs", lambda *_, **__: (costs, ChainCost(5000, 1.0)))
    monkeypatch.setattr(search_chain, "milliseconds", lambda models, **_: dict.fromkeys(models, 3.0))
    reading = {name: options[name] for name in ("teacher", "data", "text", "label")}
    folder = tmp_path / "search"
    search_chain.search_chain(
        **reading, output=str(folder), operators="ac", blocks=1, epochs=1, rounds=1, limits="7ms", batch_size=16
    )
    return folder


def test_what_a_search_for_chains_found_is_tried_with_its_weights(options, no_teacher, searched: Path) -> None:
    options |= {"students": "1", "chains": str(searched), "finals": 2}
    record = compress(**options)
    (word,) = (place.name for place in (searched / "students").iterdir())
    assert list(record.candidates) == [TEACHER, "1 soft-targets", f"chain:{word} soft-targets, searched"]
    assert {final.candidate for final in record.finals} == {*record.candidates} - {TEACHER}
    begun = {read_run(Path(options["output"]) / final.folder).config["student"] for final in record.finals}
    assert begun == {"1", str(searched / "students" / word)}
    with names(OutputError, "chains"):
        compress(**options | {"chains": None})


def test_chains_of_no_search_or_of_another_teacher_are_refused(options, searched: Path) -> None:
    with names(ConfigError, "--chains", options["data"]):
        compress(**options | {"chains": options["data"]})
    with names(ConfigError, "--chains", "--student-source"):
        compress(**options | {"chains": str(searched), "student_source": options["teacher"]})
    record = json.loads((searched / "search.json").read_text("utf-8"))
    record["settings"]["hashes"]["teacher"] = "other"
    (searched / "search.json").write_text(json.dumps(record), "utf-8")
    with names(ConfigError, "--chains", options["teacher"]):
        compress(**options | {"chains": str(searched)})


def test_chains_as_large_as_the_student_that_uses_the_budget_are_tried(options, no_teacher, monkeypatch) -> None:
    def by_parameters(models: dict[str, Any], *, threads: int, typical: int) -> dict[str, Any]:
        sizes = {name: model.num_parameters() for name, model in models.items()}
        return {name: {"onnx": GraphCost(size, size, 4 * size)} for name, size in sizes.items()}

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_candidates, "measure_graphs", by_parameters)
    monkeypatch.setattr(_compression.Compression, "_search", stop)
    with pytest.raises(Interrupted):
        compress(**options | {"students": None})
    record = read_search(Path(options["output"]), CompressionRecord)
    assert record is not None
    chains = {row.student: row for row in record.candidates.values() if row.student.startswith("chain:")}
    assert list(chains) == ["chain:aafaafa", "chain:afcfaf", "chain:aaafff"]
    assert chains["chain:aaafff"].uses == record.candidates["3 soft-targets"].uses > chains["chain:afcfaf"].uses


def test_the_record_names_the_command_that_made_it(options, tmp_path: Path) -> None:
    command = compress(**options | {"budget": "100s, 1kB"}).command
    assert not unnamed(command, "--budget '100s, 1kB'", "--training.learning_rate 0.005", "--finals 1")
    assert "--seed" not in command  # the default
