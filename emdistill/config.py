"""Configuration flows once: recipe, then file, then command line or keywords -> FinetuneConfig or RunConfig.

The parser is derived from the typed signatures: of the configuration classes, and of the method's function
(`--objective.*`). The training section is checked against DistillationArguments (`--training.*`).
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from emdistill.data.task import Kind
from emdistill.errors import ConfigError, nearest
from emdistill.methods import METHODS, Method
from emdistill.training.run_stages import training_options

RECIPES = Path(__file__).parent / "recipes"
GIVEN_BY_THE_RUN = {"student", "teacher", "regression"}


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a distillation.

    Args:
        teacher: folder or hub id of the fine-tuned teacher.
        data: a GLUE folder, a CSV, TSV, JSONL or Parquet file, a hub dataset, or 'docstrings'.
        output: folder of the run.
        task: a task's name (see `emdistill tasks`); files of your own need none.
        text: column of the text.
        text_pair: column of the second text of a pair.
        label: column of the label.
        dev: file of the development set; without it a stratified part of the data is held out.
        kind: what the label is; found from the data if not given.
        student: 3 (so many teacher layers), 1,3,5 (these), 4x312 (layers x width, fresh), or a folder or hub id.
        student_source: encoder whose layers the student keeps instead of the teacher's, a folder or hub id.
        method: a method's name (see `emdistill methods`), or path.py:function for your own.
        objective: the method's own settings.
        training: transformers' TrainingArguments and gradient_norm_steps, flow_steps, early_stopping_patience.
        select: which checkpoint is kept: the best on a held-out part of train, the best on dev, or the last.
        max_length: tokens a sentence or pair at most.
        seed: seed of initial weights, order and dropout.
        check_teacher: refuse a teacher that scores near chance.
        keep_checkpoints: leave the checkpoints in the run folder when the run has finished.
        overwrite: replace a run that stands in the output folder.
        resume: go on with the run that stands in the output folder.
    """

    teacher: str
    data: str
    output: str
    task: str | None = None
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    dev: str | None = None
    kind: Kind | None = None
    student: str = "3"
    student_source: str | None = None
    method: str = "bert-emd"
    objective: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    select: Literal["held-out", "dev", "last"] = "held-out"
    max_length: int = 128
    seed: int = 42
    check_teacher: bool = True
    keep_checkpoints: bool = False
    overwrite: bool = False
    resume: bool = False


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that decides the fine-tuning of a teacher.

    Args:
        model: folder or hub id of a pretrained encoder.
        data: a GLUE folder, a CSV, TSV, JSONL or Parquet file, a hub dataset, or 'docstrings'.
        output: folder the fine-tuned model is written to.
        task: a task's name (see `emdistill tasks`); files of your own need none.
        text: column of the text.
        text_pair: column of the second text of a pair.
        label: column of the label.
        dev: file of the development set; without it a stratified part of the data is held out.
        kind: what the label is; found from the data if not given.
        training: transformers' TrainingArguments and gradient_norm_steps, early_stopping_patience.
        select: which checkpoint is kept: the best on a held-out part of train, the best on dev, or the last.
        max_length: tokens a sentence or pair at most.
        seed: seed of the head's initial weights, order and dropout.
        keep_checkpoints: leave the checkpoints in the output folder when the run has finished.
        overwrite: replace a run that stands in the output folder.
        resume: go on with the run that stands in the output folder.
    """

    model: str
    data: str
    output: str
    task: str | None = None
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    dev: str | None = None
    kind: Kind | None = None
    training: dict[str, Any] = field(default_factory=dict)
    select: Literal["held-out", "dev", "last"] = "held-out"
    max_length: int = 128
    seed: int = 42
    keep_checkpoints: bool = False
    overwrite: bool = False
    resume: bool = False


def load_config(**options: Any) -> RunConfig:
    """RunConfig from keywords over the method's recipe; raises ConfigError naming every unknown key at once."""
    parser = distill_parser(options.get("method", "bert-emd"))
    options = {**options, "student": str(options.get("student", RunConfig.student))}
    return RunConfig(**_parse(parser, options))


def load_finetune_config(**options: Any) -> FinetuneConfig:
    """FinetuneConfig from keywords over recipes/finetune.yaml; raises ConfigError as load_config does."""
    return FinetuneConfig(**_parse(finetune_parser(), options))


def distill_parser(method: str) -> ArgumentParser:
    """The parser of `distill` for one method: RunConfig, and the method's own signature under --objective."""
    function = load_method(method)
    parser = ArgumentParser(exit_on_error=False, print_config="--print-%s", description="Distil a student.")
    parser.add_class_arguments(RunConfig, skip={"objective"})
    parser.add_function_arguments(function, "objective", skip={*GIVEN_BY_THE_RUN})
    parser.add_argument("--config", action="config", help="YAML file of options, over the recipe's.")
    recipe = RECIPES / f"{method}.yaml"
    parser.set_defaults({"method": method, **(_flat_defaults(recipe) if recipe.exists() else {})})
    return parser


def finetune_parser() -> ArgumentParser:
    """The parser of `finetune`: FinetuneConfig over its recipe."""
    parser = ArgumentParser(exit_on_error=False, print_config="--print-%s", description="Fine-tune a teacher.")
    parser.add_class_arguments(FinetuneConfig)
    parser.add_argument("--config", action="config", help="YAML file of options, over the recipe's.")
    parser.set_defaults(_flat_defaults(RECIPES / "finetune.yaml"))
    return parser


def load_method(name: str) -> Method:
    """The method of that name, or `path.py:function`."""
    if name in METHODS:
        return METHODS[name]
    path, _, function = name.rpartition(":")
    if not path.endswith(".py"):
        raise ConfigError(f"there is no method '{name}'; `emdistill methods` lists them.{nearest(name, METHODS)}")
    if not Path(path).is_file():
        raise ConfigError(f"--method {name}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--method {name}: {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = vars(module).get(function)
    if not callable(found):
        raise ConfigError(f"--method {name}: {path} has no function '{function}'")
    missing = GIVEN_BY_THE_RUN - inspect.signature(found).parameters.keys()
    if missing:
        raise ConfigError(f"--method {name}: the function must take {', '.join(sorted(missing))}")
    return found  # type: ignore[no-any-return]


def known_options(parser: ArgumentParser) -> list[str]:
    """Every option of `parser`, dotted, those of the training section included."""
    names = {action.dest for action in parser._actions if action.option_strings}
    return sorted((names - {"training"}) | {f"training.{name}" for name in training_options()})


def refuse_unknown(names: Iterable[str], parser: ArgumentParser) -> None:
    """Raises ConfigError that lists every unknown option with the nearest valid one."""
    known = known_options(parser)
    sections = {name.rpartition(".")[0] for name in known} | {"training", "objective"}
    wrong = [name for name in names if name not in known and name not in sections]
    if wrong:
        raise ConfigError("\n".join(f"unknown option '{name}'.{nearest(name, known)}" for name in wrong))


def flatten(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}, one level of sections."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if not prefix and name in ("objective", "training") and isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises ConfigError with the file and line."""
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from None
    if not isinstance(read, dict):
        raise ConfigError(f"{path} must hold options as 'name: value'")
    return read


def _flat_defaults(recipe: Path) -> dict[str, Any]:
    read = read_yaml(recipe)
    flat = {f"objective.{name}": value for name, value in (read.pop("objective", None) or {}).items()}
    return {**read, **flat}


def _parse(parser: ArgumentParser, options: Mapping[str, Any]) -> dict[str, Any]:
    refuse_unknown(flatten(options), parser)
    given = dict(options)
    given["training"] = {**(parser.get_defaults().get("training") or {}), **(given.get("training") or {})}
    try:
        return config_values(parser.parse_object(given))
    except ArgumentError as error:
        raise ConfigError(str(error)) from None


def config_values(parsed: Any) -> dict[str, Any]:
    """What a parser returned, as the keyword arguments of its configuration class."""
    values: dict[str, Any] = parsed.clone().as_dict()
    values.pop("config", None)
    if values.get("training") is None:
        values["training"] = {}
    return values


def config_dict(config: RunConfig | FinetuneConfig) -> dict[str, Any]:
    """The resolved configuration as plain values, without what only says how to treat the output folder."""
    plain = asdict(config)
    for name in ("overwrite", "resume"):
        plain.pop(name)
    return plain
