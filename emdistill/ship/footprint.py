"""What loading one model costs: seconds and memory, each variant in a fresh process of its own.

This file is that process too: run by its path it imports nothing but what the model needs (of emdistill its own
families alone, and no torch for an ONNX model), loads it, answers one sentence and prints what that took.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

Runtime = Literal["PyTorch", "ONNX Runtime"]


@dataclass(frozen=True)
class Footprint:
    """What a fresh process needs to load a model and its tokenizer, and to answer one sentence.

    load_seconds     until the model is ready, without the imports
    import_seconds   of the runtime's packages
    peak_mb          largest resident memory of the whole process (MB = 10⁶ bytes); None where it cannot be had
    note             why a figure is absent
    """

    load_seconds: float | None = None
    import_seconds: float | None = None
    peak_mb: float | None = None
    note: str | None = None


def measure_footprint(
    runtime: Runtime, model: str | Path, tokenizer: str | Path, *, inputs: dict[str, list[list[int]]], threads: int
) -> Footprint:
    """Load one model in a fresh process, and say what that took.

    model, tokenizer   the folder of a transformers model, twice; or an .onnx file and the tokenizer.json beside it
    inputs             one batch, as lists: input_ids, attention_mask and what else the model reads, each [B, L]
    A process that fails leaves its figures out, with a note: the others are worth having.
    """
    from emdistill.models.families import FAMILIES  # not above, for this file is the fresh process too

    order = {
        "runtime": runtime, "model": str(model), "tokenizer": str(tokenizer), "inputs": inputs, "threads": threads,
        "brought": [name for name, family in FAMILIES.items() if family.brought],
    }  # fmt: skip
    done = subprocess.run(
        # -P: the folder of this file is no place to import from; its onnx.py would hide the package of that name.
        [sys.executable, "-P", __file__],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        # Whatever it loads has been loaded before, so nothing is to be fetched.
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"},
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-1]
        return Footprint(note=f"load time and peak memory could not be measured in a process of their own: {reason}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    note = None if figures["peak_mb"] is not None else "this system does not tell a process's peak memory"
    return Footprint(figures["load_seconds"], figures["import_seconds"], figures["peak_mb"], note)


def peak_megabytes() -> float | None:
    """The largest resident memory of this process so far; None on a system that does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest * (1 if sys.platform == "darwin" else 1024) / 1e6  # macOS counts bytes


def _load_torch(order: dict[str, Any]) -> tuple[float, Callable[[], object]]:
    """When the imports were done, and one call of the model: as its users run it."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(order["threads"])
    families: Any = transformers
    family = PreTrainedConfig.get_config_dict(order["model"])[0].get("model_type")
    if family in order["brought"]:  # whoever loads one imports it too
        families = importlib.import_module(f"emdistill.models.{family}")
    # The family's module is imported only when its class is looked up.
    model_class = getattr(families, AutoConfig.from_pretrained(order["model"]).architectures[0])
    imported = perf_counter()
    model = model_class.from_pretrained(order["model"], dtype=torch.float32).eval()
    AutoTokenizer.from_pretrained(order["tokenizer"])
    inputs = {name: torch.tensor(rows) for name, rows in order["inputs"].items()}
    return imported, lambda: torch.inference_mode()(model)(**inputs)


def _load_onnx(order: dict[str, Any]) -> tuple[float, Callable[[], object]]:
    """As `_load_torch`, with ONNX Runtime and tokenizers alone."""
    import numpy as np
    import onnxruntime  # type: ignore[import-untyped,unused-ignore]
    from tokenizers import Tokenizer

    imported = perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = order["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(order["model"], options, providers=["CPUExecutionProvider"])
    Tokenizer.from_file(order["tokenizer"])
    rows = order["inputs"]
    inputs = {value.name: np.asarray(rows[value.name], dtype=np.int64) for value in session.get_inputs()}
    return imported, lambda: session.run(None, inputs)


def _main() -> None:
    order = json.load(sys.stdin)
    begun = perf_counter()
    imported, call = (_load_torch if order["runtime"] == "PyTorch" else _load_onnx)(order)
    loaded = perf_counter()
    call()
    figures = {"import_seconds": imported - begun, "load_seconds": loaded - imported, "peak_mb": peak_megabytes()}
    print(json.dumps(figures | {"torch": "torch" in sys.modules}))


if __name__ == "__main__":
    _main()
