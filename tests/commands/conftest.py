"""A place with a random encoder, data, a fine-tuned teacher and a distilled student, made once by the command line."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from emdistill.cli import main
from emdistill.models import fingerprint
from emdistill.ship import exported as export_module
from emdistill.ship import measurement
from emdistill.ship.footprint import Footprint, measure_footprint


@dataclass(frozen=True)
class Place:
    """`folder` holds encoder/, teacher/, run/, reviews.csv, new.csv and SST-2/; leave it as it is."""

    folder: Path
    fast = ("--training.learning_rate=5e-3", "--training.per_device_train_batch_size=16")
    quiet = ("--training.disable_tqdm",)
    reviews = ("--text", "body", "--label", "stars")

    def distill(self, *words: str) -> list[str]:
        """A short distillation of the teacher; `words` come last, and the last one of an option counts."""
        files = ["--teacher", f"{self.folder}/teacher", "--data", f"{self.folder}/reviews.csv"]
        short = ["--student", "2", "--training.num_train_epochs=1", "--baselines", "none"]
        return ["distill", *files, *self.reviews, *short, *self.fast, *self.quiet, *words]

    @staticmethod
    def sentences(count: int) -> list[tuple[str, str]]:
        """(text, label); the label is told by one word."""
        nouns, fillers = ("the movie", "a book", "it", "the book of it"), ("", "very ", "not in a ", "and ")
        found = []
        for row in range(count):
            word = ("bad", "good")[row % 2]
            found.append((f"{nouns[row // 2 % 4]} was {fillers[row // 8 % 4]}{word}", word))
        return found

    @staticmethod
    def write_csv(path: Path, rows: list[list[str]], header: tuple[str, ...] = ("id", "body", "stars")) -> Path:
        """A CSV file with a header."""
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path


@pytest.fixture(scope="session")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[..., PreTrainedModel], tokenizer_factory: Any
) -> Place:
    folder = tmp_path_factory.mktemp("place")
    place = Place(folder)
    tiny_encoder("bert", layers=4, width=24, heads=4, seed=1).save_pretrained(folder / "encoder")
    tokenizer_factory().save_pretrained(folder / "encoder")
    place.write_csv(folder / "reviews.csv", [[str(i), *pair] for i, pair in enumerate(place.sentences(160))])
    place.write_csv(
        folder / "new.csv", [[str(i), text] for i, (text, _) in enumerate(place.sentences(8))], ("id", "body")
    )
    glue = folder / "SST-2"
    glue.mkdir()
    for name, rows in (("train", place.sentences(120)), ("dev", place.sentences(20))):
        lines = [f"{text}\t{int(label == 'good')}" for text, label in rows]
        (glue / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
    words = ["--model", f"{folder}/encoder", "--data", f"{folder}/reviews.csv", *place.reviews, *place.fast]
    words += [*place.quiet, "--output", f"{folder}/teacher", "--training.num_train_epochs=8"]
    assert main(["finetune", *words]) == 0
    words = ["--training.flow_steps=2", "--training.logging_steps=2", "--training.num_train_epochs=3"]
    assert main(place.distill("--output", f"{folder}/run", *words)) == 0
    return place


@pytest.fixture(scope="session")
def trace_once(onnx_operators_are_listed_once: None) -> Callable[..., None]:
    """export_onnx, but no model is traced twice, for equal ones have equal graphs (tests/ship/test_onnx.py)."""
    graphs: dict[tuple[str, str], bytes] = {}
    trace = export_module.export_onnx

    def export(model: PreTrainedModel, path: Path, **options: Any) -> None:
        key = fingerprint(model), str(options)
        if key not in graphs:
            trace(model, path, **options)
            graphs[key] = path.read_bytes()
        path.write_bytes(graphs[key])

    return export


@pytest.fixture(scope="session")
def exported(place: Place, trace_once: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUN/onnx of a copy of the run, in float32 and int8, little timed; of PyTorch no process is started."""
    run = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(place.folder / "run", run)

    def measure(runtime: str, *files: Any, **options: Any) -> Footprint:
        return measure_footprint(runtime, *files, **options) if runtime == "ONNX Runtime" else Footprint(0.5, 1.0, 500)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, "export_onnx", trace_once)
        patch.setattr(export_module, "measure_latencies", partial(export_module.measure_latencies, seconds=0.0))
        patch.setattr(measurement, "measure_footprint", measure)
        assert main(["export", "--int8", str(run), "--max-size-mb", "1", "--threads", "1"]) == 0
    return run / "onnx"


@pytest.fixture
def quick_export(trace_once: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is timed, no process is started to load a model, and no model is traced twice."""
    monkeypatch.setattr(export_module, "export_onnx", trace_once)
    monkeypatch.setattr(export_module, "measure_latencies", partial(export_module.measure_latencies, seconds=0.0))
    monkeypatch.setattr(export_module, "onednn_note", lambda *_, **__: None)
    monkeypatch.setattr(
        export_module, "measure_footprints", lambda variants, *_, **__: {name: Footprint(1, 2, 3) for name in variants}
    )
