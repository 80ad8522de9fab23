"""Records of compressions that never were, for tests of what is made of them."""

from typing import Any

from emdistill.runs.compression import (
    TEACHER,
    BaselineLine,
    CandidateRow,
    CompressionRecord,
    FinalRow,
    FormRow,
    PlanRow,
    Trial,
)
from emdistill.runs.gate_record import Machine

COST: dict[str, Any] = {"p50": 1.0, "p95": 2.0, "bytes": 3_000_000, "keeps": True}


def record_of(scores: dict[str, list[float | None]], *, metric: str = "accuracy", **known: Any) -> CompressionRecord:
    """A record of these candidates with their scores by rung, beside the teacher."""
    candidates = {
        name: CandidateRow(student=name, method="balanced", predicted={"int8": FormRow(**COST)}) for name in scores
    }
    teacher = CandidateRow(student=TEACHER, method="", predicted={"int8": FormRow(**COST | {"keeps": False})})
    trials = [
        Trial(candidate=name, rung=rung, score=score, seconds=1.0, problem="" if score is not None else "NaN")
        for name, every in scores.items()
        for rung, score in enumerate(every)
    ]
    shares = (0.1, 0.3) if trials else ()
    record: dict[str, Any] = {
        "hours": 1.0,
        "plan": PlanRow(candidates=tuple(scores), shares=shares, finals=1),
        "baselines": {"tfidf": BaselineLine(held_out=0.7, score=0.8, p95=0.1, bytes=1_000_000)},
    }
    return CompressionRecord(
        command="emdistill compress", settings={}, task="reviews", metric=metric, budget="5 ms, 30 MB",
        machine=Machine(cpu="Some Processor", cores=4, threads=2), candidates={TEACHER: teacher, **candidates},
        trials=trials, **record | known,
    )  # fmt: skip


def final_of(name: str, score: float, **known: Any) -> FinalRow:
    """A whole training that keeps the budget, where `known` does not say otherwise."""
    row: dict[str, Any] = {"folder": f"finals/{name}", "ship": "int8", "seconds": 1.0}
    forms: Any = {"int8": FormRow(**COST, score=score)}
    return FinalRow(candidate=name, scores={"accuracy": score}, forms=forms, **row | known)
