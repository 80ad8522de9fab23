"""The pages that people look at: one run's or one search's, written anew, or one that compares several runs."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from emdistill.commands.search_mapping import STUDY
from emdistill.errors import ConfigError, OutputError
from emdistill.runs.chain_search import ChainSearch
from emdistill.runs.comparison import RUNS
from emdistill.runs.compression import CompressionRecord
from emdistill.runs.places import check_file
from emdistill.runs.record import RUN_FILE, read_run
from emdistill.runs.search_record import SearchRecord, read_search
from emdistill.show.candidates import read_runs
from emdistill.show.chain_report import write_chain_report
from emdistill.show.compress_report import write_compress_report
from emdistill.show.run_report import write_run_report
from emdistill.show.runs_report import write_runs_report

PAGE = "runs.html"
OF_A_FOLDER = "report.html"
SEARCHES: dict[type[SearchRecord], Callable[[Path, Any], None]] = {
    CompressionRecord: write_compress_report,
    ChainSearch: write_chain_report,
}


def report(*runs: str, output: str | None = None) -> Path:
    """Write RUN/report.html anew for one run or search; for several runs, one page with sizes, latencies and scores.

    Returns the page. Raises OutputError for what is not finished, a broken record, or a page that cannot be written;
    ConfigError for runs whose scores are not comparable, or a page that has no name.

    Args:
        runs: folders of finished runs; the folder of a comparison stands for all its finished runs. Or one folder of
            a finished `compress` or `search-chain`.
        output: the comparing page, an .html file; runs.html beside the runs where all of them stand in one folder.
    """
    places = list({Path(run).resolve(): Path(run) for run in runs}.values())
    if not places:
        raise ConfigError("no run was named: emdistill report RUN, or several of them")
    if len(places) == 1 and not _is_comparison(places[0]):
        if output is not None:
            raise ConfigError(f"--output is for several runs; one run's page is {places[0] / OF_A_FOLDER}")
        return _search_page(places[0]) or write_run_report(places[0])
    folders = [run for place in places for run in (_finished_runs(place) if _is_comparison(place) else [place])]
    compared = read_runs(list({folder.resolve(): folder for folder in folders}.values()))
    page = _default_page(places) if output is None else Path(output)
    check_file(page, (".html",), overwrite=True)
    write_runs_report(page, compared)
    return page


@wraps(report)
def command(*runs: str, **options: Any) -> str:
    return f"{report(*runs, **options)}: the page"


def _search_page(folder: Path) -> Path | None:
    """The page of the search that stands in a folder; None where none does."""
    page = folder / OF_A_FOLDER
    if (folder / STUDY).is_dir():
        raise OutputError(f"{folder} holds a search for layer mappings; its own command writes its page anew")
    for kind, write in SEARCHES.items():
        record = read_search(folder, kind)
        if record is None:
            continue
        if record.status != "finished":
            raise OutputError(f"{folder}: the search is not finished; go on with it by its command: {record.command}")
        write(page, record)
        return page
    return None


def _is_comparison(folder: Path) -> bool:
    return not (folder / RUN_FILE).exists() and (folder / RUNS).is_dir()


def _finished_runs(folder: Path) -> list[Path]:
    """A comparison's runs; those that are under way are left for later."""
    runs = sorted(file.parent for file in (folder / RUNS).glob(f"*/{RUN_FILE}"))
    finished = [run for run in runs if read_run(run).is_finished]
    if not finished:
        raise OutputError(f"{folder} holds no finished run yet; finish the comparison, then report it")
    return finished


def _default_page(places: Sequence[Path]) -> Path:
    """runs.html in the one folder where all runs stand."""
    tops = dict((at.resolve(), at) if _is_comparison(at) else (at.resolve().parent, at.parent) for at in places)
    if len(tops) > 1:
        raise ConfigError(
            f"the runs stand in {len(tops)} folders; name the page that compares them: --output FILE.html"
        )
    return next(iter(tops.values())) / PAGE
