"""Options in, typed values out: recipe, then file, then command line or keywords.

A target is a function or one of config.py's classes; its signature and docstring are its options. Where it takes
`method` and `objective`, the settings of that method are options too (`--objective.*`); those of training
(`--training.*`) are DistillationArguments.
"""

import argparse
import inspect
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace

from emdistill.config import (
    SECTIONS,
    FinetuneConfig,
    RunConfig,
    SharedSettings,
    as_option,
    check_limits,
    flatten,
    read_yaml,
    recipe_of,
    student_recipe,
)
from emdistill.errors import ConfigError, nearest, shown
from emdistill.values import parse_yaml

Target = Callable[..., Any]
Config = TypeVar("Config")
Places = Mapping[str, str]  # option -> where it stands: " in run.yaml", or "" for the command line

QUIET_DEFAULTS: tuple[Any, ...] = (None, "", {}, argparse.SUPPRESS)
HELP_WIDTH = 78  # characters; argparse breaks neither a usage that it is given nor the title of a group
WRONG_VALUE = re.compile(r'Parser key "([^"]+)":.*?(?:Got|Given) value: (.*)', re.DOTALL)
HOME = re.compile(r"(?:^|(?<=,))~(?=/)")  # of --option=~/x, of a list and of a file, where no shell reads it
# What other trainers call options of the training.
OTHER_NAMES = {
    "lr": "learning_rate", "epochs": "num_train_epochs", "batch_size": "per_device_train_batch_size",
    # Of transformers before version 5.
    "warmup_ratio": "warmup_steps", "group_by_length": "train_sampling_strategy", "no_cuda": "use_cpu",
}  # fmt: skip
TOP_LEVEL_OPTION = re.compile(r"--[a-z_]+(?![\w.])")  # those of the sections are Python's names


class HelpFormatter(DefaultHelpFormatter):
    """An option's words, and its default where that says something."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.required:
            return f"{action.help} (required)"
        default = action.default
        if default in QUIET_DEFAULTS or default is False:  # 0 is said, and equals False
            return str(action.help)
        return f"{action.help} (default: {_default_in_words(default).replace('%', '%%')})"


class OptionParser(ArgumentParser):
    """jsonargparse's parser; what is `required` may stand in a file, so it is asked for when everything is read."""

    required: list[argparse.Action]


def load_config(config: str | Path | None = None, **options: Any) -> RunConfig:
    """RunConfig from keywords, over the YAML file `config`, over the method's recipe; errors as load_options."""
    return load_options(RunConfig, config, options)


def load_finetune_config(config: str | Path | None = None, **options: Any) -> FinetuneConfig:
    """FinetuneConfig from keywords, over the YAML file `config`, over recipes/finetune.yaml; errors as load_options."""
    return load_options(FinetuneConfig, config, options)


def load_options(target: Callable[..., Config], file: str | Path | None, options: Mapping[str, Any]) -> Config:
    """A configuration from keywords, over a YAML file, over its recipe.

    Sections are dictionaries, objective={"alpha": 0.5}, or dotted keys: **{"objective.alpha": 0.5}; paths may be Paths.
    Raises ConfigError naming every unknown key at once, or a value of a wrong type.
    """
    options = {name: str(value) if isinstance(value, PurePath) else value for name, value in flatten(options).items()}
    from_file = {} if file is None else flatten(read_yaml(Path(file)))
    places = dict.fromkeys(from_file, f" in {file}") | dict.fromkeys(options, "")
    given = {**from_file, **options}
    method = _method(target, given.get("method"), given.get("teacher"), given.get("student"))
    parser = option_parser(target, method, given.get("student"))
    refuse_unknown(places, parser, target)
    _refuse_broken_texts(given, places, parser)
    try:
        parsed = parser.parse_object(_nested(given | ({"method": method} if method else {}), parser))
    except ArgumentError as error:
        raise ConfigError(explain(error, parser, places)) from None
    return target(**_checked(parsed, parser, places))


def read_words(verb: Target, words: Sequence[str], name: str) -> dict[str, Any] | None:
    """The options of a verb's function by name; None after --help and --print-config, which print all there is.

    Raises ConfigError naming every unknown option at once, or a value of a wrong type.
    """
    target = target_of(verb)
    first, words = _read_first([_with_underscores(word) for word in words], target)
    _refuse_empty((name for name, value in vars(first).items() if value == "" or value == [""]), {})
    files = {file: flatten(read_yaml(Path(file))) for file in first.config}
    from_file = {name: value for options in files.values() for name, value in options.items()}
    chosen = {name: value for name in ("teacher", "student") if (value := getattr(first, name))}
    teacher, student = ({**from_file, **chosen}.get(name) for name in ("teacher", "student"))
    method = _method(target, first.method or from_file.get("method"), teacher, student)
    parser = option_parser(target, method, student)
    if {"-h", "--help"} & set(words):
        print(_help_text(parser, name, parse_docstring(verb.__doc__ or "").short_description))
        return None
    given = [word[2:].partition("=")[0] for word in words if word.startswith("--") and len(word) > 2]
    places = {name: f" in {file}" for file, options in files.items() for name in options} | dict.fromkeys(given, "")
    refuse_unknown(places, parser, target)
    _refuse_broken_texts(from_file, places, parser)
    try:
        chosen |= {"method": method} if method else {}
        below = parser.parse_object(_nested(from_file | chosen, parser))
        parsed = parser.parse_args(_spelled_out(words, parser), namespace=below)
    except ArgumentError as error:
        raise ConfigError(f"{explain(error, parser, places)}\n`emdistill {name} --help` lists the options") from None
    if not first.print_config:
        return _checked(parsed, parser, places)
    for action in parser.required:  # an option that is not given stands there by its name
        parsed[action.dest] = parsed.get(action.dest) or action.dest.upper()
    print(yaml.safe_dump(_checked(parsed, parser, places), sort_keys=False, allow_unicode=True), end="")
    return None


def call(verb: Target, values: Mapping[str, Any]) -> Any:
    """Call a verb's function with the options that `read_words` found."""
    target, rest = target_of(verb), dict(values)
    if target is not verb:
        return verb(target(**rest))
    by_place: list[Any] = []
    for name, parameter in inspect.signature(verb).parameters.items():
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            by_place.append(rest.pop(name))
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            by_place += rest.pop(name)
    return verb(*by_place, **rest)


def target_of(verb: Target) -> Target:
    """What holds a verb's options: the configuration class that it takes first, or else the function itself."""
    parameters = inspect.signature(verb, eval_str=True).parameters.values()
    first: Any = next((parameter.annotation for parameter in parameters), None)
    kinds: list[Any] = [kind for kind in (first, *get_args(first)) if is_dataclass(kind)]
    return kinds[0] if kinds else verb


def _read_first(words: Sequence[str], target: Target) -> tuple[argparse.Namespace, list[str]]:
    """What decides which other options there are, and the words that are left."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.set_defaults(config=[], print_config=False, method=None, teacher=None, student=None)
    if inspect.signature(target).parameters:
        parser.add_argument("--config", action="append")
        parser.add_argument("--print_config", action="store_true")
    if _has_method(target):
        parser.add_argument("--method")
        parser.add_argument("--teacher")
        parser.add_argument("--student")
    try:
        return parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from None


def _method(target: Target, method: object, teacher: object, student: str | None) -> str | None:
    """The method that is named; else the student's own; else soft-targets for a file of answers: it has no layers."""
    if method or not _has_method(target):
        return None if method is None else str(method)
    if own := student_recipe(student).get("method"):
        return str(own)
    if not isinstance(teacher, str):
        return None
    from emdistill.data.teacher_answers import is_answers_file  # late, for it imports datasets

    return "soft-targets" if is_answers_file(teacher) else None


def _with_underscores(word: str) -> str:
    """--text-pair is written for --text_pair, wherever it stands."""
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if word.startswith("--") else word


def _spelled_out(words: Sequence[str], parser: ArgumentParser) -> list[str]:
    """--overwrite is short for --overwrite true; raises ConfigError for a training option that lacks its value."""
    types = _types(parser)
    if any(word.startswith("--training.") for word in words):
        types |= {f"training.{name}": hint for name, hint in _types(training_parser()).items()}
    switches = {f"--{name}" for name, hint in types.items() if bool in (hint, *get_args(hint))}
    positional = any(not action.option_strings for action in parser._actions)

    def stands_alone(after: str) -> bool:
        return after.startswith("--") or (positional and after.lower() not in ("true", "false"))

    pairs = [*zip(words, [*words[1:], "--"], strict=False)]
    for word, after in pairs:  # the parser would name the section alone
        if word.startswith("--training.") and "=" not in word and word not in switches and after.startswith("--"):
            raise ConfigError(f"{word} needs a value")
    return [f"{word}=true" if word in switches and stands_alone(after) else word for word, after in pairs]


def option_parser(target: Target, method: str | None = None, student: str | None = None) -> OptionParser:
    """The parser of a target's signature; with the settings of `method`, its default if None, where it takes one.

    student   its form may have numbers of its own (recipe_of)
    A positional-only parameter stands without an option (emdistill export RUN), and so do those of `*runs`.
    Raises ConfigError for a method that cannot be had.
    """
    parameters = inspect.signature(target).parameters
    parser = OptionParser(exit_on_error=False, allow_abbrev=False, formatter_class=HelpFormatter)
    add = parser.add_class_arguments if inspect.isclass(target) else parser.add_function_arguments
    has_method = _has_method(target)
    add(
        target,
        as_group=False,
        skip={"objective"} if has_method else set(),
        as_positional=any(parameter.kind is inspect.Parameter.POSITIONAL_ONLY for parameter in parameters.values()),
    )
    for parameter in parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            described = {item.arg_name: item.description for item in parse_docstring(target.__doc__ or "").params}
            parser.add_argument(parameter.name, nargs="+", help=described.get(parameter.name))
    if has_method:
        method = method or parameters["method"].default
        _add_method(parser, method)
    if recipe := recipe_of(target, method, student):
        training = {name.partition(".")[2]: recipe.pop(name) for name in [*recipe] if name.startswith("training.")}
        parser.set_defaults({**recipe, "training": training})
    if parameters:
        unset: dict[str, Any] = {"default": argparse.SUPPRESS}
        parser.add_argument("--config", metavar="FILE", help="YAML file of options, over those before it.", **unset)
        parser.add_argument("--print_config", action="store_true", help="print such a file, and stop.", **unset)
    for action in parser._actions:
        if not action.option_strings:
            action.metavar = action.dest.removesuffix("s").upper()
        if action.help is None:  # of a method whose docstring does not explain its settings
            action.help = _type_in_words(vars(action).get("_typehint"))
    parser.required = [action for action in parser._actions if action.required]
    for action in parser.required:
        action.required = False
    return parser


def _help_text(parser: OptionParser, name: str, description: str | None) -> str:
    words = ["emdistill", name]
    for action in parser.required:
        action.required = True
        words.append(_written(action) + (f" {action.dest.upper()}" if action.option_strings else ""))
        words += ["..."] if action.nargs == "+" else []
    parser.usage = textwrap.fill(
        " ".join([*words, "[options]"]), HELP_WIDTH - len("usage: "), subsequent_indent=" " * 9
    )
    parser.description = description
    return TOP_LEVEL_OPTION.sub(lambda option: option[0].replace("_", "-"), parser.format_help()).rstrip()


def _default_in_words(default: Any) -> str:
    if isinstance(default, dict):
        return ", ".join(f"{name} {value}" for name, value in default.items())
    return str(default).lower() if isinstance(default, bool) else str(default)


def _written(action: argparse.Action) -> str:
    return as_option(action.dest) if action.option_strings else str(action.metavar)


def _has_method(target: Target) -> bool:
    return inspect.signature(target).parameters.keys() >= {"method", "objective"}


def _add_method(parser: ArgumentParser, method: str) -> None:
    """The settings of the method and of all methods as options of the section, with the numbers of its recipe."""
    from emdistill.methods import GIVEN_BY_THE_RUN, load_method  # late, for it imports torch

    function = load_method(method)
    parser.add_function_arguments(function, "objective", skip={*GIVEN_BY_THE_RUN, "mapping"})
    if group := (parser.groups or {}).get("objective"):
        group.title, group.description = f"settings of --method {method}", group.title
    own = {*inspect.signature(function).parameters}
    parser.add_class_arguments(SharedSettings, "objective", as_group=False, skip=own)
    recipe = recipe_of(RunConfig, method).items()
    settings = {name: value for name, value in recipe if name.startswith("objective.")}
    parser.set_defaults({"method": method, **settings})
    for action in parser._actions:
        if action.dest == "objective":  # jsonargparse takes a file for a section; here it is set one by one
            action.help = argparse.SUPPRESS


@cache
def training_parser() -> ArgumentParser:
    """The options of the training section, with their types."""
    from emdistill.training.arguments import DistillationArguments  # late, for it imports torch

    parser = ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_class_arguments(DistillationArguments, skip={"output_dir"})
    return parser


def known_options(parser: ArgumentParser) -> list[str]:
    """Every option of `parser`, dotted, those of the training section included."""
    names = set(_types(parser)) - {"help", "config", "print_config"}
    training = {f"training.{name}" for name in _types(training_parser())} if "training" in names else set()
    return sorted((names - set(SECTIONS)) | training)


def _types(parser: ArgumentParser) -> dict[str, Any]:
    return {action.dest: vars(action).get("_typehint") for action in parser._actions if action.option_strings}


def refuse_unknown(places: Places, parser: ArgumentParser, target: Target) -> None:
    """Raises ConfigError that lists every unknown option with its place and the nearest valid one.

    A target may say of an option what stands for it: `elsewhere`, by the option's name or its section's.
    """
    known, elsewhere = known_options(parser), getattr(target, "elsewhere", {})
    # Dictionaries among the training options may be given by their keys.
    valid = {*known, *(name for name in places if name.count(".") > 1 and name.rpartition(".")[0] in known)}
    wrong = []
    for name in places:
        if hint := elsewhere.get(name.partition(".")[0]):
            wrong.append(f"'{name}'{places[name]}: {hint}")
        elif name not in valid and name not in SECTIONS:
            wrong.append(f"unknown option '{name}'{places[name]}.{_nearest_option(name, known)}")
    for section in (set(SECTIONS) - set(elsewhere)) & set(places):
        wrong.append(f"'{section}'{places[section]} is a section; set its options one by one: {section}.NAME")
    if wrong:
        raise ConfigError("\n".join(wrong))


def _nearest_option(name: str, known: Iterable[str]) -> str:
    """Names of its own section first: 'training.lr' is meant for another training option."""
    section, _, key = name.rpartition(".")
    key = OTHER_NAMES.get(key, key)
    same = {option.rpartition(".")[2]: option for option in known if option.rpartition(".")[0] == section}
    hint = nearest(key, same)
    return hint.replace("mean '", f"mean '{section}.") if hint and section else hint or nearest(key, known)


def _refuse_broken_texts(options: Mapping[str, Any], places: Places, parser: ArgumentParser) -> None:
    """Raises ConfigError for a text where none is meant, such as a date's tag, that jsonargparse fails at as YAML."""
    types = _types(parser)
    if any(name.startswith("training.") for name in options):
        types |= {f"training.{name}": hint for name, hint in _types(training_parser()).items()}
    for name, value in options.items():
        if isinstance(value, str) and types.get(name) is not str and str not in get_args(types.get(name)):
            try:
                parse_yaml(value)
            except ValueError as error:
                raise ConfigError(
                    f"{as_option(name)}: {shown(value)} cannot be read{places.get(name, '')} ({error})"
                ) from None


def _nested(options: Mapping[str, Any], parser: ArgumentParser) -> dict[str, Any]:
    """{'training.seed': 1} -> {'training': {'seed': 1}}, over the recipe's; student=3 becomes a text."""
    types = _types(parser)
    texts = {name for name, hint in types.items() if hint is str or str in get_args(hint)}
    # A section is one value to the parser, so the recipe's would be lost below what is given.
    nested: dict[str, Any] = {"training": dict(parser.get_default("training") or {})} if "training" in types else {}
    for name, value in options.items():
        *sections, key = name.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = str(value) if name in texts and type(value) is int else value
    return nested


def _checked(parsed: Namespace, parser: OptionParser, places: Places) -> dict[str, Any]:
    """What a parser returned as keyword arguments: nothing missing, its training section and its numbers checked."""
    values: dict[str, Any] = parsed.clone().as_dict()
    _refuse_empty((name for name, value in values.items() if value == "" and parser.get_default(name) != ""), places)
    if missing := [action for action in parser.required if values.get(action.dest) is None]:
        raise ConfigError(f"{', '.join(map(_written, missing))} must be given")
    if "training" in values:
        values["training"] = _checked_training(values["training"] or {}, places)
    types = _types(parser)
    if values.get("training"):
        types |= {f"training.{name}": hint for name, hint in _types(training_parser()).items()}
    _refuse_no_value(flatten(values), types, places)
    check_limits(places, **values)
    return {name: _from_home(value) for name, value in values.items()}


def _refuse_empty(names: Iterable[str], places: Places) -> None:
    """Raises ConfigError for options without a text, as a shell leaves one of a variable that is not set."""
    if empty := [f"{as_option(name)} is empty{places.get(name, '')}" for name in names]:
        raise ConfigError("\n".join(empty))


def _refuse_no_value(values: Mapping[str, Any], types: Mapping[str, Any], places: Places) -> None:
    """Raises ConfigError for null where a value is needed, and for a number that is NaN or infinite."""
    for name, value in values.items():
        hint = types.get(name)
        if value is None and (hint in (int, float, bool, str) or get_origin(hint) is Literal or _choices(hint)):
            raise ConfigError(_wrong_value(name, hint, "null", places))
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{as_option(name)} must be finite, not {value}{places.get(name, '')}")


def _from_home(value: Any) -> Any:
    """The value, where paths that begin with ~ begin with the home folder."""
    if isinstance(value, list):
        return [_from_home(each) for each in value]
    return HOME.sub(lambda _: str(Path.home()), value) if isinstance(value, str) else value


def _checked_training(training: Mapping[str, Any], places: Places) -> dict[str, Any]:
    """The section with every value of its declared type; raises ConfigError with all that are not."""
    checked: dict[str, Any] = {}
    wrong: list[str] = []
    types = _types(training_parser())
    for name, value in training.items():
        if choices := _choices(types.get(name)):
            text = "no" if value is False else value  # YAML reads the word so
            if text in (None, *choices):
                checked[name] = text
            else:
                wrong.append(_wrong_value(f"training.{name}", types[name], value, places))
            continue
        try:
            if isinstance(value, dict):  # given key by key on the command line, its values are still as written
                value = {key: parse_yaml(inner) if isinstance(inner, str) else inner for key, inner in value.items()}
            checked |= training_parser().parse_object({name: value}, defaults=False).as_dict()
        except (ArgumentError, ValueError) as error:
            wrong.append(explain(error, training_parser(), places, "training."))
    if wrong:
        raise ConfigError("\n".join(wrong))
    return checked


def explain(error: Exception, parser: ArgumentParser, places: Places, prefix: str = "") -> str:
    """The parser's message; for a wrong value: the option, what it takes, what was given, and where."""
    match = WRONG_VALUE.search(str(error))
    types = _types(parser)
    if not match or types.get(match[1]) is None:
        return str(error)
    return _wrong_value(f"{prefix}{match[1]}", types[match[1]], match[2].strip(), places)


def _wrong_value(name: str, hint: Any, value: object, places: Places) -> str:
    return f"{as_option(name)} takes {_type_in_words(hint)}, not '{value}'{places.get(name, '')}"


def _choices(hint: Any) -> list[str]:
    """The texts of the enum that an option takes; none where it takes something else."""
    enums = [part for part in get_args(hint) if isinstance(part, type) and issubclass(part, Enum)]
    return [str(member.value) for enum in enums for member in enum]


def _type_in_words(hint: Any) -> str:
    if choices := _choices(hint) or (get_args(hint) if get_origin(hint) is Literal else ()):
        return "one of " + ", ".join(map(str, choices))
    if get_args(hint) and get_origin(hint) not in (dict, list):
        return " or ".join(_type_in_words(part) for part in get_args(hint) if part is not type(None))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(hint, str(hint))
