"""Loading a model in a fresh process: what it takes, and that an ONNX model is loaded without torch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emdistill.ship import footprint
from emdistill.ship.footprint import measure_footprint, peak_megabytes

INPUTS = {"input_ids": [[5, 6, 7]], "attention_mask": [[1, 1, 1]], "token_type_ids": [[0, 0, 1]]}


def write_graph(path: Path) -> None:
    """A graph that gives [B, L] ids as float, and reads no token types."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "L"]) for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", "L"])
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["product"]),
        helper.make_node("Cast", ["product"], ["logits"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "ids", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def test_an_onnx_model_is_loaded_without_torch(tmp_path: Path, tokenizer_factory: Any) -> None:
    write_graph(tmp_path / "model.onnx")
    tokenizer_factory().save_pretrained(tmp_path)
    files = (tmp_path / "model.onnx", tmp_path / "tokenizer.json")
    found = measure_footprint("ONNX Runtime", *files, inputs=INPUTS, threads=1)
    assert found.note is None
    assert 0 < found.load_seconds < 60
    assert found.import_seconds > 0
    assert found.peak_mb is None or 10 < found.peak_mb < 1000
    order = {"runtime": "ONNX Runtime", "model": str(files[0]), "tokenizer": str(files[1])}
    done = subprocess.run(
        [sys.executable, "-P", footprint.__file__],
        input=json.dumps({**order, "inputs": INPUTS, "threads": 1}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["torch"] is False


def test_a_transformers_model_is_loaded_as_its_users_do(
    tmp_path: Path, tiny_encoder: Any, tokenizer_factory: Any
) -> None:
    tiny_encoder("bert").save_pretrained(tmp_path)
    tokenizer_factory().save_pretrained(tmp_path)
    found = measure_footprint("PyTorch", tmp_path, tmp_path, inputs=INPUTS, threads=1)
    assert found.note is None
    assert found.load_seconds < found.import_seconds
    assert found.peak_mb is None or found.peak_mb > 100  # torch alone takes more


def test_a_process_that_fails_leaves_its_figures_out(tmp_path: Path) -> None:
    found = measure_footprint("ONNX Runtime", tmp_path / "none.onnx", tmp_path / "none", inputs=INPUTS, threads=1)
    assert (found.load_seconds, found.peak_mb) == (None, None)
    assert found.note  # why


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system has no /proc")
def test_peak_memory_counts_what_was_touched_and_freed() -> None:
    script = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("footprint", {footprint.__file__!r})
module = importlib.util.module_from_spec(spec)
sys.modules["footprint"] = module
spec.loader.exec_module(module)
before = module.peak_megabytes()
block = b"x" * 200_000_000
del block
print(module.peak_megabytes() - before)
"""
    # A parent with much memory must not be counted in: this process holds that of torch.
    held = np.ones(30_000_000)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert float(done.stdout) == pytest.approx(200, abs=10)
    assert peak_megabytes() > held.nbytes / 1e6
