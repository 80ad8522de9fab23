"""What a page says of answers, by their link: figures against scikit-learn, and every part of the tables."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import plotly.graph_objects as plotly
import pytest
from messages import unnamed
from pages import Page, of_kind
from scipy.special import expit
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from emdistill.console import Table
from emdistill.runs.answers import Predictions
from emdistill.show import page
from emdistill.show.page import Row, Section, write_sections
from emdistill.show.sections.answers import ANSWERS
from emdistill.show.sections.disagreement import DISAGREEMENTS, disagreement_section, spans_section, words_section
from emdistill.states import NO_CLASS, Link
from emdistill.tasks import KINDS
from emdistill.tasks.answers import ragged

RANDOM = np.random.default_rng(11)
ROWS = 200
LINKS = {kind.link for kind in KINDS.values() if kind.one_answer}
NAMES = {"softmax": ("a", "b", "c"), "sigmoid": ("rude", "loud", "never"), "identity": ()}


def predictions(link: Link) -> Predictions:
    outputs = len(NAMES[link]) or 1
    gold = {
        "softmax": RANDOM.integers(outputs, size=ROWS),
        "sigmoid": RANDOM.random((ROWS, outputs)) < (0.4, 0.2, 0.0),
        "identity": RANDOM.normal(size=ROWS),
    }[link]
    logits = [RANDOM.normal(scale=2.0, size=(ROWS, outputs)).astype(np.float32) for _ in range(2)]
    return Predictions([f"text {row}" for row in range(ROWS)], [None] * ROWS, gold.astype(np.float64), *logits)


def test_every_link_has_its_section_and_every_kind_its_wording() -> None:
    wordings = page._environment().get_template("cards/wordings.md").module.WORDINGS
    assert set(ANSWERS) == set(get_args(Link))
    assert set(DISAGREEMENTS) == LINKS
    assert all({kind.name, kind.link} & set(wordings) for kind in KINDS.values())
    assert {kind.link for kind in KINDS.values()} <= set(ANSWERS)


@pytest.mark.parametrize("link", sorted(LINKS))
def test_every_link_fills_the_templates_with_charts_that_plotly_takes(link: Link, tmp_path: Path) -> None:
    given = predictions(link)
    heading, make = ANSWERS[link]
    parts = make(given, NAMES[link])
    sections = [Section(heading, parts), disagreement_section(given, NAMES[link], link)]
    write_sections(tmp_path / "page.html", "t", sections)
    charts = [chart for row in of_kind(Row, parts) for chart in row]
    assert len(charts) >= 2
    for chart in charts:
        plotly.Figure(chart.figure)
    assert not unnamed(" ".join(Page(tmp_path / "page.html").texts["p"]), f"{ROWS} rows")


@pytest.mark.parametrize(
    ("link", "labels"),
    [
        ("softmax", np.full(ROWS, NO_CLASS)),
        ("softmax", ragged([np.array([NO_CLASS])] * ROWS)),
        ("identity", np.full((ROWS, 3), np.nan)),
    ],
)
def test_a_set_without_any_gold_label_has_neither_charts_nor_tables(link: Link, labels: Any, tmp_path: Path) -> None:
    given = predictions("softmax")
    if labels.dtype == object:
        given = replace(given, **{name: ragged(list(rows[:, None])) for name, rows in given.models.items()})
    given = replace(given, labels=labels)
    heading, make = ANSWERS[link]
    parts = make(given, ("a", "b", "c"))
    assert not of_kind(Row, parts)
    assert not of_kind(Table, parts)
    write_sections(tmp_path / "page.html", "t", [Section(heading, parts)])
    assert not unnamed(" ".join(Page(tmp_path / "page.html").texts["p"]), "gold")


def test_labels_have_precision_recall_and_f1_of_both_models() -> None:
    given = predictions("sigmoid")
    (table,) = of_kind(Table, ANSWERS["sigmoid"][1](given, NAMES["sigmoid"]))
    for name, count, *cells in table.lines:
        place = NAMES["sigmoid"].index(name)
        gold = given.labels[:, place] > 0
        assert count == str(gold.sum())
        expected = [
            measure(gold, logits[:, place] > 0, zero_division=0.0)
            for logits in (given.teacher, given.student)
            for measure in (precision_score, recall_score, f1_score)
        ]
        assert cells == [f"{value:.3f}" for value in expected]
    assert table.lines[-1][0] == "never"  # the most frequent first


def test_one_label_is_scored_by_its_presence_alone() -> None:
    gold, logits = np.array([[1.0], [0], [0], [0], [1]]), np.array([[2], [-1], [3], [-4], [-1]], dtype=np.float32)
    given = Predictions(["t"] * 5, [None] * 5, gold, None, logits)
    (table,) = of_kind(Table, ANSWERS["sigmoid"][1](given, ["flag"]))
    assert table.lines == [["flag", "2", "0.500", "0.500", "0.500"]]


def test_the_least_frequent_of_many_labels_are_left_out_and_that_is_said() -> None:
    labels = np.zeros((30, 25))
    labels[:, 5:] = np.tri(30, 20)
    logits = np.zeros((30, 25), dtype=np.float32)
    given = Predictions(["t"] * 30, [None] * 30, labels, logits, logits)
    table, note, _ = ANSWERS["sigmoid"][1](given, [f"label {place}" for place in range(25)])
    assert [line[0] for line in table.lines] == [f"label {place}" for place in range(5, 25)]
    assert "25" in note


def test_confusion_counts_rows_by_gold_label_and_answer() -> None:
    given = predictions("softmax")
    _, matrices = of_kind(Row, ANSWERS["softmax"][1](given, NAMES["softmax"]))
    for chart, logits in zip(matrices, (given.teacher, given.student), strict=True):
        counts = [[cell[0] for cell in line] for line in chart.figure["data"][0]["customdata"]]
        assert counts == confusion_matrix(given.labels, logits.argmax(axis=1)).tolist()


def lines_of(section: Section) -> list[list[str]]:
    return [list(line) for table in of_kind(Table, section.parts) for line in table.lines]


def test_rows_of_several_labels_name_those_that_hold_and_the_likeliest_of_none() -> None:
    labels = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    teacher = np.array([[2.0, -2.0, 1.0], [-3.0, -1.0, -2.0]], dtype=np.float32)
    student = np.array([[2.0, 3.0, -1.0], [-3.0, -1.0, -1.5]], dtype=np.float32)
    given = Predictions(["first", "second"], [None, None], labels, teacher, student)
    section = disagreement_section(given, NAMES["sigmoid"], "sigmoid")
    assert "1 of 2 rows" in section.parts[0]
    first, second = lines_of(section)
    assert first[:4] == ["first", "rude, never", "rude (0.88), never (0.73)", "rude (0.88), loud (0.95)"]
    assert second[:4] == ["second", "none", "none; loud (0.27)", "none; loud (0.27)"]
    divergence = sum((expit(t) - expit(s)) * (t - s) for t, s in ((-2.0, 3.0), (1.0, -1.0)))
    assert first[4:] == [f"{divergence:.2f}", "0"]


def test_spans_are_told_apart_by_question_and_listed_by_disagreement(tmp_path: Path) -> None:
    """Three questions on "ab cd ef"; the teacher answers all right, the student the first one half right."""
    words = [[(0, 2), (3, 5), (6, 8)]] * 3
    labels = ragged([np.array([[0, 5]]), np.array([[6, 8]]), np.array([[3, 5]])])

    def ends(*spans: tuple[int, int]) -> np.ndarray:
        """Logits of the first and the last word of each span."""
        rows = [[np.eye(4)[1 + place] * 9 for place in span] for span in spans]
        return ragged([np.stack(row, axis=-1).astype(np.float32) for row in rows])

    teacher, student = ends((0, 1), (2, 2), (1, 1)), ends((0, 0), (2, 2), (1, 1))
    questions = ["what is it?", "And who?", "is it?"]
    given = Predictions(questions, ["ab cd ef"] * 3, labels, teacher, student, words)
    table, row = ANSWERS["positions"][1](given, ("start", "end"))
    assert table.lines == [
        ["what", "1", "1.000", "1.000", "0.000", "0.667"],
        ["who", "1", "1.000", "1.000", "1.000", "1.000"],
        ["others", "1", "1.000", "1.000", "1.000", "1.000"],
    ]
    for chart in row:
        plotly.Figure(chart.figure)
    section = spans_section(given)
    assert "2 of 3 questions" in section.parts[0]
    ((texts, *cells),) = lines_of(section)
    assert texts == "what is it?\nab cd ef"
    assert [cell.partition(" (")[0] for cell in cells[:3]] == ["ab cd", "ab cd", "ab"]
    write_sections(tmp_path / "page.html", "t", [section])
    assert "ab cd" in Page(tmp_path / "page.html").texts["td"]


def test_rows_on_which_both_agree_wholly_are_left_out() -> None:
    logits = np.array([[1.0], [2.0]], dtype=np.float32)
    given = Predictions(["a", "b"], [None, "c"], np.array([1.0, 2.5]), logits, logits + np.float32([[0.0], [0.5]]))
    section = disagreement_section(given, (), "identity")
    assert lines_of(section) == [["b\nc", "2.5", "2.00", "2.50", "0.50", "1"]]
    assert "0.250" in section.parts[0]


TAGS = ("O", "B-x", "B-y", "I-x", "I-y")


def tagged() -> Predictions:
    """Ann x, in, New York y, and one more sentence; the student takes York for the beginning of another y."""
    texts = ["Ann in New York", "Bob"]
    words = [[(0, 3), (4, 6), (7, 10), (11, 15)], [(0, 3)]]
    gold = ragged([np.array([1.0, 0.0, 2.0, 4.0]), np.array([1.0])])
    right = [4 * np.eye(5)[row.astype(int)] for row in gold]
    wrong = [right[0].copy(), right[1] * 0.9]
    wrong[0][3] = 4 * np.eye(5)[2]
    return Predictions(texts, [None, None], gold, ragged(right), ragged(wrong), words)


def test_entities_are_scored_by_type_and_words_beside_each_other() -> None:
    (table,) = of_kind(Table, ANSWERS["softmax"][1](tagged(), TAGS))
    assert [line[:2] for line in table.lines] == [["x", "2"], ["y", "1"]]
    assert [line[2:] for line in table.lines] == [["1.000"] * 6, ["1.000"] * 3 + ["0.000"] * 3]
    section = words_section(tagged(), TAGS)
    assert "4 of 5 words" in section.parts[0]
    first, second = lines_of(section)
    assert first[:2] == ["Ann in New York", "York: I-y"]
    assert first[2].startswith("York: I-y (")
    assert first[3].startswith("York: B-y (")
    assert second[1] == "Bob: B-x"


def test_plain_tags_have_no_entities() -> None:
    assert not of_kind(Table, ANSWERS["softmax"][1](tagged(), ("a", "b", "c", "d", "e")))
