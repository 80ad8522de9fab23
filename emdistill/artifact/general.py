"""What a general distillation leaves: a student without a task, its card and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.artifact.explain import draw_flow_pictures
from emdistill.artifact.page import write_page
from emdistill.artifact.report import ReportRow
from emdistill.models.encoder import save_student


def write_general_student(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, run: dict[str, Any]
) -> None:
    """Write student/: the plain transformers encoder, its tokenizer, and a card as README.md."""
    save_student(model, tokenizer, folder / "student")
    (folder / "student" / "README.md").write_text(_card(run), encoding="utf-8")


def draw_general_run(folder: Path, run: dict[str, Any]) -> None:
    """The pictures of the flows, where the method maps layers, and report.html."""
    before, after = run["held_out_loss"]["before"], run["held_out_loss"]["after"]
    write_page(
        folder / "report.html",
        title=f"A {run['config']['method']} student of raw text",
        rows=[
            ReportRow("student as born", before, run["student"]["parameters"], run["student"]["bytes"]),
            ReportRow("student", after, run["student"]["parameters"], run["student"]["bytes"]),
        ],
        pictures=draw_flow_pictures(folder),
        notes=[
            "columns: the loss and its terms on text that was not learned from",
            f"student: {_shape(run)} (--student {run['config']['student']})",
            f"teacher: {run['teacher']['parameters']:,} parameters",
            *(f"stage {name}: {equation}" for name, equation in run["objective"].items()),
            f"{run['rows']['train']:,} pieces of text learned from, {run['rows']['held out']:,} held out",
            f"seed {run['seed']}; {run['timings']['training_seconds']:.0f} seconds of training",
        ],
        command=f"emdistill distill --student {folder / 'student'} --teacher teacher/ --task mrpc --data glue/MRPC",
    )


def _shape(run: dict[str, Any]) -> str:
    shape = run["student"]["shape"]
    return f"{shape['layers']} layers × {shape['width']}"


def _card(run: dict[str, Any]) -> str:
    config, student = run["config"], run["student"]
    header = {"library_name": "transformers", "tags": ["emdistill", "knowledge-distillation", config["method"]]}
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
with emdistill's method `{config["method"]}`, and is meant to be distilled or fine-tuned on a task:

```bash
emdistill distill --student student/ --teacher teacher/ --task mrpc --data glue/MRPC --output run/
```

It is a plain transformers model: `AutoModel.from_pretrained("student")`.

## How it was made

- Teacher: `{Path(config["teacher"]).name}`, {run["teacher"]["parameters"]:,} parameters; frozen while it taught
- Text: {source}; {run["rows"]["train"]:,} pieces of at most {config["max_length"]} tokens
- Seed: {run["seed"]}
- Versions: emdistill {run["versions"]["emdistill"]}, torch {run["versions"]["torch"]}, \
transformers {run["versions"]["transformers"]}

The objective it minimised:

```text
{equations}
```

## Loss on text that was not learned from

| term | as born | after training |
| --- | ---: | ---: |
{losses}
"""
