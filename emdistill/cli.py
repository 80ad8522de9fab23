"""The command line: a table of verbs. A verb is one file of commands/ and one line here.

Its function's signature and docstring are its options (options.py). A text that it returns is printed, a whole number
is the exit code, anything else is for those who call it from Python.
"""

import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any

from emdistill.console import Terminal
from emdistill.errors import ConfigError, EmdistillError, Interrupted, nearest, visible
from emdistill.files import storage_errors
from emdistill.options import call, read_words
from emdistill.processes import has_lost_another, is_first_process
from emdistill.stopping import ended_by_signals, stop_requests

NOTHING = "nothing was written"
ANEW = "nothing was begun; to start again:"
AGAIN = "go on from there:"
RESUME = "go on from there with --resume:"
# Seconds that a process which is not the first waits before it speaks of a failure: where the first one has it too,
# torchrun ends this one by then.
PATIENCE = 30.0
SWITCHES = ("--overwrite", "--resume")  # what goes on says neither

# Before torch is loaded, which reads it once: OpenMP's threads sleep while they wait for each other. By default they
# spin; where other programs want the same cores, a step then takes up to 20 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@dataclass(frozen=True)
class Command:
    """A verb: the group it is listed in, its 'module:function', a line about it, and what to do after Ctrl-C."""

    group: str
    function: str
    summary: str
    interrupted: str = NOTHING


COMMANDS = {
    "finetune": Command("make", ".finetune:command", "fine-tune a pretrained encoder: make a teacher", RESUME),
    "distill": Command("make", ".distill:command", "distil a fine-tuned teacher into a student", RESUME),
    "compress": Command("make", ".compress:command", "a budget in, the best student that keeps it out", AGAIN),
    "augment": Command("make", ".augment:augment", "make further texts to learn from, labelled by the teacher"),
    "search-mapping": Command(
        "make", ".search_mapping:search_mapping", "search for the layer mapping that teaches best", AGAIN
    ),
    "search-chain": Command(
        "make", ".search_chain:search_chain", "students of several sizes from one supernet of operators", AGAIN
    ),
    "demo": Command("make", ".demo:demo", "a whole distillation, without data of your own", AGAIN),
    "evaluate": Command("judge", ".evaluate:command", "score a model on labelled data"),
    "compare": Command("judge", ".compare:command", "distil by several methods at equal budget, over seeds", AGAIN),
    "report": Command("judge", ".report:command", "write a run's page anew, or one page of several runs"),
    "predict": Command("ship", ".predict:command", "label new sentences with a model"),
    "export": Command("ship", ".export:command", "ONNX and int8, measured here, and judged by your limits"),
    "prune-vocabulary": Command(
        "ship", ".prune_vocabulary:prune_vocabulary", "keep the tokens that a corpus uses: a smaller model"
    ),
    "methods": Command("look up", ".lists:methods", "list the methods"),
    "mappings": Command("look up", ".lists:mappings", "list the ways to map student layers to teacher layers"),
    "tasks": Command("look up", ".lists:tasks", "list the built-in tasks"),
    "students": Command("look up", ".lists:students", "list the ways to name a student"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 on success, 1 for a no-go of `export`, 2 for a user's error, 130 when interrupted.

    141 where nobody reads the output any more, as behind `| head`.
    """
    _write_what_it_cannot_show_as_codes(sys.stdout)
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, TextIOWrapper):
        sys.stderr = _that_may_be_lost(sys.stderr)
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, TextIOWrapper) and sys.stdout.isatty():
        sys.stdout = _that_may_be_lost(sys.stdout)
    verb, *words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    console = Terminal(stderr=True, soft_wrap=True, highlight=False)
    try:
        with stop_requests(_stop_as_by_ctrl_c), storage_errors("the output"):
            answer = run(verb, words)
            if isinstance(answer, str) and is_first_process():
                print(visible(answer))
            print(end="", flush=True)  # sys.stdout is None where it was closed
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes there
        return 141
    except (Interrupted, KeyboardInterrupt) as stop:
        if is_first_process():
            with ended_by_signals():
                console.print(f"{visible(str(stop)) or 'interrupted'}; {_what_now(verb, words, stop)}", markup=False)
        return 130
    except Exception as error:
        if has_lost_another(error):
            console.print("another process of this training has ended, and with it this one", markup=False)
            return 2
        if not is_first_process():
            with ended_by_signals():
                time.sleep(PATIENCE)
        if not isinstance(error, (EmdistillError, OSError)):
            raise
        console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        console.print(visible(str(error)), markup=False)
        return 2
    return answer if isinstance(answer, int) else 0


def _write_what_it_cannot_show_as_codes(stream: Any) -> None:
    """Where the output takes ASCII or Latin-1 alone, as some batch systems ask for: \\u2016 for ‖, not an error."""
    if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")


class _Unheard(FileIO):
    """A stream whose reader may leave: a terminal that is closed, a `tee` that the same Ctrl-C has ended."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:  # the work goes on, and what was asked for is done
            return len(data)


def _that_may_be_lost(stream: TextIOWrapper) -> TextIOWrapper:
    """The same stream, whose failures end no work."""
    raw = _Unheard(stream.fileno(), "wb", closefd=False)
    return TextIOWrapper(BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=True)


def _what_now(verb: str, words: Sequence[str], stop: BaseException) -> str:
    """What became of an interrupted command, with the line that goes on with it."""
    way = COMMANDS[verb].interrupted if verb in COMMANDS else NOTHING
    if way == NOTHING:
        return NOTHING
    # Runs and searches take Ctrl-C themselves once there is something of them.
    if not (isinstance(stop, Interrupted) and (stop.begun or way == AGAIN)):
        return f"{ANEW} {shlex.join(['emdistill', verb, *words])}"
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if word.partition("=")[0] not in SWITCHES
        and not (before in SWITCHES and word.lower() in ("true", "false"))  # its value
    ]
    return f"{way} {shlex.join(['emdistill', verb, *kept, *['--resume'] * (way == RESUME)])}"


def _stop_as_by_ctrl_c(number: int) -> None:
    raise KeyboardInterrupt


def run(verb: str, words: Sequence[str]) -> Any:
    """What the verb returns; None where --help or --print-config says all. Raises ConfigError for what is no verb."""
    if verb in ("-h", "--help", "help"):
        return help_text()
    if verb == "--version":
        return f"emdistill {version('emdistill')}"
    function = load(verb)
    values = read_words(function, words, verb)
    return None if values is None else call(function, values)


def load(verb: str) -> Callable[..., Any]:
    """The verb's function; only now is its module imported, for most of them import torch."""
    if verb not in COMMANDS:
        raise ConfigError(f"there is no command '{verb}'; `emdistill --help` lists them.{nearest(verb, COMMANDS)}")
    module, _, name = COMMANDS[verb].function.partition(":")
    function: Callable[..., Any] = getattr(import_module(module, "emdistill.commands"), name)
    return function


def help_text() -> str:
    """All verbs, by group, on one screen."""
    width = max(map(len, COMMANDS))
    lines = ["emdistill VERB [options]: make a small student of a fine-tuned encoder"]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        verbs = {verb: command for verb, command in COMMANDS.items() if command.group == group}
        lines += ["", f"{group}:", *(f"  {verb:<{width}}  {command.summary}" for verb, command in verbs.items())]
    return "\n".join([*lines, "", "`emdistill VERB --help` lists a verb's options; --version says the version."])


if __name__ == "__main__":
    sys.exit(main())
