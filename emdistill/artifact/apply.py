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
from datasets import Dataset, concatenate_datasets

from emdistill.artifact.reading import recall_reading
from emdistill.data.files import read_inputs
from emdistill.data.read import read_task_data
from emdistill.data.task import Kind, TaskData
from emdistill.errors import ConfigError, DataError, OutputError
from emdistill.models.encoder import load_classifier, load_tokenizer
from emdistill.models.teacher import Teacher
from emdistill.training import evaluate, predict_logits

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
    encoder = load_classifier(model)
    reading = recall_reading(encoder)
    judge = Teacher(encoder, load_tokenizer(model))
    found = read_task_data(
        data,
        task=task,
        text=text or reading.text,
        text_pair=text_pair or (None if text else reading.text_pair),
        label=label or reading.label,
        kind=kind or ("regression" if judge.is_regression else "classification"),
    )
    if found.held_out is not None:
        found = _whole_file(found, judge.labels)
    judge.check_labels(found.task.labels)
    return evaluate(
        judge.model,
        load_tokenizer(model),
        found.task,
        found.evaluation,
        max_length=max_length or reading.max_length,
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
    if place.suffix not in SUFFIXES:
        raise ConfigError(f"--output {output}: write to one of {', '.join(SUFFIXES)}")
    if place.exists() and not overwrite:
        raise OutputError(f"{output} exists already; --overwrite replaces it")
    encoder = load_classifier(model)
    tokenizer = load_tokenizer(model)
    reading = recall_reading(encoder)
    column, pair = text or reading.text, text_pair or (None if text else reading.text_pair)
    rows = read_inputs(input, column, pair)
    texts = {"text": [row[column] for row in rows]}
    if pair is not None:
        texts["text_pair"] = [row[pair] for row in rows]
    logits = predict_logits(
        encoder,
        tokenizer,
        Dataset.from_dict(texts),
        max_length=max_length or reading.max_length,
        batch_size=batch_size,
        description="predicting",
    )
    regression = Teacher(encoder).is_regression
    predictions = _scores(logits) if regression else _classes(logits, dict(encoder.config.id2label or {}))
    _write_rows(place, [{**row, **prediction} for row, prediction in zip(rows, predictions, strict=True)])
    return len(rows)


def _whole_file(data: TaskData, labels: Sequence[str]) -> TaskData:
    """All rows of a file as the set to score, their labels counted as the model counts them."""
    rows = concatenate_datasets([data.train, *data.evaluation.values()])
    task = data.task
    if labels and task.labels:
        unknown = [name for name in task.labels if name not in labels]
        if unknown:
            raise DataError(
                f"the label '{unknown[0]}' is none of the model's ({', '.join(labels)}); score it on data of its task"
            )
        places = [labels.index(name) for name in task.labels]
        rows = rows.remove_columns("label").add_column("label", [places[label] for label in rows["label"]])
        task = replace(task, labels=tuple(labels))
    return replace(data, task=task, evaluation={"all rows": rows}, held_out=None)


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
    part = path.with_name(path.name + ".part")
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), part)
    elif path.suffix == ".jsonl":
        part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    part.replace(path)
