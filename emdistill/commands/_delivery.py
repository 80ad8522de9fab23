"""What a compression delivers: the best that keeps the budget, a baseline where that is better, or nothing."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from emdistill.console import conclude
from emdistill.files import folder_written_whole
from emdistill.runs.baseline_record import FOLDER as BASELINES
from emdistill.runs.compression import TEACHER, CandidateRow, CompressionRecord, CompressionStudy
from emdistill.runs.gate_record import GATE
from emdistill.search.budget import Budget
from emdistill.ship.candidates import nearest_miss
from emdistill.show.compress_report import behind, finals_table, instead, miss, verdict, write_compress_report

CACHE, MODEL, PAGE = "teacher_cache", "model", "report.html"
NOT_EXPORTED = "the teacher itself could not be exported"


def deliver(study: CompressionStudy, budget: Budget) -> None:
    """Copy the folder of the best that keeps the budget, by the rows that chose; or say what is nearest; then the page.

    A baseline is delivered where no student keeps the budget and is better.
    """
    record = study.record
    baseline = _best_baseline(study, budget)
    best = next((final for final in record.finals if final.ship), None)  # finalists come in the order of their scores
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


def _is_ahead(baseline: float | None, student: float | None) -> bool:
    """By the rows that choose: a student may have learned from these, a baseline has not, so it is ahead all the more.

    The teacher has no score on them.
    """
    return baseline is not None and student is not None and baseline > student


def _best_baseline(study: CompressionStudy, budget: Budget) -> str | None:
    """Of the baselines that keep the budget, the best by the rows that choose."""
    keeping = {
        name: row.held_out
        for name, row in study.record.baselines.items()
        if row.held_out is not None
        and (cost := row.cost)
        and budget.keeps(cost)
        and (study.folder / BASELINES / name).is_dir()  # an earlier version made none
    }
    return max(keeping, key=lambda name: keeping[name], default=None)


def _predicted_miss(record: CompressionRecord, budget: Budget) -> str:
    """What is nearest to the budget, before anything is measured; and why the teacher is not delivered."""
    candidates: Mapping[str, CandidateRow] = record.candidates
    if any(row.fits for row in candidates.values()):  # the teacher alone
        candidates = {name: row for name, row in candidates.items() if name != TEACHER} or candidates
    nearest = nearest_miss({name: row.predicted for name, row in candidates.items()}, budget)
    why = [note for note in record.notes if note.startswith(NOT_EXPORTED)]
    return "; ".join([miss(record, budget, *nearest, measured=False), *why])


def _copy(place: Path, folder: Path) -> None:
    with folder_written_whole(folder / MODEL) as part:
        shutil.copytree(place, part, dirs_exist_ok=True)


def _finish(study: CompressionStudy, sentence: str) -> None:
    record, page = study.record, study.folder / PAGE
    record.verdict, record.status = sentence, "finished"
    shutil.rmtree(study.folder / CACHE, ignore_errors=True)
    study.save()
    write_compress_report(page, record)
    conclude([finals_table(record)] if record.finals else [], record.notes, sentence, f"the page: {page}")
