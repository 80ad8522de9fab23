import csv
import gzip
import json
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from messages import names

from emdistill.data.files import Columns
from emdistill.data.tagged_files import WNUT17, notes_on_tags, read_tagged, read_wnut17, split_tagged
from emdistill.data.tagged_words import read_words
from emdistill.errors import DataError

TWO = [(["EU", "rejects", "call"], ["B-org", "O", "O"]), (["Yes"], ["O"])]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, **columns: str) -> list[tuple[list[str], list[str]]]:
    """(words, tags) per sentence; the words stand in the text where they are said to."""
    return [
        ([text[start:end] for start, end in words], tags)
        for _, text, words, tags in read_tagged(path, Columns(**columns)).sentences
    ]


def rows(path: Path, *cells: dict[str, object]) -> Path:
    return write(path, "\n".join(map(json.dumps, cells)))


@pytest.mark.parametrize("gap", ["\t", " ", "   "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", ["", "{end}", "{end}{end}\t{end}"])
def test_conll_of_two_columns(tmp_path: Path, gap: str, end: str, mark: str, last: str) -> None:
    lines = [f"EU{gap}B-org", f"rejects{gap}O", f"call{gap}O", "", f"Yes{gap}O"]
    path = write(tmp_path / "a.conll", mark + end.join(lines) + last.format(end=end))
    assert read(path) == TWO


def test_conll_of_four_columns(tmp_path: Path) -> None:
    lines = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-org\nrejects VBZ B-VP O\ncall NN B-NP O\n\n# 7\nYes UH O O"
    path = write(tmp_path / "eng.train", lines)
    assert read(path) == TWO
    assert [tags for _, tags in read(path, label="2")] == [["NNP", "VBZ", "NN"], ["UH"]]
    assert read(path, label="1", text="4")[1] == (["O"], ["Yes"])
    assert [sentence.line for sentence in read_tagged(path).sentences] == [3, 8]
    with names(DataError, "--label", "pos", 4):
        read(path, label="pos")
    with names(DataError, "--label", 5, 4):
        read(path, label="5")


@pytest.mark.parametrize("start", ["-DOCSTART- -X- O", "-DOCSTART-", "-DOCSTART- (1 EU)", "-DOCSTART-\tO"])
def test_what_opens_a_document_has_any_cells(tmp_path: Path, start: str) -> None:
    path = write(tmp_path / "a.conll", f"{start}\n\na X Y B-x\n{start}\nb X Y O\n")
    assert [sentence.text for sentence in read_tagged(path).sentences] == ["a b"]


def test_words_of_conll_are_as_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv.gz", gzip.compress("#\tO\n10 000\tB-n\na\u00a0b\tO\n#tag\tO".encode()))
    assert read(path) == [(["#", "10 000", "a\u00a0b", "#tag"], ["O", "B-n", "O", "O"])]
    path = write(tmp_path / "a.conll", "# a comment\n# O\na\u00a0b O")
    assert read(path) == [(["#", "a\u00a0b"], ["O", "O"])]


def test_a_comment_may_have_as_many_cells_as_a_word(tmp_path: Path) -> None:
    """It is none where another word's line ends as it does."""
    path = write(tmp_path / "a.conll", "# 7\nEU B-x\n# B-x\n\n# O\nb O\n\n# 8\n")
    assert read(path) == [(["EU", "#"], ["B-x", "B-x"]), (["#", "b"], ["O", "O"])]


@pytest.mark.parametrize("content", ["1\tEU\tB-x\n2\tis\tO\n\n1\tb\tO\n", "# x\n0 EU B-x\n1 is O\n"])
def test_numbers_of_words_are_no_words(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "a.conll", content)
    with names(DataError, path, "--text", 2):
        read(path)
    with names(DataError, path, "--text", 2):
        read_words(path)
    assert read_words(path, "2").rows[0].cells["tokens"] == ["EU", "is"]
    assert read_words(path, "1").rows[0].cells["tokens"][0] in ("0", "1")


def test_entities_before_the_last_column_are_named(tmp_path: Path) -> None:
    """As where the last one says whether white space follows."""
    path = write(tmp_path / "a.conll", "It O +\nYork B-x -\n. O +\n")
    with names(DataError, path, "--label", 2, 3):
        read(path)
    assert read(path, label="2") == [(["It", "York", "."], ["O", "B-x", "O"])]
    assert read(path, label="3") == [(["It", "York", "."], ["+", "-", "+"])]
    none = write(tmp_path / "a.conll", "It PRP B-NP O\nis VBZ O O\n")  # a text may hold none of the entities
    assert read(none) == [(["It", "is"], ["O", "O"])]


def test_tags_before_words_are_no_words(tmp_path: Path) -> None:
    path = write(tmp_path / "movies.bio", "O\twho\nB-ACTOR\tAda\nI-ACTOR\tLovelace\n")
    with names(DataError, path, "--text", 2, "--label", 1):
        read(path)
    assert read(path, text="2", label="1") == [(["who", "Ada", "Lovelace"], ["O", "B-ACTOR", "I-ACTOR"])]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a\tO\n\tO\n", 2),
        ("a\tO\nb\t\n", 2),
        ("a\tO\nb\n", 2),
        ("a O\nb c O\n", 2),
        ("a O\n\nb O\n# c d e\n", 4),
        ("a\nb\n", 1),
    ],
)
def test_conll_with_bad_lines(tmp_path: Path, content: str, line: int) -> None:
    path = write(tmp_path / "a.conll", content)
    with names(DataError, f"{path}:{line}"):
        read(path)


@pytest.mark.parametrize("content", ["", "\n\t\n"])
def test_conll_without_sentences(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "a.conll", content)
    with names(DataError, str(path)):
        read(path)


CONLLU = """# newdoc
# text = He didn't go.
1\tHe\the\tPRON\tPRP\t_\t4\tnsubj\t_\t_
2-3\tdidn't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdid\tdo\tAUX\tVBD\tTense=Past\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\tSpaceAfter=No
4.1\tgone\t_\t_\t_\t_\t_\t_\t_\t_
5\t.\t.\tPUNCT\t.\t_\t4\tpunct\t_\t_
"""


def test_conllu_of_another_name(tmp_path: Path) -> None:
    with names(DataError, ".conllu"):
        read(write(tmp_path / "a.conll", CONLLU))


def test_conllu(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conllu", CONLLU)
    assert read(path) == [(["He", "did", "n't", "go", "."], ["PRON", "AUX", "PART", "VERB", "PUNCT"])]
    assert read(path, label="DEPREL")[0][1] == ["nsubj", "aux", "advmod", "root", "punct"]
    assert read(path, label="feats")[0][1] == ["_", "Tense=Past", "_", "_", "_"]
    assert [sentence.line for sentence in read_tagged(path).sentences] == [3]
    with names(DataError, "--label", "upso", "upos"):
        read(path, label="upso")
    path = write(tmp_path / "b.conllu", CONLLU.replace("\tHe\t", "\t").replace("5\t.", "x\t."))
    with names(DataError, f"{path}:3", f"{path}:9"):
        read(path)


@pytest.mark.parametrize("text", ["tokens", "words", "text", "mine"])
@pytest.mark.parametrize("label", ["tags", "ner_tags", "label", "other"])
def test_rows_of_tokens_and_tags(tmp_path: Path, text: str, label: str) -> None:
    path = rows(tmp_path / "a.jsonl", *({text: words, label: tags} for words, tags in TWO))
    options = ({"text": text} if text == "mine" else {}) | ({"label": label} if label == "other" else {})
    assert read(path, **options) == TWO


def test_csv_holds_lists_as_json(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'tokens,tags\n"[""EU"", ""x""]","[""B-org"", 3]"\n')
    assert read(path) == [(["EU", "x"], ["B-org", "3"])]


def test_csv_of_datasets_holds_lists_as_numpy_writes_them(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "tokens,tags\n['EU' \"it's\"],[1 0]\n")
    assert read(tmp_path / "a.csv") == [(["EU", "it's"], ["1", "0"])]


def test_tags_of_a_hub_dataset_have_names(tmp_path: Path) -> None:
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-org"]))})
    split = Dataset.from_dict({"tokens": [["EU", "x"]], "ner_tags": [[1, 0]]}, features=features)
    assert split_tagged("a/b (train)", split).sentences == [(1, "EU x", [(0, 2), (3, 4)], ["B-org", "O"])]
    split.to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [(["EU", "x"], ["B-org", "O"])]
    broken = Dataset.from_dict({"tokens": [["EU", "x"]], "ner_tags": [[-1, 0]]}, features=features)
    with names(DataError, "a/b (train):1", -1):
        split_tagged("a/b (train)", broken)


@pytest.mark.parametrize(
    "cells",
    [
        {"tokens": ["a", "b"], "tags": ["O"]},
        {"tokens": ["a"], "tags": "O"},
        {"tokens": ["a", " "], "tags": ["O", "O"]},
        {"tokens": ["a", 3], "tags": ["O", "O"]},
        {"tokens": ["a", "\ud83d"], "tags": ["O", "O"]},
        {"tokens": ["a"], "tags": [None]},
        {"tokens": ["a"], "tags": [True]},
        {"tokens": [], "tags": []},
        {"tokens": None, "tags": ["O"]},
        {"tokens": "a", "tags": "O"},
    ],
)
def test_rows_that_are_no_tagged_words(tmp_path: Path, cells: dict[str, object]) -> None:
    path = rows(tmp_path / "a.jsonl", {"tokens": ["a"], "tags": ["O"]}, cells)
    with names(DataError, f"{path}:2"):
        read(path)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", {"tokens": ["a"], "pos": ["O"]})
    with names(DataError, "'label'", "pos"):
        read(path)


TEXT = "Ms. Ada Lovelace, of London"


@pytest.mark.parametrize(
    "cells",
    [
        {"entities": [{"start": 21, "end": 27, "label": "place"}, {"start": 4, "end": 16, "label": "person"}]},
        {"entities": [[4, 16, "person"], [21, 27, "place"], [4, 16, "person"]]},
        {"label": [[4, 16, "person"], [20, 27, "place"]]},
        {"spans": [{"start_offset": 4, "end_offset": 16, "label": "person"}, [21, 27, "place"]]},
        {"entities": [{"type": "person", "start": 4, "end": 16}, {"type": "place", "start": 21, "end": 27}]},
        {"label": [{"labels": ["person"], "start": 4, "end": 16}, {"entity_group": "place", "start": 21, "end": 27}]},
    ],
)
def test_texts_with_entities(tmp_path: Path, cells: dict[str, object]) -> None:
    path = rows(tmp_path / "a.jsonl", {"text": TEXT, **cells}, {"text": "none", **{key: [] for key in cells}})
    assert read(path) == [
        (
            ["Ms", ".", "Ada", "Lovelace", ",", "of", "London"],
            ["O", "O", "B-person", "I-person", "O", "O", "B-place"],
        ),
        (["none"], ["O"]),
    ]
    assert read_tagged(path).sentences[0].text == TEXT


@pytest.mark.parametrize(
    "entities",
    [
        [[5, 16, "x"]],
        [[4, 15, "x"]],
        [[4, 16, "x"], [8, 16, "y"]],
        [[3, 4, "x"]],
        [[4, 28, "x"]],
        [[-1, 3, "x"]],
        [[4, 4, "x"]],
        [["4", 16, "x"]],
        [{"start": 4, "end": 16, "label": "x", "text": "Ada"}],
        [[4, 16]],
        [[4, 16, ""]],
        [{"start": 4, "label": "x"}],
        [7],
        None,
        "Ada",
    ],
)
def test_entities_that_cannot_be_used(tmp_path: Path, entities: object) -> None:
    path = rows(tmp_path / "a.jsonl", {"text": "a", "entities": []}, {"text": TEXT, "entities": entities})
    with names(DataError, f"{path}:2"):
        read(path)


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_words_in_rows_of_their_own_say_which_are_a_sentence(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ner.{suffix}"
    write(path, "word,tag\nAnn,B-per\nlives,O\n".replace(",", "," if suffix == "csv" else "\t"))
    with names(DataError, f"{path}:2", "sentence", "CoNLL"):
        read(path)


@pytest.mark.parametrize("tags", ["B-org O O", '["B-org", "O", "O"]', "['B-org' 'O' 'O']"])
def test_words_with_blanks_between(tmp_path: Path, tags: str) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "labels"], ["EU  rejects it", tags], ["it", "O"]])
    assert read(path) == [(["EU", "rejects", "it"], ["B-org", "O", "O"]), (["it"], ["O"])]
    write(path, "text,labels\nEU rejects it,O O\n")
    with names(DataError, f"{path}:2", 3, 2):
        read(path)


def test_an_entity_within_a_word_needs_other_words(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", {"text": "すずきさん", "entities": [[0, 3, "person"]]})
    with names(DataError, f"{path}:1", "'すずきさん'", "tokens", "tags"):
        read(path)
    path = rows(path, {"tokens": ["すずき", "さん"], "tags": ["B-person", "O"]})
    assert read(path) == [(["すずき", "さん"], ["B-person", "O"])]


def test_tags_that_continue_nothing_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", "a\tB-x\n\nb\tO\nc\tI-x\nd\tI-y\n")
    (note,) = notes_on_tags(read_tagged(path))
    assert f"{path}:3" in note
    assert "2" in note
    assert "'c'" in note


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ("O B-x I-x", ""),
        ("NOUN VERB", ""),
        ("O PER LOC", "PER"),
        ("O B-x B_y", "B_y"),
        ("0 1 2", "names"),
        ("O B_x I_x", "B_x"),
        ("o b-x i-x", "b-x"),
        ("O x-B x-I", "x-B"),
    ],
)
def test_tags_without_a_scheme_are_noted(tmp_path: Path, tags: str, named: str) -> None:
    path = write(tmp_path / "a.conll", "".join(f"w {tag}\n" for tag in tags.split()))
    assert named in "".join(notes_on_tags(read_tagged(path)))
    assert bool(notes_on_tags(read_tagged(path))) == bool(named)


def test_wnut17(tmp_path: Path) -> None:
    with names(DataError, str(tmp_path), *list(WNUT17.values())[:2]):
        read_wnut17(tmp_path)
    for name in WNUT17.values():
        write(tmp_path / name, "I\tO\n\t\nam\tO\n")
    assert {name: len(found.sentences) for name, found in read_wnut17(tmp_path).items()} == dict.fromkeys(WNUT17, 2)
    dev = write(tmp_path / "mine.conll", "I\tO\n")
    assert len(read_wnut17(tmp_path, dev)["dev"].sentences) == 1
