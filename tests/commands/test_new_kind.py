"""A kind of task is one value in KINDS: each runs from fine-tuning to the shipped folder, one of somebody's own too."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from datasets import Value

from emdistill.cli import main
from emdistill.runs.answers import PREDICTIONS, read_predictions
from emdistill.runs.record import read_run
from emdistill.tasks import KINDS
from emdistill.tasks.kind import BadLabel, Cell, TaskKind, text_of

TEXTS = ("the movie was good", "a bad book", "it is not very good and it was not the book", "the bad movie", "a book")


class Stars(TaskKind):
    """A toy: `*` to `***`, learned as a score."""

    name = "stars"
    link = "identity"
    problem_type = "regression"
    default_metrics = ("nearness",)
    metrics: ClassVar = {"nearness": lambda logits, labels, task: float(1 - np.abs(logits[:, 0] - labels).mean() / 3)}
    label_type = Value("float64")
    asks_for = "two different numbers of stars"
    named = False

    def fits(self, cells: Sequence[Cell]) -> bool:
        return False

    def label_names(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        return ()

    def encoder(self, names: Sequence[str]) -> Callable[[Cell], float]:
        def encode(cell: Cell) -> float:
            text = text_of(cell)
            if set(text) - {"*"}:
                raise BadLabel(f"{text!r} is no number of stars")
            return float(len(text))

        return encode

    def written(self, label: Any, names: Sequence[str]) -> str:
        return "*" * round(label)

    def decode(self, logits: Any, examples: Any) -> Any:
        return logits[:, 0].round()

    def constant_answers(self, labels: Any, width: int) -> list[Any]:
        return [np.full((len(labels), 1), np.median(labels))]

    def answer_columns(self, names: Sequence[str]) -> tuple[str, ...]:
        return ("stars given",)

    def answers(self, logits: Any, names: Sequence[str], examples: Any) -> list[dict[str, Any]]:
        return [{"stars given": self.written(max(float(value), 0), names)} for value in logits[:, 0]]

    def summary(self, labels: Sequence[Any], gold: Sequence[Any], names: Sequence[str]) -> str:
        return f"{len(labels)} rows got stars"


def rows_of(kind: str) -> list[dict[str, Any]]:
    """Labels that the words of a text tell."""
    rows = []
    for number in range(80):
        text = f"{TEXTS[number % len(TEXTS)]} {TEXTS[number // 5 % len(TEXTS)]}"
        good, bad, book = ("good" in text), ("bad" in text), ("book" in text)
        scores = {"valence": 1.5 + good - 2 * bad, "arousal": None if number % 7 == 0 else 1 + 40.0 * book}
        label: Any = {
            "classification": "good" if good else "bad",
            "regression": 1.5 + good - 0.5 * bad,
            "multi-label": [name for name, there in (("good", good), ("bad", bad), ("book", book)) if there],
            "scores": scores,
            "stars": "*" * (1 + good + book),
            "tagging": [{"good": "B-x", "book": "I-x"}.get(word, "O") for word in text.split()],
        }[kind]
        labels = label if kind == "scores" else {"label": label}
        rows.append({"text": text.split() if kind == "tagging" else text, **labels})
    return rows


def scores_of(printed: str) -> dict[str, float]:
    return {name: float(value) for name, value in (line.split() for line in printed.splitlines())}


@pytest.mark.parametrize("name", [name for name in (*KINDS, "stars") if not name.startswith("span")])
def test_every_kind_runs_from_labels_to_a_shipped_folder(
    name: str,
    place: Any,
    quick_export: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name == "stars":
        monkeypatch.setitem(KINDS, name, Stars())
    kind = KINDS[name]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_of(name)))
    teacher, run, scored = tmp_path / "teacher", tmp_path / "run", tmp_path / "scored.csv"
    source = ["--data", str(data), *place.fast, *place.quiet]
    told = ["--kind", name] if name in ("stars", "tagging") else []  # the others are found
    told += ["--label", "valence,arousal"] if name == "scores" else []
    words = ["--model", f"{place.folder}/encoder", *source, *told, "--training.num_train_epochs=2"]
    assert main(["finetune", *words, "--output", str(teacher)]) == 0
    augmented = main(["augment", "--teacher", str(teacher), "--data", str(data), *told, "--copies=1",
                      "--output", str(tmp_path / "more.jsonl")])  # fmt: skip
    assert augmented == (0 if kind.one_answer else 2)  # the variants of a text have other words
    more = ["--augmented", str(tmp_path / "more.jsonl")] if kind.one_answer else []
    words = ["--teacher", str(teacher), *source, *told, "--student", "1", "--training.num_train_epochs=1"]
    (tmp_path / "text.txt").write_text("a very good movie\nthe book was bad and it was not the movie\nit was good\n")
    words += [*more, "--check_teacher=false", "--objective.alpha=0.5"]
    words += ["--unlabelled", str(tmp_path / "text.txt"), "--baselines", "none"]
    assert main(["distill", *words, "--output", str(run)]) == 0
    record = read_run(run)
    assert record.task is not None
    assert record.task.kind == name
    assert record.unlabelled is not None
    assert record.unlabelled["kept"] == 3
    assert list(record.scores["student"]) == list(kind.default_metrics)
    answers = read_predictions(run / PREDICTIONS)["dev"]
    if name == "scores":
        assert record.task.labels == ("valence", "arousal")
        assert np.isnan(answers.labels).any(axis=0).tolist() == [False, True]
    assert len(answers.labels) == record.task.evaluation_rows["dev"]
    assert (run / "report.html").stat().st_size > 1000

    capsys.readouterr()
    assert main(["evaluate", "--model", str(run / "student"), "--data", str(data)]) == 0
    printed = capsys.readouterr().out
    assert list(scores_of(printed)) == list(kind.default_metrics)
    (tmp_path / "new.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    words = ["--model", str(run / "student"), "--input", str(tmp_path / "new.jsonl"), "--output", str(scored)]
    if name != "stars":
        words += ["--text", "text"]
    assert main(["predict", *words]) == 0
    header = scored.read_text().splitlines()[0]
    assert all(column in header for column in kind.answer_columns(record.task.labels))

    assert main(["export", str(run), "--onnx"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--model", str(run / "onnx"), "--data", str(data)]) == 0
    assert scores_of(capsys.readouterr().out) == pytest.approx(scores_of(printed), abs=1e-3)
    done = subprocess.run(
        [sys.executable, str(run / "onnx" / "example.py"), "a good book"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("a good book")
