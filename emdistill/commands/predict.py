"""`emdistill predict`: a saved model's answer beside every row of a file."""

from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from emdistill.config import check_limits
from emdistill.data.files import Columns
from emdistill.data.read import form_of, form_shown
from emdistill.data.row_writer import WRITTEN_SUFFIXES, RowWriter
from emdistill.errors import ConfigError, DataError, listing
from emdistill.files import written_whole
from emdistill.runs.answers import Logits, nested
from emdistill.runs.places import check_file
from emdistill.ship.classifier import open_classifier
from emdistill.tasks.answers import check_finite
from emdistill.tasks.kind import is_unnamed


def predict_file(
    model: str,
    input: str,
    output: str,
    text: str | None = None,
    text_pair: str | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    logits: bool = False,
    head: str | None = None,
    overwrite: bool = False,
) -> int:
    """Label every row of a file with a model; the output has the input's columns and `prediction`, `probability`.

    What cannot be written is refused before anything is predicted; the output is written whole or not at all.

    Args:
        model: folder or hub id of the model; or an .onnx file of an exported folder, or that folder.
        input: a CSV, TSV, JSONL or Parquet file, one in SQuAD's format, or a .txt file with a sentence per line; for a
            tagger also CoNLL (in a .txt file too) or CoNLL-U, and lists of words in the text's column.
        output: file to write: .jsonl, .csv, .tsv or .parquet; or .json, the predictions by the rows' ids, as SQuAD's
            scripts read them; of CoNLL and CoNLL-U also the same, with the tags beside the words.
        text: column of the text; the column the model was trained on if not given.
        text_pair: column of the second text of a pair.
        batch_size: sentences at once; if not given 64, and 1 in ONNX, where padding costs more than batches gain.
        max_length: tokens per sentence or pair at most; as the model was trained if not given.
        logits: write all logits too, by label: the answers that `emdistill distill --teacher FILE` takes.
        head: of a model of several tasks, the one that answers.
        overwrite: replace the output file if it exists.
    """
    check_limits(batch_size=batch_size)
    place, file = Path(output), Path(input)
    shown = form_shown(input)
    beside = shown.suffixes_beside(file)
    check_file(place, (*WRITTEN_SUFFIXES, *beside), overwrite=overwrite, reads=(input,))
    classifier = open_classifier(model, head)
    kind, names, length = classifier.kind, classifier.labels, classifier.max_length(max_length)
    if beside and kind not in shown.kinds:
        asked = listing(each.name for each in shown.kinds)
        raise ConfigError(f"--input {input} is data of {asked}, and this model's task is {kind.name}")
    reading = classifier.reading.of(text, text_pair)
    columns = Columns(reading.text, reading.text_pair)
    rows, examples, copy = form_of(kind).inputs(file, columns, classifier.task, is_text_named=text is not None)
    classifier.tell_of_pairs(reading.text_pair)
    added = [*kind.answer_columns(names), *(["logits"] * logits)]
    if taken := set(added) & {name for row in rows for name in row.cells}:
        raise DataError(f"there is a column '{min(taken)}' already; rename it, for the output has one", file=input)
    alone = place.suffix in beside
    if logits and (alone or place.suffix == ".json"):
        raise ConfigError(f"--logits: {place.suffix} takes the predictions and nothing else; write .jsonl")
    writer = copy if copy is not None and alone else RowWriter(place.suffix, file, rows, (*names, *added))
    with written_whole(place) as part:  # from here on the folder is known to take the file
        found = classifier.logits(examples, length, batch_size or classifier.batch_size, "predicting")
        check_finite(found, [row.line for row in rows])
        further = kind.answers(found, names, examples)
        if logits:
            further = [cells | {"logits": _by_label(row, names)} for cells, row in zip(further, found, strict=True)]
        writer.write(part, further)
    return len(rows)


def _by_label(logits: Logits, names: Sequence[str]) -> list[Any] | dict[str, float]:
    """The logits by label, of each answer; a list where there is but a score, or nobody has named the labels."""
    if logits.ndim > 1:
        return [_by_label(answer, names) for answer in logits]
    values = nested(logits)
    return values if len(names) < 2 or is_unnamed(names) else dict(zip(names, values, strict=True))


@wraps(predict_file)
def command(**options: Any) -> str:
    return f"{predict_file(**options)} rows written to {options['output']}"
