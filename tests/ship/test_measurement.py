"""What variants are measured on: full batches of real tokens, files, the clock of all cores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from messages import unnamed

from emdistill.ship import measurement
from emdistill.ship.measurement import (
    CpuClock,
    Variant,
    busy_note,
    full_batch,
    machine,
    measure_latencies,
    read_cpu_clock,
    torch_run,
    weight_files,
)

PAIRS = Dataset.from_dict({"text": ["a good movie", "it was bad"], "text_pair": ["bad", "a book"], "label": [0, 1]})


@pytest.mark.parametrize("length", [5, 9, 40])
def test_full_batches_are_real_texts_that_go_on(tiny_tokenizer: Any, length: int) -> None:
    batch = full_batch(PAIRS, tiny_tokenizer, 3, length)
    assert set(batch) == set(tiny_tokenizer.model_input_names) >= {"input_ids", "attention_mask"}
    assert all(rows.shape == (3, length) and rows.dtype == np.int64 for rows in batch.values())
    assert (batch["attention_mask"] == 1).all()
    assert (batch["input_ids"] != tiny_tokenizer.pad_token_id).all()
    np.testing.assert_array_equal(batch["input_ids"][0], batch["input_ids"][2])  # round the two rows
    texts = ["a good movie it was bad " * length, "bad a book " * length]
    assert batch["input_ids"][0].tolist() == tiny_tokenizer(*texts, truncation=True, max_length=length)["input_ids"]


def test_full_batches_of_empty_texts_repeat_their_tokens(tiny_tokenizer: Any) -> None:
    batch = full_batch(Dataset.from_dict({"text": ["", " "]}), tiny_tokenizer, 3, 9)
    assert batch["input_ids"].shape == (3, 9)
    assert batch["input_ids"][0].tolist() == np.resize(tiny_tokenizer("")["input_ids"], 9).tolist()


@pytest.mark.parametrize(("longest", "lengths"), [(512, [32, 128]), (100, [32, 100]), (20, [20])])
def test_every_case_that_fits_is_timed_with_the_threads_asked_for(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, longest: int, lengths: list[int]
) -> None:
    seen: list[tuple[tuple[int, ...], int]] = []

    def run(batch: measurement.Batch) -> None:
        seen.append((batch["input_ids"].shape, torch.get_num_threads()))

    variants = {"student": Variant("PyTorch", "", "", 0, np.zeros((2, 2), np.float32), run, tiny_tokenizer)}
    found = measure_latencies(variants, PAIRS, longest=longest, threads=2, seconds=0.0)
    cases = [(batch, length) for batch in (1, 32) for length in lengths]
    assert [(case.batch, case.length) for case in found["student"]] == cases
    assert {shape for shape, _ in seen} == set(cases)
    assert {threads for _, threads in seen} == {2}
    assert all(case.calls >= 3 for case in found["student"])


def test_pytorch_runs_without_gradients(tiny_encoder: Any, tiny_tokenizer: Any) -> None:
    model = tiny_encoder("bert")
    batch = full_batch(PAIRS, tiny_tokenizer, 2, 8)
    found = torch_run(model)(batch)
    assert isinstance(found, torch.Tensor)
    assert found.is_inference()
    expected = model(**{name: torch.from_numpy(rows) for name, rows in batch.items()}).logits
    torch.testing.assert_close(found.clone(), expected.detach())


def test_the_size_of_weights_is_that_of_their_files(tmp_path: Path, tiny_encoder: Any) -> None:
    model = tiny_encoder("bert")
    model.save_pretrained(tmp_path / "whole")
    file = tmp_path / "whole" / "model.safetensors"
    assert weight_files(str(tmp_path / "whole"), model) == ("whole/model.safetensors", file.stat().st_size)
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    index = json.loads((tmp_path / "parts" / "model.safetensors.index.json").read_text())
    sizes = [(tmp_path / "parts" / name).stat().st_size for name in set(index["weight_map"].values())]
    assert len(sizes) > 1
    assert weight_files(str(tmp_path / "parts"), model) == ("parts/model-*.safetensors", sum(sizes))
    parameters = sum(4 * parameter.numel() for parameter in model.parameters())
    assert weight_files("owner/name", model) == ("owner/name", parameters)


def test_a_busy_machine_is_noticed() -> None:
    start = CpuClock(wall=100.0, everyone=50.0, own=5.0)
    busy = CpuClock(wall=110.0, everyone=70.0, own=15.0)  # 10 s of others in 10 s: one core
    assert busy_note(start, busy, cores=4, threads=2) is None
    note = busy_note(start, busy, cores=2, threads=2)
    assert note is not None
    assert not unnamed(note, "1.0", 2)
    assert busy_note(start, CpuClock(110.0, 60.5, 15.0), cores=2, threads=2) is None  # a twentieth of a core
    assert busy_note(None, busy, cores=1, threads=1) is None
    assert busy_note(start, start, cores=1, threads=1) is None


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="this system has no /proc")
def test_the_clock_counts_this_process() -> None:
    before = read_cpu_clock()
    while (after := read_cpu_clock()).own < before.own + 0.1:
        sum(range(10_000))
    assert after.wall > before.wall
    assert after.everyone - before.everyone >= 0.05  # counted in hundredths


def test_the_machine_is_named() -> None:
    found = machine(3)
    assert found.threads == 3
    assert found.cores >= 1
    assert found.cpu
