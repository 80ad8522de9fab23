"""`emdistill predict`: a saved model's answer beside every row of a file."""

from collections.abc import Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any

from datasets import Dataset

from emdistill.config import check_limits
from emdistill.data.files import Columns, read_inputs, text_problem
from emdistill.data.row_writer import WRITTEN_SUFFIXES, RowWriter
from emdistill.data.rows import Row
from emdistill.data.tagged import is_tagged
from emdistill.data.tagged_words import (
    TaggedWords,
    holds_words,
    read_words,
    suffixes_beside,
    texts_and_words,
    words_problem,
)
from emdistill.errors import ConfigError, DataError
from emdistill.files import written_whole
from emdistill.runs.answers import Logits, shortest
from emdistill.runs.places import check_file
from emdistill.ship.classifier import SavedClassifier, open_classifier
from emdistill.tasks import KINDS
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
    place, beside = Path(output), suffixes_beside(Path(input)) if is_tagged(input) else ()
    check_file(place, (*WRITTEN_SUFFIXES, *beside), overwrite=overwrite, reads=(input,))
    classifier = open_classifier(model, head)
    length = classifier.max_length(max_length)
    names = classifier.labels
    columns = Columns(classifier.reading.of(text, text_pair).text)
    is_words = is_tagged(input) or (classifier.kind is KINDS["tagging"] and holds_words(Path(input), columns, names))
    added = [*classifier.kind.answer_columns(names), *(["logits"] * logits)]
    if is_words:
        words = _words(classifier, Path(input), text, text_pair)
        rows, examples = words.rows, classifier.task.rows_of_text(*words.columns)
    else:
        words, (rows, examples) = None, _rows(classifier, input, text, text_pair)
    if taken := set(added) & {name for row in rows for name in row.cells}:
        raise DataError(f"there is a column '{min(taken)}' already; rename it, for the output has one", file=input)
    alone = words is not None and place.suffix in beside
    if logits and (alone or place.suffix == ".json"):
        raise ConfigError(f"--logits: {place.suffix} takes the predictions and nothing else; write .jsonl")
    writer: TaggedWords | RowWriter
    writer = words if words is not None and alone else RowWriter(place.suffix, Path(input), rows, (*names, *added))
    with written_whole(place) as part:  # from here on the folder is known to take the file
        found = classifier.logits(examples, length, batch_size or classifier.batch_size, "predicting")
        check_finite(found, [row.line for row in rows])
        further = classifier.kind.answers(found, names, examples)
        if logits:
            further = [cells | {"logits": _by_label(row, names)} for cells, row in zip(further, found, strict=True)]
        writer.write(part, further)
    return len(rows)


def _words(classifier: SavedClassifier, file: Path, text: str | None, text_pair: str | None) -> TaggedWords:
    """The words of a CoNLL file; raises ConfigError for a model that tags none."""
    if classifier.kind is not KINDS["tagging"]:
        raise ConfigError(f"--input {file} holds words to be tagged, and this model's task is {classifier.kind.name}")
    if text_pair is not None:
        raise ConfigError(f"--text-pair {text_pair}: a tagger reads one text; leave it out")
    trained = classifier.reading.text  # in CoNLL a number, elsewhere a name
    return read_words(file, text or (trained if trained.isdecimal() else None))


def _rows(classifier: SavedClassifier, file: str, text: str | None, text_pair: str | None) -> tuple[list[Row], Dataset]:
    """The rows of a file, and what the model reads of them."""
    reading, tags = classifier.reading.of(text, text_pair), classifier.kind is KINDS["tagging"]
    rows = read_inputs(
        file, reading.text, reading.text_pair, partial(words_problem, source=Path(file)) if tags else text_problem
    )
    if tags:
        words = texts_and_words((row.cells[reading.text] for row in rows), classifier.task.words, Path(file))
        return rows, classifier.task.rows_of_text(*words)
    columns = {"text": reading.text, "text_pair": reading.text_pair}
    texts = {name: [row.cells[column] for row in rows] for name, column in columns.items() if column is not None}
    return rows, classifier.task.rows_of_text(texts)


def _by_label(logits: Logits, names: Sequence[str]) -> list[Any] | dict[str, float]:
    """The logits by label, of each answer; a list where there is but a score, or nobody has named the labels."""
    if logits.ndim > 1:
        return [_by_label(answer, names) for answer in logits]
    values = shortest(logits)
    return values if len(names) < 2 or is_unnamed(names) else dict(zip(names, values, strict=True))


@wraps(predict_file)
def command(**options: Any) -> str:
    return f"{predict_file(**options)} rows written to {options['output']}"
