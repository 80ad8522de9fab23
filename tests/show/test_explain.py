"""The card, pictures and page of a run, from a run folder's record alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from emdistill.runs.flows import FlowRecord, append_flows
from emdistill.runs.run_folder import write_run
from emdistill.show.explain import draw_run, run_card


@pytest.fixture
def run() -> dict[str, Any]:
    side = {"parameters": 20, "bytes": 80, "shape": {"layers": 3, "width": 8, "heads": 2}}
    return {
        "config": {
            "output": "somewhere/run", "teacher": "models/teacher", "method": "bert-emd", "student": "1,3,5",
            "training": {"learning_rate": 1e-4}, "max_length": 64,
        },
        "seed": 7,
        "hashes": {"teacher": "cd" * 32, "train.tsv": "ab" * 32},
        "versions": {"emdistill": "0.1", "torch": "2", "transformers": "5"},
        "task": {
            "name": "mnli", "description": "does it follow?", "kind": "classification", "labels": ["yes", "no"],
            "pairs": True, "evaluation_rows": {"dev": 10, "mismatched": 12}, "held_out": None,
            "files": [{"name": "train.tsv", "rows": 30, "sha256": "ab" * 32}],
        },
        "selection": "the best checkpoint by accuracy on 3 rows held out of train",
        "rows": {"train": 27, "chosen on": 3},
        "objective": {"joint": "L = 10·hidden_states + 1·soft_targets"},
        "teacher": side,
        "student": side,
        "scores": {
            "teacher": {"accuracy": 0.9, "mismatched/accuracy": 0.8},
            "student": {"accuracy": 0.7, "mismatched/accuracy": 0.6},
        },
        "timings": {"training_seconds": 12.0},
    }  # fmt: skip


def test_the_card_tells_both_development_sets_apart(run: dict[str, Any]) -> None:
    card = run_card(run)
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "transformers"
    assert "mismatched" in card
    for told in ("3 layers × 8", "10·hidden_states", "held out of train", "0.6"):
        assert told in card
    assert "somewhere" not in card


def test_pictures_and_page_come_from_the_folder(run: dict[str, Any], tmp_path: Path) -> None:
    flow = [[0.25, 0.25, 0.0], [0.0, 0.0, 0.5]]
    weights = {"hidden_states": [0.5, 0.5]}
    teacher_weights = {"hidden_states": [0.25, 0.25, 0.5]}
    append_flows(tmp_path / "flows.jsonl", FlowRecord(1, "joint", {"hidden_states": flow}, weights, teacher_weights))
    write_run(tmp_path, run)
    draw_run(tmp_path)
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("flows.png", "layer_weights.png"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Flow: which layer teaches which" in page
    assert "emdistill distill --teacher" in page


def test_a_method_without_mapping_has_a_page_without_pictures(run: dict[str, Any], tmp_path: Path) -> None:
    write_run(tmp_path, run)
    draw_run(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "run.json"]
    assert "which layer teaches which" not in (tmp_path / "report.html").read_text(encoding="utf-8")
