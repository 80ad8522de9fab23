"""A saved model at work, in PyTorch or in ONNX Runtime: what it reads, its logits, and what they mean."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from emdistill.config import check_limits
from emdistill.errors import ConfigError, tell
from emdistill.models.encoder import load_classifier, load_tokenizer, tasks_of
from emdistill.models.inputs import longest_text
from emdistill.models.teacher import Teacher
from emdistill.runs.reading import Reading, recall_reading
from emdistill.ship.onnx import is_onnx, open_onnx
from emdistill.tasks import KINDS, TaskKind
from emdistill.tasks.task import Task
from emdistill.training import predict_logits


@dataclass(frozen=True)
class SavedClassifier:
    """A model that answers texts.

    reading        the columns and the length it was trained with
    kind           of its task: what its logits mean
    labels         names in the order of the logits; empty for a score
    longest_text   tokens that it has positions for
    batch_size     texts at once by default
    logits         (examples, max_length, batch_size, description) -> [rows, C]; says how many texts are cut
    """

    reading: Reading
    kind: TaskKind
    labels: tuple[str, ...]
    longest_text: int
    batch_size: int
    logits: Callable[[Dataset, int, int, str], np.ndarray]

    @property
    def task(self) -> Task:
        """What it was trained for, as far as the model tells."""
        kind, reading = self.kind, self.reading
        metrics = kind.metrics_of(self.labels)
        return Task("", kind, self.labels, metrics, reading.text, reading.text_pair, reading.label, words=reading.words)

    def max_length(self, option: int | None) -> int:
        """Tokens per text at most: this option, or as trained. Raises ConfigError beyond the model's positions."""
        check_limits(max_length=option)
        if option is not None and option > self.longest_text:
            raise ConfigError(
                f"--max-length {option}: this encoder reads {self.longest_text} tokens at most; give that or less"
            )
        return option or min(self.reading.max_length, self.longest_text)

    def tell_of_pairs(self, text_pair: str | None) -> None:
        """Say that texts are read alone, without a column `text_pair`, where the model was trained on pairs."""
        if text_pair is None and self.reading.text_pair is not None:
            tell(
                f"note: the model was trained on pairs, {self.reading.text!r} and {self.reading.text_pair!r}, and is "
                "given single texts; name the second column with --text-pair"
            )


def open_classifier(model: str, head: str | None = None) -> SavedClassifier:
    """The model of a folder or hub id, or of an exported folder or its .onnx file; of several heads this one.

    Raises ModelError for what is no loadable classifier, ConfigError where a package that ONNX needs is missing.
    """
    return _open_onnx(Path(model), head) if is_onnx(Path(model)) else _open_pytorch(model, head)


def head_of_task(model: str, task: str | None) -> str | None:
    """The head that is called as a task, of a model that has one called so among several."""
    if task is None or is_onnx(Path(model)):
        return None
    return next((name for name in tasks_of(model) if name.casefold() == task.casefold()), None)


def _open_pytorch(source: str, head: str | None) -> SavedClassifier:
    model, tokenizer = load_classifier(source, task=head), load_tokenizer(source)
    model.to(torch.accelerator.current_accelerator() or "cpu")  # type: ignore[arg-type]
    judge = Teacher(model)
    return SavedClassifier(
        reading=recall_reading(model),
        kind=judge.kind,
        labels=judge.labels,
        longest_text=longest_text(model),
        batch_size=64,
        logits=lambda examples, max_length, batch_size, description: predict_logits(
            model,
            tokenizer,
            examples,
            max_length=max_length,
            batch_size=batch_size,
            description=description,
            tell_cut=True,
        ),
    )


def _open_onnx(path: Path, head: str | None) -> SavedClassifier:
    classifier = open_onnx(path, head=head)
    config = classifier.config
    return SavedClassifier(
        reading=config.reading,
        kind=KINDS[config.kind],
        labels=config.labels,
        longest_text=config.positions,
        batch_size=1,
        logits=lambda examples, max_length, batch_size, _: classifier.predict_logits(
            examples, max_length=max_length, batch_size=batch_size, tell_cut=True
        ),
    )
