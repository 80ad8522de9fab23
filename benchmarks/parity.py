"""That an exported folder answers as PyTorch does, in an environment that has no torch.

    python benchmarks/parity.py --runs runs/mrpc,runs/sst2,runs/stsb [--rows 1000] --output parity.json

Each RUN has been exported (`emdistill export RUN --onnx --int8`). A fresh virtual environment gets numpy, onnxruntime
and tokenizers and nothing else; there the folder's own example.py labels the first ROWS of the development set, in
float32 and in int8, and its logits are compared with PyTorch's, computed here in float32.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from jsonargparse import auto_cli

from emdistill.data.read import read_task_data
from emdistill.models.encoder import load_classifier, load_tokenizer
from emdistill.runs.record import read_run
from emdistill.ship.onnx_folder import INT8, MODEL, put_first
from emdistill.training import predict_logits

NEEDED = ("numpy", "onnxruntime", "tokenizers")
TOGETHER = 32  # texts in one call of example.py
TOLERANCE = 1e-4


def main(runs: str, output: str, rows: int = 1000) -> None:
    """Print a line a run and file, and write OUTPUT; exit with 1 where float32 logits differ by more than 1e-4.

    Args:
        runs: exported run folders, separated by commas.
        output: the JSON file to write.
        rows: rows of the development set at most.
    """
    results = []
    with tempfile.TemporaryDirectory() as place:
        python = fresh_environment(Path(place) / "venv")
        for name in runs.split(","):
            for file in (MODEL, INT8):
                results.append(compare(Path(name), file, rows, python, Path(place) / "folder"))
                print(json.dumps(results[-1]), flush=True)
    Path(output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if any(found["file"] == MODEL and not found["largest difference"] <= TOLERANCE for found in results):
        sys.exit(f"float32 logits differ from PyTorch's by more than {TOLERANCE}")


def fresh_environment(folder: Path) -> Path:
    """The interpreter of a new environment without torch."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pinned = [f"{name}=={version(name)}" for name in NEEDED]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *pinned], check=True)
    if subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 0:
        sys.exit("the fresh environment has torch: nothing would be shown")
    return python


def compare(run_folder: Path, file: str, rows: int, python: Path, folder: Path) -> dict[str, Any]:
    """Score and logits of one file of an exported folder against PyTorch's student."""
    config = read_run(run_folder).config
    data = read_task_data(config["data"], task=config["task"])
    dev = next(iter(data.evaluation.values()))
    dev = dev.select(range(min(rows, len(dev))))
    student = run_folder / "student"
    expected = predict_logits(
        load_classifier(student), load_tokenizer(student), dev.remove_columns("label"), max_length=config["max_length"]
    )
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run_folder / "onnx", folder)
    put_first(folder, file)
    found = without_torch(python, folder, dev, expected.shape[1])
    labels, metric = np.asarray(dev["label"]), data.task.metrics[0]
    return {
        "task": config["task"],
        "file": file,
        "rows": len(dev),
        "bytes": (folder / file).stat().st_size,
        "largest difference": float(np.abs(found - expected).max()),
        "mean difference": float(np.abs(found - expected).mean()),
        metric: data.task.score(found, labels)[metric],
        f"{metric}, PyTorch": data.task.score(expected, labels)[metric],
    }


def without_torch(python: Path, folder: Path, dev: Dataset, outputs: int) -> np.ndarray:
    """The logits that example.py prints, [rows, outputs]."""
    texts = (
        list(zip(dev["text"], dev["text_pair"], strict=True))
        if "text_pair" in dev.column_names
        else [(t,) for t in dev["text"]]
    )
    lines: list[str] = []
    for start in range(0, len(texts), TOGETHER):
        words = [word for text in texts[start : start + TOGETHER] for word in text]
        command = [python, folder / "example.py", *words]
        lines += subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return np.array([[float(cell) for cell in line.split("\t")[1 : 1 + outputs]] for line in lines], dtype=np.float32)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
