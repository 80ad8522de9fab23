"""The folder that is shipped: it runs with numpy, onnxruntime and tokenizers alone.

onnx/
├── model.onnx        the classifier in float32
├── model_int8.onnx   the same in int8, where it was asked for
├── tokenizer.json    cuts and pads as the student was trained
├── config.json       what the logits mean, how texts are read, SHA-256 of each file
├── example.py        labels sentences in a few lines
├── README.md         the card
└── gate.json         what was measured, and the verdict
"""

import json
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Self

from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from emdistill.errors import ConfigError, ModelError, TokenizerError
from emdistill.files import is_inside, sha256, write_whole
from emdistill.models.inputs import longest_text
from emdistill.models.multi_task import MultiTaskModel
from emdistill.models.teacher import Teacher
from emdistill.runs.reading import Reading, recall_reading
from emdistill.states import Link
from emdistill.tasks import TaskKind, find_kind
from emdistill.values import read_values, typed

MODEL, INT8 = "model.onnx", "model_int8.onnx"
TOKENIZER, CONFIG, EXAMPLE, CARD = "tokenizer.json", "config.json", "example.py", "README.md"
FORMAT = "emdistill-onnx-1"
HEADS_FORMAT = "emdistill-onnx-heads-1"
AGAIN = "export again: emdistill export"


@dataclass(frozen=True)
class ShippedFile:
    """What a file of an exported folder must be, byte by byte."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class HeadConfig:
    """What one of several heads answers, and how its texts are read."""

    kind: str
    labels: tuple[str, ...]
    reading: Reading


@dataclass(frozen=True)
class FolderConfig:
    """config.json of an exported folder.

    model       the file that stands for the folder
    labels      a name for each logit; empty for a score
    positions   the longest text, in tokens, that the encoder has positions for
    heads       by task, where there are several; kind, labels and reading are then those of the first
    splits_special_tokens  whether [SEP] in a text is read as text, which tokenizer.json does not say
    """

    kind: str
    labels: tuple[str, ...]
    reading: Reading
    positions: int
    pad_token_id: int
    files: dict[str, ShippedFile]
    model: str = MODEL
    emdistill: str = ""
    heads: dict[str, HeadConfig] = field(default_factory=dict)
    format: str = FORMAT
    splits_special_tokens: bool = False

    def of_head(self, name: str) -> Self:
        """The same folder as one head reads and answers."""
        head = self.heads[name]
        return replace(self, kind=head.kind, labels=head.labels, reading=head.reading)


def write_onnx_folder(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Complete a folder that holds model.onnx, and model_int8.onnx where wanted: tokenizer, config, example.

    Raises ModelError: there is no model.onnx; TokenizerError: a tokenizer without a tokenizer.json.
    """
    if not (folder / MODEL).is_file():
        raise ModelError(f"{folder} holds no {MODEL}; {AGAIN}")
    several = isinstance(model, MultiTaskModel)
    heads = {task: _head(model.of(task)) for task in model.outputs} if isinstance(model, MultiTaskModel) else {}
    first = next(iter(heads.values())) if several else _head(model)
    shipped_tokenizer(tokenizer, first.reading.max_length).save(str(folder / TOKENIZER))
    config = FolderConfig(
        kind=first.kind,
        labels=first.labels,
        reading=first.reading,
        positions=longest_text(model),
        pad_token_id=int(tokenizer.pad_token_id or 0),
        files={name: _describe(folder / name) for name in (MODEL, INT8, TOKENIZER) if (folder / name).is_file()},
        emdistill=version("emdistill"),
        heads=heads,
        format=HEADS_FORMAT if several else FORMAT,
        splits_special_tokens=tokenizer.split_special_tokens,
    )
    _write_config(folder, config)
    one = _example(find_kind(first.kind), pairs=first.reading.text_pair is not None)
    (folder / EXAMPLE).write_text(EXAMPLE_OF_SEVERAL if several else one, encoding="utf-8")


def _head(model: PreTrainedModel) -> HeadConfig:
    """What a model answers, and how its texts are read."""
    reading, judge = recall_reading(model), Teacher(model)
    reading = replace(reading, max_length=min(reading.max_length, longest_text(model)))
    return HeadConfig(judge.kind.name, judge.kind.names_of(judge.labels), reading)


def put_first(folder: Path, file: str) -> None:
    """Let `file`, e.g. model_int8.onnx, stand for the folder: what example.py and `predict --model FOLDER` run."""
    config, _ = read_folder(folder / file)
    _write_config(folder, replace(config, model=file))


def check_shippable(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise TokenizerError for one whose rules no tokenizer.json holds."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise TokenizerError(
            f"a {type(tokenizer).__name__} has no tokenizer.json, so nothing reads its texts without transformers; "
            "convert it to a fast tokenizer first"
        )


def shipped_tokenizer(tokenizer: PreTrainedTokenizerBase, max_length: int) -> Tokenizer:
    """A copy of the tokenizer's rules that cuts to `max_length` tokens, the longer of a pair first, and pads."""
    check_shippable(tokenizer)
    rules = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    rules.enable_truncation(max_length, strategy="longest_first", direction=tokenizer.truncation_side)
    rules.enable_padding(
        direction=tokenizer.padding_side,
        pad_id=int(tokenizer.pad_token_id or 0),
        pad_type_id=int(tokenizer.pad_token_type_id),
        pad_token=str(tokenizer.pad_token or "[PAD]"),
    )
    return rules


def read_folder(path: Path) -> tuple[FolderConfig, Path]:
    """config.json and the model file of an exported folder, or of the folder that a file lies in, checked byte by byte.

    Raises ModelError: something is missing, foreign, cut short or altered.
    """
    if not path.exists():
        raise ModelError(f"there is no file or folder {path}; name an .onnx file, or the folder that export wrote")
    folder = path if path.is_dir() else path.parent
    config = _read_config(folder)
    name = config.model if path.is_dir() else path.name
    for needed in (name, TOKENIZER):
        _check_file(folder, needed, config)
    return config, folder / name


def open_tokenizer(folder: Path, config: FolderConfig) -> Tokenizer:
    """The folder's tokenizer; raises ModelError where it cannot be read."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelError(f"{folder / TOKENIZER} cannot be read ({error}); copy it again, or {AGAIN}") from error
    tokenizer.encode_special_tokens = config.splits_special_tokens
    return tokenizer


def _read_config(folder: Path) -> FolderConfig:
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(f"{folder} holds no {CONFIG}; name an .onnx file inside a whole folder that export wrote")
    try:
        content = read_values(path)
        if not isinstance(content, dict) or content.get("format") not in (FORMAT, HEADS_FORMAT):
            raise ModelError(
                f"{path} is not the {CONFIG} of an exported folder; name an .onnx file of a folder that export wrote"
            )
        config = typed(content, FolderConfig)
        for kind in (config.kind, *(head.kind for head in config.heads.values())):
            find_kind(kind)
    except (ValueError, ConfigError) as error:
        raise ModelError(f"{path} cannot be used ({error}); copy the whole folder again, or {AGAIN}") from None
    return config


def _check_file(folder: Path, name: str, config: FolderConfig) -> None:
    """Refuse a file that is not the one that config.json was written for."""
    path = folder / name
    if not is_inside(name) or not path.is_file():
        raise ModelError(f"{folder} holds no {name}; copy the whole folder again, or {AGAIN}")
    if name not in config.files:
        raise ModelError(f"{path} is not among the files of {folder / CONFIG} ({', '.join(config.files)}); {AGAIN}")
    then, now = config.files[name], _describe(path)
    if now.bytes != then.bytes:
        raise ModelError(
            f"{path} has {now.bytes:,} bytes, was written with {then.bytes:,}: it was cut short, or is "
            f"another file; copy it again, or {AGAIN}"
        )
    if now != then:
        raise ModelError(f"{path} was altered since it was written (its SHA-256 is another); copy it again, or {AGAIN}")


def _describe(path: Path) -> ShippedFile:
    return ShippedFile(sha256(path), path.stat().st_size)


def _write_config(folder: Path, config: FolderConfig) -> None:
    content = asdict(config) | {"reading": config.reading.written()}
    write_whole(folder / CONFIG, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


ANSWERS: dict[Link, str] = {
    "softmax": 'config["labels"][logits.index(max(logits))]',
    "sigmoid": '"|".join(name for name, logit in zip(config["labels"], logits) if logit > 0) or "(no label)"',
    "identity": '" ".join(f"{name}={score:.6g}" for name, score in zip(config["labels"], logits)) or logits[0]',
}


# Annotations are not evaluated, so that what they name need not be there.
# Whether an example.py was given sentences, or whole pairs of them; else it says how it is used.
GIVEN = {
    False: "sys.argv[1:] or sys.exit(__doc__)",
    True: "sys.argv[2:] and len(sys.argv) % 2 or sys.exit(__doc__)",
}
FOR_SOURCES = """from __future__ import annotations
import json, math, re, sys, unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple"""


# What every example.py opens.
OPENED = f"""folder = Path(__file__).resolve().parent
config = json.loads((folder / "{CONFIG}").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(folder / "{TOKENIZER}"))  # cuts and pads as the model was trained
tokenizer.encode_special_tokens = config["splits_special_tokens"]
session = InferenceSession(str(folder / config["model"]), providers=["CPUExecutionProvider"])
inputs = {{"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}}"""
IMPORTED = """from pathlib import Path
import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer"""


EXAMPLE_OF_SEVERAL = f'''"""python example.py HEAD "a sentence" ["its partner"]: needs numpy, onnxruntime, tokenizers.

Prints the logits of that head by label: one row, or one per token of a head that answers tokens.
"""
import json, sys
{IMPORTED}

{OPENED}
head, *texts = sys.argv[1:] or sys.exit(__doc__)
encoded = tokenizer.encode(*texts)
encoded.ids or sys.exit(f"no token is left of {{texts!r}}")
feed = {{i.name: np.array([getattr(encoded, inputs[i.name])], np.int64) for i in session.get_inputs()}}
(logits,) = session.run(["logits_" + head], feed)
for row in logits[0] if logits.ndim == 3 else logits:
    print(*(f"{{name}}={{value:.4f}}" for name, value in zip(config["heads"][head]["labels"] or ["score"], row)))
'''


def _example(kind: TaskKind, *, pairs: bool) -> str:
    texts, how = ("zip(sys.argv[1::2], sys.argv[2::2])", "*text") if pairs else ("sys.argv[1:]", "text")
    usage = '"a sentence" "its partner" …' if pairs else '"a sentence" "another" …'
    if kind.one_answer:
        answers = f"""    encoded = tokenizer.encode({how})
    encoded.ids or sys.exit(f"no token is left of {{text!r}}")
    feed = {{i.name: np.array([getattr(encoded, inputs[i.name])], np.int64) for i in session.get_inputs()}}
    logits = session.run(["logits"], feed)[0][0].tolist()
    print({ANSWERS[kind.link]}, *logits, text, sep="\\t")"""
    else:
        answers = f"""    print(answer({how}, config, tokenizer, session) or "(no answer)", text, sep="\\t")"""
    head = "import json, sys" if kind.one_answer else FOR_SOURCES
    return f'''"""python example.py {usage}: needs numpy, onnxruntime and tokenizers."""
{head}
{IMPORTED}

{kind.example()}{OPENED}
{GIVEN[pairs]}
# One by one: on a CPU padding costs more than batches gain.
for text in {texts}:
{answers}
'''
