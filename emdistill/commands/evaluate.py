"""`emdistill evaluate`: the scores of a saved model on labelled data."""

from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from emdistill.data.labels import as_the_model_counts
from emdistill.errors import ModelError, listing, tell
from emdistill.ship.classifier import head_of_task, open_classifier
from emdistill.tasks.task import Task
from emdistill.training.evaluate import score_sets


def evaluate_model(
    model: str,
    data: str,
    task: str | None = None,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    kind: str | None = None,
    max_length: int | None = None,
    head: str | None = None,
) -> dict[str, float]:
    """Score a fine-tuned model or student on the development set of a task, or on every row of a file.

    Where a folder or a hub dataset has no development set, a tenth of train is scored, and that is said.

    Args:
        model: folder or hub id of the model; or an .onnx file of an exported folder, or that folder.
        data: a GLUE folder, a CSV, TSV, JSONL, Parquet or CoNLL file, a hub dataset, or 'messages'.
        task: a task's name (see `emdistill tasks`); files of your own need none.
        text: column of the text; the column the model was trained on if not given.
        text_pair: column of the second text of a pair.
        label: column of the label.
        kind: what the label is; found from the model if not given.
        max_length: tokens per sentence or pair at most; as the model was trained if not given.
        head: of a model of several tasks, the one that answers; that of --task if not given.
    """
    classifier = open_classifier(model, head or head_of_task(model, task))
    reading = classifier.reading.of(text, text_pair, label)
    whole_file = Path(data).is_file()
    task_data = reading.read(
        data,
        task=task,
        dev=data if whole_file else None,  # of a file, every row is scored
        kind=kind or (None if task else classifier.kind.name),
        evaluating=True,
    )
    task_data = as_the_model_counts(
        task_data, classifier.labels, classifier.kind, model=model, error=ModelError, some=whole_file
    )
    for note in (task_data.held_out, *task_data.notes):
        if note:
            tell(f"note: {note}")
    classifier.tell_of_pairs(task_data.task.text_pair)
    length = classifier.max_length(max_length)
    logits = {
        name: classifier.logits(examples, length, classifier.batch_size, "evaluating")
        for name, examples in task_data.evaluation.items()
    }
    for examples in task_data.evaluation.values():
        if classifier.kind.link == "identity" and (same := _columns_of_one_score(task_data.task, examples)):
            which = f" ({listing(same)})" if any(same) else ""
            tell(
                f"note: all scores of {data}{which} are the same, with which nothing correlates: 0 stands for no number"
            )
    return score_sets(task_data.task, logits, task_data.evaluation)


def _columns_of_one_score(task: Task, examples: Dataset) -> list[str]:
    """The names of the scores that are the same in all rows that have them; '' of a single score."""
    gold = task.gold(examples)
    columns = zip(task.labels or [""], gold.reshape(len(gold), -1).T, strict=True)
    return [name for name, scores in columns if len(np.unique(scores[~np.isnan(scores)])) == 1]


@wraps(evaluate_model)
def command(**options: Any) -> str:
    return "\n".join(f"{name}\t{value:.4f}" for name, value in evaluate_model(**options).items())
