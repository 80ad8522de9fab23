"""The command line as a user types it, end to end on a tiny random encoder and a few learnable sentences."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from messages import unnamed
from run_folders import contents, read_record
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import emdistill
from emdistill import StudentArtifact, cli, distill
from emdistill.cli import AGAIN, COMMANDS, RESUME, Command, load, main
from emdistill.console import say
from emdistill.errors import Interrupted, tell
from emdistill.models.encoder import fingerprint
from emdistill.options import option_parser, target_of
from emdistill.runs.answers import read_predictions


def test_the_run_folder_holds_what_it_says(place) -> None:
    files = {path.name for path in (place.folder / "run").iterdir()}
    assert files == {
        "student",
        "run.json",
        "predictions.jsonl",
        "flows.jsonl",
        "report.html",
        "plotly.min.js",
        "tensorboard",
    }
    student = {path.name for path in (place.folder / "run" / "student").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= student
    assert "emdistill" in (place.folder / "run" / "student" / "README.md").read_text(encoding="utf-8")
    assert [record.step for record in StudentArtifact(place.folder / "run").flows()][:3] == [1, 2, 4]
    assert StudentArtifact(f"{place.folder}/run").scores == StudentArtifact(place.folder / "run").scores
    assert list((place.folder / "run" / "tensorboard").rglob("events.*"))


def test_the_answers_kept_are_those_that_were_scored(place) -> None:
    run = read_record(place.folder / "run")
    (found,) = read_predictions(place.folder / "run" / "predictions.jsonl").values()
    assert len(found) == run["task"]["evaluation_rows"]["dev"]
    for name, logits in (("teacher", found.teacher), ("student", found.student)):
        assert run["scores"][name]["accuracy"] == (logits.argmax(axis=1) == found.labels).mean()


def test_run_json_tells_how_the_student_was_made(place) -> None:
    run = read_record(place.folder / "run")
    assert run["status"] == "finished"
    assert run["scores"]["teacher"]["accuracy"] == 1.0
    assert run["scores"]["student"]["accuracy"] >= 0.9
    assert run["scores"]["student"].keys() == run["scores"]["teacher"].keys() == {"accuracy", "macro_f1"}
    assert run["config"]["student"] == "2"
    assert run["config"]["training"]["learning_rate"] == 5e-3
    assert run["config"]["objective"]["layer_ratio"] == 1.0
    assert run["seed"] == run["config"]["seed"] == 42
    assert {"emdistill", "torch", "transformers", "python", "date"} <= run["versions"].keys()
    teacher = AutoModelForSequenceClassification.from_pretrained(place.folder / "teacher")
    assert run["hashes"]["teacher"] == fingerprint(teacher)
    assert run["hashes"]["reviews.csv"] == hashlib.sha256((place.folder / "reviews.csv").read_bytes()).hexdigest()
    assert run["timings"]["training_seconds"] > 0
    assert run["timings"]["teacher_evaluation_seconds"] > 0
    assert not unnamed(run["task"]["held_out"], 16, 160)
    assert not unnamed(run["selection"], "14 rows", "train")
    assert run["objective"]["joint"].startswith("L = ")
    assert run["teacher"]["parameters"] == teacher.num_parameters() > run["student"]["parameters"]
    (stage,) = run["log"]
    assert any("terms/hidden_states" in entry for entry in stage["log"])


def test_the_teachers_own_run_json_has_its_score(place) -> None:
    run = read_record(place.folder / "teacher")
    assert run["scores"]["teacher"]["accuracy"] == 1.0
    assert run["task"]["labels"] == ["bad", "good"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in (place.folder / "teacher").iterdir()
    }


STANDS_ALONE = """
import sys

sys.modules["emdistill"] = None  # as where it is not installed
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = sys.argv[1]
model, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
assert not report["missing_keys"] and not report["unexpected_keys"], report
inputs = AutoTokenizer.from_pretrained(folder)(["the movie was good", "it was bad"], padding=True, return_tensors="pt")
print(*(model.config.id2label[best] for best in model(**inputs).logits.argmax(-1).tolist()))
"""


def test_the_student_loads_where_emdistill_is_not_installed(place) -> None:
    command = [sys.executable, "-I", "-c", STANDS_ALONE, str(place.folder / "run" / "student")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["good", "bad"]
    keys = load_file(place.folder / "run" / "student" / "model.safetensors").keys()
    assert not [key for key in keys if "objective" in key or "projection" in key or "mapping" in key]


def test_a_run_is_not_replaced_unasked(place, tmp_path: Path, capsys) -> None:
    shutil.copytree(place.folder / "run", tmp_path / "run")
    before = contents(tmp_path / "run")
    again = place.distill("--output", f"{tmp_path}/run", "--training.num_train_epochs=3")
    again += ["--training.flow_steps=2", "--training.logging_steps=2"]
    assert main(again) == 2
    assert not unnamed(capsys.readouterr().err, f"{tmp_path}/run", "--resume", "--overwrite")
    assert main([*again, "--overwrite", "--resume"]) == 2
    assert not unnamed(capsys.readouterr().err, "--resume", "--overwrite")
    assert main([*again, "--resume"]) == 0
    assert not unnamed(capsys.readouterr().out, f"{tmp_path}/run")
    assert main([*again, "--resume", "--seed", "1"]) == 2
    (differs,) = re.findall(r"config\.\w+: .*", capsys.readouterr().err)
    assert not unnamed(differs, "config.seed", 42, 1)
    assert contents(tmp_path / "run") == before


def test_overwrite_makes_the_same_run_again(place, tmp_path: Path, capsys) -> None:
    shutil.copytree(place.folder / "run", tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("the user's own")
    words = ["--training.num_train_epochs=3", "--training.flow_steps=2", "--training.logging_steps=2"]
    assert main(place.distill("--output", f"{tmp_path}/run", *words, "--overwrite")) == 0
    assert (tmp_path / "run" / "notes.txt").is_file()
    for name in ("student/model.safetensors", "flows.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (place.folder / "run" / name).read_bytes()
    out, _ = capsys.readouterr()
    assert not unnamed(out.splitlines()[-1], f"{tmp_path}/run", "student/", "run.json")
    assert not unnamed(out, "teacher on dev", "accuracy 1.0000")


def test_finetuning_again_is_refused_and_resumed_alike(place, capsys) -> None:
    words = [
        "finetune",
        "--model",
        f"{place.folder}/encoder",
        "--data",
        f"{place.folder}/reviews.csv",
        *place.reviews,
        *place.fast,
        *place.quiet,
    ]
    words += ["--output", f"{place.folder}/teacher", "--training.num_train_epochs=8"]
    before = contents(place.folder / "teacher")
    assert main(words) == 2
    assert not unnamed(capsys.readouterr().err, f"{place.folder}/teacher", "--resume", "--overwrite")
    assert main([*words, "--resume"]) == 0
    assert not unnamed(capsys.readouterr().out, f"{place.folder}/teacher")
    assert contents(place.folder / "teacher") == before


def test_a_glue_folder_gives_teacher_and_fresh_student(place, tmp_path: Path, capsys) -> None:
    glue = ["--task", "sst2", "--data", f"{place.folder}/SST-2"]
    words = ["--model", f"{place.folder}/encoder", *glue, *place.fast, *place.quiet, "--training.num_train_epochs=4"]
    assert main(["finetune", *words, "--output", f"{tmp_path}/teacher"]) == 0
    assert "dev: accuracy" in capsys.readouterr().out
    words = ["--teacher", f"{tmp_path}/teacher", *glue, "--student", "2x16", "--objective.heads", "mean", *place.fast]
    words += ["--training.num_train_epochs=1", "--select", "dev", "--keep-checkpoints", "--baselines=none"]
    assert main(["distill", *words, "--output", f"{tmp_path}/run"]) == 0
    out, err = capsys.readouterr()
    assert "%|" in err  # progress is no result
    assert "%|" not in out
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "student")
    assert (student.config.num_hidden_layers, student.config.hidden_size) == (2, 16)
    assert (tmp_path / "run" / "checkpoints").is_dir()
    assert main(["evaluate", "--model", f"{tmp_path}/run/student", *glue]) == 0
    run = read_record(tmp_path / "run")
    assert capsys.readouterr().out == f"accuracy\t{run['scores']['student']['accuracy']:.4f}\n"
    assert run["task"]["held_out"] is None


def test_from_python_with_scores_pairs_and_a_development_set(
    place, tmp_path: Path, tiny_encoder, tokenizer_factory
) -> None:
    rows = [[str(i), text, f"{len(text) % 5 + i % 7 / 10}"] for i, (text, _) in enumerate(place.sentences(60))]
    train = place.write_csv(tmp_path / "train.csv", rows, ("a", "b", "score"))
    dev = place.write_csv(tmp_path / "dev.csv", rows[:10], ("a", "b", "score"))
    tiny_encoder("bert", layers=2, width=16, labels=1).save_pretrained(tmp_path / "teacher")
    tokenizer_factory().save_pretrained(tmp_path / "teacher")
    artifact = distill(
        teacher=str(tmp_path / "teacher"), data=str(train), dev=str(dev), text="a", text_pair="b", label="score",
        student=1, method="soft-targets", output=str(tmp_path / "run"), check_teacher=False, select="last",
        baselines="none",
        training={"num_train_epochs": 1, "disable_tqdm": True}, **{"objective.alpha": 0.5},
    )  # fmt: skip
    assert artifact.scores["student"].keys() == {"pearson", "spearman"}
    assert artifact.run.task.evaluation_rows == {"dev": 10}
    assert artifact.flows() == []
    student, _ = artifact.load()
    assert (student.config.num_labels, student.config.num_hidden_layers) == (1, 1)


# ------------------------------------------------------------------------------------------------------ the verbs


LISTS = ("methods", "mappings", "tasks", "students")


def test_the_table_is_the_folder() -> None:
    """Every file of commands/ is a verb's, but for those that begin with an underscore."""
    modules = {command.function.partition(":")[0].removeprefix(".") for command in COMMANDS.values()}
    folder = Path(emdistill.__file__).parent / "commands"
    files = {file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")}
    assert files == modules
    assert all(callable(load(verb)) for verb in COMMANDS)


def test_help_names_every_verb_on_one_screen(capsys) -> None:
    assert main(["--help"]) == main([]) == main(["help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    lines = lines[: len(lines) // 3]
    assert len(lines) <= 28
    assert all(len(line) <= 80 for line in lines)
    for verb, command in COMMANDS.items():
        assert any(line.split(maxsplit=1) == [verb, command.summary] for line in lines)
    assert main(["distil"]) == 2
    assert "'distill'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_of_a_verb_explains_every_option(verb: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert out.startswith(f"usage: emdistill {verb}")
    parser = option_parser(target_of(load(verb)))
    assert all(action.help for action in parser._actions)
    if verb not in LISTS:
        assert "--print-config" in out
        assert not re.search(r"--[a-z]+_[a-z]", out)  # those of sections have a dot


def test_help_says_whose_the_settings_are_and_every_default_but_false(capsys) -> None:
    assert main(["distill", "--method", "bert-emd", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "settings of --method bert-emd:" in out
    assert "(default: 0.0)" in out
    assert "(default: true)" in out
    assert "(default: false)" not in out
    assert "(default: num_train_epochs " in out


@pytest.mark.parametrize("verb", ["finetune", "evaluate"])
def test_help_of_what_takes_one_task_promises_no_others(verb: str, capsys) -> None:
    assert main([verb, "--help"]) == 0
    assert "several tasks, for a student" not in capsys.readouterr().out


@pytest.mark.parametrize("verb", LISTS)
def test_lists_have_a_line_each(verb: str, capsys) -> None:
    assert main([verb]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.split("  ", 1)[1].strip() for line in lines)
    assert main([verb, "--all"]) == 2
    assert "'all'" in capsys.readouterr().err


IMPORTS_NOTHING_HEAVY = """
import sys

import emdistill
from emdistill.cli import main

assert all(main(words) == 0 for words in (["--help"], *([verb] for verb in sys.argv[1:])))
print(*sorted({"torch", "transformers", "datasets", "pandas", "matplotlib"} & sys.modules.keys()), file=sys.stderr)
"""


def test_help_and_lists_import_nothing_heavy() -> None:
    command = [sys.executable, "-c", IMPORTS_NOTHING_HEAVY, *LISTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_a_reader_that_leaves_is_no_error() -> None:
    for words in (["--help"], ["methods"], ["report", "--help"]):
        command = [sys.executable, "-m", "emdistill", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.close()  # as `| head` does once it has its lines
            assert process.stderr.read() == b""
        assert process.returncode == 128 + signal.SIGPIPE


def test_a_reader_that_leaves_in_the_midst_of_the_work_is_told_from_a_no_go(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as output:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", output)
        monkeypatch.setattr(cli, "run", lambda verb, words: say("a line about the work"))
        assert main(["export"]) == 141


def test_words_that_nobody_hears_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`2>&1 | tee log`: the Ctrl-C that asks for a checkpoint ends tee, which was to hear of it."""
    reading, writing = os.pipe()
    os.close(reading)
    done = []

    def work(verb: str, words: list[str]) -> None:
        tell("a line about the work")
        done.append(verb)
        raise Interrupted("stopped")

    with open(writing, "w", encoding="utf-8") as errors:  # noqa: PTH123
        for name in ("stderr", "__stderr__"):
            monkeypatch.setattr(sys, name, errors)
        monkeypatch.setattr(cli, "run", work)
        assert main(["export"]) == 130
    assert done == ["export"]


def test_what_the_output_cannot_show_is_written_as_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As batch systems have it that set PYTHONIOENCODING=ascii: one sign of a formula ended a run."""
    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr(cli, "run", lambda verb, words: say("3×384"))
    assert main(["distill"]) == 0
    assert written.getvalue() == b"3\\xd7384\n"


def test_a_closed_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["--version"]) == 0


def test_the_version_is_that_of_the_package(capsys) -> None:
    assert main(["--version"]) == 0
    assert version("emdistill") in capsys.readouterr().out


def greet(name: str, /, *, times: int = 1, all_caps: bool = False) -> str:
    """Greet somebody.

    Args:
        name: who is greeted.
        times: how often.
        all_caps: loudly.
    """
    if name == "nobody":
        raise KeyboardInterrupt
    if name == "too many":
        raise Interrupted("stopped at greeting 2")
    text = " ".join([f"hello {name}"] * times)
    return text.upper() if all_caps else text


def judge(*names: str, least: int = 2) -> int:
    """Say by the exit code whether there are enough names.

    Args:
        names: of people.
        least: how many there must be.
    """
    return 0 if len(names) >= least else 1


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more verbs: a function each, and a line of the table."""
    monkeypatch.setitem(COMMANDS, "greet", Command("make", f"{__name__}:greet", "greet somebody", RESUME))
    monkeypatch.setitem(COMMANDS, "judge", Command("judge", f"{__name__}:judge", "count names"))


def test_a_new_verb_is_a_function_and_a_line_of_the_table(toys: None, tmp_path: Path, capsys) -> None:
    (tmp_path / "greet.yaml").write_text("times: 2\n")
    assert main(["greet", "ada", "--config", f"{tmp_path}/greet.yaml", "--all-caps"]) == 0
    assert capsys.readouterr().out == "HELLO ADA HELLO ADA\n"
    assert main(["greet", "--all_caps", "ada", "--times=1", f"--config={tmp_path}/greet.yaml"]) == 0
    assert capsys.readouterr().out == "HELLO ADA\n"
    assert main(["greet", "ada", "--times", "2", "--print-config"]) == 0
    assert capsys.readouterr().out == "name: ada\ntimes: 2\nall_caps: false\n"
    assert main(["judge", "ada", "grace"]) == 0
    assert main(["judge", "ada"]) == 1
    assert main(["greet", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(words in out for words in ("NAME", "--all-caps", "how often."))
    assert main(["--help"]) == 0
    assert "  greet             greet somebody\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["greet", "ada", "--time", "2", "--allcaps"], ["'time'", "'times'", "'allcaps'", "'all_caps'"]),
        (["greet", "ada", "--times", "two"], ["--times", "'two'"]),
        (["greet"], ["NAME"]),
        (["judge"], ["NAME"]),
        (["greet", "ada", "grace"], ["grace"]),
        (["greet", "ada", "--config", "nowhere.yaml"], ["nowhere.yaml"]),
    ],
)
def test_its_wrong_options_are_refused(toys: None, words: list[str], named: list[str], capsys) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert not unnamed(err, *named)


def test_ctrl_c_says_what_to_do_next(toys: None, capsys) -> None:
    assert main(["greet", "too many"]) == main(["greet", "nobody"]) == 130
    stopped, interrupted = capsys.readouterr().err.splitlines()
    assert "greeting 2" in stopped
    assert "--resume" in stopped
    assert "emdistill greet nobody" in interrupted  # as it was given: there is nothing to resume
    assert "--resume" not in interrupted


@pytest.mark.parametrize("way", [RESUME, AGAIN])
@pytest.mark.parametrize("switch", [["--overwrite"], ["--overwrite", "true"], ["--overwrite=true"], ["--resume"]])
def test_what_goes_on_replaces_nothing(monkeypatch: pytest.MonkeyPatch, capsys, way: str, switch: list[str]) -> None:
    monkeypatch.setitem(COMMANDS, "stop", Command("make", f"{__name__}:stop", "stop at once", way))
    assert main(["stop", *switch, "--output", "out"]) == 130
    again = "emdistill stop --output out" + " --resume" * (way == RESUME)
    assert capsys.readouterr().err.strip().endswith(again)


def stop(*, output: str, overwrite: bool = False, resume: bool = False) -> None:
    """Stop.

    Args:
        output: a folder.
        overwrite: replace it.
        resume: go on with it.
    """
    raise Interrupted("stopped")


PRESSES_CTRL_C = """
import signal
import sys

from transformers import TrainerCallback

from emdistill.runs.flow_recorder import FlowRecorder
from emdistill.cli import main

record = FlowRecorder.on_step_end


def press(self, args, state, control, **more):
    if state.global_step == 5:
        signal.raise_signal(signal.SIGINT)
    return record(self, args, state, control, **more)


FlowRecorder.on_step_end = press
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_ctrl_c_exits_with_130_and_resume_finishes_the_same_student(place, tmp_path: Path) -> None:
    words = place.distill("--output", f"{tmp_path}/run", "--training.num_train_epochs=3")
    words += ["--training.flow_steps=2", "--training.logging_steps=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PRESSES_CTRL_C, *words], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 130, done.stderr
    assert "step 5 of 27 of stage 'joint'" in done.stderr
    assert "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "student").exists()
    command = [sys.executable, "-m", "emdistill", *words, "--resume"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    for name in ("student/model.safetensors", "flows.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (place.folder / "run" / name).read_bytes()
