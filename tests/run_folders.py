"""Run folders made of plain values, as finished runs leave them: for tests of what is read from them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emdistill.runs.flows import FlowRecord, append_flows

# Each does something as soon as anything in a page takes it for more than text.
HOSTILE = (
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=2>",
    "</script><script>window.hacked=3</script>",
    '"><svg onload=window.hacked=4>',
    "<a href='javascript:window.hacked=5'>press</a>",
    "</style></title></textarea><script>window.hacked=6</script>",
    "<b onmouseover=window.hacked=7>bold</b>",
    "%{x} &lt;script&gt; &amp; ${window.hacked=8}",
)
MACHINE = {"cpu": "Some Processor", "cores": 4, "threads": 2}
STUDENT_TERMS = ("hidden_states", "attention_scores")


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """run.json as it stands, whatever it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, to be compared with what is there later."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_record(folder: Path) -> dict[str, Any]:
    """run.json as plain values without their checksum, to be changed and written again."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record.pop("crc32", None)
    return record


def write_run_folder(
    folder: Path,
    *,
    seed: int = 42,
    method: str = "bert-emd",
    score: float = 0.8,
    layers: int = 3,
    labels: Sequence[str] = ("bad", "good"),
    task: str = "reviews",
    dev: str = "d" * 64,
    status: str = "finished",
    config: Mapping[str, Any] | None = None,
    train: str = "a" * 64,
    teacher: str = "t" * 64,
) -> Path:
    """run.json of a classifier with one of six layers to two of them, 40 rows of dev; returns the folder."""
    metrics = ["accuracy", "macro_f1"]
    options = {
        "data": "reviews.csv", "output": str(folder), "task": None, "text": "text", "text_pair": None,
        "label": "label", "dev": "dev.csv", "kind": None, "training": {"num_train_epochs": 2.0, "learning_rate": 1e-4},
        "select": "last", "max_length": 128, "seed": seed, "keep_checkpoints": False, "teacher": "teacher",
        "student": str(layers), "student_source": None, "method": method, "objective": {"beta": 10.0},
    }  # fmt: skip
    log = [
        {"loss": 3.0 - 0.2 * step, "terms/hidden_states": 2.0 - 0.1 * step, "terms/attention_scores": 1.0 / (1 + step),
         "gradient_norms/hidden_states": 1.0, "gradient_norms/attention_scores": 0.5, "learning_rate": 1e-4,
         "epoch": step / 5, "step": 10 * step}
        for step in range(1, 7)
    ]  # fmt: skip
    write_record(
        folder,
        {
            "status": status,
            "config": options | dict(config or {}),
            "seed": seed,
            "versions": {
                "emdistill": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "datasets": "5.2.0",
                "POT": "0.9.7", "numpy": "2.4.6", "python": "3.11.7", "date": "2026-01-01T00:00:00+00:00",
            },
            "hashes": {"teacher": teacher, "reviews.csv": train, "dev.csv": dev},
            "task": {
                "name": task, "description": "", "pairs": False, "kind": "classification", "labels": list(labels),
                "metrics": metrics, "train_rows": 200, "evaluation_rows": {"dev": 40},
                "files": [
                    {"name": "reviews.csv", "rows": 200, "sha256": train},
                    {"name": "dev.csv", "rows": 40, "sha256": dev},
                ],
                "held_out": None,
            },
            "selection": "the last checkpoint is kept; nothing was chosen on any score",
            "rows": {"train": 200, "chosen on": 0},
            "texts_cut_at_max_length": 0,
            "share_of_padding": 0.04,
            "arithmetic": {"teacher": "float32", "float32 products by oneDNN": True},
            "objective": {"joint": "L = 1·attention_scores + 10·hidden_states"},
            "teacher": {
                "parameters": 22_713_216, "bytes": 90_852_864, "shape": {"layers": 6, "width": 384, "heads": 12},
            },
            "student": {
                "parameters": 12_000_000 + 1_800_000 * layers, "bytes": 48_000_000 + 7_200_000 * layers,
                "shape": {"layers": layers, "width": 384, "heads": 12}, "cut_out": [],
            },
            "scores": {
                "teacher": dict.fromkeys(metrics, 0.9),
                "student": {"accuracy": score, "macro_f1": score - 0.01},
            },
            "timings": {
                "teacher_evaluation_seconds": 1.0, "teacher_cache_seconds": 0.0, "training_seconds": 65.0,
            },
            "log": [{"stage": "joint", "log": log}],
        },
    )  # fmt: skip
    return folder


def add_flows(
    folder: Path, *, terms: Sequence[str] = STUDENT_TERMS, records: int = 6, layers: int = 3
) -> list[FlowRecord]:
    """flows.jsonl with layer weights, no two records alike; returns what was recorded."""
    found = []
    for number in range(records):
        flows = {
            term: [
                [(1 + math.sin(1 + row + 2 * column + number + place)) / (20 * layers) for column in range(6)]
                for row in range(layers)
            ]
            for place, term in enumerate(terms)
        }
        student = {term: [sum(row) for row in flow] for term, flow in flows.items()}
        teacher = {term: [sum(column) for column in zip(*flow, strict=True)] for term, flow in flows.items()}
        record = FlowRecord(10 * (number + 1), "joint", flows, student, teacher)
        append_flows(folder / "flows.jsonl", record)
        found.append(record)
    return found


def add_predictions(folder: Path, *, texts: Sequence[str] = (), labels: int = 2) -> None:
    """predictions.jsonl over 40 rows, of which every third is one that teacher and student disagree on."""
    lines = []
    for row in range(40):
        label = row % labels
        sure = [1.0 + (index == label) * (2 + row / 20) for index in range(labels)]
        other = sure[1:] + sure[:1] if row % 3 == 0 else [value + 0.1 for value in sure]
        text = texts[row % len(texts)] if texts else f"sentence {row} of the development set"
        lines.append(
            {
                "set": "dev",
                "row": row,
                "text": text,
                "text_pair": None,
                "label": label,
                "teacher": sure,
                "student": other,
            }
        )
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "predictions.jsonl").write_text(text, encoding="utf-8")


def add_gate(
    folder: Path,
    *,
    milliseconds: Mapping[str, float],
    scores: Mapping[str, float] | None = None,
    megabytes: Mapping[str, float] | None = None,
    machine: Mapping[str, Any] = MACHINE,
    notes: Sequence[str] = (),
    status: str = "finished",
) -> None:
    """onnx/gate.json: the median of a call at batch 1 and length 128 is `milliseconds`, by variant; limits of 5 ms."""
    sizes = {"teacher": 90.9, "student": 69.6, "onnx": 69.7, "int8": 17.6} | dict(megabytes or {})
    values = {"teacher": 0.9, "student": 0.8, "onnx": 0.8, "int8": 0.79} | dict(scores or {})
    files = {
        "teacher": "teacher/model.safetensors", "student": "student/model.safetensors", "onnx": "onnx/model.onnx",
        "int8": "onnx/model_int8.onnx",
    }  # fmt: skip
    variants = {}
    for name, p50 in milliseconds.items():
        exported = name in ("onnx", "int8")
        variants[name] = {
            "runtime": "ONNX Runtime" if exported else "PyTorch",
            "file": files[name],
            "bytes": round(1e6 * sizes[name]),
            "scores": {"accuracy": values[name], "macro_f1": values[name] - 0.01},
            "drop": None if name == "teacher" else 100 * (values["student"] - values[name]),
            "drop_from_teacher": 100 * (0.9 - values[name]),
            "agreement": 0.9,
            "logits": {"largest": 1e-5, "mean": 1e-6} if exported else None,
            "latency": [
                {"batch": batch, "length": length, "p50": p50 * factor, "p95": 1.2 * p50 * factor,
                 "p99": 1.4 * p50 * factor, "throughput": 1000 * batch / (p50 * factor), "calls": 50}
                for batch, length, factor in ((1, 32, 0.4), (1, 128, 1.0), (32, 32, 9.0), (32, 128, 30.0))
            ],
            "load_seconds": 0.2,
            "peak_mb": 2 * sizes[name],
        }  # fmt: skip
        if name == "int8":
            variants[name] |= {"kept_in_float32": [], "method": "dynamic"}
    late = {name: p50 for name, p50 in milliseconds.items() if p50 * 1.2 > 5 and name in ("onnx", "int8")}
    failures = {
        name: [f"p95 of {1.2 * p50:.3g} ms at batch 1, length 128 is {1.2 * p50 - 5:.3g} ms over --max-latency-ms 5"]
        for name, p50 in late.items()
    }
    passing = [name for name in ("int8", "onnx") if name in milliseconds and name not in failures]
    gate = {
        "status": status,
        "versions": {"onnxruntime": "1.31.0", "onnx": "1.23.0", "torch": "2.13.0", "emdistill": "0.1.0"},
        "machine": dict(machine),
        "limits": {"max_latency_ms": 5.0, "max_size_mb": None, "max_drop": None, "max_drop_from_teacher": None},
        "metric": "accuracy",
        "dev_rows": 40,
        "variants": variants,
        "verdict": {
            "go": bool(passing), "ship": next(iter(passing), None), "failures": failures, "notes": list(notes),
        },
    }  # fmt: skip
    (folder / "onnx").mkdir(exist_ok=True)
    (folder / "onnx" / "gate.json").write_text(json.dumps(gate, ensure_ascii=False), encoding="utf-8")
