"""Words in rows of their own: which rows are a sentence, for whatever reads tagged words."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from messages import names

from emdistill.data.files import Columns
from emdistill.data.read import read_task_data
from emdistill.data.rows import Row
from emdistill.data.tagged import Tagged
from emdistill.data.text_hashes import Seen
from emdistill.data.unlabelled import kept_texts, unlabelled_text
from emdistill.data.word_rows import sentence_column, whole_sentences
from emdistill.errors import DataError
from emdistill.tasks.task import TaskData

WORDS = [("Ann", "B-per"), ("lives", "O"), ("O\u00a02", "B-org"), (",", "O"), ("no", "O")]
NUMBERS: dict[str, list[Any]] = {
    "each": ["1", "1", "2", "2", "2"],
    "first": ["Sentence: 1", "", "Sentence: 2", "", ""],
    "nan": [1.0, None, 2.0, float("nan"), None],
}


def written(folder: Path, suffix: str, form: str) -> Path:
    path, words = folder / f"ner.{suffix}", [*map(list, zip(*WORDS, strict=True))]
    table = dict(zip(("Sentence #", "Word", "Tag"), (NUMBERS[form], *words), strict=True))
    if suffix == "parquet":
        pq.write_table(pa.table(table), path)
        return path
    mark = "," if suffix == "csv" else "\t"
    rows = [[*table], *(['","' if cell == mark else cell for cell in row] for row in zip(*table.values(), strict=True))]
    path.write_text("\n".join(map(mark.join, rows)), encoding="utf-8")
    return path


def sentences(data: TaskData) -> list[tuple[list[str], list[str]]]:
    rows = data.evaluation["dev"]
    return [
        ([row["text"][slice(*word)] for word in row["words"]], [data.task.labels[tag] for tag in row["label"]])
        for row in rows
    ]


@pytest.mark.parametrize(
    ("suffix", "form"), [("csv", "each"), ("csv", "first"), ("tsv", "each"), ("tsv", "first"), ("parquet", "nan")]
)
def test_a_column_tells_sentences_apart(tmp_path: Path, suffix: str, form: str) -> None:
    path = str(written(tmp_path, suffix, form))
    two = [(["Ann", "lives"], ["B-per", "O"]), (["O\u00a02", ",", "no"], ["B-org", "O", "O"])]
    for columns in ({"text": "Word", "label": "Tag"}, {}):
        assert sentences(read_task_data(path, kind="tagging", dev=path, evaluating=True, **columns)) == two


def test_a_word_without_a_tag_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "csv", "first")
    path.write_text(path.read_text(encoding="utf-8").replace("no,O", "no,"), encoding="utf-8")
    with names(DataError, f"{path}:4", "tag 3"):
        read_task_data(str(path), kind="tagging")


def test_sentences_are_predicted_and_learned_from_whole(tmp_path: Path) -> None:
    path = written(tmp_path, "csv", "first")
    task = read_task_data(str(path), kind="tagging", text="Word", label="Tag", dev=str(path), evaluating=True).task
    inputs = Tagged().inputs(path, Columns("Word"), task, is_text_named=False)
    assert inputs.examples["text"][:] == ["Ann lives", "O\u00a02 , no"]
    cells = {"Sentence #": "Sentence: 2", "Word": ["O\u00a02", ",", "no"], "Tag": ["B-org", "O", "O"]}
    assert inputs.rows[1] == Row(4, cells)
    text = unlabelled_text(str(path), task, Columns("Word"), tmp_path, None)
    assert [*kept_texts(text, Seen(), Seen(), Counter())] == [[("Ann lives",), ("O\u00a02 , no",)]]


@pytest.mark.parametrize(
    "rows",
    [
        [{"sentence_id": 1, "text": "two words"}, {"sentence_id": 1, "text": "one"}],
        [{"sentence_id": 1, "text": "one"}, {"sentence_id": 2, "text": "two"}],
        [{"sentence_id": 1, "text": ["a", "list"]}, {"sentence_id": 1, "text": ["list"]}],
        [{"sentiment": 1, "text": "one"}, {"sentiment": 1, "text": "two"}],
        [],
    ],
)
def test_rows_that_are_no_words_stay(rows: list[dict[str, Any]]) -> None:
    numbered = [Row(line, cells) for line, cells in enumerate(rows)]
    assert [*whole_sentences(numbered, "text")] == numbered


def test_names_of_columns() -> None:
    told = ["Sentence #", "sentence_id", "sent_id", "sentence", "Sentence: ", "sentence_idx", "SentenceID"]
    assert [sentence_column(["id", name]) for name in told] == told
    assert sentence_column(["sentiment", "sender", "id", "consent"]) is None
