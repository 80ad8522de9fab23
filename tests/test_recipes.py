"""Every recipe runs as its first line says, and every number in it is one that something reads."""

import inspect
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from messages import names

from emdistill.cli import main
from emdistill.commands._entries import BUDGET
from emdistill.config import RECIPES, FinetuneConfig, RunConfig
from emdistill.methods import METHODS
from emdistill.options import load_config, load_finetune_config
from emdistill.states import CLASSES, NOTHING, EncoderShape
from emdistill.students import STUDENTS
from emdistill.training import DistillationArguments
from emdistill.training.stage_arguments import stage_arguments

FINETUNE = "finetune"  # the recipe of the verb of that name; all others are a method's
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
STUDENT, TEACHER = EncoderShape(layers=3, width=384, heads=12), EncoderShape(layers=6, width=384, heads=12)
BILSTM = EncoderShape(layers=2, width=512, heads=0)
OF_STUDENTS = sorted(path.stem for path in (RECIPES / "students").glob("*.yaml"))


def read(name: str) -> dict[str, Any]:
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(recipe, dict)
    return recipe


def settings(name: str) -> dict[str, Any]:
    """Every value of a recipe under its dotted name."""
    found = {}
    for section, values in read(name).items():
        found |= (
            {f"{section}.{key}": value for key, value in values.items()}
            if isinstance(values, dict)
            else {section: values}
        )
    return found


def command(name: str) -> list[str]:
    first = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# emdistill ")
    return shlex.split(first.removeprefix("# emdistill "))


def test_every_method_has_a_recipe_and_every_recipe_a_method() -> None:
    assert sorted([*METHODS, FINETUNE]) == NAMES
    assert {path.suffix for path in RECIPES.iterdir() if path.is_file()} == {".yaml"}


@pytest.mark.parametrize("name", NAMES)
def test_its_first_line_is_the_command_that_runs_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb, *options = command(name)
    assert verb == (FINETUNE if name == FINETUNE else "distill")
    if name != FINETUNE:
        assert options[options.index("--method") + 1] == name
    assert "--output" in options
    assert main([verb, *options, "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    for key, value in settings(name).items():
        section, _, inner = key.rpartition(".")
        assert (printed[section] if section else printed)[inner] == value, key


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_read(name: str) -> None:
    recipe = read(name)
    assert recipe.keys() <= {"mapping", "objective", "training"}  # all else is one for all methods of a comparison
    assert set(recipe.get("training", {})) <= {field.name for field in fields(DistillationArguments)}
    if name == FINETUNE:
        assert "objective" not in recipe
        return
    objective = recipe.get("objective", {})
    inspect.signature(METHODS[name]).bind(STUDENT, TEACHER, predictions=CLASSES, **objective)
    assert not {"student", "teacher", "predictions", "mapping"} & objective.keys()


@pytest.mark.parametrize("name", NAMES)
def test_its_numbers_are_accepted(name: str, tmp_path: Path) -> None:
    recipe = read(name)
    method, student = METHODS["hard-labels" if name == FINETUNE else name], BILSTM if name == "cross-view" else STUDENT
    asked = NOTHING if name == "sentence-vectors" else replace(CLASSES, outputs=2)
    stages = method(student, TEACHER, predictions=asked, **recipe.get("objective", {}))
    training = recipe.get("training", {})
    for stage in stages:
        arguments = stage_arguments(stage, training, folder=tmp_path, choose=True, metric="accuracy", seed=0)
        expected = {**training, **stage.training}
        expected["num_train_epochs"] *= stage.share
        for key, value in expected.items():
            assert getattr(arguments, key) == pytest.approx(value), key
    assert sum(stage.share for stage in stages) == pytest.approx(1)


def test_methods_that_learn_a_task_have_one_budget() -> None:
    """So that `emdistill compare` takes them side by side; those two learn from much text without labels."""
    methods = METHODS.keys() - {"cross-view", "sentence-vectors"}
    assert len({tuple(read(name)["training"].get(setting) for setting in BUDGET) for name in methods}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_numbers(name: str) -> None:
    """YAML 1.1 reads 1e-4 as text; 1.0e-4 is the number."""
    for value in settings(name).values():
        if isinstance(value, str):
            with names(ValueError, repr(value)):
                float(value)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_default_of_the_library_too(name: str) -> None:
    given = {"data": "data", "output": "run"}
    config: RunConfig | FinetuneConfig
    if name == FINETUNE:
        config = load_finetune_config(model="model", **given)
    else:
        config = load_config(teacher="teacher", method=name, **given)
        assert config.objective.items() >= read(name).get("objective", {}).items()
    assert config.training.items() >= read(name).get("training", {}).items()


@pytest.mark.parametrize("form", OF_STUDENTS)
def test_what_a_student_brings_runs_as_its_first_line_says(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert form in STUDENTS
    recipe = read(f"students/{form}")
    assert recipe.keys() <= {"method", "training"}
    verb, *options = command(f"students/{form}")
    assert options[options.index("--student") + 1] == form
    assert main([verb, *options, "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["method"] == recipe["method"]
    assert printed["training"].items() >= recipe["training"].items()
    assert main([verb, *options, "--method", "hard-labels", "--print-config"]) == 0
    other = yaml.safe_load(capsys.readouterr().out)
    assert (other["method"], other["training"]) == ("hard-labels", printed["training"])
