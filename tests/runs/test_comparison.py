"""Comparisons: the statistics against SciPy and by hand, the tables, the picture and the page from run folders."""

import json
import math
import re
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from messages import names, unnamed
from pages import Page
from rich.console import Console
from run_folders import read_record, write_record, write_run_folder
from scipy.stats import ttest_rel

from emdistill.console import print_table
from emdistill.errors import DataError, OutputError
from emdistill.runs.comparison import (
    Comparison,
    EntryResult,
    PairedDifference,
    compare_entries,
    holm,
    paired_difference,
    read_comparison,
    run_place,
)
from emdistill.show.comparison_report import (
    comparison_notes,
    comparison_record,
    differences_markdown,
    differences_table,
    write_comparison,
)

# ------------------------------------------------------------------------------------------------------ statistics


@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 30])
@pytest.mark.parametrize("draw", range(4))
def test_interval_and_p_are_those_of_the_paired_t_test(seeds: int, draw: int) -> None:
    random = np.random.default_rng([seeds, draw])
    values, baseline = random.normal(0.75, 0.02, seeds), random.normal(0.74, 0.02, seeds)
    ours = paired_difference(values.tolist(), baseline.tolist())
    theirs = ttest_rel(values, baseline)
    interval = theirs.confidence_interval(0.95)
    assert ours.mean == pytest.approx(np.mean(values - baseline))
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))
    assert ours.p == pytest.approx(theirs.pvalue)
    assert ours.wins + ours.ties + ours.losses == seeds
    # the interval leaves out 0 exactly where p is below 5 %
    shown = ours.finding != "no difference shown"
    assert shown == (interval.low > 0 or interval.high < 0)


def test_a_difference_by_hand() -> None:
    """d = 2, 4, 6 hundredths: mean 4, s = 2, s/√3 = 1.1547, t(2) = 4.3027."""
    found = paired_difference([0.52, 0.54, 0.56], [0.50, 0.50, 0.50])
    reach = 4.302652729911275 * 0.02 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((0.04, 0.04 - reach, 0.04 + reach))
    assert (found.wins, found.ties, found.losses) == (3, 0, 0)
    # of Student's t with 2 degrees: p = 1 - t/√(2 + t²), t = 0.04 / 0.011547 = √12
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14))
    assert found.finding == "no difference shown"
    assert paired_difference([0.5, 0.6, 0.4], [0.5, 0.5, 0.5]).ties == 1


def test_one_seed_shows_nothing() -> None:
    assert paired_difference([0.9], [0.1]) == PairedDifference(pytest.approx(0.8), None, None, 1, 0, 0, None)
    assert PairedDifference(0.8, None, None, 1, 0, 0, None).finding == "no difference shown"


def test_equal_scores_are_no_difference_and_no_nan() -> None:
    assert paired_difference([0.7, 0.8, 0.9], [0.7, 0.8, 0.9]) == PairedDifference(0.0, None, None, 0, 3, 0, 1.0)


@pytest.mark.parametrize(("seeds", "verdict"), [(2, "no difference shown"), (5, "no difference shown"), (6, "worse")])
def test_differences_that_do_not_vary_are_judged_by_their_sign(seeds: int, verdict: str) -> None:
    """Rounding makes 0.75 - 0.76 and 0.25 - 0.26 differ in the last digit; that is no spread to divide by."""
    values, baseline = ([0.75, 0.25] * 3)[:seeds], ([0.76, 0.26] * 3)[:seeds]
    found = paired_difference(values, baseline)
    assert found == PairedDifference(pytest.approx(-0.01), None, None, 0, 0, seeds, 2.0 ** (1 - seeds))
    assert found.finding == verdict


@pytest.mark.parametrize(("values", "baseline"), [([], []), ([0.5], [0.5, 0.6])])
def test_what_cannot_be_paired_is_refused(values: list[float], baseline: list[float]) -> None:
    with pytest.raises(DataError):
        paired_difference(values, baseline)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3·.01; 2·.03; never below the one before
    assert holm([0.5, 0.9, 0.001]) == pytest.approx([1.0, 1.0, 0.003])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_the_finding_needs_a_p_below_5_percent() -> None:
    assert PairedDifference(0.1, None, None, 1, 0, 0, 0.049).finding == "better"
    assert PairedDifference(-0.1, None, None, 1, 0, 0, 0.049).finding == "worse"
    assert PairedDifference(0.1, None, None, 1, 0, 0, 0.05).finding == "no difference shown"


def entry(name: str, scores: dict[int, float]) -> EntryResult:
    return EntryResult(
        name, {seed: {"accuracy": score, "f1": score / 2} for seed, score in scores.items()}, dict.fromkeys(scores, 2.0)
    )


def test_differences_are_over_the_seeds_that_both_have() -> None:
    base = entry("base", {0: 0.5, 1: 0.6})
    other = entry("other", {1: 0.7, 2: 0.9, 0: 0.5})
    alone = entry("alone", {5: 0.9})
    found = compare_entries([other, base, alone], "base", "accuracy")
    assert found[0].differences == pytest.approx({1: 0.1, 0: 0.0})
    assert found[0].difference == paired_difference([0.7, 0.5], [0.6, 0.5])
    assert found[0].p_holm == found[0].difference.p  # one comparison alone has nothing to correct
    assert found[1].difference is found[1].finding is None
    assert found[2].difference is None
    assert (found[0].mean("accuracy"), found[0].deviation("accuracy")) == pytest.approx((0.7, 0.2))
    assert found[2].deviation("accuracy") is None


# ------------------------------------------------------------------------------------------------------ run folders

TEACHER = {"accuracy": 0.86, "f1": 0.9}


def write_runs(folder: Path, scores: dict[str, dict[int, float]], *, torch: str = "2.13.0") -> None:
    for name, of_entry in scores.items():
        for seed, score in of_entry.items():
            place = write_run_folder(run_place(folder, name, seed), seed=seed, task="mrpc")
            run = read_record(place)
            run["task"] |= {"metrics": ["accuracy", "f1"], "evaluation_rows": {"dev": 408}}
            run["scores"] = {"teacher": TEACHER, "student": {"accuracy": score, "f1": score + 0.05}}
            run["timings"]["training_seconds"] = 30.0 + seed
            run["versions"]["torch"] = torch
            write_record(place, run)


SCORES = {
    "soft-targets": {0: 0.740, 1: 0.735, 2: 0.751, 3: 0.742, 4: 0.738},
    "tinybert@last": {0: 0.742, 1: 0.730, 2: 0.751, 3: 0.748, 4: 0.731},
    "bert-emd": {0: 0.760, 1: 0.757, 2: 0.770, 3: 0.765, 4: 0.756},
}


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    write_runs(tmp_path, SCORES)
    found = read_comparison(tmp_path, list(SCORES), range(5))
    assert found is not None
    return found


def printed(comparison: Comparison, width: int = 80) -> str:
    out = StringIO()
    print_table(differences_table(comparison), Console(file=out, width=width))
    return out.getvalue()


def line(text: str, name: str) -> str:
    return " ".join(next(line for line in text.splitlines() if name in line).split())


def test_a_comparison_is_read_from_finished_runs(comparison: Comparison) -> None:
    assert comparison.baseline == "soft-targets"  # the first one, where none is named
    assert comparison.teacher == TEACHER
    assert comparison.missing == 0
    best = comparison.entries[2]
    theirs = ttest_rel(list(SCORES["bert-emd"].values()), list(SCORES["soft-targets"].values()))
    assert best.difference is not None
    assert best.difference.p == pytest.approx(theirs.pvalue)
    assert best.p_holm == pytest.approx(2 * theirs.pvalue)
    assert (best.finding, best.survives) == ("better", True)
    assert best.mean_seconds == 32.0
    assert comparison.entries[1].finding == "no difference shown"


def test_the_table_says_it_in_80_columns(comparison: Comparison) -> None:
    text = printed(comparison)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.splitlines()[0].strip() == "mrpc, dev: 5 seeds"
    assert line(text, "teacher").startswith("teacher 0.860 –")
    assert line(text, "bert-emd") == "bert-emd 0.762 ± 0.006 +.020 [+.018, +.023] 5/0/0 32 better"
    assert line(text, "tinybert@last").startswith("tinybert@last 0.740 ± 0.010 -.001 [-.007, +.006] 2/1/2 32 no")
    assert re.search(r"soft-targets +0.741 ± 0.006 +– +– +32 +baseline", text)
    rows = [" ".join(row.split()) for row in text.splitlines()]
    assert rows.index(line(text, "teacher")) < rows.index(line(text, "0.741"))


def test_markdown_has_the_p_values_beside_it(comparison: Comparison) -> None:
    header, rule, *rows = (
        [c.strip() for c in row.split("|")[1:-1]] for row in differences_markdown(comparison).splitlines()
    )
    assert header[-2:] == ["p", "p (Holm)"]
    assert len(header) == len(rule) == 8
    assert [row[0] for row in rows] == ["teacher", *SCORES]
    assert all(len(row) == 8 for row in rows)
    assert rows[3][-3:] == ["better", "< 0.001", "< 0.001"]
    assert rows[1][-3:] == ["baseline", "–", "–"]


def test_the_notes_say_how_scores_were_had_and_what_stands(comparison: Comparison, tmp_path: Path) -> None:
    folder = tmp_path  # that of `comparison`
    notes = comparison_notes(comparison)
    assert len(notes) == 3
    assert not unnamed(notes[0], "dev", "408 rows", read_record(run_place(folder, "bert-emd", 0))["selection"])
    assert not unnamed(notes[2], 2, "soft-targets", "bert-emd", "better", "p < 0.001", "adjusted < 0.001")


def test_a_finding_that_holm_takes_back_is_said(tmp_path: Path) -> None:
    base = dict.fromkeys(range(5), 0.5)
    shifted = dict(enumerate([0.51, 0.53, 0.50, 0.525, 0.515]))  # p = .033
    write_runs(tmp_path, {"base": base, "a": shifted, "b": dict(enumerate([0.49, 0.51, 0.5, 0.5, 0.5]))})
    found = read_comparison(tmp_path, ["a", "b", "base"], range(5), "base")
    assert found is not None
    assert (found.entries[0].finding, found.entries[0].survives) == ("better", False)
    (note,) = (note for note in comparison_notes(found) if "adjusted" in note)
    assert not unnamed(note, "a", "better", re.compile(r"adjusted 0\.0\d\d"))
    write_runs(tmp_path, {"a": base})
    found = read_comparison(tmp_path, ["a", "b", "base"], range(5), "base")
    assert found is not None
    assert any(not unnamed(note, 2, "base") for note in comparison_notes(found))
    assert not any("adjusted" in note for note in comparison_notes(found))
    assert "+.000 each" in printed(found)


def test_one_seed_is_no_finding(tmp_path: Path) -> None:
    write_runs(tmp_path, {"a": {7: 0.5}, "b": {7: 0.9}})
    found = read_comparison(tmp_path, ["a", "b"], [7])
    assert found is not None
    text = printed(found, 120)
    assert line(text, "b ") == "b 0.900 +.400 1/0/0 37 no difference shown"
    assert text.splitlines()[0].strip() == "mrpc, dev: 1 seed"
    assert any("--seeds" in note for note in comparison_notes(found))
    write_comparison(tmp_path, found)  # the chart has no interval then
    _, means = chart_of(tmp_path / "report.html")["data"]
    assert (means["x"], means["error_x"]["array"]) == ([pytest.approx(0.4)], [0.0])


def test_half_a_comparison_is_shown_and_said(tmp_path: Path) -> None:
    assert read_comparison(tmp_path, ["a", "b"], [0, 1]) is None
    write_runs(tmp_path, {"a": {0: 0.5, 1: 0.6}, "b": {0: 0.7}}, torch="2.13.0")
    write_runs(tmp_path, {"b": {1: 0.7}}, torch="2.14.0")
    write_run_folder(run_place(tmp_path, "c", 0), status="running")
    found = read_comparison(tmp_path, ["a", "b", "c"], [0, 1, 2])
    assert found is not None
    assert found.missing == 5
    assert "not run yet" in line(printed(found, 120), "c ")
    notes = "\n".join(comparison_notes(found))
    assert not unnamed(notes, 5, 9, "a 2", "b 2", "c 0", "torch", "2.13.0, 2.14.0")
    record = comparison_record(found)
    assert record["status"] == "interrupted"
    write_comparison(tmp_path, found)


def test_everything_is_written_and_equal_comparisons_give_equal_bytes(comparison: Comparison, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_comparison(tmp_path / name, comparison, command="emdistill compare --methods a,b")
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert files == ["comparison.json", "comparison.md", "plotly.min.js", "report.html"]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
    record = json.loads((tmp_path / "one" / "comparison.json").read_text())
    assert record["status"] == "finished"
    assert record["entries"][2]["difference"]["wins"] == 5
    assert record["entries"][2]["finding"] == "better"
    assert record["entries"][2]["scores"]["3"]["accuracy"] == 0.765
    page = (tmp_path / "one" / "report.html").read_text()
    (told,) = re.findall(r"bert-emd: better;[^<\"]*", page)[:1]
    assert not unnamed(told, "+.020", "[+.018, +.023]", "5 seeds", "5 won", "0 lost")
    assert "emdistill compare --methods a,b" in page
    assert "<td>0.812</td>" in page  # the mean of the second metric
    markdown = (tmp_path / "one" / "comparison.md").read_text()
    assert markdown.startswith(differences_markdown(comparison))
    assert not unnamed(markdown, *(f"- {note}" for note in comparison_notes(comparison)))


def test_the_chart_has_every_seed_and_the_intervals_and_an_old_picture_does_not_stay(
    comparison: Comparison, tmp_path: Path
) -> None:
    (tmp_path / "differences.png").write_bytes(b"of an earlier version")
    write_comparison(tmp_path, comparison)
    assert not (tmp_path / "differences.png").exists()
    seeds, means = chart_of(tmp_path / "report.html")["data"]
    assert len(seeds["x"]) == 10
    best = comparison.entries[2].difference
    assert best is not None
    assert means["x"][1] == pytest.approx(best.mean)
    assert means["x"][1] - means["error_x"]["arrayminus"][1] == pytest.approx(best.low, rel=1e-3)
    assert means["x"][1] + means["error_x"]["array"][1] == pytest.approx(best.high, rel=1e-3)


def test_entries_without_a_seed_in_common_have_no_chart(tmp_path: Path) -> None:
    write_runs(tmp_path, {"a": {0: 0.5}, "b": {1: 0.5}})
    apart = read_comparison(tmp_path, ["a", "b"], [0, 1])
    assert apart is not None
    write_comparison(tmp_path, apart)
    assert Page(tmp_path / "report.html").charts == []


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    write_runs(tmp_path, {"a": {0: 0.5}, "b": {0: 0.5}})
    run = read_record(run_place(tmp_path, "b", 0))
    del run["scores"]["student"]["accuracy"]
    write_record(run_place(tmp_path, "b", 0), run)
    with names(OutputError, run_place(tmp_path, "b", 0) / "run.json", "scores.student.accuracy"):
        read_comparison(tmp_path, ["a", "b"], [0])


def chart_of(page: Path) -> dict[str, Any]:
    (chart,) = Page(page).charts
    return chart
