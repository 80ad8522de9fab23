"""A saved model at work: scores on labelled data, predictions on new sentences."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from emdistill.artifact.reading import recall_reading
from emdistill.data.files import read_inputs
from emdistill.data.read import read_task_data
from emdistill.data.task import Kind, TaskData
from emdistill.errors import ConfigError, DataError, OutputError
from emdistill.models.encoder import load_classifier, load_tokenizer
from emdistill.models.teacher import Teacher
from emdistill.training import evaluate, predict_logits
from emdistill.training.splits import check_max_length, longest_text

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
        model: folder or hub id of the model.
        data: a GLUE folder, a CSV, TSV, JSONL or Parquet file, a hub dataset, or 'docstrings'.
        task: a task's name (see `emdistill tasks`); files of your own need none.
        text: column of the text; the column the model was trained on if not given.
        text_pair: column of the second text of a pair.
        label: column of the label.
        kind: what the label is; found from the model if not given.
        max_length: tokens a sentence or pair at most; as the model was trained if not given.
    """
    encoder = _load(model)
    reading = recall_reading(encoder)
    judge = Teacher(encoder)
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
    return evaluate(
        judge.model,
        load_tokenizer(model),
        found.task,
        found.evaluation,
        max_length=_length(encoder, max_length),
        description="evaluating",
    )


def predict_file(
    model: str,
    input: str,
    output: str,
    text: str | None = None,
    text_pair: str | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    overwrite: bool = False,
) -> int:
    """Label every row of a file with a model; the output has the input's columns and `prediction`, `probability`.

    Args:
        model: folder or hub id of the model.
        input: a CSV, TSV, JSONL or Parquet file, or a .txt file with a sentence a line.
        output: file to write: .jsonl, .csv, .tsv or .parquet.
        text: column of the text; the column the model was trained on if not given.
        text_pair: column of the second text of a pair.
        batch_size: sentences at once.
        max_length: tokens a sentence or pair at most; as the model was trained if not given.
        overwrite: replace the output file if it exists.
    """
    place = Path(output)
    if batch_size < 1:
        raise ConfigError(f"--batch_size must be at least 1, not {batch_size}")
    if place.suffix not in SUFFIXES:
        raise ConfigError(f"--output {output}: write to one of {', '.join(SUFFIXES)}")
    if place.exists() and not overwrite:
        raise OutputError(f"{output} exists already; --overwrite replaces it")
    if not place.absolute().parent.is_dir():
        raise OutputError(f"--output {output}: there is no folder {place.parent}; make it first")
    encoder = _load(model)
    tokenizer = load_tokenizer(model)
    reading = recall_reading(encoder)
    column, pair = text or reading.text, text_pair or (None if text else reading.text_pair)
    rows = read_inputs(input, column, pair)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if taken := {"prediction", "probability"} & set(columns):
        raise DataError(f"there is a column '{min(taken)}' already; rename it, for the output has one", file=input)
    texts = {"text": [row[column] for row in rows]}
    if pair is not None:
        texts["text_pair"] = [row[pair] for row in rows]
    logits = predict_logits(
        encoder,
        tokenizer,
        Dataset.from_dict(texts),
        max_length=_length(encoder, max_length),
        batch_size=batch_size,
        description="predicting",
    )
    names = {int(index): str(name) for index, name in (encoder.config.id2label or {}).items()}
    predictions = _scores(logits) if Teacher(encoder).is_regression else _classes(logits, names)
    _write_rows(place, [{**row, **prediction} for row, prediction in zip(rows, predictions, strict=True)])
    return len(rows)


def _load(model: str) -> PreTrainedModel:
    encoder = load_classifier(model)
    encoder.to(torch.accelerator.current_accelerator() or "cpu")  # type: ignore[arg-type]
    return encoder


def _length(encoder: PreTrainedModel, asked: int | None) -> int:
    """Tokens a text at most: what is asked for, or what the model was trained with."""
    if asked is None:
        return min(recall_reading(encoder).max_length, longest_text(encoder))
    check_max_length(asked, encoder)
    return asked


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
