import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from messages import names, unnamed

from emdistill.cli import load, main
from emdistill.config import RunConfig, SharedSettings
from emdistill.errors import ConfigError
from emdistill.methods import METHODS, compose_stages
from emdistill.options import load_config, load_finetune_config, read_words
from emdistill.states import CLASSES, EncoderShape

NEEDED = {"teacher": "teacher/", "data": "reviews.csv", "output": "run/"}
EMD = {**NEEDED, "method": "bert-emd"}
WORDS = ["distill", "--teacher", "teacher/", "--data", "reviews.csv", "--output", "run/"]
SHARED = asdict(SharedSettings())  # of every method
RECIPES = Path(__file__).parents[1] / "emdistill" / "recipes"


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What --print-config prints, read back."""
    assert main([*WORDS, *words, "--print-config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


@pytest.mark.parametrize("method", METHODS)
def test_a_method_runs_with_the_numbers_of_its_recipe(method: str) -> None:
    recipe = yaml.safe_load((RECIPES / f"{method}.yaml").read_text())
    config = load_config(**NEEDED, method=method)
    assert config.method == method
    assert config.training == recipe["training"]
    assert {name: config.objective[name] for name in recipe.get("objective", {})} == recipe.get("objective", {})


@pytest.mark.parametrize("method", ["tinybert", "bert-emd"])
def test_a_search_has_the_settings_of_its_method(method: str) -> None:
    needed = [f"--{name}={value}" for name, value in NEEDED.items()]
    words = [*needed, "--method", method, "--objective.alpha=0.25", "--training.learning_rate=1e-3"]
    values = read_words(load("search-mapping"), words, "search-mapping")
    assert values is not None
    assert values["objective"] == load_config(**NEEDED, method=method, objective={"alpha": 0.25}).objective
    assert values["training"] == {"learning_rate": 1e-3}  # its recipe's lies below, where the runs are planned


def test_keywords_lie_over_the_file_and_the_file_over_the_recipe(tmp_path: Path) -> None:
    recipe = yaml.safe_load((RECIPES / "bert-emd.yaml").read_text())
    file = tmp_path / "run.yaml"
    file.write_text("student: 4\ntraining: {num_train_epochs: 7, seed: 1}\nobjective: {beta: 2, theta: 3}\n")
    config = load_config(config=file, **EMD, training={"seed": 9}, objective={"theta": 4.5})
    assert config.student == "4"
    assert config.training == {**recipe["training"], "num_train_epochs": 7, "seed": 9}
    assert (config.objective["beta"], config.objective["theta"]) == (2, 4.5)
    assert config.objective["alpha"] == recipe["objective"]["alpha"]


def test_the_command_line_lies_over_file_and_recipe_too(tmp_path: Path, capsys) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("student: 4\nlabel: 2\ntraining: {num_train_epochs: 7, learning_rate: 1e-3}\n")
    words = ["--config", str(file), "--training.num_train_epochs=8", "--method=bert-emd", "--objective.beta", "0.5"]
    assert main([*WORDS, *words, "--print-config"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    again = load_config(config=file, **EMD, training={"num_train_epochs": 8}, objective={"beta": 0.5})
    assert RunConfig(**found) == again
    assert again.training["learning_rate"] == 1e-3
    assert again.label == "2"


def test_a_path_from_home_is_one_wherever_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """A shell expands `--output ~/run` alone; else the run would lie in a folder called ~."""
    monkeypatch.setenv("HOME", "/home/me")
    file = tmp_path / "run.yaml"
    file.write_text("data: ~/train.csv\nlabel: a~/b\n")
    words = ["--config", str(file), "--output=~/run", "--teacher=~/one,~/two", "--method=bert-emd"]
    assert main(["distill", *words, "--print-config"]) == 0
    config = load_config(config=file, method="bert-emd", teacher="~/one,~/two", output="~/run")
    for found in (RunConfig(**yaml.safe_load(capsys.readouterr().out)), config):
        assert (found.data, found.output, found.label) == ("/home/me/train.csv", "/home/me/run", "a~/b")
        assert found.teacher == "/home/me/one,/home/me/two"


def test_of_several_files_each_lies_over_those_before_it(tmp_path: Path, capsys) -> None:
    """All but the last one were passed over."""
    for name, content in (("all", "seed: 3\nrows: 5\ntraining: {max_steps: 7}"), ("one", "rows: 6")):
        (tmp_path / f"{name}.yaml").write_text(content)
    options = shown(capsys, "--config", f"{tmp_path}/all.yaml", f"--config={tmp_path}/one.yaml")
    assert (options["seed"], options["rows"], options["training"]["max_steps"]) == (3, 6, 7)
    (tmp_path / "all.yaml").write_text("sed: 3")
    wrong = refused(capsys, *WORDS, "--config", f"{tmp_path}/all.yaml", "--config", f"{tmp_path}/one.yaml")
    assert not unnamed(wrong, "'sed'", tmp_path / "all.yaml")


def test_sections_are_dictionaries_or_dotted_keys() -> None:
    nested = load_config(**EMD, training={"learning_rate": 0.5}, objective={"beta": 2})
    assert load_config(**EMD, **{"training.learning_rate": 0.5, "objective.beta": 2}) == nested


def test_a_path_may_be_a_path() -> None:
    paths = {name: Path(place) for name, place in NEEDED.items()}
    assert load_config(**paths) == load_config(**{name: str(place) for name, place in paths.items()})


def test_the_student_may_be_a_number() -> None:
    assert load_config(**NEEDED, student=3).student == "3"
    assert load_config(**NEEDED, student="4x312").student == "4x312"


def test_all_unknown_keywords_are_named_at_once_each_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(**EMD, studnt=3, training={"lerning_rate": 1}, objective={"betta": 1, "theta": 2})
    listed = re.findall(r"'([\w.]+)'", str(caught.value))
    assert listed == [
        *("studnt", "student", "training.lerning_rate", "training.learning_rate"),
        *("objective.betta", "objective.beta"),
    ]
    with names(ConfigError, "'modle'", "'model'"):
        load_finetune_config(modle="m", data="d", output="o")


def test_all_unknown_options_of_file_and_command_line_are_named_at_once(tmp_path: Path, capsys) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("method: bert-emd\nstudnt: 3\ntraining: {num_train_epoch: 1}\nobjective: {betta: 0.5}\n")
    err = refused(capsys, *WORDS, "--config", str(file), "--tekst", "a", "--training.lerning-rate=1", "--seed", "x")
    lines = err.splitlines()
    for wrong, nearest, in_file in (
        ("studnt", "student", True),
        ("training.num_train_epoch", "training.num_train_epochs", True),
        ("objective.betta", "objective.beta", True),
        ("tekst", "text", False),
        ("training.lerning_rate", "training.learning_rate", False),
    ):
        (line,) = [line for line in lines if f"'{wrong}'" in line]
        assert f"'{nearest}'" in line
        assert (str(file) in line) == in_file


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--epochs", "training.num_train_epochs"),
        ("--lr", "training.learning_rate"),
        ("--training.lr", "training.learning_rate"),
        ("--batch-size", "training.per_device_train_batch_size"),
        ("--training.warmup_ratio", "training.warmup_steps"),
    ],
)
def test_the_names_of_other_trainers_lead_to_ours(word: str, meant: str, capsys) -> None:
    assert f"'{meant}'" in refused(capsys, *WORDS, word, "3")


def test_options_of_another_method_are_unknown(capsys) -> None:
    assert "'objective.beta'" in refused(capsys, *WORDS, "--method", "hard-labels", "--objective.beta=1")
    assert "fade" not in refused(capsys, *WORDS, "--method", "hard-labels", "--objective.alpha=1")  # it is not alike
    assert "'training.learning_rate'" in refused(capsys, *WORDS, "--training-learning_rate=1")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--seed", "x"], ["--seed", "'x'"]),
        (["--seed=-1"], ["--seed", -1]),
        (["--max-length", "0"], ["--max-length", 3, 0]),
        (["--method=bert-emd", "--objective.beta", "abc"], ["--objective.beta", "'abc'"]),
        (["--objective.schedule", "once"], ["--objective.schedule", "joint, two-phase", "'once'"]),
        (["--training.learning_rate", "abc"], ["--training.learning_rate", "'abc'"]),
        (["--training.per_device_train_batch_size", "2.5"], ["--training.per_device_train_batch_size", "'2.5'"]),
        (["--training.bf16", "maybe"], ["--training.bf16", "true", "false", "'maybe'"]),
        (["--training.early_stopping_patience", "x"], ["--training.early_stopping_patience", "'x'"]),
        (["--select", "best"], ["--select", "held-out, dev, last", "'best'"]),
        (["--training", "{num_train_epochs: 1}"], ["'training'", "training.NAME"]),
        (["--method", "bert-edm"], ["'bert-edm'", "emdistill methods", "'bert-emd'"]),
        (["--method", "own.py:mine"], ["own.py"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--config"], ["--config"]),
        (["--training.num_train_epochs", "--rows=5"], ["--training.num_train_epochs"]),
        (["--student", ""], ["--student"]),  # of a variable of a script that is not set
        (["--method=", "--config="], ["--method", "--config"]),
        (["--dev=", "--text="], ["--dev", "--text"]),
        (["stray"], ["stray"]),
    ],
)
def test_wrong_values_are_refused(capsys, words: list[str], named: list[object]) -> None:
    # and a configuration that is only looked at is checked as well
    for more in ([], ["--print-config"]):
        assert not unnamed(refused(capsys, *WORDS, *more, *words), *named)


def test_a_wrong_value_of_a_file_is_refused_with_the_file(tmp_path: Path, capsys) -> None:
    file = tmp_path / "run.yaml"
    for content, name in (("seed: x", "--seed"), ("training: {learning_rate: abc}", "--training.learning_rate")):
        file.write_text(content)
        assert not unnamed(refused(capsys, *WORDS, "--config", str(file)), name, file)
        with names(ConfigError, name, file):
            load_config(config=file, **NEEDED)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": "x"}, ["--seed"]),
        ({"method": "bert-emd", "objective": {"beta": "abc"}}, ["--objective.beta"]),
        ({"training": {"learning_rate": "abc", "bf16": "maybe"}}, ["--training.learning_rate", "--training.bf16"]),
        ({"training": 3}, ["'training'"]),
        ({"training": {"save_strategy": "never"}}, ["--training.save_strategy", "no", "epoch", "never"]),
        ({"training": {"save_steps": None}}, ["--training.save_steps", "null"]),
        ({"training": {"weight_decay": float("inf")}}, ["--training.weight_decay", "inf"]),
        ({"objective": {"layer_ratio": float("nan")}}, ["--objective.layer_ratio", "nan"]),
        ({"objective": {"layer_ratio": None}}, ["--objective.layer_ratio", "null"]),
        ({"max_length": None}, ["--max-length", "null"]),
        ({"labelled_share": float("nan")}, ["--labelled-share", "nan"]),
    ],
)
def test_wrong_values_are_refused_from_python_too(options: dict[str, Any], named: list[str]) -> None:
    with names(ConfigError, *named):
        load_config(**{**NEEDED, **options})


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("- a\n- b\n", "name: value"),
        ("a: [1\n", "line 2"),
        ("\xff", "0xff"),
        ("seed: 1\n? \n", None),
        ("3: 4\n", 3),
        ("training: {? : 1}\n", "'training.None'"),
    ],
)
def test_files_that_are_no_configuration_are_refused(tmp_path: Path, capsys, content: str, named: object) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(content, encoding="latin-1")
    with names(ConfigError, file, named):
        load_config(config=file, **NEEDED)
    assert not unnamed(refused(capsys, "distill", "--config", str(file)), file, named)


def test_the_printed_configuration_is_complete_and_runs_again(tmp_path: Path, capsys) -> None:
    words = ["--training.bf16=true", "--text-pair", "b", "--objective.cost-attention", "softmax", "--student", "1,3"]
    found = shown(capsys, *words)
    assert found["training"]["learning_rate"] == load_config(**NEEDED).training["learning_rate"]
    assert found["training"]["bf16"] is True
    assert (found["text_pair"], found["student"]) == ("b", "1,3")
    assert found["objective"]["cost_attention"] == "softmax"
    file = tmp_path / "printed.yaml"
    file.write_text(yaml.safe_dump(found))
    assert main(["distill", "--config", str(file), "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == found
    assert load_config(config=file) == RunConfig(**found)


def test_a_printed_configuration_names_what_is_still_to_be_given(capsys) -> None:
    assert main(["distill", "--print-config", "--data", "d.csv"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert (found["teacher"], found["data"], found["output"]) == ("TEACHER", "d.csv", "OUTPUT")


def test_overrides_reach_to_any_depth(capsys) -> None:
    found = shown(capsys, "--training.lr_scheduler_type=cosine", "--training.lr_scheduler_kwargs.num_cycles", "2")
    assert found["training"]["lr_scheduler_kwargs"] == {"num_cycles": 2}
    found = shown(capsys, "--training.lr_scheduler_kwargs", "{num_cycles: 0.5}")
    assert found["training"]["lr_scheduler_kwargs"] == {"num_cycles": 0.5}


def test_the_method_of_a_file_decides_the_options(tmp_path: Path, capsys) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("method: soft-targets\nobjective: {alpha: 0.25}\n")
    found = shown(capsys, "--config", str(file), "--objective.temperature", "2")
    assert found["method"] == "soft-targets"
    assert found["objective"] == {"alpha": 0.25, "temperature": 2.0, "annealing": False, **SHARED}
    assert load_config(config=file, **NEEDED, objective={"temperature": 2}) == RunConfig(**found)


def test_switches_need_no_value(capsys) -> None:
    found = shown(capsys, "--overwrite", "--keep-checkpoints", "--training.bf16", "--check-teacher", "false")
    assert found["training"]["bf16"] is True
    assert (found["overwrite"], found["keep_checkpoints"], found["check_teacher"]) == (True, True, False)
    assert (found["resume"], shown(capsys, "--resume=true")["resume"]) == (False, True)


def test_no_is_a_strategy_by_every_route(tmp_path: Path, capsys) -> None:
    """YAML reads the word as false."""
    file = tmp_path / "run.yaml"
    file.write_text("training: {save_strategy: no, eval_strategy: 'no'}\n")
    for training in (
        shown(capsys, "--training.save_strategy", "no", "--training.eval_strategy=no")["training"],
        shown(capsys, "--config", str(file))["training"],
        load_config(**NEEDED, training={"save_strategy": "no", "eval_strategy": "no"}).training,
    ):
        assert (training["save_strategy"], training["eval_strategy"]) == ("no", "no")


@pytest.mark.parametrize(
    ("verb", "option", "value"),
    [
        ("compress", "--hours", "inf"), ("compress", "--hours", "0"), ("compress", "--finals", "0"),
        ("compress", "--epochs", "nan"), ("search-chain", "--epochs", "0"), ("search-chain", "--epochs", ".inf"),
        ("search-chain", "--learning-rate", "-1"), ("search-mapping", "--epochs", "-2"),
    ],
)  # fmt: skip
def test_numbers_of_a_search_have_limits(capsys, verb: str, option: str, value: str) -> None:
    words = ["--teacher=t", "--data=d", "--output=o", *(["--budget=5ms"] if verb == "compress" else [])]
    assert not unnamed(refused(capsys, verb, *words, f"{option}={value}"), option)


OWN_METHOD = """
from emdistill.methods.soft_targets import soft_targets


def mine(student, teacher, *, predictions: str = "classes", warmth: float = 3.0):
    return soft_targets(student, teacher, predictions=predictions, temperature=warmth)


def other(student, teacher):
    return []


def empty(student, teacher, *, predictions):
    return []
"""


def test_a_method_of_ones_own_brings_its_own_options(tmp_path: Path, capsys) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN_METHOD)
    found = shown(capsys, "--method", f"{file}:mine", "--objective.warmth", "4")
    assert found["objective"] == {"warmth": 4.0, **SHARED}
    assert load_config(**NEEDED, method=f"{file}:mine").objective == {"warmth": 3.0, **SHARED}
    assert "'objective.warmth'" in refused(capsys, *WORDS, "--method", f"{file}:mine", "--objective.warmt", "4")
    with names(ConfigError, file, "'min'", "'mine'"):
        load_config(**NEEDED, method=f"{file}:min")
    with names(ConfigError, "predictions"):
        load_config(**NEEDED, method=f"{file}:other")
    with names(ConfigError, f"{file}:FUNCTION"):
        load_config(**NEEDED, method=str(file))
    assert main(["distill", "--method", f"{file}:mine", "--help"]) == 0
    assert "None" not in capsys.readouterr().out
    config = load_config(**NEEDED, method=f"{file}:empty")
    with names(ConfigError, f"{file}:empty", "stages"):
        compose_stages(config, EncoderShape(2, 32, 4), EncoderShape(4, 32, 4), CLASSES)
    file.write_text("import nothing_of_this_name")
    with names(ConfigError, file, "ModuleNotFoundError"):
        load_config(**NEEDED, method=f"{file}:mine")
