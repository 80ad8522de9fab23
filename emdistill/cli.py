"""The command line: thin verbs over the library, their options derived from its typed signatures."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from rich.console import Console

from emdistill.commands.augment import augment
from emdistill.commands.compare import compare
from emdistill.commands.demo import demo
from emdistill.commands.distill import distill
from emdistill.commands.export import export
from emdistill.commands.finetune import finetune
from emdistill.commands.prune_vocabulary import prune_vocabulary
from emdistill.commands.report import report
from emdistill.commands.search_mapping import search_mapping
from emdistill.config import (
    FinetuneConfig,
    RunConfig,
    compare_parser,
    config_values,
    distill_parser,
    explain,
    finetune_parser,
    flatten,
    read_yaml,
    refuse_unknown,
    switches,
)
from emdistill.data import TASKS
from emdistill.errors import ConfigError, EmdistillError, nearest
from emdistill.mapping import MAPPINGS
from emdistill.methods import METHODS
from emdistill.ship.apply import evaluate_model, predict_file
from emdistill.students import STUDENTS
from emdistill.tasks.task import RAW_TEXT
from emdistill.training.run_stages import Interrupted

VERBS = {
    "distill": "distil a fine-tuned teacher into a student",
    "finetune": "fine-tune a pretrained encoder: make a teacher",
    "evaluate": "score a model on labelled data",
    "predict": "label new sentences with a model",
    "compare": "distil by several methods at equal budget, over several seeds, and say what the difference is",
    "export": "ship a student: ONNX, int8, measured here, and a verdict against your limits",
    "prune-vocabulary": "make a model smaller: keep the tokens that a corpus uses",
    "report": "write a run's page anew, or one page that compares several runs",
    "search-mapping": "search for the mapping of layers that teaches best, by a genetic algorithm",
    "augment": "make further sentences to learn from, labelled by the teacher",
    "demo": "a whole distillation on documentation sentences, without data of your own",
    "methods": "list the methods",
    "mappings": "list the ways to map student layers to teacher layers",
    "tasks": "list the built-in tasks",
    "students": "list the ways to name a student",
}

POSITIONAL = ("export",)  # verbs whose required arguments stand without an option: emdistill export RUN


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 on success, 1 for a no-go of `export`, 2 for a user's error, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        return _run(words)
    except (EmdistillError, OSError) as error:
        # An OSError that reaches this place is the machine's: a full disk, a folder that may not be written.
        console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        console.print(str(error), markup=False)
        return 2
    except Interrupted as stop:
        with_resume = "" if words[0] in ("demo", "compare", "search-mapping") else " with --resume"
        console.print(f"{stop}; the same command{with_resume} goes on from there", markup=False)
        return 130
    except KeyboardInterrupt:
        whole = words[0] in ("export", "prune-vocabulary")
        console.print(f"interrupted; {'nothing was written' if whole else 'checkpoints already written are kept'}")
        return 130


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        _print_help()
        return 0
    verb, *options = words
    if verb not in VERBS:
        raise ConfigError(f"there is no command '{verb}'; `emdistill --help` lists them.{nearest(verb, VERBS)}")
    if verb in LISTS:
        if unknown := set(options) - {"-h", "--help"}:
            raise ConfigError(f"`emdistill {verb}` takes no options, not {min(unknown)}")
        _print_list(LISTS[verb]())
        return 0
    values = _parse(verb, options)
    if values is None:
        return 0
    if verb == "compare":
        compare(**values)
        print(f"{values['output']}: report.html is the comparison, comparison.json its numbers")
    elif verb == "distill":
        artifact = distill(RunConfig(**values))
        print(f"{artifact.folder}: student/ is the model, run.json the record")
    elif verb == "finetune":
        print(f"{finetune(FinetuneConfig(**values))}: the fine-tuned model, with its run.json")
    elif verb == "evaluate":
        for name, value in evaluate_model(**values).items():
            print(f"{name}\t{value:.4f}")
    elif verb == "predict":
        print(f"{predict_file(**values)} rows written to {values['output']}")
    elif verb == "export":
        return 0 if export(**values).verdict.go else 1
    elif verb == "prune-vocabulary":
        print(f"{prune_vocabulary(**values)}: the model over the smaller vocabulary")
    elif verb == "report":
        print(f"{report(**values)}: the page")
    elif verb == "search-mapping":
        search_mapping(**values)
    elif verb == "augment":
        augment(**values)
    else:
        demo(**values)
    return 0


def _parse(verb: str, words: list[str]) -> dict[str, Any] | None:
    """The verb's options as keyword arguments; None where all is said already (--help, --print-config)."""
    file = _value_of("--config", words) if verb in ("distill", "finetune", "compare") else None
    from_file = {} if file is None else read_yaml(Path(file))
    parser = _parser(verb, words, from_file)
    parser.prog = f"emdistill {verb}"
    words = _spell_out([_with_underscores(word) for word in words], parser)
    if {"-h", "--help"} & set(words):
        print(OPTION.sub(lambda option: option[0].replace("_", "-"), parser.format_help()), end="")
        return None
    given = [word[2:].partition("=")[0] for word in words if word.startswith("--") and len(word) > 2]
    refuse_unknown(dict.fromkeys(flatten(from_file), f" in {file}") | dict.fromkeys(given, ""), parser)
    words = [*(_as_word(name, value) for name, value in flatten(from_file).items()), *words]
    shows = "--print_config" in words
    if shows:  # what is required and not given stands there by its name
        words = [f"--{action.dest}={action.dest.upper()}" for action in parser._actions if action.required] + words
        words.remove("--print_config")
    try:
        values = config_values(parser.parse_args(words))
    except ArgumentError as error:
        raise ConfigError(f"{explain(error, parser)}\n`emdistill {verb} --help` lists the options") from None
    if verb == "compare":  # what is not given is each recipe's own
        kept = {name.partition(".")[0] for name in (*flatten(from_file), *given)}
        values = {name: value for name, value in values.items() if name in kept}
    if shows:
        print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), end="")
    return None if shows else values


def _parser(verb: str, words: list[str], from_file: dict[str, Any]) -> ArgumentParser:
    if verb == "distill":
        # The method decides which options there are, so it is read before the others.
        return distill_parser(_value_of("--method", words) or from_file.get("method") or RunConfig.method)
    if verb == "finetune":
        return finetune_parser()
    if verb == "compare":
        return compare_parser()
    if verb == "report":
        return _report_parser()
    functions: dict[str, Callable[..., Any]] = {
        "evaluate": evaluate_model,
        "predict": predict_file,
        "augment": augment,
        "export": export,
        "prune-vocabulary": prune_vocabulary,
        "search-mapping": search_mapping,
        "demo": demo,
    }
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(functions[verb], as_positional=verb in POSITIONAL)
    return parser


def _report_parser() -> ArgumentParser:
    """RUN RUN … --output FILE: jsonargparse takes lists from signatures as one argument only."""
    parser = ArgumentParser(exit_on_error=False, description="Write a run's page anew, or compare several runs.")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders of finished runs, or of comparisons.")
    parser.add_argument("--output", type=str | None, metavar="FILE", help="the comparing page, an .html file.")
    return parser


def _value_of(option: str, words: list[str]) -> str | None:
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == option:
            return value if equals else next(iter(words[place + 1 :]), None)
    return None


def _as_word(name: str, value: Any) -> str:
    """An option of a file, as it would be given on the command line."""
    return f"--{name}={value if isinstance(value, str) else json.dumps(value)}"


def _with_underscores(word: str) -> str:
    """--text-pair is written for --text_pair, wherever it stands."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def _spell_out(words: list[str], parser: ArgumentParser) -> list[str]:
    """--overwrite is short for --overwrite true."""
    short = {f"--{name}" for name in switches(parser)}
    positional = any(not action.option_strings for action in parser._actions)
    following = [*words[1:], "--"]

    def stands_alone(after: str) -> bool:
        return after.startswith("--") or (positional and after.lower() not in ("true", "false"))

    return [
        f"{word}=true" if word in short and stands_alone(after) else word
        for word, after in zip(words, following, strict=False)
    ]


GENERAL = "no task: raw text, for a student of any task to come (general distillation)"
OPTION = re.compile(r"--[a-z_]+(?![\w.])")  # those of the sections are Python's names

LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "methods": lambda: {name: _first_line(method) for name, method in METHODS.items()},
    "mappings": lambda: {name: _first_line(build) for name, build in MAPPINGS.items()},
    "tasks": lambda: {name: task.description for name, task in TASKS.items()} | {RAW_TEXT: GENERAL},
    "students": lambda: {kind.example: kind.description for kind in STUDENTS.values()},
}


def _first_line(documented: Any) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


def _print_list(lines: dict[str, str]) -> None:
    """A line each, whatever the terminal's width: lists are also read by other programs."""
    width = max(map(len, lines))
    for name, text in lines.items():
        print(f"{name:<{width}}  {text}")


def _print_help() -> None:
    print("emdistill VERB [options]: distil a fine-tuned BERT-family encoder into a small student\n")
    _print_list(VERBS)
    print("\n`emdistill VERB --help` lists a verb's options.")


if __name__ == "__main__":
    sys.exit(main())
