"""`emdistill report`: one run's page anew, several runs on one page, and where that page goes."""

from pathlib import Path

import pytest
from compressions import final_of, record_of
from messages import unnamed
from run_folders import add_flows, write_run_folder

from emdistill.cli import main
from emdistill.commands.report import report
from emdistill.runs.search_record import write_search


def write_comparison_folder(folder: Path) -> Path:
    """Two entries over two seeds, of which one run is under way."""
    for method, seed, status in (
        ("emd", 0, "finished"),
        ("emd", 1, "finished"),
        ("kd", 0, "finished"),
        ("kd", 1, "running"),
    ):
        write_run_folder(folder / "runs" / f"{method}-{seed}", method=method, seed=seed, status=status)
    return folder


def test_one_run_has_its_page_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run_folder(tmp_path / "run")
    add_flows(folder)
    (folder / "report.html").write_text("old")
    assert main(["report", str(folder)]) == 0
    assert str(folder / "report.html") in capsys.readouterr().out
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert not (tmp_path / "runs.html").exists()


def test_runs_of_one_folder_are_compared_beside_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(write_run_folder(tmp_path / name, method=name)) for name in ("first-run", "second-run")]
    assert main(["report", *folders, folders[0]]) == 0
    assert str(tmp_path / "runs.html") in capsys.readouterr().out
    page = (tmp_path / "runs.html").read_text(encoding="utf-8")
    assert not unnamed(page, 2, "first-run", "second-run")


def test_a_comparison_stands_for_its_finished_runs(tmp_path: Path) -> None:
    folder = write_comparison_folder(tmp_path / "comparison")
    page = report(str(folder))
    assert page == folder / "runs.html"
    text = page.read_text(encoding="utf-8")
    assert "1  emd" in text  # two seeds of it, taken together
    assert "2  kd-0" in text
    assert "3  " not in text
    further = write_run_folder(tmp_path / "further", method="minilm")
    assert main(["report", str(folder), str(further), "--output", str(tmp_path / "all.html")]) == 0
    assert "3  further" in (tmp_path / "all.html").read_text(encoding="utf-8")


def test_a_comparison_without_a_finished_run_has_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run_folder(tmp_path / "comparison" / "runs" / "emd-0", status="running")
    assert main(["report", str(tmp_path / "comparison")]) == 2
    assert not unnamed(capsys.readouterr().err, tmp_path / "comparison")


def test_a_finished_search_has_its_page_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_search(tmp_path, record_of({"small": [0.6]}, finals=[final_of("small", 0.9)], verdict="take the small one"))
    assert main(["report", str(tmp_path)]) == 2
    assert not unnamed(capsys.readouterr().err, tmp_path, "emdistill compress")  # it is not finished
    done = record_of({"small": [0.6]}, finals=[final_of("small", 0.9)], verdict="take it", status="finished")
    write_search(tmp_path, done)
    assert report(str(tmp_path)) == tmp_path / "report.html"
    assert "take it" in (tmp_path / "report.html").read_text(encoding="utf-8")
    (tmp_path / "mappings" / "study").mkdir(parents=True)
    assert main(["report", str(tmp_path / "mappings")]) == 2
    assert not unnamed(capsys.readouterr().err, tmp_path / "mappings", "mappings")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], ["RUN"]),
        (["nothing"], ["nothing", "run.json"]),
        (["a/run", "--output", "page.html"], ["a/run/report.html"]),
        (["a/run", "b/run"], [2, "--output"]),
        (["a/run", "b/run", "--output", "page.pdf"], [".html"]),
        (["a/run", "b/run", "--output", "none/page.html"], ["none"]),
        (["a/run", "b/run", "--output", "folder.html"], ["folder.html"]),
        (["a/run", "b/run", "--ouput", "page.html"], ["'ouput'", "'output'"]),
        (["a/run", "other", "--output", "page.html"], ["reviews", "another", "a/run", "other"]),
    ],
)
def test_what_cannot_be_reported_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    named: list[object],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run_folder(Path("a/run"))
    write_run_folder(Path("b/run"), method="minilm")
    write_run_folder(Path("other"), task="another")
    Path("folder.html").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", *words]) == 2
    assert not unnamed(capsys.readouterr().err, *named)
    assert sorted(tmp_path.rglob("*")) == before


def test_help_names_what_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--help"]) == 0
    said = capsys.readouterr().out
    assert "RUN ... " in said
    assert "--output OUTPUT" in said
