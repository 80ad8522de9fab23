"""A saved model at work: scores on labelled data, predictions on new sentences."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from datasets import Dataset

from emdistill.data.files import read_inputs
from emdistill.data.read import read_task_data
from emdistill.errors import ConfigError, DataError, ModelError, OutputError
from emdistill.models.encoder import load_classifier, load_tokenizer
from emdistill.models.inputs import longest_text
from emdistill.models.teacher import GENERIC_NAME, Teacher
from emdistill.runs.reading import Reading, recall_reading
from emdistill.ship.onnx import is_onnx, open_onnx
from emdistill.tasks.task import Kind, TaskData
from emdistill.training import predict_logits
from emdistill.training.evaluate import score_sets

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")


def evaluate_model(
    model: str,
    data: str,
    task: str | None = None,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    kind: Kind | None = None,
    max_length: int | None = None,
) -> dict[str, float]:
    """Score a fine-tuned model or student on the development set of a task, or on every row of a file.

    Args:
        model: folder or hub id of the model; or an .onnx file of an exported folder, or that folder.
        data: a GLUE folder, a CSV, TSV, JSONL or Parquet file, a hub dataset, or 'docstrings'.
        task: a task's name (see `emdistill tasks`); files of your own need none.
        text: column of the text; the column the model was trained on if not given.
        text_pair: column of the second text of a pair.
        label: column of the label.
        kind: what the label is; found from the model if not given.
        max_length: tokens a sentence or pair at most; as the model was trained if not given.
    """
    judge = _load(model)
    reading = judge.reading
    given = Path(data).is_file()
    found = read_task_data(
        data,
        task=task,
        text=text or reading.text,
        text_pair=text_pair or (None if text else reading.text_pair),
        label=label or reading.label,
        dev=data if task is None and given else None,  # of a file, every row is scored
        kind=kind or (None if task else "regression" if judge.is_regression else "classification"),
    )
    if task is None and given:
        found = _as_the_model_counts(found, judge.labels)
    judge.check_labels(found.task.labels)
    length = _length(judge, max_length)
    logits = {
        name: judge.logits(examples, length, judge.at_once, "evaluating") for name, examples in found.evaluation.items()
    }
    return score_sets(found.task, logits, found.evaluation)


def predict_file(
    model: str,
    input: str,
    output: str,
    text: str | None = None,
    text_pair: str | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    overwrite: bool = False,
) -> int:
    """Label every row of a file with a model; the output has the input's columns and `prediction`, `probability`.

    Args:
        model: folder or hub id of the model; or an .onnx file of an exported folder, or that folder.
        input: a CSV, TSV, JSONL or Parquet file, or a .txt file with a sentence a line.
        output: file to write: .jsonl, .csv, .tsv or .parquet.
        text: column of the text; the column the model was trained on if not given.
        text_pair: column of the second text of a pair.
        batch_size: sentences at once; if not given 64, and 1 in ONNX, for in int8 an answer depends a little on what
            else is in its batch.
        max_length: tokens a sentence or pair at most; as the model was trained if not given.
        overwrite: replace the output file if it exists.
    """
    place = Path(output)
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"--batch_size must be at least 1, not {batch_size}")
    if place.suffix not in SUFFIXES:
        raise ConfigError(f"--output {output}: write to one of {', '.join(SUFFIXES)}")
    if place.exists() and not overwrite:
        raise OutputError(f"{output} exists already; --overwrite replaces it")
    if not place.absolute().parent.is_dir():
        raise OutputError(f"--output {output}: there is no folder {place.parent}; make it first")
    judge = _load(model)
    reading = judge.reading
    column, pair = text or reading.text, text_pair or (None if text else reading.text_pair)
    rows = read_inputs(input, column, pair)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if taken := {"prediction", "probability"} & set(columns):
        raise DataError(f"there is a column '{min(taken)}' already; rename it, for the output has one", file=input)
    texts = {"text": [row[column] for row in rows]}
    if pair is not None:
        texts["text_pair"] = [row[pair] for row in rows]
    logits = judge.logits(
        Dataset.from_dict(texts), _length(judge, max_length), batch_size or judge.at_once, "predicting"
    )
    predictions = _scores(logits) if judge.is_regression else _classes(logits, judge.names)
    _write_rows(place, [{**row, **prediction} for row, prediction in zip(rows, predictions, strict=True)])
    return len(rows)


@dataclass(frozen=True)
class _Classifier:
    """A saved model, in PyTorch or in ONNX Runtime.

    labels        names in the order of the logits; empty for a score, and where they are generic
    names         what is written for each logit
    positions     the longest text, in tokens, that it can read
    at_once       texts in a batch, where nothing else is asked for
    logits        (examples, max_length, batch_size, description) -> [rows, C]
    check_labels  raises where logit i does not mean the task's label i
    """

    reading: Reading
    is_regression: bool
    labels: tuple[str, ...]
    names: Mapping[int, str]
    positions: int
    at_once: int
    logits: Callable[[Dataset, int, int, str], np.ndarray]
    check_labels: Callable[[Sequence[str]], None]


def _load(model: str) -> _Classifier:
    return _load_onnx(Path(model)) if is_onnx(Path(model)) else _load_pytorch(model)


def _load_pytorch(model: str) -> _Classifier:
    encoder, tokenizer = load_classifier(model), load_tokenizer(model)
    encoder.to(torch.accelerator.current_accelerator() or "cpu")  # type: ignore[arg-type]
    judge = Teacher(encoder)
    return _Classifier(
        reading=recall_reading(encoder),
        is_regression=judge.is_regression,
        labels=judge.labels,
        names={int(index): str(name) for index, name in (encoder.config.id2label or {}).items()},
        positions=longest_text(encoder),
        at_once=64,
        logits=lambda examples, max_length, batch_size, description: predict_logits(
            encoder, tokenizer, examples, max_length=max_length, batch_size=batch_size, description=description
        ),
        check_labels=judge.check_labels,
    )


def _load_onnx(path: Path) -> _Classifier:
    classifier = open_onnx(path)
    labels = classifier.labels

    def logits(examples: Dataset, max_length: int, batch_size: int, _: str) -> np.ndarray:
        pairs = list(examples["text_pair"]) if "text_pair" in examples.column_names else None
        return classifier.predict_logits(list(examples["text"]), pairs, max_length=max_length, batch_size=batch_size)

    def check_labels(asked: Sequence[str]) -> None:
        if len(asked) != len(labels):
            gives = f"classes ({', '.join(labels)})" if labels else "a score"
            asks = f"classes ({', '.join(asked)})" if asked else "a score"
            raise ModelError(f"{path} gives {gives}, the task asks for {asks}; score it on data of its own task")
        place = {name.casefold(): index for index, name in enumerate(labels)}
        if any(place.get(name.casefold(), index) != index for index, name in enumerate(asked)):
            raise ModelError(
                f"{path} has its labels in another order ({', '.join(labels)}) than the data ({', '.join(asked)}); "
                "score it on data of its own task"
            )

    return _Classifier(
        reading=classifier.reading,
        is_regression=classifier.is_regression,
        labels=() if any(GENERIC_NAME.fullmatch(name) for name in labels) else labels,
        names=dict(enumerate(labels)),
        positions=classifier.config.positions,
        at_once=1,
        logits=logits,
        check_labels=check_labels,
    )


def _length(judge: _Classifier, asked: int | None) -> int:
    """Tokens a text at most: what is asked for, or what the model was trained with."""
    if asked is not None and asked > judge.positions:
        raise ConfigError(
            f"--max_length {asked}: this encoder reads {judge.positions} tokens at most; give that or less"
        )
    return min(judge.reading.max_length, judge.positions) if asked is None else asked


def _as_the_model_counts(data: TaskData, labels: Sequence[str]) -> TaskData:
    """The same rows, their labels counted as the model counts them; a file need not hold all of its classes."""
    task = data.task
    if not labels or not task.labels:
        return data
    unknown = [name for name in task.labels if name not in labels]
    if unknown:
        raise DataError(
            f"the label '{unknown[0]}' is none of the model's ({', '.join(labels)}); score it on data of its own task"
        )
    places = [labels.index(name) for name in task.labels]
    rows = data.evaluation["dev"]
    rows = rows.remove_columns("label").add_column("label", [places[label] for label in rows["label"]])
    return replace(data, task=replace(task, labels=tuple(labels)), evaluation={"all rows": rows})


def _classes(logits: np.ndarray, names: Mapping[int, str]) -> list[dict[str, Any]]:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
    best = probabilities.argmax(axis=-1)
    return [
        {"prediction": names[int(index)], "probability": round(float(row[index]), 6)}
        for index, row in zip(best, probabilities, strict=True)
    ]


def _scores(logits: np.ndarray) -> list[dict[str, Any]]:
    return [{"prediction": round(float(value), 6)} for value in logits[:, 0]]


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write whole or not at all."""
    columns = list(dict.fromkeys(name for row in rows for name in row))  # rows of JSON may differ in them
    part = path.with_name(path.name + ".part")
    if path.suffix == ".parquet":
        table = pyarrow.Table.from_pydict({name: [row.get(name) for row in rows] for name in columns})
        pyarrow.parquet.write_table(table, part)
    elif path.suffix == ".jsonl":
        lines = (json.dumps(row, ensure_ascii=False, default=str) for row in rows)  # Parquet may hold dates
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    else:
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    part.replace(path)
