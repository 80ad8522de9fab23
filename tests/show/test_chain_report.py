"""What is said of a search for chains, from its record alone."""

from dataclasses import replace
from pathlib import Path

import pytest
from messages import unnamed
from pages import Page

from emdistill.runs.chain_search import TEACHER, ChainRow, ChainSearch
from emdistill.runs.gate_record import Machine
from emdistill.search.chains import ChainCost
from emdistill.show.chain_report import limits_table, notes, verdict, write_chain_report

WORDS = ("af", "afa", "afaf", "c3")


@pytest.fixture
def record() -> ChainSearch:
    """Four chains: the smaller the loss the smaller the error, but for one pair the score."""
    scores = (0.7, 0.8, 0.75, 0.5)
    chains = {
        word: ChainRow(
            ((word,),), 4.0 / (place + 1) if word != "c3" else 5.0, ChainCost(1_000_000 * (place + 1), 1.0 + place),
            end_error=1.0 / (place + 1) if word != "c3" else 2.0, found=scores[place],
        )
        for place, word in enumerate(WORDS)
    }  # fmt: skip
    return ChainSearch(
        command="emdistill search-chain", settings={"runtime": "onnx", "length": 64}, task="toy", metric="accuracy",
        machine=Machine("a processor", 2, 1), dev_rows=100, teacher={"accuracy": 0.9}, chains=chains,
        returned={"1.5M": "af", "2M/9ms": "afa", "2ms": "afaf", "any": "c3"},
        measured={word: row.cost for word, row in chains.items()} | {TEACHER: ChainCost(9_000_000, 9.0)},
    )  # fmt: skip


def test_the_verdict_counts_what_is_kept_and_names_the_best_of_it(record: ChainSearch) -> None:
    assert not unnamed(verdict(record), "3 of 4", "chain:afa", "2M/9ms", "0.8000", "10.0 points below", "9M", "9 ms")
    assert [line[-1] for line in limits_table(record).lines] == ["yes", "yes", "1 ms over", "yes"]
    record.chains["afaf"] = replace(record.chains["afaf"], distilled=0.99)
    assert "chain:afaf" not in verdict(record)  # it misses its limit
    record.returned = {"2ms": "afaf"}
    assert not unnamed(verdict(record), "0 of 1 limit")


def test_the_estimate_is_held_against_errors_and_scores(record: ChainSearch) -> None:
    errors, scores = notes(record)
    assert not unnamed(errors, "4 chains", "1.00")
    assert not unnamed(scores, "accuracy", "0.80")  # one pair of neighbours is the other way round: 1 - 6 · 2 / 60
    record.chains = {word: record.chains[word] for word in ("af", "afa")}
    record.returned = {"any": "af", "2M": "afa"}
    assert notes(record) == []  # two have no order to speak of


def test_the_page_has_the_front_and_what_stands_beside_it(record: ChainSearch, tmp_path: Path) -> None:
    record.verdict = verdict(record)
    write_chain_report(tmp_path / "report.html", record)
    page = Page(tmp_path / "report.html")
    assert record.verdict in " ".join(page.texts["p"])
    assert not unnamed(" ".join(page.texts["th"] + page.texts["td"]), "chain:afa", "teacher", "1 ms over")
