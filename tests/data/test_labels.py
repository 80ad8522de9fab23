"""Labels are mapped by name wherever a model's names are the data's."""

from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset, Features, Value
from messages import names

from emdistill.data.labels import as_the_model_counts
from emdistill.data.read import read_task_data
from emdistill.errors import DataError, ModelError, TeacherError
from emdistill.tasks import KINDS
from emdistill.tasks.kind import meaning
from emdistill.tasks.task import Task, TaskData

CLASSES, LABELS = KINDS["classification"], KINDS["multi-label"]
TWELVE = tuple(f"LABEL_{number}" for number in range(12))


def data_of(labels: tuple[str, ...], kind: str = "classification") -> TaskData:
    task = Task("t", KINDS[kind], labels, KINDS[kind].default_metrics, positive=labels[-1] if labels else None)
    encode = task.kind.encoder(labels)
    cells = [[name] for name in labels] if kind == "multi-label" else list(labels) or ["0.5", "1.5"]
    features = Features({"text": Value("string"), "label": task.kind.label_type})
    rows = Dataset.from_dict(
        {"text": cells and [str(cell) for cell in cells], "label": list(map(encode, cells))}, features
    )
    return TaskData(task, rows, {"dev": rows.select([0])})


def written(data: TaskData, rows: Dataset) -> list[object]:
    return [data.task.kind.written(label, data.task.labels) for label in rows["label"]]


@pytest.mark.parametrize("kind", ["classification", "multi-label"])
@pytest.mark.parametrize(
    ("of_data", "of_model"),
    [
        (("neg", "pos"), ("pos", "neg")),
        (("a", "b", "c"), ("C", "A", "B")),
        (tuple(sorted(TWELVE)), TWELVE),
        (("0", "1"), ("1", "0")),
        (("us", "US"), ("US", "us")),
        (("0", "1"), ("LABEL_1", "LABEL_0")),
        (("0", "1"), ("1.0", "0.0")),
        (("0", "1"), ("True", "False")),
        (("false", "true"), ("1", "0")),
        (("LABEL_0", "LABEL_1"), ("1", "0")),
    ],
)
def test_the_same_names_in_another_order_are_the_models_order(
    kind: str, of_data: tuple[str, ...], of_model: tuple[str, ...]
) -> None:
    data = data_of(of_data, kind)
    counted = as_the_model_counts(data, of_model, KINDS[kind])
    assert [meaning(name) for name in counted.task.labels] == [meaning(name) for name in of_model]
    assert set(counted.task.labels) == set(of_data)  # as the data spell them
    for before, after in ((data.train, counted.train), (data.evaluation["dev"], counted.evaluation["dev"])):
        assert written(counted, after) == written(data, before)
    assert counted.task.labels[counted.task.positive_index] == of_data[-1]


@pytest.mark.parametrize("of_model", [("LABEL_0", "LABEL_1"), ("0", "1"), ("1", "2"), ("1.0", "2.0")])
def test_numbers_stand_for_words_in_their_order(of_model: tuple[str, ...]) -> None:
    data = data_of(("neg", "pos"))
    assert as_the_model_counts(data, of_model, CLASSES) is data
    assert as_the_model_counts(data_of((), "regression"), ("LABEL_0",), KINDS["regression"]).task.labels == ()


@pytest.mark.parametrize(
    ("of_data", "of_model"), [(("0", "1"), ("neg", "pos")), (("1", "2", "3"), ("LABEL_0", "LABEL_1", "LABEL_2"))]
)
def test_numbers_of_the_data_stand_for_other_names_in_their_order(
    of_data: tuple[str, ...], of_model: tuple[str, ...]
) -> None:
    data = data_of(of_data)
    assert as_the_model_counts(data, of_model, CLASSES) is data


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize(
    ("of_data", "of_model"),
    [
        (("neg", "pos"), ("positive", "negative")),
        (("neg", "pos"), ("neg", "positive")),
        (("neg", "pos"), ("LABEL_1", "LABEL_0")),
        (("0", "1"), ("1", "2")),
        (("1", "LABEL_1"), ("0", "1")),  # both are the model's 1
        (("US", "us"), ("us", "de")),
    ],
)
def test_names_that_do_not_match_are_refused(of_data: tuple[str, ...], of_model: tuple[str, ...], some: bool) -> None:
    with names(ModelError, "m/", *of_data):
        as_the_model_counts(data_of(of_data), of_model, CLASSES, some=some, model="m/", error=ModelError)


def test_tags_that_no_word_has_need_not_be_the_models() -> None:
    kind = KINDS["tagging"]
    task = Task("t", kind, kind.label_names([["O", "I-A"]]), kind.metrics_of(["O", "I-A"]))
    assert "B-A" in task.labels
    label = [kind.encoder(task.labels)(["O", "I-A"])]
    rows = Dataset.from_dict({"label": label}, features=Features({"label": kind.label_type}))
    counted = as_the_model_counts(TaskData(task, rows, {"dev": rows}), ("I-A", "I-B", "O"), kind)
    assert counted.task.labels == ("I-A", "I-B", "O")
    assert written(counted, counted.evaluation["dev"]) == [["O", "I-A"]]


def test_metrics_are_those_of_the_models_tags() -> None:
    kind = KINDS["tagging"]
    task = Task("t", kind, ("O",), kind.metrics_of(("O",)))
    rows = Dataset.from_dict({"label": [[0]]}, features=Features({"label": kind.label_type}))
    counted = as_the_model_counts(TaskData(task, rows, {"dev": rows}), ("B-A", "I-A", "O"), kind, some=True)
    assert counted.task.metrics == kind.default_metrics


def test_a_file_that_is_scored_need_not_hold_all_labels() -> None:
    data = data_of(("pos",))
    counted = as_the_model_counts(data, ("neg", "zero", "Pos"), CLASSES, some=True)
    assert counted.task.labels == ("neg", "zero", "pos")
    assert counted.train["label"][:] == [2]
    counted = as_the_model_counts(data_of(("0", "1")), ("LABEL_0", "LABEL_1", "LABEL_2"), CLASSES, some=True)
    assert counted.task.labels == ("0", "1", "LABEL_2")
    with names(ModelError, "m/", "new", "neg"):
        as_the_model_counts(data_of(("new",)), ("neg", "pos"), CLASSES, some=True, model="m/", error=ModelError)


FIVE = tuple(f"LABEL_{number}" for number in range(5))


@pytest.mark.parametrize("kind", ["classification", "multi-label"])
@pytest.mark.parametrize("of_data", [("1", "2", "3", "4"), ("1",), ("2.0", "3.0"), ("1", "2", "3", "4", "5")])
def test_stars_are_not_counted_one_off_beside_a_model_without_names(of_data: tuple[str, ...], kind: str) -> None:
    """All five are the model's in their order; of fewer, 1 may be LABEL_0 as well as LABEL_1."""
    data = data_of(of_data, kind)
    if len(of_data) == 5:
        assert as_the_model_counts(data, FIVE, KINDS[kind], some=True) is data
        return
    with names(ModelError, "m/", *FIVE, *of_data, "id2label"):
        as_the_model_counts(data, FIVE, KINDS[kind], some=True, model="m/", error=ModelError)
    own = tuple("12345")
    assert as_the_model_counts(data, own, KINDS[kind], some=True).train["label"][0] in (
        own.index(meaning(of_data[0])),
        [float(name == meaning(of_data[0])) for name in own],
    )
    written_out = tuple(f"LABEL_{meaning(name)}" for name in of_data)
    counted = as_the_model_counts(data_of(written_out, kind), FIVE, KINDS[kind], some=True)
    assert written(counted, counted.train) == written(data_of(written_out, kind), data_of(written_out, kind).train)


@pytest.mark.parametrize(
    ("of_data", "of_model", "kind"),
    [
        (("a", "b", "c"), ("a", "b"), CLASSES),
        (("a", "b"), ("b", "c"), CLASSES),
        (("a", "b"), ("a", "b"), LABELS),
        (("a", "b"), ("LABEL_0",), KINDS["regression"]),
    ],
)
def test_what_does_not_fit_is_refused(of_data: tuple[str, ...], of_model: tuple[str, ...], kind: object) -> None:
    with pytest.raises(TeacherError):
        as_the_model_counts(data_of(of_data), of_model, kind)  # type: ignore[arg-type]


def test_label_columns_that_are_not_named_are_not_taken_for_unset() -> None:
    data = data_of(("toxic", "rude"), "multi-label")
    data = replace(data, task=replace(data.task, label="toxic, rude"))
    with names(ModelError, 2, 3, "m/", "--label rude,insult,toxic"):
        as_the_model_counts(data, ("rude", "insult", "toxic"), LABELS, some=True, model="m/", error=ModelError)
    assert as_the_model_counts(data, ("rude", "toxic"), LABELS, some=True).task.labels == ("rude", "toxic")


def test_rows_without_any_label_are_scored_and_not_learned_from(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "it was", "label": []}\n{"text": "a book", "label": []}\n', encoding="utf-8")
    data = read_task_data(str(file), dev=str(file), kind="multi-label", evaluating=True)
    counted = as_the_model_counts(data, ("bad", "good"), LABELS, some=True)
    assert (counted.task.labels, counted.evaluation["dev"]["label"][:]) == (("bad", "good"), [[0, 0], [0, 0]])
    with names(DataError, file, "label"):
        read_task_data(str(file), dev=str(file), kind="multi-label")
