"""Configuration flows once: recipe, then file, then command line or keywords -> FinetuneConfig or RunConfig.

The parsers are derived from typed signatures: of the configuration classes, of the method's function
(`--objective.*`), and of DistillationArguments (`--training.*`).
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from emdistill.data.read import read_task_data
from emdistill.errors import ConfigError, nearest
from emdistill.methods import METHODS, Method
from emdistill.states import EncoderShape, Predictions
from emdistill.students import Birth
from emdistill.tasks.task import TaskData
from emdistill.training.arguments import DistillationArguments
from emdistill.training.stage import Stage
from emdistill.training.stage_teachers import CacheChoice

RECIPES = Path(__file__).parent / "recipes"
GIVEN_BY_THE_RUN = {"student", "teacher", "predictions"}
SECTIONS = ("objective", "training")
WRONG_VALUE = re.compile(r'Parser key "([^"]+)":.*?(?:Got|Given) value: (.*)', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class LearningConfig:
    """What a distillation and a fine-tuning are both told.

    Args:
        data: a GLUE folder, a CSV, TSV, JSONL or Parquet file, a hub dataset, or 'docstrings'; raw text for task text.
        output: folder of the run.
        task: a task's name (see `emdistill tasks`); files of your own need none.
        rows: learn from so many training rows at most, drawn once for all seeds; of raw text, so many pieces.
        text: column of the text.
        text_pair: column of the second text of a pair.
        label: column of the label.
        dev: file of the development set; without it a stratified part of the data is held out.
        kind: what the label is; found from the data if not given.
        training: transformers' TrainingArguments and gradient_norm_steps, flow_steps, early_stopping_patience,
            tokens_per_batch, compile_costs, teacher_bf16.
        select: which checkpoint is kept: the best on a held-out part of train, the best on dev, or the last.
        max_length: tokens a sentence or pair at most.
        seed: seed of initial weights, order and dropout.
        keep_checkpoints: leave the checkpoints in the run folder when the run has finished.
        overwrite: replace a run that stands in the output folder.
        resume: go on with the run that stands in the output folder.
    """

    data: str
    output: str
    task: str | None = None
    rows: int | None = None
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    dev: str | None = None
    kind: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    select: Literal["held-out", "dev", "last"] = "held-out"
    max_length: int = 128
    seed: int = 42
    keep_checkpoints: bool = False
    overwrite: bool = False
    resume: bool = False


@dataclass(frozen=True, kw_only=True)
class RunConfig(LearningConfig):
    """Everything that decides a distillation.

    Args:
        teacher: folder or hub id of the fine-tuned teacher.
        student: 3 (so many teacher layers), 1,3,5 (these), 4x312 (layers x width), or a folder or hub id.
        student_birth: a student given as layers x width is cut from the teacher, by importance or at random, or fresh.
        student_source: encoder whose layers the student keeps instead of the teacher's, a folder or hub id.
        embedding_rank: numbers a word in the student's embedding tables, fewer than its width; a BERT student only.
        method: a method's name (see `emdistill methods`), or path.py:function for your own.
        mapping: which layer learns from which: a mapping's name (see `emdistill mappings`), or a file of pairs.
        objective: the method's own settings.
        augmented: further rows to learn from, made by `emdistill augment`.
        check_teacher: refuse a teacher that scores near chance.
        teacher_cache: which of the teacher's outputs are computed once and kept on disk: its logits, for stages that
            read nothing else; its logits and the layer states that are read, in half precision; or none.
        teacher_cache_folder: folder of these; runs that share it share them. Without it they stand in the run folder
            until the run has finished. The tokens of a raw text stand there too.
    """

    teacher: str
    student: str = "3"
    student_birth: Birth = "importance"
    student_source: str | None = None
    embedding_rank: int | None = None
    method: str = "bert-emd"
    mapping: str | None = None
    objective: dict[str, Any] = field(default_factory=dict)
    augmented: str | None = None
    check_teacher: bool = True
    teacher_cache: CacheChoice = "logits"
    teacher_cache_folder: str | None = None


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(LearningConfig):
    """Everything that decides the fine-tuning of a teacher.

    Args:
        model: folder or hub id of a pretrained encoder.
    """

    model: str


def read_data(config: LearningConfig) -> TaskData:
    """The task and examples that a configuration names."""
    return read_task_data(
        config.data,
        task=config.task,
        text=config.text,
        text_pair=config.text_pair,
        label=config.label,
        dev=config.dev,
        kind=config.kind,
    )


def load_config(config: str | Path | None = None, **options: Any) -> RunConfig:
    """RunConfig from keywords, over the YAML file `config`, over the method's recipe.

    Sections are dictionaries, objective={"beta": 10}, or dotted keys: **{"objective.beta": 10}.
    Raises ConfigError naming every unknown key at once, or a value of a wrong type.
    """
    file = {} if config is None else read_yaml(Path(config))
    parser = distill_parser(options.get("method") or file.get("method") or RunConfig.method)
    return RunConfig(**_resolve(parser, config, file, options))


def load_finetune_config(config: str | Path | None = None, **options: Any) -> FinetuneConfig:
    """FinetuneConfig from keywords, over the YAML file `config`, over recipes/finetune.yaml; errors as load_config."""
    file = {} if config is None else read_yaml(Path(config))
    return FinetuneConfig(**_resolve(finetune_parser(), config, file, options))


def distill_parser(method: str) -> ArgumentParser:
    """The parser of `distill` for one method: RunConfig, and the method's own signature under --objective."""
    function = load_method(method)
    parser = ArgumentParser(exit_on_error=False, description="Distil a fine-tuned teacher into a student.")
    parser.add_class_arguments(RunConfig, skip={"objective"})
    parser.add_function_arguments(function, "objective", skip={*GIVEN_BY_THE_RUN, "mapping"})
    _add_file_options(parser)
    recipe = RECIPES / f"{method}.yaml"
    parser.set_defaults({"method": method, **(_defaults(recipe) if recipe.exists() else {})})
    return parser


def finetune_parser() -> ArgumentParser:
    """The parser of `finetune`: FinetuneConfig over its recipe."""
    parser = ArgumentParser(exit_on_error=False, description="Fine-tune a pretrained encoder: make a teacher.")
    parser.add_class_arguments(FinetuneConfig)
    _add_file_options(parser)
    parser.set_defaults(_defaults(RECIPES / "finetune.yaml"))
    return parser


def compare_parser() -> ArgumentParser:
    """The parser of `compare`: its own options, and those of `distill` that are the same for all its runs."""
    parser = ArgumentParser(exit_on_error=False, description="Distil by several methods at equal budget, over seeds.")
    parser.add_argument("--methods", type=str, required=True, help="names, METHOD@MAPPING or YAML files: a,b,…")
    parser.add_argument("--seeds", type=str, default="5", help="so many seeds (5: from 0 to 4), or these: 3,7,11.")
    parser.add_argument("--baseline", type=str | None, help="what the others are compared with; by default the first.")
    parser.add_class_arguments(RunConfig, skip={"objective", "method", "mapping", "seed", "resume"})
    _add_file_options(parser)
    return parser


def _defaults(recipe: Path) -> dict[str, Any]:
    read = read_yaml(recipe)
    return {**flatten({**read, "training": {}}), "training": read.get("training") or {}}


def _add_file_options(parser: ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML file of options, over the recipe's.")
    parser.add_argument("--print-config", action="store_true", help="print what would run, as such a file, and stop.")


def load_method(name: str) -> Method:
    """The method of that name, or `path.py:function`."""
    if name in METHODS:
        return METHODS[name]
    path, _, function = str(name).rpartition(":")
    if not path.endswith(".py"):
        raise ConfigError(f"there is no method '{name}'; `emdistill methods` lists them.{nearest(str(name), METHODS)}")
    if not Path(path).is_file():
        raise ConfigError(f"--method {name}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--method {name}: {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's own file raises
        raise ConfigError(f"--method {name}: {path} cannot be imported: {type(error).__name__}: {error}") from error
    found = vars(module).get(function)
    if not callable(found):
        raise ConfigError(f"--method {name}: {path} has no function '{function}'.{nearest(function, vars(module))}")
    missing = GIVEN_BY_THE_RUN - inspect.signature(found).parameters.keys()
    if missing:
        raise ConfigError(f"--method {name}: the function must take {', '.join(sorted(missing))}")
    return found  # type: ignore[no-any-return]


def compose_stages(
    config: RunConfig, student: EncoderShape, teacher: EncoderShape, predictions: Predictions
) -> list[Stage]:
    """The stages of the method that the configuration names, for these two encoders."""
    method = load_method(config.method)
    mapping = {} if config.mapping is None else {"mapping": config.mapping}
    if mapping and "mapping" not in inspect.signature(method).parameters:
        raise ConfigError(f"--mapping {config.mapping}: the method {config.method} maps no layers; leave it out")
    return method(student, teacher, predictions=predictions, **mapping, **config.objective)


def known_options(parser: ArgumentParser) -> list[str]:
    """Every option of `parser`, dotted, those of the training section included."""
    names = {action.dest for action in parser._actions if action.option_strings}
    training = {f"training.{name}" for name in _types(training_parser())} if "training" in names else set()
    return sorted((names - set(SECTIONS)) | training)


def switches(parser: ArgumentParser) -> set[str]:
    """The options of `parser` that are true or false."""
    types = _types(parser)
    if "training" in types:
        types |= {f"training.{name}": hint for name, hint in _types(training_parser()).items()}
    return {name for name, hint in types.items() if bool in (hint, *get_args(hint))}


def _types(parser: ArgumentParser) -> dict[str, Any]:
    return {action.dest: vars(action).get("_typehint") for action in parser._actions}


def refuse_unknown(names: Mapping[str, str], parser: ArgumentParser) -> None:
    """Raises ConfigError that lists every unknown option with the nearest valid one; `names` says where each stands."""
    known = known_options(parser)
    # Dictionaries among the training options may be given by their keys.
    if _types(parser).get("objective") is not None:  # of any method, whose own parser knows them
        names = {name: place for name, place in names.items() if not name.startswith("objective.")}
    valid = {*known, *(name for name in names if name.count(".") > 1 and name.rpartition(".")[0] in known)}
    unknown = [name for name in names if name not in valid and name not in SECTIONS]
    wrong = [f"unknown option '{name}'{names[name]}.{_nearest_option(name, known)}" for name in unknown]
    for section in set(SECTIONS) & set(names):
        wrong.append(f"'{section}'{names[section]} is a section; set its options one by one: {section}.NAME")
    if wrong:
        raise ConfigError("\n".join(wrong))


def _nearest_option(name: str, known: Iterable[str]) -> str:
    """Names of its own section first: 'training.lr' is meant for another training option."""
    section = name.rpartition(".")[0]
    same = {option.rpartition(".")[2]: option for option in known if option.rpartition(".")[0] == section}
    found = nearest(name.rpartition(".")[2], same)
    if found:
        return found if not section else found.replace("mean '", f"mean '{section}.")
    return nearest(name, known)


def flatten(options: Mapping[str, Any]) -> dict[str, Any]:
    """{'training': {'seed': 1}, 'text': 'a'} -> {'training.seed': 1, 'text': 'a'}."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if name in SECTIONS and (value is None or isinstance(value, Mapping)):
            flat |= {f"{name}.{key}": inner for key, inner in (value or {}).items()}
        else:
            flat[name] = value
    return flat


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises ConfigError with the file and line."""
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from None
    if not isinstance(read, dict):
        raise ConfigError(f"{path} must hold options as 'name: value'")
    return read


def _resolve(
    parser: ArgumentParser, file: str | Path | None, from_file: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    flat = {**flatten(from_file), **flatten(options)}
    refuse_unknown(dict.fromkeys(flatten(from_file), f" in {file}") | dict.fromkeys(flatten(options), ""), parser)
    given: dict[str, Any] = {"training": dict(parser.get_defaults().get("training") or {})}
    for name, value in _texts(flat, parser).items():
        section, _, inner = name.rpartition(".")
        (given.setdefault(section, {}) if section else given)[inner] = value
    try:
        return config_values(parser.parse_object(given))
    except ArgumentError as error:
        raise ConfigError(explain(error, parser)) from None


def config_values(parsed: Any) -> dict[str, Any]:
    """What a parser returned, checked, as the keyword arguments of its configuration class."""
    values: dict[str, Any] = parsed.clone().as_dict()
    for name in ("config", "print_config"):
        values.pop(name, None)
    if "training" in values:
        values["training"] = _checked_training(values["training"] or {})
    for name, (least, most) in {"seed": (0, 2**32 - 1), "max_length": (3, 1_000_000), "rows": (1, 2**62)}.items():
        if values.get(name) is not None and not least <= values[name] <= most:
            raise ConfigError(f"--{name} must lie between {least} and {most}, not {values[name]}")
    return values


@cache
def training_parser() -> ArgumentParser:
    """The options of the training section, with their types."""
    parser = ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_class_arguments(DistillationArguments, skip={"output_dir"})
    return parser


def _checked_training(training: Mapping[str, Any]) -> dict[str, Any]:
    """The section with every value of its declared type; raises ConfigError with all that are not."""
    checked: dict[str, Any] = {}
    wrong: list[str] = []
    for name, value in training.items():
        if isinstance(value, dict):  # given key by key on the command line, its values are still as written
            value = {key: yaml.safe_load(inner) if isinstance(inner, str) else inner for key, inner in value.items()}
        try:
            checked |= training_parser().parse_object({name: value}, defaults=False).as_dict()
        except ArgumentError as error:
            wrong.append(explain(error, training_parser(), "training."))
    if wrong:
        raise ConfigError("\n".join(wrong))
    return checked


def explain(error: ArgumentError, parser: ArgumentParser, prefix: str = "") -> str:
    """The parser's message; for a wrong value: the option, what it takes, and what was given."""
    found = WRONG_VALUE.search(str(error))
    types = _types(parser)
    if not found or types.get(found[1]) is None:
        return str(error)
    return f"--{prefix}{found[1]} takes {_say_type(types[found[1]])}, not '{found[2].strip()}'"


def _say_type(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_args(hint) and get_origin(hint) not in (dict, list):
        return " or ".join(_say_type(part) for part in get_args(hint) if part is not type(None))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(hint, str(hint))


def _texts(flat: Mapping[str, Any], parser: ArgumentParser) -> dict[str, Any]:
    """Numbers given for options that are texts: student=3, or `label: 2` in a file."""
    texts = {name for name, hint in _types(parser).items() if hint is str or str in get_args(hint)}
    return {name: str(value) if name in texts and type(value) is int else value for name, value in flat.items()}


def config_dict(config: RunConfig | FinetuneConfig) -> dict[str, Any]:
    """The resolved configuration as plain values, without what only says how to treat the output folder."""
    plain = asdict(config)
    for name in ("overwrite", "resume"):
        plain.pop(name)
    return plain
