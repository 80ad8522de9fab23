"""What could be taken instead of the student, and whether the student is worth it."""

from emdistill.show.contents import Contents, Section
from emdistill.show.verdict import baseline_notes, baselines_table, verdict


def baselines(contents: Contents) -> Section | None:
    """The sentence, the table, and how each baseline was made; None where nothing was measured."""
    record = contents.baselines
    if record is None:
        return None
    sentence, table = verdict(record), baselines_table(record).without_empty_columns()
    values = {"verdict": sentence[:1].upper() + sentence[1:], "table": table, "notes": baseline_notes(record)}
    return Section("Is it worth it?", values)
