"""Text without labels: what is read, what is left out, and that its tokens are those of labelled rows."""

import bz2
import gzip
import json
import lzma
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset
from messages import names

from emdistill.data import unlabelled
from emdistill.data.batches import tokenise
from emdistill.data.files import Columns
from emdistill.data.teacher_answers import TeacherAnswers, read_teacher_answers
from emdistill.data.text_hashes import Seen, normalised
from emdistill.data.unlabelled import kept_texts, unlabelled_dataset, unlabelled_text
from emdistill.errors import ConfigError, DataError
from emdistill.states import TEACHER_LOGITS
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task
from emdistill.tasks.words import SPACES

TASK = Task("reviews", KINDS["classification"], ("bad", "good"), ("accuracy",), text="body")
PAIRS = Task("pairs", KINDS["regression"], (), ("pearson",), text="one", text_pair="two")
TEXTS = ["a good movie", "a book, 2", 'the "very" good\tbook', "it was not bad"]


def zst(content: bytes) -> bytes:
    packed = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(content)
    return bytes(packed.getvalue())


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zst,
}  # fmt: skip
WRITTEN: dict[str, Callable[[list[str]], str]] = {
    ".txt": lambda texts: "\n".join(texts) + "\n\n",
    ".jsonl": lambda texts: "\n".join(json.dumps({"id": 1, "body": text}) for text in texts),
    ".csv": lambda texts: "\n".join(["body,id", *('"' + text.replace('"', '""') + '",1' for text in texts)]),
}


def write(place: Path, content: str | bytes) -> str:
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(place)


def rows_of(texts: Sequence[Any], label: Any = 0) -> Dataset:
    sides = [texts] if isinstance(texts[0], str) else zip(*texts, strict=True)
    columns: dict[str, Any] = dict(zip(("text", "text_pair"), map(list, sides), strict=False))
    return Dataset.from_dict(columns | {"label": [label] * len(texts)})


def read(
    files: str,
    tokenizer: Any,
    folder: Path,
    *,
    task: Task = TASK,
    scored: Sequence[Any] = ("of dev",),
    labelled: Sequence[Any] = ("of train",),
    rows: int | None = None,
    label: Any = 0,
    answers: TeacherAnswers | None = None,
    **given: Any,
) -> tuple[Dataset, dict[str, int]]:
    encode = partial(tokenise, tokenizer=tokenizer, max_length=32)
    known = rows_of(labelled, label)
    if answers is not None:
        known = known.add_column(TEACHER_LOGITS, [[0.0, 0.0]] * len(known))
    return unlabelled_dataset(
        unlabelled_text(files, task, Columns(**given), folder / "kept", rows, answers),
        scored=[rows_of(scored, label)],
        labelled=known,
        task=task,
        encode=encode,
        features=encode(known).features,
        key="tiny 32",
    )


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("kind", WRITTEN)
def test_every_format_gives_the_tokens_of_its_texts(kind: str, packing: str, tmp_path: Path, tiny_tokenizer) -> None:
    file = write(tmp_path / f"more{kind}{packing}", PACKED[packing](WRITTEN[kind](TEXTS).encode()))
    found, counts = read(file, tiny_tokenizer, tmp_path)
    assert found["input_ids"][:] == tiny_tokenizer(TEXTS)["input_ids"]
    assert found["length"][:] == [len(ids) for ids in found["input_ids"]]
    assert found["labels"][:] == [-100] * 4
    assert counts == {"read": 4, "scored": 0, "labelled": 0, "unanswered": 0, "repeated": 0, "kept": 4}


def test_parquet_and_several_files_in_their_order(tmp_path: Path, tiny_tokenizer) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"body": TEXTS[:2]}), tmp_path / "a.parquet")
    other = write(tmp_path / "b.txt", "\n".join(TEXTS[2:]))
    for named in (f"{tmp_path}/a.parquet, {other}", f"{tmp_path}/?.*"):
        found, _ = read(named, tiny_tokenizer, tmp_path)
        assert found["input_ids"][:] == tiny_tokenizer(TEXTS)["input_ids"]
    with names(DataError, tmp_path / "?.csv"):
        read(f"{tmp_path}/?.csv", tiny_tokenizer, tmp_path)


def test_pairs_are_read_as_pairs(tmp_path: Path, tiny_tokenizer) -> None:
    pairs = [("a book", "a movie"), ("a movie", "a book"), ("A book!", "a movie"), ("it", "was in dev")]
    lines = write(tmp_path / "pairs.txt", "".join(f"{one}\t{two}\n" for one, two in pairs))
    options: Any = {"task": PAIRS, "scored": [("it", "was in DEV")], "labelled": [("x", "y")], "label": 0.5}
    found, counts = read(lines, tiny_tokenizer, tmp_path, **options)
    assert found["input_ids"][:] == tiny_tokenizer(*zip(*pairs[:2], strict=True))["input_ids"]
    assert np.isnan(found["labels"][:]).all()
    assert (counts["scored"], counts["repeated"]) == (1, 1)
    torn = write(tmp_path / "torn.txt", "a\tb\nalone\n")
    with names(DataError, f"{torn}:2", "'one'", "'two'"):
        read(torn, tiny_tokenizer, tmp_path, **options)


def test_what_is_scored_labelled_or_repeated_is_left_out_and_counted(
    tmp_path: Path, tiny_tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the ends of chunks too; case, punctuation, spaces and Unicode's forms apart."""
    texts = ["One, two", "DEV: row", "one two!", "three", "Ｔhree", "train  row.", "four", "dev row", "four?", "five"]
    file = write(tmp_path / "more.txt", "\n".join(texts))
    expected = {"read": 10, "scored": 2, "labelled": 1, "unanswered": 0, "repeated": 3, "kept": 4}
    options: Any = {"scored": ["Dev row"], "labelled": ["Train row"]}
    for size in (1, 3, 100):
        monkeypatch.setattr(unlabelled, "ROWS_AT_ONCE", size)
        found, counts = read(file, tiny_tokenizer, tmp_path / str(size), **options)
        assert counts == expected
        assert found["input_ids"][:] == tiny_tokenizer(["One, two", "three", "four", "five"])["input_ids"]
        few, counts = read(file, tiny_tokenizer, tmp_path / str(size), rows=2, **options)
        assert few["input_ids"][:] == found["input_ids"][:2]
        assert counts == {"read": 4, "scored": 1, "labelled": 0, "unanswered": 0, "repeated": 1, "kept": 2}


def test_of_a_file_of_answers_the_answered_texts_are_kept(
    tmp_path: Path, tiny_tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text without an answer hides none that has one; other answers are read anew."""
    given = {"one": [1.0, 2.0], "Two": [3.0, 4.0], "of dev": [5.0, 6.0], "three": [7.0, 8.0]}

    def file_of(name: str, given: dict[str, list[float]]) -> TeacherAnswers:
        rows = (json.dumps({"body": text, "logits": logits}) for text, logits in given.items())
        return read_teacher_answers(Path(write(tmp_path / name, "\n".join(rows))), TASK)

    file = write(tmp_path / "more.txt", "\n".join(["two", "one", "of dev", "one", "Two", "four", "three"]))
    for size in (1, 100):
        monkeypatch.setattr(unlabelled, "ROWS_AT_ONCE", size)
        answers = file_of("answers.jsonl", given)
        found, counts = read(file, tiny_tokenizer, tmp_path / str(size), answers=answers)
        assert counts == {"read": 7, "scored": 1, "labelled": 0, "unanswered": 2, "repeated": 1, "kept": 3}
        assert found["input_ids"][:] == tiny_tokenizer(["one", "Two", "three"])["input_ids"]
        assert found[TEACHER_LOGITS][:] == [[1, 2], [3, 4], [7, 8]]
        few, counts = read(file, tiny_tokenizer, tmp_path / str(size), answers=answers, rows=2)
        assert (len(few), counts["read"]) == (2, 5)
        other = file_of("other.jsonl", given | {"one": [2.0, 1.0]})
        assert read(file, tiny_tokenizer, tmp_path / str(size), answers=other)[0][TEACHER_LOGITS][0] == [2, 1]
    with names(DataError, "more.txt", 0, 7):
        read(file, tiny_tokenizer, tmp_path, answers=file_of("none.jsonl", {"ten": [0.0, 0.0]}))


def test_texts_are_the_same_by_their_words() -> None:
    assert normalised("  The MOVIE—was\tgood… ") == normalised("the movie was good")
    assert normalised("Straße ﬁn") == normalised("STRASSE fin")
    assert normalised("कि") != normalised("का")  # they differ in a combining vowel alone
    assert normalised(":-)") != normalised(":-(")  # of a text without words all counts


def test_hashes_are_kept_sorted() -> None:
    draw = np.random.default_rng(0)
    seen, plain = Seen(), set[int]()
    for _ in range(20):
        hashes = np.unique(draw.integers(0, 300, 40, dtype=np.uint64))
        new = hashes[~seen.has(hashes)]
        assert set(new.tolist()) == set(hashes.tolist()) - plain
        seen.add(new)
        plain |= set(new.tolist())


def test_a_file_is_read_once_and_again_where_anything_differs(tmp_path: Path, tiny_tokenizer) -> None:
    file = write(tmp_path / "more.txt", "one\ntwo\nthree")
    one, counts = read(file, tiny_tokenizer, tmp_path)
    kept = tmp_path / "kept"
    (arrow,) = kept.glob("*.arrow")
    written = arrow.stat().st_mtime_ns
    again, counts_again = read(file, tiny_tokenizer, tmp_path)
    assert (again["input_ids"][:], counts_again) == (one["input_ids"][:], counts)
    assert arrow.stat().st_mtime_ns == written
    for options in ({"scored": ["one"]}, {"labelled": ["one"]}, {"rows": 1}):
        other, _ = read(file, tiny_tokenizer, tmp_path, **options)
        assert len(other) < 3
    write(tmp_path / "more.txt", "one\ntwo")
    assert len(read(file, tiny_tokenizer, tmp_path)[0]) == 2
    arrow.write_bytes(arrow.read_bytes()[:-9])  # cut short
    write(tmp_path / "more.txt", "one\ntwo\nthree")
    assert read(file, tiny_tokenizer, tmp_path)[0]["input_ids"][:] == one["input_ids"][:]


def test_glue_text_has_the_hub_s_columns_or_the_files_own(tmp_path: Path, tiny_tokenizer) -> None:
    task = Task("mrpc", KINDS["classification"], ("no", "yes"), ("f1",), text="sentence1", text_pair="sentence2")
    options: Any = {"task": task, "scored": [("a", "b")], "labelled": [("x", "y")]}
    for header, given in [
        (("sentence1", "sentence2"), {}),
        (("#1 String", "#2 String"), {}),
        (("left", "right"), {"text": "left", "text_pair": "right"}),
    ]:
        file = write(tmp_path / "test.tsv", "index\t" + "\t".join(header) + "\n0\tone\ttwo\n")
        found, _ = read(file, tiny_tokenizer, tmp_path, **options, **given)
        assert found["input_ids"][:] == [tiny_tokenizer("one", "two")["input_ids"]]
    with names(DataError, "'sentence1'"):
        read(write(tmp_path / "other.tsv", "left\tright\na\tb\n"), tiny_tokenizer, tmp_path, **options)


@pytest.mark.parametrize(
    ("name", "content", "tokens"),
    [
        ("more.jsonl", '{"body": "a"}\n{"body": " "}\n{"body": 3}\n', (":2", ":3", "'body'")),
        ("more.jsonl", '{"text": "a"}\n', ("'body'", "text")),
        ("more.csv", "body,id\na,1\nb\n", (":3",)),
        ("more.csv", 'id,body\n1,a\n2,"b\n3,c\n4,d\n5,e"\n6,f\n', (":3", 2, "quote")),
        ("more.txt", b"a\n\xe9\n", (":2", "UTF-8")),
        ("more.txt.gz", b"no gzip", ("more.txt.gz",)),
        ("more.jsonl.zst", zst(b'{"body": "a"}\n' * 100)[:-12], ("more.jsonl.zst",)),
        ("more.parquet.gz", b"PAR1", ("Parquet",)),
        ("more.doc", b"a", ("'.doc'", ".jsonl")),
        ("more.txt", b"\n", ("more.txt",)),
        ("more.txt", b"of dev\nof train\n", ("more.txt", 0, 1)),
    ],
)
def test_what_cannot_be_used_is_named(
    name: str, content: str | bytes, tokens: tuple[object, ...], tmp_path: Path, tiny_tokenizer
) -> None:
    with names(DataError, *tokens):
        read(write(tmp_path / name, content), tiny_tokenizer, tmp_path, text="body")


def test_a_tagger_reads_words_and_no_other_task_does(tmp_path: Path) -> None:
    kind = KINDS["tagging"]
    tagger = Task("tags", kind, ("O", "B-x", "I-x"), kind.default_metrics, words=SPACES)
    lists = "".join(json.dumps({"tokens": text.split()}) + "\n" for text in TEXTS[1:2])
    files = [
        write(tmp_path / "a.conll", "a O\ngood O\nmovie B-x\n"),
        write(tmp_path / "b.jsonl", lists),
        write(tmp_path / "c.conllu", "1\tit" + "\t_" * 8 + "\n2\twas" + "\t_" * 8 + "\n"),
        write(tmp_path / "d.txt", "not bad\n"),
    ]

    def texts(files: Sequence[str], task: Task, **given: str) -> list[str]:
        text = unlabelled_text(",".join(files), task, Columns(**given), tmp_path, None)
        return [each for chunk in kept_texts(text, Seen(), Seen(), Counter()) for (each,) in chunk]

    assert texts(files, tagger) == ["a good movie", "a book, 2", "it was", "not bad"]
    assert texts(files[1:2], tagger, text="tokens") == ["a book, 2"]
    with names(DataError, f"{files[1]}:1", "'tokens'"):
        texts(files[1:2], TASK, text="tokens")
    with names(DataError, "'.conll'"):
        texts(files[:1], TASK)


def test_files_that_are_not_there(tmp_path: Path, tiny_tokenizer) -> None:
    write(tmp_path / "more.txt", "a")
    with names(DataError, f"{tmp_path}/mre.txt", "'more.txt'"):
        read(f"{tmp_path}/mre.txt", tiny_tokenizer, tmp_path)
    with names(ConfigError, "--unlabelled"):
        read(" , ", tiny_tokenizer, tmp_path)
