"""What every kind of task promises, and what each kind's metrics and labels are."""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from messages import names
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from emdistill.data.files import with_list
from emdistill.errors import ConfigError, DataError, ModelError
from emdistill.losses import HardLabels, SoftTargets
from emdistill.states import NO_CLASS, EncoderStates
from emdistill.tasks import KINDS, TaskKind, find_kind, kind_of_model
from emdistill.tasks.answers import agreement, flat, probabilities, ragged
from emdistill.tasks.kind import BadLabel, LabelColumns, class_names, name_finder, name_index
from emdistill.tasks.spans import words_of_answer
from emdistill.tasks.task import Task
from emdistill.tasks.words import SPACES

CLASSES, SCORES, LABELS = KINDS["classification"], KINDS["regression"], KINDS["multi-label"]
SEVERAL = KINDS["scores"]
TAGS, SPANS, SPANS_OR_NONE = KINDS["tagging"], KINDS["span-answers"], KINDS["span-answers-or-none"]


@dataclass(frozen=True)
class Case:
    """Labels as they are written in a source, and their names."""

    kind: TaskKind
    cells: list[Any]
    names: tuple[str, ...]

    @property
    def encoded(self) -> list[Any]:
        encode = self.kind.encoder(self.names)
        return [encode(cell) for cell in self.cells]

    @property
    def labels(self) -> NDArray[Any]:
        return self.kind.gold(self.examples)

    @property
    def task(self) -> Task:
        return Task("t", self.kind, self.names, self.kind.metrics_of(self.names), words=SPACES)

    @property
    def examples(self) -> Dataset:
        """A text of as many words as there are tags; a question and a text of three words."""
        texts = [" ".join("ab" for _ in np.atleast_1d(label)) for label in self.encoded]
        pairs = {"text_pair": [SPANNED] * len(texts)} if self.kind.link == "positions" else {}
        rows = self.task.rows_of_text({"text": texts, **pairs})
        return rows.add_column("label", self.encoded, feature=self.kind.label_type)

    def perfect(self) -> NDArray[Any]:
        """Logits that answer every row right."""
        if self.kind.link == "positions":
            return ragged([_ends(row) for row in self.labels])
        if not self.kind.one_answer:
            return ragged([8.0 * np.eye(self.task.outputs)[tags] - 4.0 for tags in self.labels])
        if self.kind.link == "identity":
            return np.nan_to_num(self.labels.reshape(len(self.labels), -1).astype(float))
        one_hot = np.eye(self.task.outputs)[self.labels] if self.kind.link == "softmax" else self.labels
        return np.asarray(8.0 * one_hot - 4.0)


SPANNED = "ab cd ef"


def _ends(gold: Any) -> NDArray[Any]:
    """Logits of the first gold answer of SPANNED, or of none."""
    first, last = words_of_answer(gold.words, *gold.answers[0]) if gold.answers else (-1, -1)
    return np.stack([8.0 * np.eye(4)[1 + place] - 4.0 for place in (first, last)], axis=-1)


CASES = {
    "two classes": Case(CLASSES, ["yes", "no", "yes", "no", "yes", "yes"], ("no", "yes")),
    "numbered classes": Case(CLASSES, ["10", 9, "2.0", 9.0, 10], ("2", "9", "10")),
    "scores": Case(SCORES, ["0.5", 2, 3.25, "1e0", 4.75], ()),
    "columns of scores": Case(
        SEVERAL,
        [LabelColumns(a=a, b=b) for a, b in (("0.5", 1), (2, "7"), (3.25, "-1e0"), ("1e0", 0.0), (4.75, 2.5))],
        ("a", "b"),
    ),
    "lists": Case(LABELS, [["b"], ["a", "c"], [], ["c"], ["b", "a"]], ("a", "b", "c")),
    "columns": Case(
        LABELS,
        [LabelColumns(a=a, b=b) for a, b in (("1", "0"), (1, 1), (True, False), ("0.0", "1.0"), ("false", "true"))],
        ("a", "b"),
    ),
    "entities": Case(
        TAGS,
        [["O", "B-place", "I-place"], ["O", "O"], ["B-person"], ["I-place", "O", "B-place"]],
        ("O", "B-person", "B-place", "I-person", "I-place"),
    ),
    "parts of speech": Case(TAGS, [["N", "V"], ["N", "V", "X"]], ("N", "V", "X")),
    "spans": Case(SPANS, [[[0, 2]], [[3, 8], [3, 5]], [[6, 8]]], ("start", "end")),
    "spans or none": Case(SPANS_OR_NONE, [[[0, 2]], [], [[3, 8]], []], ("start", "end")),
}
# whose answers are classes, decisions and scores, by themselves; those of spans: test_span_answers.py
SINGLE = {name: case for name, case in CASES.items() if case.kind.link != "positions"}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(params=SINGLE.values(), ids=SINGLE.keys())
def single(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def test_every_kind_has_a_case() -> None:
    assert {case.kind for case in CASES.values()} == set(KINDS.values())
    assert all(name == kind.name for name, kind in KINDS.items())


def test_the_kind_is_told_by_its_labels_and_by_its_models(case: Case) -> None:
    if case.kind not in (TAGS, SPANS, SPANS_OR_NONE):  # a source tells by its form that labels are these
        assert [kind for kind in KINDS.values() if kind.fits(case.cells)] == [case.kind]
    assert case.kind.label_names(case.cells) == case.names
    assert find_kind(case.kind.name) is case.kind
    assert kind_of_model(case.kind.problem_type, case.task.outputs, case.kind.name) is case.kind


def test_labels_are_read_back_as_they_are_written_to_files(case: Case) -> None:
    encode = case.kind.encoder(case.names)
    for label in case.encoded:
        again = encode(json.loads(json.dumps(case.kind.written(label, case.names))))
        np.testing.assert_array_equal(again, label)


@pytest.mark.parametrize("cell", [b"yes", {"name": "yes"}, [{"name": "a"}], [["a"]], "none of them", "inf", ["d"]])
def test_what_is_no_label_is_refused(case: Case, cell: Any) -> None:
    with pytest.raises(BadLabel):
        case.kind.encoder(case.names)(cell)


def test_labels_follow_a_model_that_counts_otherwise(case: Case) -> None:
    order = list(reversed(range(len(case.names))))
    renamed = tuple(case.names[order.index(place)] for place in range(len(case.names)))
    for label in case.encoded:
        moved = case.kind.permuted(label, order, len(order))
        before, after = case.kind.written(label, case.names), case.kind.written(moved, renamed)
        assert after == (sorted(before, reverse=True) if case.kind is LABELS else before)


def test_right_answers_score_best_and_a_constant_guess_does_not(case: Case) -> None:
    task, labels = case.task, case.labels
    best = task.score(case.perfect(), labels)
    assert list(best) == list(task.metrics)
    assert all(value == pytest.approx(1.0) for value in best.values())
    rng = np.random.default_rng(0)

    def drawn(rows: NDArray[Any]) -> NDArray[Any]:
        return rng.normal(size=rows.shape) if rows.dtype != object else ragged([drawn(row) for row in rows])

    draw = [drawn(case.perfect()) for _ in range(20)]
    assert all(task.score(logits, labels)[name] <= best[name] for logits in draw for name in best)
    assert task.chance(labels) < 1
    decoded = case.kind.decode(case.perfect(), case.examples)
    first = [label[:1] if case.kind.link == "positions" else label for label in case.encoded]
    assert [np.asarray(answer).tolist() for answer in decoded] == first
    assert agreement(case.perfect(), case.perfect(), case.kind.link) == pytest.approx(1.0)


def test_answers_fill_the_columns_they_announce(case: Case) -> None:
    columns = case.kind.answer_columns(case.names)
    rows = case.kind.answers(case.perfect(), case.names, case.examples)
    assert len(rows) == len(case.cells)
    assert all(tuple(row) == columns for row in rows)
    if case.kind in (SPANS, SPANS_OR_NONE):
        assert [row["prediction"] for row in rows] == [(gold.texts or [""])[0] for gold in case.labels]
    elif case.kind is SEVERAL:
        assert [[*row.values()] for row in rows] == case.encoded
    elif case.kind is not LABELS:  # no label at all is an empty text there
        read = case.kind.encoder(case.names)
        assert [read(row["prediction"]) for row in rows] == case.encoded
    assert case.kind.summary(case.encoded, case.encoded, case.names)


def test_strata_are_one_per_row(case: Case) -> None:
    strata = case.kind.strata(case.labels)
    assert strata is None or (strata.shape == (len(case.cells),) and strata.min() >= 0)


def test_the_losses_are_least_where_answers_are_right(single: Case) -> None:
    right = torch.tensor(flat(single.perfect()))
    wrong = right.roll(1, dims=0)
    labels = torch.tensor(flat(single.labels))

    def states(logits: torch.Tensor) -> EncoderStates:
        return EncoderStates(logits=logits, mask=torch.ones(len(logits), 1))

    for loss in (HardLabels(link=single.kind.link), SoftTargets(link=single.kind.link, temperature=2.0)):
        values = [loss(states(each), states(right), {"labels": labels}) for each in (right, wrong)]
        least, other = (sum(terms.values()) for terms in values)
        assert least < other


def test_a_row_without_a_label_adds_nothing_to_the_hard_labels(single: Case) -> None:
    """Its gradient is 0; the sum over the others is divided by all rows; with all labels it is the plain mean."""
    labels = torch.tensor(flat(single.labels))
    logits = torch.randn(len(labels), single.task.outputs, generator=torch.Generator().manual_seed(1))
    absent = torch.tensor([single.kind.absent(single.task.outputs) if single.kind.one_answer else NO_CLASS])
    loss = HardLabels(link=single.kind.link)

    def value_and_gradient(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = logits.clone().requires_grad_()
        states = EncoderStates(logits=leaf, mask=torch.ones(len(leaf), 1))
        (value,) = loss(states, states, {"labels": labels}).values()
        value.backward()
        assert leaf.grad is not None
        return value.detach(), leaf.grad

    plain = {
        "softmax": lambda z: torch.nn.functional.cross_entropy(z, labels),
        "identity": lambda z: torch.nn.functional.mse_loss(z, labels.float().view_as(z)),
        "sigmoid": lambda z: torch.nn.functional.binary_cross_entropy_with_logits(z, labels.float()),
    }[single.kind.link]
    whole, gradient = value_and_gradient(logits, labels)
    leaf = logits.clone().requires_grad_()
    plain(leaf).backward()
    assert torch.equal(whole, plain(logits))  # to the bit
    assert torch.equal(gradient, leaf.grad)

    rows = len(labels)
    partly, of_rows = value_and_gradient(torch.cat([logits, 3 * logits[:2]]), torch.cat([labels, absent, absent]))
    assert not of_rows[rows:].any()
    torch.testing.assert_close(partly, whole * rows / (rows + 2))
    torch.testing.assert_close(of_rows[:rows], gradient * rows / (rows + 2))
    nothing, of_rows = value_and_gradient(logits[:2], torch.cat([absent, absent]))
    assert nothing == 0
    assert not of_rows.any()


# ------------------------------------------------------------------------------------------------ names of classes


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["007", "07", "042", "7"], ("7", "007", "042", "07")),
        (["0.0", "1.0", "unknown"], ("0", "1", "unknown")),
        (["1", "1.0", "2"], ("1", "2")),
        (["1.0", "1.5"], ("1.0", "1.5")),
        (["nan", "inf", "fin"], ("fin", "inf", "nan")),
        (["0", "1", "nan"], ("0", "1")),
        (["9007199254740993", "9007199254740992"], ("9007199254740992", "9007199254740993")),
        (["1E1", "2E1", "1E2"], ("1E1", "1E2", "2E1")),
        (["-1", "10", "9"], ("-1", "9", "10")),
        (["-1.0", "-0.0", "0.0"], ("-1", "0")),
        (["LABEL_10", "LABEL_9", "LABEL_1"], ("LABEL_1", "LABEL_9", "LABEL_10")),
        (["True", "true", "FALSE", "no"], ("false", "no", "true")),
        (["TRUE", "False"], ("False", "TRUE")),
    ],
)
def test_classes_are_named_as_they_are_written(written: list[str], expected: tuple[str, ...]) -> None:
    assert class_names(written) == expected
    encode = CLASSES.encoder(expected)
    assert {encode(text) for text in written if text != "nan" or text in expected} == set(range(len(expected)))


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["a", "b", "a"], CLASSES),
        (["1", "2", "3", "1"], CLASSES),
        (["1.5", "2", "3"], SCORES),
        ([str(number) for number in range(21)], SCORES),
        ([str(number % 20) for number in range(60)], CLASSES),
        (["nan", "inf", "inf"], CLASSES),
        (["1.5", "x", "y"], CLASSES),
        (["a|b", "a", "b"], CLASSES),
        ([["a"], []], LABELS),
    ],
)
def test_kinds_are_found(cells: list[Any], kind: TaskKind) -> None:
    assert [found for found in KINDS.values() if found.fits(cells)] == [kind]


def test_what_is_not_plain_is_announced() -> None:
    assert "77" in SCORES.note([str(number) for number in range(77)], "label")
    assert SCORES.note(["0.5", "1"], "label") == ""
    assert "--kind multi-label" in CLASSES.note(["3", "27", "3,27"], "label")
    assert CLASSES.note(["New York, NY", "Rome"], "label") == ""


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with names(ConfigError, "--kind", "regresion", "regression"):
        find_kind("regresion")


def test_labels_of_text_are_split_by_bars_or_commas() -> None:
    assert LABELS.label_names(["b|a", "c", ""]) == ("a", "b", "c")
    assert LABELS.label_names(["3,27", "3"]) == ("3", "27")
    assert LABELS.label_names(["New York, NY|Rome", "Rome"]) == ("New York, NY", "Rome")
    encode = LABELS.encoder(("New York, NY", "Rome"))
    assert encode("New York, NY") == [1.0, 0.0]
    assert encode("Rome|New York, NY") == [1.0, 1.0]
    with pytest.raises(BadLabel):
        LABELS.encoder(("a",))(LabelColumns(a="2"))


@pytest.mark.parametrize("names", [("a", "b", "c"), ("a, b", "a", "b"), ("a|b", "a", "b"), ("a;b", "a", "b")])
def test_several_labels_are_read_back_as_they_are_answered(names: tuple[str, ...]) -> None:
    """A file of answers may have other labels: names are found in it, and nothing but marks tells them apart."""
    given = np.array([[1, -1, -1], [1, 1, -1], [-1, -1, 1], [-1, -1, -1], [-1, 1, -1]], dtype=float)
    cells = [with_list(row["prediction"]) for row in LABELS.answers(given, names, Dataset.from_dict({}))]
    assert LABELS.label_names(cells) == tuple(sorted(names))
    encode = LABELS.encoder(names)
    assert [encode(cell) for cell in cells] == (given > 0).astype(float).tolist()


def test_the_rarest_label_is_the_stratum() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0], [1, 0, 0], [1, 0, 1]])
    assert LABELS.strata(labels).tolist() == [1, 0, 2, 3, 0, 2]  # type: ignore[union-attr]
    assert LABELS.strata(np.zeros((3, 0))).tolist() == [0, 0, 0]  # type: ignore[union-attr]


# ---------------------------------------------------------------------------------------------------- metrics

PAIR = Task("pair", CLASSES, ("no", "yes"), ("accuracy", "f1", "matthews_corrcoef"))
STARS = Task("stars", CLASSES, ("1", "2", "3"), ("accuracy", "macro_f1"))
SIMILARITY = Task("similarity", SCORES, (), ("pearson", "spearman"))
TOPICS = Task("topics", LABELS, tuple("abcd"), ("micro_f1", "macro_f1", "mean_average_precision"))


def counts(answers: NDArray[Any], labels: NDArray[Any], positive: int) -> tuple[int, int, int, int]:
    p, t = answers == positive, labels == positive
    return int((p & t).sum()), int((p & ~t).sum()), int((~p & t).sum()), int((~p & ~t).sum())


def f1_by_hand(answers: NDArray[Any], labels: NDArray[Any], positive: int) -> float:
    tp, fp, fn, _ = counts(answers, labels, positive)
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0


def pearson_by_hand(x: NDArray[Any], y: NDArray[Any]) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()))


def test_binary_metrics_equal_their_formulas_on_random_confusions() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels, logits = rng.integers(0, 2, 40), rng.normal(size=(40, 2))
        answers = logits.argmax(1)
        tp, fp, fn, tn = counts(answers, labels, 1)
        product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        expected = {
            "accuracy": (tp + tn) / 40,
            "f1": f1_by_hand(answers, labels, 1),
            "matthews_corrcoef": (tp * tn - fp * fn) / math.sqrt(product) if product else 0.0,
        }
        assert PAIR.score(logits, labels) == pytest.approx(expected)
        positive = Task("pair", CLASSES, ("no", "yes"), ("f1",), positive="no")
        assert positive.score(logits, labels)["f1"] == pytest.approx(f1_by_hand(answers, labels, 0))


def test_macro_f1_is_the_mean_over_classes() -> None:
    rng = np.random.default_rng(1)
    labels, logits = rng.integers(0, 3, 60), rng.normal(size=(60, 3))
    by_hand = np.mean([f1_by_hand(logits.argmax(1), labels, index) for index in range(3)])
    assert STARS.score(logits, labels)["macro_f1"] == pytest.approx(by_hand)


def test_correlations_equal_their_formulas_and_take_both_shapes_of_logits() -> None:
    rng = np.random.default_rng(2)
    labels = rng.normal(size=30)
    logits = (labels + rng.normal(size=30)).astype(np.float32)
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (logits, labels)]
    found = SIMILARITY.score(logits[:, None], labels)
    assert found == pytest.approx({"pearson": pearson_by_hand(logits, labels), "spearman": pearson_by_hand(*ranks)})
    assert SIMILARITY.score(logits, labels) == found


def test_metrics_of_several_labels_equal_their_formulas() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        labels, logits = rng.integers(0, 2, (30, 4)), rng.normal(size=(30, 4))
        labels[:, 3] = 0  # a label that never occurs
        decided = (logits > 0).astype(int)
        expected = {
            "micro_f1": f1_by_hand(decided.ravel(), labels.ravel(), 1),
            "macro_f1": np.mean([f1_by_hand(decided[:, place], labels[:, place], 1) for place in range(3)]),
            "mean_average_precision": np.mean(
                [average_precision_score(labels[:, place], logits[:, place]) for place in range(3)]
            ),
        }
        assert TOPICS.score(logits, labels.astype(np.float32)) == pytest.approx(expected)
    nothing = np.zeros((3, 4))
    assert set(TOPICS.score(nothing - 1, nothing).values()) == {0.0}


@pytest.mark.parametrize(
    ("names_", "written", "place"),
    [
        (("0", "1"), "1.0", 1),
        (("0", "1"), "LABEL_1", 1),
        (("0", "1"), "True", 1),
        (("LABEL_0", "LABEL_1"), "1", 1),
        (("false", "true"), "1", 1),
        (("neg", "Pos"), "POS", 1),
        (("neg", "pos"), "1", None),
        (("us", "US"), "US", 1),
        (("us", "US"), "Us", None),  # it may be either
        (("7", "07", "007"), "007", 2),
        (("1", "true"), "True", 1),
        (("1", "LABEL_1"), "LABEL_1", 1),
    ],
)
def test_names_are_found_by_what_they_mean(names_: tuple[str, ...], written: str, place: int | None) -> None:
    assert name_finder(names_)(written) == place
    if place is None:
        with names(BadLabel, written, *names_):
            name_index(names_)(written)


def test_one_label_is_scored_by_its_presence_alone() -> None:
    flag = Task("flag", LABELS, ("flag",), ("micro_f1", "macro_f1"))
    labels, logits = np.array([[1.0], [0], [0], [0], [1]]), np.array([[2.0], [-1], [3], [-4], [-1]])
    assert flag.score(logits, labels) == {"micro_f1": 0.5, "macro_f1": 0.5}


@pytest.mark.parametrize("constant", [0.0, 2.5, -1e-9, 1e9])
def test_constant_outputs_have_correlation_zero_without_a_warning(constant: float) -> None:
    labels = np.array([1.0, 2.0, 3.0])
    outputs = np.array([constant, constant * (1 + 1e-15), constant])
    assert SIMILARITY.score(outputs, labels) == {"pearson": 0.0, "spearman": 0.0}
    assert PAIR.score(np.eye(2)[[1, 1, 1]], np.array([0, 1, 1]))["matthews_corrcoef"] == 0.0
    expected = {"accuracy": 1.0, "f1": 0.0, "matthews_corrcoef": 0.0}
    assert PAIR.score(np.eye(2)[[0, 0, 0]], np.array([0, 0, 0])) == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_no_numbers_are_refused(bad: float) -> None:
    logits = np.zeros((4, 2))
    logits[2, 1] = bad
    with names(ModelError, "1 of 4"):
        PAIR.score(logits, np.array([0, 1, 0, 1]))


def test_outputs_of_the_wrong_width_unknown_metrics_and_no_examples_are_refused() -> None:
    with names(ModelError, "[4, 3]", "pair", "[4, 2]"):
        PAIR.score(np.zeros((4, 3)), np.zeros(4, dtype=int))
    with names(ConfigError, "bleu", "accuracy"):
        Task("x", CLASSES, ("a", "b"), ("bleu",)).score(np.zeros((1, 2)), np.zeros(1, dtype=int))
    with names(DataError, "pair"):
        PAIR.score(np.zeros((0, 2)), np.zeros(0, dtype=int))


def test_chance_is_what_the_best_constant_guess_reaches() -> None:
    assert STARS.chance(np.array([2, 2, 2, 0, 1, 2])) == pytest.approx(4 / 6)
    assert SIMILARITY.chance(np.array([0.5, 3.0, 4.0])) == 0.0
    grammar = Task("grammar", CLASSES, ("bad", "good"), ("matthews_corrcoef",))
    assert grammar.chance(np.array([1, 1, 0])) == 0.0
    f1_first = Task("f1", CLASSES, ("no", "yes"), ("f1",))
    assert f1_first.chance(np.array([1, 1, 1, 0])) == pytest.approx(2 * 3 / (2 * 3 + 1))
    # Of 4 labels the first two for every row: 5 of 8 right, of 6 there are.
    labels = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]])
    assert TOPICS.chance(labels) == pytest.approx(2 * 5 / (8 + 6))


def test_probabilities_are_those_of_the_link() -> None:
    logits = np.array([[0.0, 2.0, -1.0]])
    assert probabilities(logits, "softmax").sum() == pytest.approx(1)
    assert probabilities(logits, "sigmoid")[0] == pytest.approx(1 / (1 + np.exp(-logits[0])))
    assert probabilities(logits, "identity")[0] == pytest.approx(logits[0])
    assert probabilities(np.array([[-1000.0, 1000.0]]), "sigmoid").tolist() == [[0.0, 1.0]]  # without a warning


@pytest.mark.parametrize("value", [1e-7, 0.1, 3.5, 12345.678, 16777217.0, -2e-30])
def test_scores_are_written_in_full(value: float) -> None:
    """A label as it was written, a model's answer as the shortest number that is the same float32."""
    kind = KINDS["regression"]
    assert kind.written(value, ()) == value
    (cells,) = kind.answers(np.array([[value]], dtype=np.float32), (), Dataset.from_dict({"text": [""]}))
    assert np.float32(cells["prediction"]) == np.float32(value)
    assert len(str(cells["prediction"])) <= len(str(float(np.float32(value))))
