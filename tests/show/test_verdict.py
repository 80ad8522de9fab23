"""The sentence and the table on made-up figures."""

from dataclasses import replace
from pathlib import Path

import pytest
from messages import names, unnamed
from pages import Page
from run_folders import HOSTILE, write_run_folder

from emdistill.errors import ConfigError, OutputError
from emdistill.runs.baseline_record import (
    TITLES,
    BaselineRecord,
    ModelRow,
    baseline_names,
    read_baselines,
    write_baselines,
)
from emdistill.runs.gate_record import Machine
from emdistill.ship.baselines import BASELINES
from emdistill.show.run_report import write_run_report
from emdistill.show.verdict import baseline_notes, baselines_table, verdict


def row(score: float, ms: float, error: float | None = 0.5) -> ModelRow:
    """Of a model beside a student with .80."""
    lead = round(100 * (0.8 - score), 6)
    return ModelRow(scores={"accuracy": score}, lead=lead, lead_error=error, p50=ms, p95=2 * ms, bytes=10**6)


def record(**baselines: ModelRow) -> BaselineRecord:
    """A student with .80 in 10 ms, a teacher with .85 in 40 ms."""
    return BaselineRecord(
        metric="accuracy", dev_rows=2000, machine=Machine("a processor", 2, 1), teacher=row(0.85, 40.0),
        student=ModelRow(scores={"accuracy": 0.8}, standard_error=0.9, p50=10.0, p95=20.0, seconds=60.0),
        baselines={name.replace("_", "-"): row for name, row in baselines.items()},
    )  # fmt: skip


def test_where_no_baseline_could_be_computed_none_is_said_to_be_slow() -> None:
    slow_student = replace(record(static=ModelRow(problem="no package")), teacher=row(0.85, 10.0))
    assert not unnamed(verdict(slow_student), "94.1%", "accuracy")
    assert "computed" in verdict(replace(slow_student, teacher=row(0.0, 10.0)))
    assert "as fast as" not in verdict(slow_student)


@pytest.mark.parametrize(
    ("baselines", "named", "absent"),
    [
        ({"tfidf": row(0.788, 0.5)}, ["1.2 points better than TF-IDF", "4.0 times faster than the teacher"], "take"),
        ({"tfidf": row(0.85, 0.5)}, ["take TF-IDF", "5.0 points better", "20 times faster"], "teacher"),
        ({"tfidf": row(0.795, 0.5)}, ["level with TF-IDF", "noise", "+0.5 ± 0.5", "20 times slower"], "take"),
        ({"tfidf": row(0.795, 0.5, None)}, ["0.5 points better than TF-IDF"], "noise"),
        ({"tfidf": row(0.7, 0.5), "labels": row(0.82, 10.0)}, ["take labels alone", "2.0 points"], "TF-IDF"),
        ({"tfidf": row(0.7, 0.5), "frozen": row(0.83, 30.0)}, ["than TF-IDF", "3.0 times slower"], "take"),
        ({"tfidf": row(0.7, 0.5), "int8_teacher": row(0.84, 5.0)}, ["than TF-IDF", "int8", "4.0 times slower"], "take"),
        ({"frozen": row(0.7, 30.0)}, ["4.0 times faster than the teacher"], "frozen"),
        ({"static": ModelRow(problem="no package")}, ["94.1%", "is 4.0 times faster than the teacher"], "static"),
    ],
)  # fmt: skip
def test_one_sentence_compares(baselines: dict[str, ModelRow], named: list[str], absent: str) -> None:
    sentence = verdict(record(**baselines))
    assert not unnamed(sentence, *named)
    assert absent not in sentence
    assert "\n" not in sentence


def test_the_table_marks_what_nothing_beats_and_the_notes_say_why_a_baseline_is_missing() -> None:
    missing = ModelRow(problem="get it with pip")
    measured = record(tfidf=row(0.7, 0.5), frozen=row(0.75, 30.0), static=missing)
    front = {line[0]: line[-1] for line in baselines_table(measured).lines}
    assert {name for name, mark in front.items() if mark} == {"student", "teacher", "TF-IDF"}
    assert any("get it with pip" in note for note in baseline_notes(measured))


def test_names_are_read_in_one_order_and_refused_with_the_nearest() -> None:
    assert set(BASELINES) == set(TITLES)
    assert baseline_names("all") == tuple(TITLES)
    assert baseline_names("none") == ()
    assert baseline_names("frozen, tfidf") == ("tfidf", "frozen")
    for wrong, nearest in (("tfdif", "'tfidf'"), ("tfidf,label", "'labels'"), (",", "none")):
        with names(ConfigError, "--baselines", nearest):
            baseline_names(wrong)


def test_the_page_of_a_run_has_the_sentence_and_the_table(tmp_path: Path) -> None:
    folder = write_run_folder(tmp_path / "run")
    heading = "Is it worth it?"
    assert heading not in Page(write_run_report(folder)).texts["h2"]
    measured = record(tfidf=row(0.788, 0.5), static=ModelRow(problem=HOSTILE[0]))
    write_baselines(folder, measured)
    assert read_baselines(folder) == measured
    page = Page(write_run_report(folder))
    assert heading in page.texts["h2"]
    sentence = verdict(measured)
    assert any(text[1:-1] == sentence[1:] for text in page.texts["p"])
    assert any(HOSTILE[0] in text for text in page.texts["li"])


def test_a_broken_record_names_its_file(tmp_path: Path) -> None:
    write_baselines(tmp_path, replace(record(), notes=("a",)))
    path = tmp_path / "baselines.json"
    path.write_text(path.read_text().replace('"accuracy": 0.85', '"f1": 0.85'))
    with names(OutputError, path, "teacher", "accuracy"):
        read_baselines(tmp_path)
