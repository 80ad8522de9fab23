import csv
import hashlib
import itertools
import json
import math
import traceback
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from messages import names, unnamed

from emdistill.data.files import read_inputs
from emdistill.data.read import read_task_data
from emdistill.data.row_writer import RowWriter
from emdistill.data.rows import Row
from emdistill.errors import DataError
from emdistill.tasks import KINDS
from emdistill.tasks.task import TaskData

ROWS = [
    {"body": "good, very", "stars": "5"},
    {"body": 'a "plain" one', "stars": "3"},
    {"body": "bäd\n2nd", "stars": "1"},
]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, dev: Path | None = None, **options: str) -> TaskData:
    """Reads with a development set, so that train stays whole."""
    return read_task_data(str(path), dev=str(dev or path), **options)  # type: ignore[arg-type]


def message(path: Path, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_all_formats_give_the_same_examples(tmp_path: Path, suffix: str, mark: bytes, end: str) -> None:
    path = tmp_path / f"reviews.{suffix}"
    if suffix == "csv":
        lines = ["body,stars", '"good, very",5', '"a ""plain"" one",3', '"bäd\n2nd",1']
        write(path, mark + end.join(lines).encode())
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        write(path, mark + end.join(json.dumps(row) for row in ROWS).encode())
    found = read(path, text="body", label="stars")
    assert found.train["text"][:] == [row["body"] for row in ROWS]
    assert found.task.labels == ("1", "3", "5")
    assert [found.task.labels[index] for index in found.train["label"]] == ["5", "3", "1"]
    assert (found.task.name, found.task.text, found.task.label) == ("reviews", "body", "stars")
    assert found.task.metrics == ("accuracy", "macro_f1")
    assert found.held_out is None
    assert found.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.files[0].rows == 3


def test_tsv_takes_quotes_as_text_and_keeps_blanks(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.tsv", 'a\tb\tlabel\r\n" one\t two \tyes\r\n\r\n"x"\ty\tno')
    found = read(path, text="a", text_pair="b")
    assert found.train["text"][:] == ['" one', '"x"']
    assert found.train["text_pair"][:] == [" two ", "y"]
    assert found.task.labels == ("no", "yes")
    assert found.train["label"][:] == [1, 0]


def test_quotes_of_csv_in_tsv_are_noted(tmp_path: Path) -> None:
    """As pandas writes .tsv: quotes where a text has some, and a row over two lines where it has a line end."""
    path = write(tmp_path / "x.tsv", 'text\tlabel\n"so"\ta\n"a ""good"" one"\tb\n"b" or "c"\tb\n')
    (note,) = read(path).notes
    assert not unnamed(note, path, 3, ".csv")
    assert ".csv" in message(write(path, 'text\tlabel\n"a\nb"\tc\n'))


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0"])
def test_labels_of_other_types_are_the_same_classes(tmp_path: Path, value: object) -> None:
    train = write(tmp_path / "train.csv", "text,label\na,0\nb,1\n")
    rows = [{"text": "x", "label": value}, {"text": "y", "label": 0}]
    dev = write(tmp_path / "dev.jsonl", "\n".join(map(json.dumps, rows)))
    assert read(train, dev).evaluation["dev"]["label"][:] == [1, 0]


@pytest.mark.parametrize(
    "labels",
    [
        ["['a', 'b']", "['it\\'s']", "[]"],
        ['["a", "b"]', '["it\'s"]', "[]"],
        ["['a' 'b']", '["it\'s"]', "[]"],
        ["['a'\n 'b']", '[np.str_("it\'s")]', "array([], dtype=object)"],
        ["('a', 'b')", '("it\'s",)', "()"],
        ["{'b', 'a'}", '{"it\'s"}', "[]"],
    ],
)
def test_a_list_in_a_cell_of_text_is_a_list(tmp_path: Path, labels: list[str]) -> None:
    """As pandas, datasets and `predict` write them into CSV; taken for names, they would be classes of their own."""
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *[["a text", label] for label in labels * 9]])
    data = read_task_data(str(tmp_path / "x.csv"))
    assert data.task.kind is KINDS["multi-label"]
    assert data.task.labels == ("a", "b", "it's")
    with names(DataError, "x.csv:2", "--kind multi-label"):
        read_task_data(str(tmp_path / "x.csv"), kind="classification")


@pytest.mark.parametrize("label", ["[other]", "(a, b)", "(1)", "[1-2]", "[1", "['a'x]", "[\\d]", "[0 ... 1]"])
def test_brackets_alone_make_no_list(tmp_path: Path, label: str) -> None:
    (tmp_path / "x.csv").write_text("text,label\n" + f'a,"{label}"\nb,c\n' * 3)
    assert read_task_data(str(tmp_path / "x.csv")).task.labels == (label, "c")


def test_an_object_in_a_cell_of_text_is_no_class(tmp_path: Path) -> None:
    for written in ('{"a": 0.9, "b": 0.1}', "{'a': 0.9, 'b': 0.1}", "{'a': np.float64(0.9), 'b': nan}"):
        with (tmp_path / "x.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), ("x", written), ("y", "c")])
        with names(DataError, "x.csv:2"):
            read_task_data(str(tmp_path / "x.csv"))


def test_a_parquet_file_of_datasets_names_its_classes(tmp_path: Path) -> None:
    """Its indices stand for names, in an order that is not the alphabet's; a model's logits may have another one."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["world", "arts", "unused"])})
    path = tmp_path / "x.parquet"
    Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features).to_parquet(path)
    data = read(path)
    assert data.task.labels == ("world", "arts", "unused")
    assert data.train["label"][:] == [1, 0]
    Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features=features).to_parquet(path)
    with names(DataError, f"{path}:2", "'label'"):
        read(path)
    several = Features({"text": Value("string"), "label": List(ClassLabel(names=["world", "arts"]))})
    Dataset.from_dict({"text": ["a", "b"], "label": [[1, 0], [0]]}, features=several).to_parquet(path)
    data = read(path)
    assert (data.task.labels, data.train["label"][:]) == (("world", "arts"), [[1, 1], [1, 0]])


@pytest.mark.parametrize("said", [b"{", b"[]", b'{"info": {"features": {"label": {"_type": "Klass"}}}}', b"\xff"])
def test_a_parquet_file_that_describes_itself_badly_has_its_values(tmp_path: Path, said: bytes) -> None:
    table = pa.table({"text": ["a", "b"], "label": [1, 0]}).replace_schema_metadata({b"huggingface": said})
    pq.write_table(table, tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet").task.labels == ("0", "1")


def test_names_that_look_the_same_are_one_class(tmp_path: Path) -> None:
    """Composed accents or not, blanks around them, marks without width."""
    train = "text,label\n" + "a,caf\u00e9\nb,cafe\u0301\nc,bar\u200b\nd,bar\ne, bar\ufeff \n" * 4
    (tmp_path / "x.csv").write_text(train, encoding="utf-8")
    (tmp_path / "dev.csv").write_text("text,label\na,cafe\u0301\nb,\u2060bar\n", encoding="utf-8")
    data = read_task_data(str(tmp_path / "x.csv"), dev=str(tmp_path / "dev.csv"))
    assert data.task.labels == ("bar", "caf\u00e9")
    assert data.evaluation["dev"]["label"][:] == [1, 0]


def test_true_is_one_class_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,label\n" + "a,true\nb,false\n" * 4)
    (tmp_path / "dev.jsonl").write_text('{"text": "a", "label": true}\n{"text": "b", "label": "FALSE"}\n')
    data = read_task_data(str(tmp_path / "x.csv"), dev=str(tmp_path / "dev.jsonl"))
    assert data.task.labels == ("false", "true")
    assert data.evaluation["dev"]["label"][:] == [1, 0]


def test_names_that_differ_in_case_alone_are_noted(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,label\n" + "a,Yes\nb,yes\nc,no\n" * 4)
    data = read_task_data(str(tmp_path / "x.csv"))
    assert data.task.labels == ("Yes", "no", "yes")
    assert not unnamed(data.notes[0], "Yes", "yes", "'label'")


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (("very good", "very  good", "bad"), "'very  good'"),
        (("very good", "very\xa0good", "bad"), "'very good'"),
        (("\uff11", "1", "2"), "'1'"),
        (("so\xadso", "soso", "bad"), "'soso'"),
        (("0", "1", "-100"), "-100"),
        (("0", "1", "-1"), "-1"),
        (("yes", "no", "N/A"), "N/A"),
        (("0", "1", "TRUE"), "'TRUE'"),
        (("pos", "neg", "pos\0"), "'pos'"),
        (('"pos"', '"neg"', "'so'"), '"neg"'),
        (("['a', 'b', ...", "c", "d"), "..."),
        (("a;b", "b;c", "a;c"), "a;b"),
        (("1", "-1", "2"), None),
        (("[UNK]", "(other)", "a"), None),
        (("0,5", "1,5", "2"), "0,5"),
        (("80%", "75 %", "2"), "75 %"),
        (("-", "a", "b"), "'-'"),
        (("-", "+", "0"), None),
        (("1,000", "2,000", "7"), "1,000"),
        (("2020-01", "1.2.3", "7+"), None),
        (("a", "b", "a;b"), "a;b"),
        (("a", "b", "c"), None),
    ],
)
def test_labels_that_may_be_no_classes_are_noted(tmp_path: Path, labels: tuple[str, ...], named: str | None) -> None:
    rows = [{"text": f"{row}", "label": label} for row, label in enumerate(labels * 3)]
    data = read(write(tmp_path / "x.jsonl", "\n".join(map(json.dumps, rows))))
    assert len(data.task.labels) == 3
    assert data.notes == () if named is None else not unnamed(data.notes[0], "'label'", named)


@pytest.mark.parametrize(
    ("cells", "labels", "numbers"),
    [
        ([["a", "b"], ["b"], []], ("a", "b"), [[1, 1], [0, 1], [0, 0]]),
        ([[1, 0, 1], [0, 0, 0]], ("LABEL_0", "LABEL_1", "LABEL_2"), [[1, 0, 1], [0, 0, 0]]),
        ([[1.0, 0.0], [False, True]], ("LABEL_0", "LABEL_1"), [[1, 0], [0, 1]]),
        ([[0, 1], [1]], ("0", "1"), [[1, 1], [0, 1]]),
        ([{"a": 1, "b": 0}, {"b": True, "a": False}], ("a", "b"), [[1, 0], [0, 1]]),
        (["a;b", "b"], ("a", "b"), [[1, 1], [0, 1]]),
        (["a;x|b", "b"], ("a;x", "b"), [[1, 1], [0, 1]]),
    ],
)
def test_several_labels_are_read_however_they_are_written(
    tmp_path: Path, cells: list[Any], labels: tuple[str, ...], numbers: list[list[float]]
) -> None:
    path = write(tmp_path / "x.jsonl", "\n".join(json.dumps({"text": "x", "label": cell}) for cell in cells))
    rows = [Row(line, {"text": "x", "label": cell}) for line, cell in enumerate(cells, start=1)]
    for suffix in (".csv", ".tsv"):
        RowWriter(suffix, path, rows).write(path.with_suffix(suffix), [{}] * len(rows))
    for file in (path, path.with_suffix(".csv"), path.with_suffix(".tsv")):
        data = read(file, kind="multi-label")
        assert data.task.labels == labels
        assert data.train["label"][:] == numbers


def test_names_in_lists_that_may_be_one_are_noted(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": label} for label in (["Bug", "ui"], ["bug"], ["ui"])]
    (note,) = read(write(tmp_path / "x.jsonl", "\n".join(map(json.dumps, rows)))).notes
    assert not unnamed(note, "'label'", "'Bug'", "'bug'")


@pytest.mark.parametrize("part", [None, "", " ", math.nan, ["b"], {"b": 1}, 0.25])
def test_what_is_no_name_in_a_list_of_labels_is_refused(tmp_path: Path, part: Any) -> None:
    labels = [["a"], ["b"], ["a", part]]
    rows = [json.dumps({"text": "x", "label": label}) for label in labels]
    assert ":3: " in message(write(tmp_path / "x.jsonl", "\n".join(rows)))
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *(("x", json.dumps(label)) for label in labels)])
    assert ":4: " in message(tmp_path / "x.csv")
    if part is None:
        pq.write_table(pa.table({"text": ["x"] * 3, "label": labels}), tmp_path / "x.parquet")
        assert ":3: " in message(tmp_path / "x.parquet")


def test_an_object_of_labels_says_something_of_each(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": label} for label in ({"a": 1, "b": 0}, {"a": 0, "b": 1}, {"a": 1})]
    path = write(tmp_path / "x.jsonl", "\n".join(map(json.dumps, rows)))
    with names(DataError, f"{path}:3", "b"):
        read(path, kind="multi-label")


@pytest.mark.parametrize("columns", [{"text_pair": "text"}, {"label": "a,a"}, {"label": "a,text"}])
def test_one_column_is_no_two(tmp_path: Path, columns: dict[str, str]) -> None:
    path = write(tmp_path / "x.csv", "text,a,label\nx,1,b\ny,0,d\n")
    with names(DataError, path, "--label"):
        read(path, **columns)
    with names(DataError, path, "--text-pair"):
        read_inputs(path, text_pair="text")


@pytest.mark.parametrize("mark", ["|", "\t"])
def test_other_separators_are_named_though_no_row_has_as_many_cells(tmp_path: Path, mark: str) -> None:
    rows = f"text{mark}label\none, two{mark}a\nthree, four{mark}b\n"
    with names(DataError, f"{tmp_path / 'x.csv'}:2", ".tsv"):
        read(write(tmp_path / "x.csv", rows))


def test_scores_are_floats_and_the_kind_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path / "scores.csv", "text,label\na,1\nb,2\nc,4\n")
    assert read(path).task.kind.name == "classification"
    found = read(path, kind="regression")
    assert found.train["label"][:] == [1.0, 2.0, 4.0]
    assert (found.task.labels, found.task.outputs, found.task.metrics) == ((), 1, ("pearson", "spearman"))
    halves = write(tmp_path / "halves.csv", "text,label\na,1.5\nb,0.5\n")
    assert read(halves, kind="classification").task.labels == ("0.5", "1.5")


# ---------------------------------------------------------------------------------------------- what is refused


def test_bad_rows_are_named_by_their_line_at_most_five_at_once(tmp_path: Path) -> None:
    good = '"two\nlines",a\n'  # physical lines 2-3
    path = write(tmp_path / "x.csv", f"text,label\n{good} ,a\nx\ny,\n\nz,a,b\n,b\n, \nfine,b\n,a\n")
    *lines, others = message(path).split("\n")
    assert [line.split(" ")[0] for line in lines] == [f"{path}:{number}:" for number in (4, 5, 6, 8, 9)]
    assert "2" in others


@pytest.mark.parametrize("score", ["many", "nan", "inf", "-inf", "1_000", "1,5"])
def test_a_score_that_is_no_finite_number_is_refused(tmp_path: Path, score: str) -> None:
    path = write(tmp_path / "x.csv", f'text,label\na,1.5\nb,2.5\nc,"{score}"\nd,3.5\n')
    assert message(path).startswith(f"{path}:4: ")
    assert score in message(path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_that_a_stray_quote_swallows_are_missed(tmp_path: Path, end: str) -> None:
    rows = ["id,text,label", "1,it,good", '2,"a 5 inch,bad', "3,so so,bad", "4,fine,good", '5,tall",good', "6,it,bad"]
    path = write(tmp_path / "x.csv", end.join(rows))
    with names(DataError, f"{path}:3", 2, "quote"):
        read(path)
    rows = [row.replace("label", "a;b").replace("bad", "0;1").replace("good", "1;0").replace(",", ";") for row in rows]
    with names(DataError, f"{path}:3", 2, "quote"):
        read(write(path, end.join(rows)), label="a,b")
    ids = ["id,text", "1,it", '2,"a 5 inch', "3,so so", "4,fine", '5,tall"', "6,it"]
    with names(DataError, f"{path}:3", 2, "quote"):
        read_inputs(write(path, end.join(ids)))
    poem = '"it was,good\nso so,fine\nor not,bad\nthe end"'
    assert len(read(write(tmp_path / "poem.csv", f"text,label\n{poem},good\nx,bad\n")).train) == 2


def test_missing_columns_are_named_with_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews.csv", "body,Star\na,1\nb,2\n")
    found = message(path, text="body", label="stars")
    assert found.startswith(f"{path}: ")
    assert all(name in found for name in ("'stars'", "body, Star", "'Star'"))
    assert all(name in message(path) for name in ("'text'", "--text"))
    assert "text|label" in message(write(tmp_path / "excel.csv", "text|label\na|1\n"))


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_a_column_that_the_first_row_of_json_lacks_is_there(tmp_path: Path, suffix: str) -> None:
    rows: list[dict[str, str]] = [{"text": "a"}, {"id": "7", "text": "b", "label": "x"}, {"label": "y"}]
    lines = json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows))
    path = write(tmp_path / f"x{suffix}", lines)
    assert [line.partition(" ")[0] for line in message(path).split("\n")] == [f"{path}:1:", f"{path}:3:"]
    with names(DataError, f"{path}:3", "text"):
        read_inputs(path)
    assert all(name in message(path, label="stars") for name in ("'stars'", "id", "--label"))


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"tokens": ["Ann", "lives"], "ner_tags": ["B-PER", "O"]}, "tagging"),
        ({"text": "Ann lives", "entities": [{"start": 0, "end": 3, "label": "PER"}]}, "tagging"),
        ({"question": "who?", "context": "Ann", "answers": {"text": ["Ann"], "answer_start": [0]}}, "span-answers"),
    ],
)
def test_rows_of_another_kind_are_met_by_its_name(tmp_path: Path, row: dict[str, Any], kind: str) -> None:
    with names(DataError, f"--kind {kind}"):
        read(write(tmp_path / "x.jsonl", json.dumps(row)))
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    with names(DataError, f"--kind {kind}"):
        read(tmp_path / "x.parquet")


def test_a_pattern_of_several_files_is_no_file(tmp_path: Path) -> None:
    for part in range(2):
        write(tmp_path / f"train-0000{part}-of-00002.csv", "text,label\na,b\nc,d\n")
    with names(DataError, tmp_path / "train-*.csv", 2, "load_dataset"):
        read(tmp_path / "train-*.csv")
    with names(DataError, tmp_path / "dev-*.csv"):
        read(tmp_path / "dev-*.csv")
    for several in (tmp_path, ",".join(map(str, sorted(tmp_path.iterdir())))):
        with names(DataError, several, "load_dataset"):
            read_task_data(str(several))


def test_a_text_that_is_its_own_label_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "text,label\na,b\nc,d\n")
    assert "--label" in message(path, text="label")
    assert "--label" in message(path, text_pair="label")


def test_a_file_that_is_refused_is_closed(tmp_path: Path) -> None:
    """Whoever keeps the error keeps no open file by it."""
    path = write(tmp_path / "reviews.csv", "body,Star\na,1\nb,2\n")
    with pytest.raises(DataError) as caught:
        read(path)
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    (rows,) = [value for frame in frames for value in frame.f_locals.values() if isinstance(value, itertools.chain)]
    assert len(list(rows)) == 1  # the one that was looked at; the second is no longer read


@pytest.mark.parametrize(
    ("cells", "column"),
    [
        ({"label": 2}, "text"),
        ({"text": 7, "label": 2}, "text"),
        ({"text": ["a"], "label": 2}, "text"),
        ({"text": "\ud800", "label": 1}, "text"),
        ({"text": "a", "label": "\ud800"}, "label"),
        ({"text": "a", "label": "['\\ud800']"}, "label"),
        ({"text": "a"}, "label"),
        ({"text": "a", "label": float("nan")}, "label"),
    ],
)
def test_cells_that_are_no_text_are_named_with_line_and_column(
    tmp_path: Path, cells: dict[str, object], column: str
) -> None:
    rows = [{"text": "a", "label": 1}, cells, {"text": "b", "label": 2}]
    path = write(tmp_path / "x.jsonl", "\n".join(map(json.dumps, rows)))
    assert message(path).startswith(f"{path}:2: ")
    assert f"'{column}'" in message(path)


@pytest.mark.parametrize("column", ["text", "label"])
def test_bytes_are_no_text(tmp_path: Path, column: str) -> None:
    rows = [{"text": "a", "label": "x"} | {column: content} for content in (b"a", b"b")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert message(tmp_path / "x.parquet").startswith(f"{tmp_path / 'x.parquet'}:1: ")
    assert f"'{column}'" in message(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", ""),
        ("text,label\n", ""),
        ("text,label\na,x\nb,x\n", "'x'"),
        ("text,label\na,1.5\nb,1.50\n", "1.5"),
        ("text,label\n" + "".join(f"t{i},unique {i}\n" for i in range(150)), "150"),
    ],
)
def test_files_that_teach_nothing_are_refused(tmp_path: Path, content: str, named: str) -> None:
    path = write(tmp_path / "x.csv", content)
    assert message(path).startswith(f"{path}: ")
    assert named in message(path)


@pytest.mark.parametrize("label", ["x", "1.5"])
def test_files_of_one_label_can_be_scored(tmp_path: Path, label: str) -> None:
    path = write(tmp_path / "x.csv", f"text,label\na,{label}\nb,{label}\n")
    found = read_task_data(str(path), dev=str(path), evaluating=True)
    assert len(found.evaluation["dev"]) == 2


def test_dev_may_not_hold_unseen_labels(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", "text,label\na,good\nb,bad\n")
    dev = write(tmp_path / "dev.csv", "text,label\na,good\nb,goood\n")
    with pytest.raises(DataError) as caught:
        read(train, dev)
    assert str(caught.value).startswith(f"{dev}:3: ")
    assert all(name in str(caught.value) for name in ("'goood'", "bad, good", "'good'"))


def test_missing_and_unknown_files_are_named(tmp_path: Path) -> None:
    with names(DataError, tmp_path, "folder"):
        read_inputs(tmp_path)
    write(tmp_path / "reviews.csv", "text,label\na,1\n")
    assert "'reviews.csv'" in message(tmp_path / "review.csv")
    found = message(write(tmp_path / "x.xlsx", "x"))
    assert all(suffix in found for suffix in ("'.xlsx'", ".csv", ".parquet"))


# -------------------------------------------------------------------------------------------- rows to predict


def test_inputs_keep_their_columns_and_need_no_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "new.jsonl", '{"id": 7, "text": "a"}\n{"id": 8, "text": "b", "more": [1]}\n')
    assert read_inputs(path) == [(1, {"id": 7, "text": "a"}), (2, {"id": 8, "text": "b", "more": [1]})]
    plain = write(tmp_path / "new.txt", "one, sentence\r\n\n two \n")
    assert read_inputs(plain) == [(1, {"text": "one, sentence"}), (3, {"text": " two "})]
    with names(DataError, f"{path}:1", "'text'"):
        read_inputs(write(path, '{"text": ""}\n'))
    with names(DataError, plain, "'pair'"):
        read_inputs(plain, "text", "pair")
    with names(DataError, tmp_path / "absent.txt"):
        read_inputs(tmp_path / "absent.txt")
