"""The README.md of an exported folder: what is in it, how it is run, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emdistill.console import markdown
from emdistill.ship.gate_table import Rows, speed_rows, verdict_lines, worth_rows


def onnx_card(record: Mapping[str, Any], *, task: str, labels: Sequence[str], pairs: bool, max_length: int) -> str:
    """The card as Markdown, from a gate.json and what the model reads and says; labels is empty for a score."""
    says = f"one of {', '.join(f'`{label}`' for label in labels)}" if labels else "a score"
    kind = "pair of sentences" if pairs else "sentence"
    machine, versions = record["machine"], record["versions"]
    example = 'python example.py "a sentence" "its partner"' if pairs else 'python example.py "a sentence"'
    files = [f"- `{each['file']}`: {_what(name, each)}" for name, each in record["variants"].items() if name in FILES]
    return f"""# {task}: a student for ONNX Runtime

Reads a {kind} of at most {max_length} tokens and says {says}. Made by emdistill {versions["emdistill"]}.

## Use

```
pip install numpy onnxruntime tokenizers
{example}
```

{chr(10).join(files)}
- `config.json`: label names, how texts are read, SHA-256 of the files; `model` names the one that example.py runs
- `gate.json`: the figures below, whole

With emdistill: `emdistill predict --model FOLDER --input new.jsonl --output scored.jsonl`.

## Worth

On {record["dev_rows"]:,} rows of the development set; drop in points below the PyTorch student ± its standard error,
logits as largest and mean difference to it, agreement with the teacher.

{_markdown(worth_rows(record))}
## Speed

{machine["cpu"]}, {machine["threads"]} of {machine["cores"]} cores, onnxruntime {versions.get("onnxruntime", "")}, \
torch {versions.get("torch", "")}; ms a batch without padding (batch × length). Another machine has other figures.

{_markdown(speed_rows(record))}
## Verdict

{chr(10).join(f"- {line}" for line in verdict_lines(record))}
"""


FILES = {"onnx": "float32", "int8": "int8"}


def _what(name: str, variant: Mapping[str, Any]) -> str:
    kept = variant.get("kept_in_float32") or []
    method = f", {variant['method']} quantisation" if "method" in variant else ""
    return f"{FILES[name]}{method}, {variant['bytes'] / 1e6:.1f} MB" + (
        f"; kept in float32: {', '.join(kept)}" if kept else ""
    )


def _markdown(table: Rows) -> str:
    headings, rows = table
    return markdown([["", *headings], ["---", *["---:"] * len(headings)], *rows])
