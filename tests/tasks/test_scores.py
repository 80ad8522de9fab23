"""Several scores per row: told apart from labels, some missing, by name; figures against SciPy and float64."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from messages import names
from scipy.stats import pearsonr, spearmanr
from sklearn.linear_model import Ridge

from emdistill.baselines.linear import fit_head
from emdistill.data.labels import as_the_model_counts
from emdistill.data.read import read_task_data
from emdistill.data.teacher_answers import read_teacher_answers
from emdistill.errors import DataError, TeacherError
from emdistill.losses import HardLabels
from emdistill.models.teacher import Teacher
from emdistill.runs.answers import Predictions, read_predictions, write_predictions
from emdistill.show.sections.answers import ANSWERS
from emdistill.show.sections.disagreement import disagreement_section
from emdistill.states import EncoderStates
from emdistill.students.importance import _losses
from emdistill.tasks import KINDS, kind_of_model
from emdistill.tasks.answers import agreement
from emdistill.tasks.kind import BadLabel, LabelColumns
from emdistill.tasks.task import Task

KIND, LABELS = KINDS["scores"], KINDS["multi-label"]
TASK = Task("feelings", KIND, ("valence", "arousal"), KIND.default_metrics)
NAN = math.nan


def drawn(rows: int = 80, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gold scores [rows, 2] of which a third is missing, and two models' answers."""
    random = np.random.default_rng(seed)
    gold = random.normal(size=(rows, 2)) * (1, 30)
    answers = [(gold + random.normal(size=gold.shape) * (1, 30)).astype(np.float32) for _ in range(2)]
    gold[random.random(gold.shape) < 1 / 3] = NAN
    return gold, *answers


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def columns(*rows: tuple[Any, Any]) -> list[LabelColumns]:
    return [LabelColumns(a=a, b=b) for a, b in rows]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (columns(("0", "1"), ("1", "1")), LABELS),
        (columns(("0", "1"), ("1", "0.5")), KIND),
        (columns(("0", "1"), ("1", "2")), KIND),
        (columns(("0", ""), (None, 3)), KIND),
        (columns((True, False), ("yes", "no"), ("2", "no")), LABELS),
        ([[0.5, 1.5], [2.0, 3.0]], LABELS),  # lists need --kind scores
    ],
)
def test_columns_of_numbers_are_scores_unless_all_are_0_or_1(cells: list[Any], kind: Any) -> None:
    assert [found for found in KINDS.values() if found.fits(cells)] == [kind]


def test_lists_objects_and_columns_are_read_and_what_is_missing_is_nan() -> None:
    encode = KIND.encoder(("a", "b"))
    for cell in ([1.5, None], ["1.5", ""], {"a": 1.5}, {"b": None, "a": "1.5"}, LabelColumns(a=1.5, b="NaN")):
        assert np.array_equal(encode(cell), [1.5, NAN], equal_nan=True)
    assert KIND.label_names([[1, 2, 3], [1, None, 2]]) == ("1", "2", "3")
    assert KIND.label_names([{"b": 1}, {"a": 2, "b": 1}]) == ("b", "a")
    assert encode(json.loads(json.dumps(KIND.written([NAN, 2.0], ("a", "b")))))[1] == 2.0
    for cell in ([1.0], [1.0, 2.0, 3.0], [None, ""], {"c": 1.0}, {"a": "many"}, 1.5, [[1.0], 2.0]):
        with pytest.raises(BadLabel):
            encode(cell)
    assert np.array_equal(KIND.permuted([1.0, NAN], [2, 0], 3), [NAN, NAN, 1.0], equal_nan=True)


def test_a_file_may_lack_some_scores_of_a_row_but_not_all(tmp_path: Path) -> None:
    rows = "".join(f"text {n},{n}.5,{'' if n % 3 else n}\n" for n in range(30))
    data = read_task_data(write(tmp_path / "a.csv", f"text,valence,arousal\n{rows}"), label="valence,arousal")
    assert (data.task.kind, data.task.labels) == (KIND, TASK.labels)
    assert "multi-label" in data.notes[0]
    gold = data.task.gold(data.train)
    assert gold.shape == (27, 2)
    assert np.isnan(gold[:, 1]).any()
    assert not np.isnan(gold[:, 0]).any()
    assert data.task.score(np.nan_to_num(gold), gold) == pytest.approx({"pearson": 1.0, "spearman": 1.0})
    path = write(tmp_path / "b.csv", "text,valence,arousal\na,1.5,2\nb,,\nc,2,x\n")
    with names(DataError, "b.csv:3", "b.csv:4", "'x'", "arousal"):
        read_task_data(path, label="valence,arousal", kind="scores")
    with names(DataError, "c.csv:3", "rude"):  # of labels none may be absent
        read_task_data(write(tmp_path / "c.csv", "text,rude,loud\na,1,0\nb,,1\nc,0,0\n"), label="rude,loud")


def test_metrics_and_agreement_are_means_over_the_scores_that_are_there() -> None:
    gold, answers, others = drawn()
    there = ~np.isnan(gold)
    pairs = [(answers[there[:, at], at].astype(np.float64), gold[there[:, at], at]) for at in range(2)]
    expected = {
        "pearson": np.mean([pearsonr(*pair)[0] for pair in pairs]),
        "spearman": np.mean([spearmanr(*pair)[0] for pair in pairs]),
    }
    assert TASK.score(answers, gold) == pytest.approx(expected, abs=1e-12)
    alone = np.where([True, False], gold, NAN)  # nobody has told the second one
    assert TASK.score(answers, alone)["pearson"] == pytest.approx(pearsonr(*pairs[0])[0])
    assert TASK.chance(gold) == TASK.chance(alone) == 0.0
    of_both = [pearsonr(answers[:, at].astype(np.float64), others[:, at].astype(np.float64))[0] for at in range(2)]
    assert agreement(answers, others, "identity") == pytest.approx(np.mean(of_both))
    assert agreement(answers, np.ones_like(others), "identity") == 0.0


def test_a_missing_score_teaches_nothing() -> None:
    gold, answers, _ = drawn(6)
    logits = torch.tensor(answers, dtype=torch.float64, requires_grad=True)
    states = EncoderStates(logits=logits, mask=torch.ones(6, 1))
    (value,) = HardLabels(link="identity")(states, states, {"labels": torch.tensor(gold)}).values()
    value.backward()
    differences = np.nan_to_num(answers.astype(np.float64) - gold.astype(np.float32))
    assert value.item() == pytest.approx((differences**2).mean(), rel=1e-12)
    np.testing.assert_allclose(logits.grad, 2 * differences / differences.size, rtol=1e-12)


def test_each_score_has_a_ridge_over_the_rows_that_have_it() -> None:
    gold, *_ = drawn()
    features = np.random.default_rng(1).normal(size=(80, 5))
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    found = fit_head(features, gold, TASK, 0.5)(features)
    for at in range(2):
        there = ~np.isnan(gold[:, at])
        alone = Ridge(alpha=2.0).fit(features[there], gold[there, at]).predict(features)
        np.testing.assert_allclose(found[:, at], alone, rtol=1e-5, atol=1e-5)
    nobody = np.where([True, False], gold, NAN)
    assert not fit_head(features, nobody, TASK, 0.5)(features)[:, 1].any()


@pytest.mark.parametrize(
    "answer",
    [
        {"score of arousal": 2, "score of valence": 1.5},
        {"arousal": 2, "valence": "1.5"},
        {"logits": {"arousal": 2, "valence": 1.5}},
        {"logits": [1.5, 2]},
        {"label": {"arousal": 2, "valence": 1.5}},
    ],
)
def test_a_teacher_answers_each_score(tmp_path: Path, answer: dict[str, Any]) -> None:
    file = Path(write(tmp_path / "answers.jsonl", json.dumps({"text": "a", **answer}) + "\n"))
    assert read_teacher_answers(file, TASK).answers_of([("a",)])[0].tolist() == [[1.5, 2.0]]


@pytest.mark.parametrize(
    ("answer", "token"),
    [({"label": {"arousal": 2}}, "valence"), ({"score of arousal": 2}, "valence"), ({"logits": [2]}, "arousal")],
)
def test_a_teacher_that_answers_some_scores_alone_is_refused(tmp_path: Path, answer: Any, token: str) -> None:
    file = Path(write(tmp_path / "answers.jsonl", json.dumps({"text": "a", **answer}) + "\n"))
    with names(DataError, "answers.jsonl", token):
        read_teacher_answers(file, TASK)


def test_a_regression_model_of_several_outputs_has_this_kind(tiny_encoder: Any) -> None:
    assert Teacher(tiny_encoder(labels=3, problem_type="regression")).kind is KIND
    assert Teacher(tiny_encoder(labels=1, problem_type="regression")).kind is KINDS["regression"]
    assert kind_of_model("regression", 1, "scores") is KIND


def test_a_model_of_one_score_and_one_of_several_are_no_teachers_of_each_other(tmp_path: Path) -> None:
    rows = "".join(f"text {n},{n}.5,{n}\n" for n in range(30))
    path = write(tmp_path / "a.csv", f"text,valence,arousal\n{rows}")
    several, one = (read_task_data(path, label=label) for label in ("valence,arousal", "valence"))
    for data, names_of, kind in ((several, ("LABEL_0",), KINDS["regression"]), (one, TASK.labels, KIND)):
        with names(TeacherError, "scores", "regression", "--kind"):
            as_the_model_counts(data, names_of, kind)
    counted = as_the_model_counts(several, ("arousal", "valence"), KIND)
    assert counted.task.labels == ("arousal", "valence")
    np.testing.assert_array_equal(counted.task.gold(counted.train), several.task.gold(several.train)[:, ::-1])


def test_importance_is_measured_by_the_scores_that_are_there(tiny_encoder: Any) -> None:
    model = tiny_encoder(labels=2, problem_type="regression")
    batch = {"input_ids": torch.tensor([[2, 5, 3], [2, 6, 3]]), "attention_mask": torch.ones(2, 3, dtype=torch.long)}
    labels = torch.tensor([[1.0, NAN], [NAN, -2.0]])
    (loss,) = _losses(model, batch | {"labels": labels}, torch.Generator())
    logits = model(**batch).logits
    torch.testing.assert_close(loss, (logits[0, 0] - 1).square() + (logits[1, 1] + 2).square())


def test_missing_scores_are_null_in_the_file_of_answers(tmp_path: Path) -> None:
    gold, teacher, student = drawn(5)
    examples = Dataset.from_dict({"text": list("abcde"), "label": gold.tolist()})
    write_predictions(tmp_path / "p", {"dev": examples}, {"dev": teacher}, {"dev": student})
    assert "NaN" not in (tmp_path / "p").read_text()
    np.testing.assert_array_equal(read_predictions(tmp_path / "p")["dev"].labels, gold)


def test_a_page_has_every_score_and_charts_of_the_worst() -> None:
    gold, teacher, student = drawn()
    student[:, 1] = np.random.default_rng(3).normal(size=80)
    given = Predictions([f"text {row}" for row in range(80)], [None] * 80, gold, teacher, student)
    table, note, _ = ANSWERS["identity"][1](given, TASK.labels)
    assert "'arousal'" in note
    for line, at in zip(table.lines, range(2), strict=True):
        there = ~np.isnan(gold[:, at])
        own = gold[there, at]
        cells = [TASK.labels[at], str(there.sum())]
        for answers in (teacher[there, at].astype(np.float64), student[there, at].astype(np.float64)):
            error = np.abs(answers - own).mean()
            cells += [f"{pearsonr(answers, own)[0]:.3f}", f"{spearmanr(answers, own)[0]:.3f}", f"{error:.3g}"]
        assert list(line) == cells
    section = disagreement_section(given, TASK.labels, "identity")
    first = list(section.parts[1].lines[0])
    row = int(first[-1])
    assert row == np.abs(teacher.astype(np.float64) - student).max(axis=1).argmax()
    assert first[2] == f"valence {teacher[row, 0]:#.3g}, arousal {teacher[row, 1]:#.3g}"
    assert ("–" in first[1]) == bool(np.isnan(gold[row]).any())
