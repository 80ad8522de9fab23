"""The words of CoNLL and CoNLL-U files, and tags written beside them: all else stays as it was."""

from pathlib import Path

import pytest
from messages import names

from emdistill.data.files import Columns
from emdistill.data.tagged_files import read_tagged
from emdistill.data.tagged_words import holds_words, read_words
from emdistill.errors import DataError

CONLL = """-DOCSTART- -X- O

# an aside of five cells
EU NNP B-ORG
rejects VBZ O

calls NNS O
"""
CONLLU = """# sent_id = 1
1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
1\tdo\t_\tAUX\t_\t_\t_\t_\t_\t_
2\tn't\t_\tPART\t_\t_\t_\t_\t_\tSpaceAfter=No
2.1\t_\t_\t_\t_\t_\t_\t_\t_\t_

1\tgo\t_\tVERB\t_\t_\t_\t_\t_\t_
"""
TAGS = [{"prediction": ["B-ORG", "O"]}, {"prediction": ["O"]}]


def written(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_conll_gets_a_column(tmp_path: Path) -> None:
    words = read_words(written(tmp_path, "a.conll", CONLL))
    assert [row.cells["tokens"] for row in words.rows] == [["EU", "rejects"], ["calls"]]
    assert [row.line for row in words.rows] == [4, 7]
    assert words.columns == ({"text": ["EU rejects", "calls"]}, {"words": [[(0, 2), (3, 10)], [(0, 5)]]})
    words.write(tmp_path / "b.conll", TAGS)
    assert (tmp_path / "b.conll").read_text() == (
        "-DOCSTART- -X- O O\n\n# an aside of five cells\nEU NNP B-ORG B-ORG\nrejects VBZ O O\n\ncalls NNS O O\n"
    )
    again = read_tagged(tmp_path / "b.conll")  # the last column are the tags
    assert [sentence.tags for sentence in again.sentences] == [cells["prediction"] for cells in TAGS]


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lines_end_as_they_did(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.conll"
    path.write_bytes(CONLL.replace("\n", end).encode())
    read_words(path).write(tmp_path / "b.conll", TAGS)
    assert (tmp_path / "b.conll").read_bytes().count(end.encode()) == CONLL.count("\n")
    assert b"\n" not in (tmp_path / "b.conll").read_bytes().replace(end.encode(), b"")


def test_comments_stay_comments_beside_a_further_column(tmp_path: Path) -> None:
    content = "# newdoc x\n# a comment of more cells\nEU B-ORG\n# O\n\n# newdoc y\ncalls O\n"
    path = written(tmp_path, "0.conll", content)
    words = [row.cells["tokens"] for row in read_words(path).rows]
    assert words == [["EU", "#"], ["calls"]]
    for time in range(1, 6):  # each makes other comments as long as a word's line
        read_words(path).write(tmp_path / f"{time}.conll", TAGS)
        path = tmp_path / f"{time}.conll"
        assert [row.cells["tokens"] for row in read_words(path).rows] == words
        assert [sentence.tags for sentence in read_tagged(path).sentences] == [cells["prediction"] for cells in TAGS]


@pytest.mark.parametrize(
    ("name", "content", "are_words"),
    [
        ("a.txt", "EU B-x\nrejects O\n", True),
        ("a.txt", "EU NNP B-x\nrejects O\n\ncalls NNS O\n", True),  # the ragged line is named when it is read
        ("a.txt", "It works\nit fails\n", False),
        ("a.txt", "O\nO\n", False),
        ("a.tsv", "text\tlabel\na\tb\n", True),
        ("a.tsv", "words\tlabel\na\tb\n", False),
        ("a.csv", "words\na\n", False),
        ("a.conll", "EU\n", True),
    ],
)
def test_what_holds_a_word_per_line(tmp_path: Path, name: str, content: str, are_words: bool) -> None:
    assert holds_words(written(tmp_path, name, content), Columns("words"), ("B-x", "O")) is are_words


def test_words_alone_and_another_column(tmp_path: Path) -> None:
    """A file to be tagged needs no tags; between tabs a word may hold blanks."""
    alone = read_words(written(tmp_path, "a.conll", "EU\nrejects\n\ncalls\n"))
    assert [row.cells["tokens"] for row in alone.rows] == [["EU", "rejects"], ["calls"]]
    second = read_words(written(tmp_path, "b.conll", "1\tNew York\n2\tcalls\n"), "2")
    assert second.rows[0].cells["tokens"] == ["New York", "calls"]
    second.write(tmp_path / "c.conll", [{"prediction": ["B-LOC", "O"]}])
    assert (tmp_path / "c.conll").read_text() == "1\tNew York\tB-LOC\n2\tcalls\tO\n"


def test_conllu_gets_a_miscellaneous_entry(tmp_path: Path) -> None:
    path = written(tmp_path, "a.conllu", CONLLU)
    words = read_words(path)
    assert [row.cells["tokens"] for row in words.rows] == [["do", "n't"], ["go"]]
    words.write(tmp_path / "b.conllu", [{"prediction": ["AUX", "PART"]}, {"prediction": ["NOUN"]}])
    before, after = path.read_text().splitlines(), (tmp_path / "b.conllu").read_text().splitlines()
    changed = {number: line.split("\t")[9] for number, line in enumerate(after) if line != before[number]}
    assert changed == {2: "Predicted=AUX", 3: "SpaceAfter=No|Predicted=PART", 6: "Predicted=NOUN"}
    assert len(before) == len(after)
    assert len(read_tagged(tmp_path / "b.conllu").sentences) == 2


@pytest.mark.parametrize(
    ("name", "content", "text", "tokens"),
    [
        ("a.conll", "", None, ["a.conll"]),
        ("a.conll", "EU B\nrejects\n", None, [2]),
        ("a.conll", "EU B\n", "3", ["--text", 3, 2]),
        ("a.conll", "a\tb\n\tb\n", None, [2]),
        ("a.conllu", "1\tdo\n", None, [1]),
    ],
)
def test_lines_that_are_no_words_are_named(
    tmp_path: Path, name: str, content: str, text: str | None, tokens: list[object]
) -> None:
    with names(DataError, *tokens):
        read_words(written(tmp_path, name, content), text)
