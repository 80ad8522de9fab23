"""What a general distillation leaves: a student without a task, and its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.config import as_command, source_name
from emdistill.models.encoder import save_student


def write_general_student(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, run: dict[str, Any]
) -> None:
    """Write student/: the plain transformers encoder, its tokenizer, and a card as README.md."""
    save_student(model, tokenizer, folder / "student")
    (folder / "student" / "README.md").write_text(_card(run), encoding="utf-8")


def _shape(run: dict[str, Any]) -> str:
    shape = run["student"]["shape"]
    return f"{shape['layers']} layers × {shape['width']}"


def _card(run: dict[str, Any]) -> str:
    config, student = run["config"], run["student"]
    method = source_name(config["method"])
    header = {"library_name": "transformers", "tags": ["emdistill", "knowledge-distillation", method]}
    equations = "\n".join(f"{name}: {equation}" for name, equation in run["objective"].items())
    losses = "\n".join(
        f"| {name} | {value:.4f} | {run['held_out_loss']['after'][name]:.4f} |"
        for name, value in run["held_out_loss"]["before"].items()
    )
    source = ", ".join(f"`{name}` (SHA-256 `{digest}`)" for name, digest in run["hashes"].items() if name != "teacher")
    return f"""---
{yaml.safe_dump(header, sort_keys=False)}---

# {Path(config["output"]).name}

A small encoder of {_shape(run)}, {student["parameters"]:,} parameters, for no task yet. It was distilled from raw text
with emdistill's method `{method}`.

## Intended use

It is meant to be distilled or fine-tuned on a task; as it stands it answers nothing.

```sh
emdistill distill --student student/ --teacher teacher/ --task mrpc --data glue/MRPC --output run/
```

It is a plain transformers model, and loads where emdistill is not installed:

```python
from transformers import AutoModel, AutoTokenizer

model = AutoModel.from_pretrained("student")  # the path of this folder
tokenizer = AutoTokenizer.from_pretrained("student")
```

## How it was made

- Teacher: `{source_name(config["teacher"])}`, {run["teacher"]["parameters"]:,} parameters; frozen while it taught
- Text: {source}; {run["rows"]["train"]:,} pieces of at most {config["max_length"]} tokens
- Seed: {run["seed"]}
- Versions: emdistill {run["versions"]["emdistill"]}, torch {run["versions"]["torch"]}, \
transformers {run["versions"]["transformers"]}

The objective it minimised:

```text
{equations}
```

The command that made it, paths cut to their last part:

```sh
{as_command("distill", config)}
```

## Loss on text that was not learned from

| term | as born | after training |
| --- | ---: | ---: |
{losses}

## Limits

- It knows the language and the kind of text it was distilled from; on other text its states mean less.
- It learned from its teacher and inherits the teacher's errors and biases.
- It has seen no text of more than {config["max_length"]} tokens.
- A lower loss here is no score on a task: measure that after it has learned the task.
"""
