"""A comparison as a whole: paired, resumable, one budget for all, and errors before any training."""

import contextlib
import io
import json
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from messages import names, unnamed
from run_folders import read_record, write_record

import emdistill.commands._entries as reading
import emdistill.commands.compare as module
from emdistill.commands._entries import BUDGET, entry_configs, read_entries, read_seeds
from emdistill.commands.compare import compare
from emdistill.commands.distill import distill
from emdistill.config import CompareConfig
from emdistill.console import say_once
from emdistill.errors import BusyError, ConfigError, EmdistillError, Interrupted, OutputError, TeacherError
from emdistill.options import load_options
from emdistill.runs.comparison import Comparison
from emdistill.training import DistillationArguments

FAST = {"learning_rate": 5e-3, "per_device_train_batch_size": 16, "max_steps": 4, "flow_steps": 0, "disable_tqdm": True}
LABELS = "method: soft-targets\nobjective: {alpha: 0.0}\ntraining: {learning_rate: 5.0e-3}\n"


@dataclass(frozen=True)
class Finished:
    """A comparison of hard-labels, labels.yaml and soft-targets with the seeds 3 and 7."""

    comparison: Comparison
    methods: str
    options: dict[str, Any]
    done: list[str]
    printed: str


def watch(patch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that are really done from here on."""
    done: list[str] = []

    def spy(config, **options):
        done.append(Path(config.output).name)
        return distill(config, **options)

    patch.setattr(module, "distill", spy)
    return done


def options_of(place, folder: Path) -> dict[str, Any]:
    """The options that are the same for all."""
    return {
        "teacher": f"{place.folder}/teacher",
        "data": f"{place.folder}/reviews.csv",
        "text": "body",
        "label": "stars",
        "student": "2",
        "select": "last",
        "baselines": "none",
        "output": str(folder / "comparison"),
        "training": FAST,
    }


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    options = options_of(place, folder)
    (folder / "labels.yaml").write_text(LABELS)
    methods = f"hard-labels,{folder}/labels.yaml,soft-targets"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        done = watch(patch)
        comparison = compare(methods=methods, seeds="3,7", **options)
    return Finished(comparison, methods, options, done, printed.getvalue())


@pytest.fixture
def common(place, tmp_path: Path) -> dict[str, Any]:
    """The options that are the same for all, and a folder that is not there yet."""
    return options_of(place, tmp_path)


@pytest.fixture
def copied(common, finished: Finished) -> dict[str, Any]:
    """The same, over a copy of the finished comparison."""
    shutil.copytree(finished.options["output"], common["output"])
    return common


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that are really done in a test."""
    return watch(monkeypatch)


def stop_at(monkeypatch: pytest.MonkeyPatch, name: str, error: Callable[[], BaseException]) -> None:
    """Let the run of this name begin, and fail."""

    def failing(config, **options):
        if Path(config.output).name == name:
            raise error()
        return distill(config, **options)

    monkeypatch.setattr(module, "distill", failing)


TWO = "hard-labels,soft-targets"


def test_equal_objectives_are_equal_runs_and_no_difference(finished: Finished) -> None:
    """Soft targets with no weight on them are hard labels: same birth, same order, so the same scores, seed by seed."""
    entries = ("hard-labels", "labels", "soft-targets")
    assert finished.done == [f"{name}-{seed}" for seed in (3, 7) for name in entries]
    teacher_like, labels, _ = finished.comparison.entries
    assert labels.name == "labels"
    assert labels.scores == teacher_like.scores
    assert labels.difference is not None
    assert (labels.difference.mean, labels.difference.ties, labels.finding) == (0.0, 2, "no difference shown")
    folder = Path(finished.options["output"]) / "runs"
    weights = [(folder / name / "student" / "model.safetensors").read_bytes() for name in finished.done]
    assert weights[0] == weights[1] != weights[2]
    assert weights[0] != weights[3] == weights[4]


def test_it_says_what_it_does_and_writes_what_it_found(finished: Finished) -> None:
    out = finished.printed
    assert re.search(r"^labels seed 3: accuracy [\d.]+, \d+ s \(2 of 6\)$", out, re.MULTILINE)
    assert "no difference" in out
    assert not unnamed(out, 2, "hard-labels")
    assert "teacher on dev" not in out  # the runs themselves are quiet
    folder = Path(finished.options["output"])
    record = json.loads((folder / "comparison.json").read_text())
    assert record["status"] == "finished"
    assert record["teacher"] == finished.comparison.teacher
    assert record["entries"][1]["differences"] == {"3": 0.0, "7": 0.0}
    page = (folder / "report.html").read_text()
    command = " ".join(page.replace("\\\n", " ").split())
    assert "--methods hard-labels,labels.yaml,soft-targets --seeds 3,7 --teacher teacher" in command
    assert "--training.learning_rate 0.005" in command
    assert (folder / "plotly.min.js").exists()
    assert not list((folder / "runs").rglob("*.js"))  # they share the one above
    assert (folder / "comparison.md").exists()
    assert list((folder / "teacher_cache").glob("*/logits.bin"))  # one, for all runs
    assert not list(folder.glob("runs/*/teacher_cache"))


def test_emulated_bfloat16_is_told_once(copied, monkeypatch: pytest.MonkeyPatch, capsys, runs) -> None:
    say_once.cache_clear()
    monkeypatch.setattr(DistillationArguments, "emulates_bfloat16", True)
    compare(methods=TWO, seeds="0,", **copied)
    assert len(runs) == 2
    assert capsys.readouterr().out.count("--training.bf16") == 1


@pytest.mark.parametrize("given", [{}, {"bf16": False}])
def test_bfloat16_is_offered_where_nobody_has_chosen(
    copied, monkeypatch: pytest.MonkeyPatch, capsys, given: dict[str, bool]
) -> None:
    say_once.cache_clear()
    monkeypatch.setattr(DistillationArguments, "leaves_bfloat16_out", True)
    compare(methods=TWO, seeds="0,", **{**copied, "training": FAST | given})
    assert capsys.readouterr().out.count("--training.bf16 true") == (not given)


def test_what_is_done_is_reused_and_more_can_be_added(copied, finished: Finished, runs) -> None:
    again = compare(methods=finished.methods, seeds="3,7", **copied)
    assert again == finished.comparison
    assert runs == []
    more = compare(methods="soft-targets,hard-labels", seeds="3,0", baseline="hard-labels", **copied)
    assert runs == ["soft-targets-0", "hard-labels-0"]
    assert more.baseline == "hard-labels"
    assert more.entries[1].scores[3] == finished.comparison.entries[0].scores[3]


def test_a_run_of_another_configuration_is_refused_or_replaced(copied, runs) -> None:
    other = copied | {"training": FAST | {"learning_rate": 1e-3}}
    with names(
        OutputError,
        f"{copied['output']}/runs/hard-labels-3",
        re.compile("learning_rate: 0.005 then, 0.001 now"),
    ):
        compare(methods=TWO, seeds="0,3", **other)
    assert runs == []
    compare(methods=TWO, seeds="3,", overwrite=True, **other)
    assert runs == ["hard-labels-3", "soft-targets-3"]
    compare(methods=TWO, seeds="3,", **other)
    assert len(runs) == 2  # they are these runs now
    compare(methods=TWO, seeds="3,", overwrite=True, **other)
    assert len(runs) == 4  # it replaces them all the same


def test_a_comparison_that_replaces_another_goes_on_without_overwrite(copied, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the old runs stands any more, those included that it had not reached."""
    other = copied | {"training": FAST | {"learning_rate": 1e-3}}
    with monkeypatch.context() as patch:
        stop_at(patch, "soft-targets-3", lambda: Interrupted("stopped at step 1 of 4"))
        with pytest.raises(Interrupted):
            compare(methods=TWO, seeds="3,7", overwrite=True, **other)
    assert not (Path(copied["output"]) / "runs" / "soft-targets-7" / "student").exists()
    done = watch(monkeypatch)
    found = compare(methods=TWO, seeds="3,7", **other)
    assert found.missing == 0
    assert done == ["soft-targets-3", "hard-labels-7", "soft-targets-7"]


def test_runs_that_another_process_is_at_are_not_replaced(copied, runs) -> None:
    folder = Path(copied["output"]) / "runs"
    before = (folder / "hard-labels-3" / "run.json").read_bytes()
    with (
        FileLock(f"{folder / 'soft-targets-7'}.lock", is_singleton=False),
        names(BusyError, "soft-targets", 7, "--overwrite"),
    ):
        compare(methods=TWO, seeds="3,7", overwrite=True, **copied)
    assert (folder / "hard-labels-3" / "run.json").read_bytes() == before
    assert runs == []


@pytest.mark.parametrize(
    ("training", "named"),
    [
        ({"seed": 7}, ["--training.seed", "--seeds"]),
        ({"lr_scheduler_kwargs": {"foo": 1}}, ["foo"]),  # only the building of a trainer shows it
        ({"dataloader_drop_last": True, "per_device_train_batch_size": 1000}, [1000]),
    ],
)
@pytest.mark.parametrize("overwrite", [True, False])
def test_settings_that_cannot_be_used_remove_no_old_run_and_begin_no_new_one(
    copied, runs, training: dict[str, Any], named: list[Any], overwrite: bool
) -> None:
    folder = Path(copied["output"]) / "runs"
    seed = "3," if overwrite else "4,"
    with names(ConfigError, "hard-labels", *named):
        compare(methods=TWO, seeds=seed, overwrite=overwrite, **copied | {"training": FAST | training})
    assert (folder / "hard-labels-3" / "student").exists()
    assert runs == []


def test_a_run_that_is_read_is_not_replaced(copied, runs) -> None:
    read = Path(copied["output"]) / "runs" / "hard-labels-3" / "student"
    with names(OutputError, read):
        compare(methods=TWO, seeds="3,", overwrite=True, **copied | {"teacher": str(read)})
    assert (read / "config.json").exists()
    assert runs == []


def test_a_teacher_near_chance_is_refused_before_any_old_run_is_removed(place, copied, runs, tmp_path: Path) -> None:
    """Its labels are crosswise: it was met in the first run alone, when the old runs were gone."""
    rows = [
        [str(row), text, "bad" if label == "good" else "good"] for row, (text, label) in enumerate(place.sentences(160))
    ]
    crosswise = place.write_csv(tmp_path / "crosswise.csv", rows)
    with names(TeacherError, "accuracy", "0.000", "0.500"):
        compare(methods=TWO, seeds="3,", overwrite=True, **copied | {"data": str(crosswise)})
    assert (Path(copied["output"]) / "runs" / "hard-labels-3" / "student").exists()
    assert runs == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, lambda: Interrupted("stopped at step 1 of 9")])
def test_an_interrupted_comparison_shows_what_there_is_and_goes_on(
    copied, monkeypatch: pytest.MonkeyPatch, capsys, error: Callable[[], BaseException]
) -> None:
    shutil.rmtree(Path(copied["output"]) / "runs" / "soft-targets-7")
    with monkeypatch.context() as patch:
        stop_at(patch, "soft-targets-7", error)
        with pytest.raises(Interrupted):
            compare(methods=TWO, seeds="3,7", **copied)
    out = capsys.readouterr().out
    assert not unnamed(out, "1 of 4", "hard-labels 2", "soft-targets 1")
    record = json.loads((Path(copied["output"]) / "comparison.json").read_text())
    assert record["status"] == "interrupted"
    assert record["entries"][1]["difference"]["p"] is None  # one pair
    done = watch(monkeypatch)
    found = compare(methods=TWO, seeds="3,7", **copied)
    assert found.missing == 0
    assert done == ["soft-targets-7"]
    assert json.loads((Path(copied["output"]) / "comparison.json").read_text())["status"] == "finished"


def test_a_run_that_was_begun_is_gone_on_with(copied, runs) -> None:
    run = Path(copied["output"]) / "runs" / "soft-targets-3"
    whole = read_record(run)
    write_record(run, whole | {"status": "running", "scores": {}})
    found = compare(methods=TWO, seeds="3,", **copied)
    assert runs == ["soft-targets-3"]
    assert found.entries[1].scores[3] == whole["scores"]["student"]


def test_an_error_of_a_run_names_it_and_leaves_the_table(copied, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    shutil.rmtree(Path(copied["output"]) / "runs" / "soft-targets-3")
    stop_at(monkeypatch, "soft-targets-3", lambda: EmdistillError("the loss is NaN"))
    with names(EmdistillError, "NaN"):
        compare(methods=TWO, seeds="3,", **copied)
    assert not unnamed(capsys.readouterr().out, "soft-targets seed 3", "1 of 2", "hard-labels 1", "soft-targets 0")


def test_a_run_of_another_process_is_come_back_to(copied, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Another process holds the first run, and lets go of it when this one has done the others."""
    monkeypatch.setattr(module, "WAIT", 0.05)
    folder = Path(copied["output"]) / "runs"
    shutil.rmtree(folder / "soft-targets-3")
    other = FileLock(f"{folder / 'hard-labels-3'}.lock", thread_local=False)
    other.acquire()
    holder = threading.Thread(target=release_after, args=(folder / "soft-targets-3", other))
    holder.start()
    found = compare(methods=TWO, seeds="3,", **copied)
    holder.join()
    assert found.missing == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " seed 3" in line]
    assert lines[0].startswith("soft-targets seed 3: ")
    assert not unnamed(lines[1], "hard-labels seed 3")
    assert lines[2].startswith("hard-labels seed 3: ")


def release_after(run: Path, lock: FileLock) -> None:
    wait = threading.Event()
    for _ in range(600):
        if (run / "run.json").exists() and json.loads((run / "run.json").read_text())["status"] == "finished":
            break
        wait.wait(0.05)
    wait.wait(0.5)
    lock.release()


def test_one_method_over_two_mappings(common, tmp_path: Path, runs) -> None:
    mapping = tmp_path / "found.json"
    mapping.write_text(json.dumps({"student_layers": 2, "teacher_layers": 4, "pairs": [[0, 0], [1, 3]]}))
    found = compare(methods=f"tinybert@last,tinybert@{mapping}", seeds=1, baseline=f"tinybert@{mapping}", **common)
    assert runs == ["tinybert@last-0", "tinybert@found-0"]
    assert found.baseline == "tinybert@found"
    last, own = (
        json.loads((Path(common["output"]) / "runs" / run / "run.json").read_text())["config"]["mapping"]
        for run in runs
    )
    assert (last, own) == ("last", str(mapping))


# ------------------------------------------------------------------------------------------------------------ errors


def refused(common: dict[str, Any], methods: str, **options: Any) -> str:
    with pytest.raises(EmdistillError) as error:
        compare(methods=methods, **{**common, **options})
    assert not (Path(common["output"]) / "runs").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("methods", "options", "named"),
    [
        ("bert-emd", {}, ["--methods bert-emd"]),
        ("bert-emd,bert-emd", {}, ["'bert-emd'"]),
        ("bert-emd,soft-target", {}, ["soft-target", "'soft-targets'"]),
        ("bert-emd,@last", {}, ["--methods @last"]),
        ("bert-emd,soft-targets@last", {}, ["soft-targets@last", "--mapping last"]),
        ("bert-emd@lst,soft-targets", {}, ["bert-emd@lst"]),
        ("bert-emd,no.yaml", {}, ["no.yaml"]),
        ("bert-emd,soft-targets", {"seeds": "three"}, ["--seeds three"]),
        ("bert-emd,soft-targets", {"seeds": "0"}, ["--seeds 0"]),
        ("bert-emd,soft-targets", {"seeds": "1,2,1"}, ["--seeds 1,2,1: 1"]),
        ("bert-emd,soft-targets", {"seeds": "20240101"}, ["--seeds 20240101,", 1000]),
        ("bert-emd,soft-targets", {"seeds": "-1,2"}, ["--seeds -1,2: -1"]),
        ("bert-emd,soft-targets", {"baseline": "soft-target"}, ["--baseline soft-target", "'soft-targets'"]),
        ("bert-emd,soft-targets", {"seed": 3}, ["'seed'", "--seeds"]),
        ("bert-emd,soft-targets", {"objective": {"beta": 1}}, ["'objective.beta'", "--methods"]),
        ("bert-emd,soft-targets", {"mapping": "last"}, ["'mapping'", "--methods"]),
        ("bert-emd,soft-targets", {"studnet": "3"}, ["'studnet'", "'student'"]),
        ("bert-emd,soft-targets", {"output": None, "teacher": None}, ["--output", "--teacher"]),
        ("bert-emd,soft-targets", {"teacher": "./nowhere"}, ["nowhere"]),
        ("bert-emd,soft-targets", {"student": "9"}, ["9"]),
        ("bert-emd,soft-targets", {"task": "text"}, ["--task text"]),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_training(common, methods, options, named) -> None:
    assert not unnamed(refused(common, methods, **options), *named)


def test_an_entrys_file_has_no_budget_of_its_own(common, tmp_path: Path) -> None:
    own = tmp_path / "long.yaml"
    own.write_text("method: bert-emd\nstudent: 3\ntraining: {num_train_epochs: 30, learning_rate: 1.0e-4}\n")
    assert not unnamed(refused(common, f"soft-targets,{own}"), own, "student", "training.num_train_epochs")
    own.write_text("method: bert-emd\nobjective: {betta: 3}\n")
    assert not unnamed(refused(common, f"soft-targets,{own}"), "long", "'objective.betta'", "'objective.beta'")
    own.write_text("method: soft-targets\nobjective: {alpha: 3}\n")
    assert not unnamed(refused(common, f"bert-emd,{own}"), "long", "--objective.alpha", "3.0")


def test_a_mapping_for_other_encoders_is_refused(common, tmp_path: Path) -> None:
    mapping = tmp_path / "six.json"
    mapping.write_text(json.dumps({"student_layers": 3, "teacher_layers": 6, "pairs": [[0, 5]]}))
    assert not unnamed(refused(common, f"tinybert@{mapping},soft-targets"), "tinybert@six", 6, 4)


def test_recipes_that_disagree_about_the_budget_are_refused(common, monkeypatch: pytest.MonkeyPatch) -> None:
    load = reading.load_config

    def longer(**options):
        config = load(**options)
        longer = {"num_train_epochs": 9, "gradient_accumulation_steps": 2}
        return config if config.method == "bert-emd" else module.replace(config, training=longer | config.training)

    def comparison(training):
        return load_options(CompareConfig, None, common | {"methods": "bert-emd,soft-targets", "training": training})

    monkeypatch.setattr(reading, "load_config", longer)
    entries = read_entries("bert-emd,soft-targets")
    option = "training.gradient_accumulation_steps"
    with names(ConfigError, option, "bert-emd 1", "soft-targets 2", f"--{option}"):
        entry_configs(entries, comparison({"learning_rate": 1e-3}))
    given = {"gradient_accumulation_steps": 1, "num_train_epochs": 2}
    configs = entry_configs(entries, comparison(given))
    assert all(config.training[name] == value for config in configs for name, value in given.items())


def test_the_budget_is_made_of_training_arguments() -> None:
    assert set(BUDGET) <= {setting.name for setting in reading.fields(reading.DistillationArguments)}


def test_a_folder_of_something_else_is_refused(common, tmp_path: Path) -> None:
    Path(common["output"]).mkdir()
    (tmp_path / "comparison" / "thesis.tex").write_text("…")
    with names(OutputError, common["output"]):
        compare(methods="bert-emd,soft-targets", **common)


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [0, 1, 2]), ("3,7,11", [3, 7, 11]), ("7,", [7]), (" 4 , 2 ", [4, 2])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert read_seeds(text) == seeds


def test_names_of_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my run.yaml").write_text("method: tinybert\nmapping: last\n")
    entries = read_entries("bert-emd, tinybert@maps/found.yaml ,my run.yaml,own.py:method")
    assert [entry.name for entry in entries] == ["bert-emd", "tinybert@found", "my-run", "own.py-method"]
    assert [entry.options for entry in entries] == [
        {"method": "bert-emd"},
        {"method": "tinybert", "mapping": "maps/found.yaml"},
        {"method": "tinybert", "mapping": "last"},
        {"method": "own.py:method"},
    ]
