"""What could be taken instead of the student, and whether the student is worth it."""

from emdistill.runs.distillation import Distillation
from emdistill.show.page import Notes, Section, Verdict
from emdistill.show.verdict import baseline_notes, baselines_table, verdict


def baselines(run: Distillation) -> Section | None:
    """The sentence, the table, and how each baseline was made; None where nothing was measured."""
    if (record := run.baselines) is None:
        return None
    table, sentence = baselines_table(record).without_empty_columns(), verdict(record)
    judgement = Verdict(f"{sentence[0].upper()}{sentence[1:]}.")
    return Section("Is it worth it?", [judgement, table, Notes(baseline_notes(record))])
