"""What a compression delivers: the best that keeps the budget, a baseline where that is better, or nothing."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

from emdistill.console import conclude
from emdistill.files import folder_written_whole, put_back
from emdistill.runs.baseline_record import FOLDER as BASELINES
from emdistill.runs.compression import TEACHER, CandidateRow, CompressionRecord, CompressionStudy, FinalRow
from emdistill.runs.gate_record import GATE
from emdistill.search.budget import Budget
from emdistill.ship.candidates import nearest_miss
from emdistill.show.compress_report import behind, failures, finals_table, instead, miss, verdict, write_compress_report

CACHE, MODEL, PAGE = "teacher_cache", "model", "report.html"


def is_delivered(study: CompressionStudy) -> bool:
    """Whether nothing is left to do: the search has ended, and what it delivered is where it was put."""
    place = study.folder / MODEL
    put_back(place)
    return study.record.status == "finished" and (study.record.delivered is None or place.is_dir())


def forget_what_is_gone(study: CompressionStudy) -> None:
    """Take out of the record what has lost its folder, or never had one: it is made again."""
    record, folder = study.record, study.folder
    record.status, record.delivered = "searching", None
    record.finals = [final for final in record.finals if (folder / final.folder / GATE).is_file()]
    record.baselines = {name: row for name, row in record.baselines.items() if (folder / BASELINES / name).is_dir()}


def deliver(study: CompressionStudy, budget: Budget) -> None:
    """Copy the folder of the best that keeps the budget, or say what is nearest; then the page.

    A baseline is delivered where no student keeps the budget and is better.
    """
    record = study.record
    baseline = _best_baseline(record, budget)
    best = _best_final(record)
    if not record.finals:  # nothing will keep it, or the teacher alone, which could not be had
        sentence = _predicted_miss(record, budget)
    elif best is None:
        measured = {final.candidate: final.forms for final in record.finals}
        sentence = miss(record, budget, *nearest_miss(measured, budget), measured=True)
    elif baseline is not None and _is_ahead(record.baselines[baseline].held_out, best.held_out):
        sentence = behind(record, best, baseline)
    else:
        _copy(study.folder / best.folder / GATE.parent, study.folder)
        record.delivered = best.candidate
        _finish(study, verdict(record, best))
        return
    if baseline is not None:
        _copy(study.folder / BASELINES / baseline, study.folder)
        record.delivered, sentence = baseline, f"{sentence}; {instead(record, baseline)}"
    _finish(study, sentence)


def _best_final(record: CompressionRecord) -> FinalRow | None:
    """Of those that keep the budget the teacher, else the best by the rows that choose."""

    def worth(final: FinalRow) -> tuple[bool, float]:
        return final.candidate == TEACHER, -math.inf if final.held_out is None else final.held_out

    return max((final for final in record.finals if final.ship), key=worth, default=None)


def _is_ahead(baseline: float | None, student: float | None) -> bool:
    """By the rows that choose, on which the teacher has no score."""
    return baseline is not None and student is not None and baseline > student


def _best_baseline(record: CompressionRecord, budget: Budget) -> str | None:
    """Of the baselines that keep the budget, the best by the rows that choose."""
    keeping = {
        name: row.held_out
        for name, row in record.baselines.items()
        if row.held_out is not None and (cost := row.cost) and budget.keeps(cost)
    }
    return max(keeping, key=lambda name: keeping[name], default=None)


def _predicted_miss(record: CompressionRecord, budget: Budget) -> str:
    """What is nearest to the budget, before anything is measured; and why the teacher is not delivered."""
    candidates: Mapping[str, CandidateRow] = record.candidates
    if TEACHER in record.failed:
        candidates = {name: row for name, row in candidates.items() if name != TEACHER} or candidates
    nearest = nearest_miss({name: row.predicted for name, row in candidates.items()}, budget)
    return "; ".join([miss(record, budget, *nearest, measured=False), *failures(record)])


def _copy(place: Path, folder: Path) -> None:
    with folder_written_whole(folder / MODEL) as part:
        shutil.copytree(place, part, dirs_exist_ok=True)


def _finish(study: CompressionStudy, sentence: str) -> None:
    record, page = study.record, study.folder / PAGE
    record.verdict = sentence
    study.save()
    write_compress_report(page, record)
    shutil.rmtree(study.folder / CACHE, ignore_errors=True)
    record.status = "finished"
    study.save()
    tables = [finals_table(record)] if record.finals else []
    conclude(tables, [*record.notes, *failures(record)], sentence, f"the page: {page}")
