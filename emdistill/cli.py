"""The command line: thin verbs over the library, their options derived from its typed signatures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser
from rich.console import Console
from rich.table import Table

from emdistill.artifact.apply import evaluate_model, predict_file
from emdistill.config import (
    FinetuneConfig,
    RunConfig,
    config_values,
    distill_parser,
    finetune_parser,
    read_yaml,
    refuse_unknown,
)
from emdistill.data import TASKS
from emdistill.demo import demo
from emdistill.distill import distill
from emdistill.errors import ConfigError, EmdistillError, nearest
from emdistill.finetune import finetune
from emdistill.methods import METHODS
from emdistill.students import STUDENTS
from emdistill.training.run_stages import Interrupted

VERBS = {
    "distill": "distil a fine-tuned teacher into a student",
    "finetune": "fine-tune a pretrained encoder: make a teacher",
    "evaluate": "score a model on labelled data",
    "predict": "label new sentences with a model",
    "demo": "a whole distillation on documentation sentences, without data of your own",
    "methods": "list the methods",
    "tasks": "list the built-in tasks",
    "students": "list the ways to name a student",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 on success, 2 for a user's error, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    console = Console(stderr=True)
    try:
        return _run(words)
    except EmdistillError as error:
        console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        console.print(str(error), markup=False, highlight=False)
        return 2
    except Interrupted as stop:
        console.print(f"{stop}; the same command with --resume goes on from there", markup=False)
        return 130
    except KeyboardInterrupt:
        console.print("interrupted; checkpoints already written are kept")
        return 130


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        _print_help()
        return 0
    verb, *options = words
    if verb not in VERBS:
        raise ConfigError(f"there is no command '{verb}'; `emdistill --help` lists them.{nearest(verb, VERBS)}")
    if verb in LISTS:
        _print_list(LISTS[verb]())
        return 0
    values = _parse(verb, options)
    if values is None:
        return 0
    if verb == "distill":
        artifact = distill(RunConfig(**values))
        print(f"{artifact.folder}: student/ is the model, run.json the record")
    elif verb == "finetune":
        finetune(FinetuneConfig(**values))
    elif verb == "evaluate":
        for name, value in evaluate_model(**values).items():
            print(f"{name}\t{value:.4f}")
    elif verb == "predict":
        print(f"{predict_file(**values)} rows written to {values['output']}")
    else:
        demo(**values)
    return 0


def _parse(verb: str, words: list[str]) -> dict[str, Any] | None:
    """The verb's options as keyword arguments; None where the parser has answered already (--help, --print-config)."""
    parser = _parser(verb, words)
    parser.prog = f"emdistill {verb}"
    words = [_with_underscores(word) for word in words]
    asks = {"-h", "--help"} & set(words) or any(word.startswith("--print-config") for word in words)
    given = [word[2:].partition("=")[0] for word in words if word.startswith("--") and len(word) > 2]
    refuse_unknown([name for name in given if name not in ("help", "config", "print-config")], parser)
    try:
        return config_values(parser.parse_args(words))
    except ArgumentError as error:
        raise ConfigError(f"{error}\n`emdistill {verb} --help` lists the options") from None
    except SystemExit as leave:
        if asks and not leave.code:
            return None
        raise


def _parser(verb: str, words: list[str]) -> ArgumentParser:
    if verb == "distill":
        return distill_parser(_method(words))
    if verb == "finetune":
        return finetune_parser()
    functions: dict[str, Callable[..., Any]] = {"evaluate": evaluate_model, "predict": predict_file, "demo": demo}
    parser = ArgumentParser(exit_on_error=False, description=VERBS[verb])
    parser.add_function_arguments(functions[verb])
    return parser


def _method(words: list[str]) -> str:
    """The method decides which options there are, so it is read before the others."""
    found = _value_of("--method", words)
    if found is None and (file := _value_of("--config", words)) is not None:
        found = read_yaml(Path(file)).get("method")
    return found or "bert-emd"


def _value_of(option: str, words: list[str]) -> str | None:
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == option:
            return value if equals else next(iter(words[place + 1 :]), None)
    return None


def _with_underscores(word: str) -> str:
    """--text-pair is written for --text_pair, wherever it stands."""
    if not word.startswith("--") or word.startswith("--print-config"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "methods": lambda: {name: (method.__doc__ or "").strip().splitlines()[0] for name, method in METHODS.items()},
    "tasks": lambda: {name: task.description for name, task in TASKS.items()},
    "students": lambda: {kind.example: kind.description for kind in STUDENTS.values()},
}


def _print_list(lines: dict[str, str]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in lines.items():
        table.add_row(name, text)
    Console().print(table)


def _print_help() -> None:
    print("emdistill VERB [options]: distil a fine-tuned BERT-family encoder into a small student\n")
    _print_list(VERBS)
    print("\n`emdistill VERB --help` lists a verb's options.")


if __name__ == "__main__":
    sys.exit(main())
