"""The command of a configuration: whole enough to run again, without the paths of the machine."""

import shlex
from dataclasses import asdict, replace
from typing import Any

import pytest

from emdistill.commands.compare import command as compare
from emdistill.commands.distill import command as distill
from emdistill.commands.finetune import command as finetune
from emdistill.config import CompareConfig, RunConfig, as_command, command_line, config_dict
from emdistill.methods import METHODS
from emdistill.options import load_config, load_finetune_config, load_options, read_words

HOME = "/home/someone"
FILES = {"teacher": f"{HOME}/teacher", "output": f"{HOME}/runs/a run"}
CONFIGS: dict[str, dict[str, Any]] = {
    "as recommended": FILES | {"data": f"{HOME}/glue/MRPC", "task": "mrpc"},
    "other numbers": FILES
    | {
        "data": f"{HOME}/glue/MRPC",
        "task": "mrpc",
        "student": "4x312",
        "student_birth": "fresh",
        "select": "last",
        "seed": 7,
        "rows": 100,
        "check_teacher": False,
        "teacher_cache": "states",
        "teacher_cache_folder": f"{HOME}/cache",
        "keep_checkpoints": True,
        "method": "bert-emd",
        "objective": {"beta": 0.5, "coupled": False, "projection": "none"},
        "training": {
            "learning_rate": 3e-5,
            "bf16": True,
            "max_steps": -1,
            "report_to": ["none"],
            "lr_scheduler_kwargs": {"num_cycles": 2},
        },
    },
    "another method": FILES
    | {
        "data": f"{HOME}/my reviews.csv",
        "dev": f"{HOME}/dev.csv",
        "text": "the body's text",
        "text_pair": "title",
        "label": "stars",
        "kind": "regression",
        "student": f"{HOME}/students/small",
        "method": "tinybert",
        "mapping": f"{HOME}/pairs.yaml",
        "augmented": f"{HOME}/more.jsonl",
    },
    "of the hub": {
        "teacher": "textattack/bert-base-uncased-MRPC",
        "data": "nyu-mll/glue",
        "task": "mrpc",
        "output": "run",
        "student": "1,3,5",
        "student_source": "google/bert_uncased_L-6",
        "method": "soft-targets",
    },
    "raw text": FILES | {"data": f"{HOME}/wiki.txt.xz", "task": "text", "student": "2", "method": "minilm"},
}


def words(command: str) -> list[str]:
    """The options as a shell hands them over; to it, lines that end in a backslash are one."""
    return shlex.split(command.replace("\\\n", " "))[2:]


@pytest.mark.parametrize("options", CONFIGS.values(), ids=list(CONFIGS))
def test_the_command_is_read_as_the_configuration_it_was_made_of(options: dict[str, Any]) -> None:
    config = load_config(**options)
    command = as_command("distill", config_dict(config))
    assert HOME not in command
    values = read_words(distill, words(command), "distill")
    assert values is not None
    places = {name: getattr(config, name) for name in ("teacher", "data", "dev", "output", "student", "mapping")}
    cut = {name: value.rpartition("/")[2] if value and HOME in value else value for name, value in places.items()}
    augmented = config.augmented and "more.jsonl"
    cut |= {"augmented": augmented, "teacher_cache_folder": None, "keep_checkpoints": False}
    assert RunConfig(**values) == replace(config, **cut)


@pytest.mark.parametrize("method", METHODS)
def test_the_command_leaves_out_what_the_recipe_says(method: str) -> None:
    command = as_command("distill", config_dict(load_config(**CONFIGS["as recommended"], method=method)))
    assert command.startswith(
        f"emdistill distill --teacher teacher --task mrpc --data MRPC --student 3 --method {method}"
    )
    for usual in ("training", "objective", "mapping", "overwrite", "--text", "check_teacher", "baselines", "null"):
        assert usual not in command
    assert "--seed 42" in command
    assert all(len(line) < 120 for line in command.splitlines())


def test_values_are_quoted_for_a_shell() -> None:
    command = command_line("predict", {"text": "a 'b' $c", "n": -1, "flag": True, "list": ["/home/someone/x", 2]})
    assert words(command) == ["--text", "a 'b' $c", "--n=-1", "--flag", "true", "--list", '["x", 2]']


def test_a_fine_tuning_and_a_comparison_have_their_commands() -> None:
    config = load_finetune_config(model="some/encoder", data=f"{HOME}/reviews.csv", output=f"{HOME}/teacher", seed=3)
    command = as_command("finetune", config_dict(config))
    assert words(command)[:6] == ["--model", "some/encoder", "--data", "reviews.csv", "--output", "teacher"]
    assert read_words(finetune, words(command), "finetune") == asdict(config) | {
        "data": "reviews.csv",
        "output": "teacher",
    }
    given = {"methods": f"tinybert@{HOME}/found.json,{HOME}/labels.yaml,bert-emd", "training": {"max_steps": 4}}
    given |= {"teacher": f"{HOME}/teacher", "data": "reviews.csv", "output": "all"}
    command = as_command("compare", config_dict(load_options(CompareConfig, None, given)))
    assert HOME not in command
    values = read_words(compare, words(command), "compare")
    assert values is not None
    assert values["methods"] == "tinybert@found.json,labels.yaml,bert-emd"
    assert values["training"] == {"max_steps": 4}


def test_a_record_of_another_version_has_its_command() -> None:
    """An option that it does not have is left out, one that is no more is told."""
    command = as_command("distill", {"teacher": "t", "data": "d.csv", "output": "o", "method": "own", "gone": 3})
    assert words(command) == ["--teacher", "t", "--data", "d.csv", "--method", "own", "--output", "o", "--gone", "3"]
