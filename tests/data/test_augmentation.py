"""Words and variants drawn from candidates, and the file in which they are kept."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from messages import names, unnamed

from emdistill.data.augmentation import (
    STOP_WORDS,
    augment_row,
    augment_text,
    describe_train,
    read_augmented,
    read_header,
    replaceable,
    split_words,
    train_texts,
    write_augmented,
)
from emdistill.data.read import read_task_data
from emdistill.errors import DataError
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task, TaskData

GLUE = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "glue"
TEXTS = ["The movie was good", "a bad book", "it is not a very good movie"]


def eligible(text: str) -> list[str]:
    pieces = split_words(text)
    return [pieces[place] for place in replaceable(pieces)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "one",
        "Two words.",
        "  a\tb\n",
        'don\'t—"quoted" 3.5% (naïve) 北京 🙂',
        "cafe\u0301s",
        "'s 'tis rock'n'roll's",
    ],
)
def test_joined_again_they_are_the_text(text: str) -> None:
    pieces = split_words(text)
    assert "".join(pieces) == text
    assert len(pieces) % 2 == 1
    assert not any(any(character.isalnum() for character in between) for between in pieces[::2])
    assert all(pieces[1::2])


def test_what_may_be_replaced() -> None:
    assert eligible("The Movie, a well-known one, wasn't BAD!") == ["Movie", "well", "known", "BAD"]
    assert eligible("Cleveland 's court did n't ca n't 3rd x y2k 'quoted'") == ["Cleveland", "court", "quoted"]
    assert eligible("naïve Straße cafe\u0301 plain") == ["plain"]  # an accent of its own does not make 'cafe' a word
    assert eligible("it is not a very") == []
    assert {"the", "not", "no", "of", "would"} <= STOP_WORDS
    assert all(word.islower() and word.isalpha() for word in STOP_WORDS)


@pytest.mark.parametrize(("task", "texts"), [("CoLA", 8_000), ("MRPC", 7_000)])
def test_real_texts(task: str, texts: int) -> None:
    if not (GLUE / task).is_dir():
        pytest.skip("no GLUE data here")
    found = [text for row in train_texts(read_task_data(str(GLUE / task), task=task.lower())) for text in row]
    assert len(found) > texts
    assert all("".join(split_words(text)) == text for text in found)
    assert np.mean([bool(eligible(text)) for text in found]) > 0.98


# ------------------------------------------------------------------------------------------------------ variants


def side(text: str, **candidates: tuple[str, ...]) -> tuple[list[str], dict[int, tuple[str, ...]]]:
    pieces = split_words(text)
    places = {
        place: candidates[pieces[place].lower()] for place in replaceable(pieces) if pieces[place].lower() in candidates
    }
    return pieces, places


def test_replaced_words_keep_their_capital_and_all_else_stays() -> None:
    pieces, candidates = side("«Good» movies, GOOD books; bad.", good=("fine",), bad=("poor",))
    altered = augment_text(pieces, candidates, np.random.default_rng(0), replace=1.0)
    assert "".join(altered) == "«Fine» movies, Fine books; poor."
    assert "".join(pieces) == "«Good» movies, GOOD books; bad."
    assert augment_text(pieces, {}, np.random.default_rng(0), replace=1.0) == pieces


def test_each_word_is_replaced_with_that_probability_by_any_of_its_candidates() -> None:
    pieces, candidates = side("good and bad", good=("a", "b", "c"), bad=("d", "e"))
    generator = np.random.default_rng(1)
    drawn = ["".join(augment_text(pieces, candidates, generator, 0.4)).split(" and ") for _ in range(20_000)]
    for place, expected in (
        (0, {"good": 0.6, "a": 0.4 / 3, "b": 0.4 / 3, "c": 0.4 / 3}),
        (1, {"bad": 0.6, "d": 0.2, "e": 0.2}),
    ):
        counts = Counter(words[place] for words in drawn)
        assert counts.keys() == expected.keys()
        # five standard deviations
        assert all(abs(counts[word] / 20_000 - share) < 5 * np.sqrt(share / 20_000) for word, share in expected.items())
    both = np.mean([words[0] != "good" and words[1] != "bad" for words in drawn])
    assert abs(both - 0.16) < 0.015  # one independent of the other


def test_a_rows_variants_depend_on_seed_and_row_alone() -> None:
    sides = [side("good bad book", good=("a", "b", "c"), bad=("d", "e", "f"), book=("g", "h"))]
    drawn = {row: augment_row(row, sides, copies=5, replace=0.4, seed=3) for row in range(8)}
    again = {row: augment_row(row, sides, copies=5, replace=0.4, seed=3) for row in reversed(range(8))}
    assert drawn == again
    assert len({tuple(variant.texts for variant in variants) for variants in drawn.values()}) == 8
    assert augment_row(0, sides, copies=5, replace=0.4, seed=4) != drawn[0]
    fewer = augment_row(0, sides, copies=2, replace=0.4, seed=3)
    assert fewer == drawn[0][: len(fewer)]


def test_no_variant_is_there_twice_or_is_the_text_itself() -> None:
    sides = [side("good book", good=("fine", "nice"))]
    variants = augment_row(0, sides, copies=100, replace=0.4, seed=0)
    assert sorted(variant.texts for variant in variants) == [("fine book",), ("nice book",)]
    assert all((variant.row, variant.side, variant.replaced, variant.words) == (0, 0, 1, 2) for variant in variants)
    assert augment_row(0, [side("good book")], copies=100, replace=1.0, seed=0) == []
    assert augment_row(0, [side("")], copies=100, replace=1.0, seed=0) == []
    assert len(augment_row(0, [side("good", good=tuple("abcdefgh"))], copies=3, replace=1.0, seed=0)) <= 3


def test_of_a_pair_one_side_is_altered_and_the_other_is_the_original() -> None:
    many = tuple(f"{first}{second}" for first in "abcdefghij" for second in "abcdefghij")
    left, right = side("good book one", good=many, book=many), side("bad movie", bad=many, movie=many)
    variants = [
        variant for row in range(50) for variant in augment_row(row, [left, right], copies=5, replace=0.9, seed=0)
    ]
    for variant in variants:
        other = 1 - variant.side
        assert variant.texts[other] == ("good book one", "bad movie")[other]
        assert variant.texts[variant.side] != ("good book one", "bad movie")[variant.side]
        assert variant.words == (3, 2)[variant.side]
    shares = Counter(variant.side for variant in variants)
    assert abs(shares[0] - shares[1]) <= 12  # of 250, some of which came out as the original
    only_right = augment_row(0, [side("it is"), right], copies=4, replace=1.0, seed=0)
    assert len(only_right) == 4
    assert {variant.side for variant in only_right} == {1}


# ------------------------------------------------------------------------------------------------------ the file


def task_data(*, kind: str = "classification", pairs: bool = False, texts: list[str] = TEXTS) -> TaskData:
    labels = ("bad", "good") if kind == "classification" else ()
    columns: dict[str, Any] = {"text": texts, "label": [1, 0, 0] if labels else [4.5, 1.0, 2.25]}
    if pairs:
        columns["text_pair"] = [text.upper() for text in texts]
    task = Task("mine", KINDS[kind], labels, ("accuracy",), text_pair="other" if pairs else None)
    return TaskData(task, Dataset.from_dict(columns), {})


def rows_of(data: TaskData) -> list[dict[str, Any]]:
    pairs = {"text_pair": "x"} if data.task.text_pair else {}
    labels = ("good", "bad", "good") if data.task.labels else (4.25, 1, -0.5)
    return [
        {"row": row, "text": f"variant {row}\u2028", **pairs, "label": label}
        for row, label in zip((0, 0, 2), labels, strict=True)
    ]


def write(path: Path, data: TaskData, rows: list[dict[str, Any]] | None = None, **more: Any) -> Path:
    rows = rows_of(data) if rows is None else rows
    write_augmented(path, describe_train(data) | {"teacher": "abc", "variants": len(rows)} | more, rows)
    return path


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("pairs", [False, True])
def test_what_is_written_is_read(tmp_path: Path, kind: str, pairs: bool) -> None:
    data = task_data(kind=kind, pairs=pairs)
    path = write(tmp_path / "augmented.jsonl", data)
    found = read_augmented(str(path), data, teacher="abc")
    assert set(found.column_names) == {*data.train.column_names, "row"}
    assert {name: found.features[name] for name in data.train.column_names} == dict(data.train.features)
    assert found["row"][:] == [0, 0, 2]
    assert found["text"][:] == [f"variant {row}\u2028" for row in (0, 0, 2)]
    assert found["label"][:] == ([1, 0, 1] if data.task.labels else [4.25, 1.0, -0.5])
    assert not pairs or found["text_pair"][:] == ["x"] * 3
    assert read_header(path)["teacher"] == "abc"
    assert [file.name for file in tmp_path.iterdir()] == ["augmented.jsonl"]


def test_no_rows_are_read_as_none(tmp_path: Path) -> None:
    found = read_augmented(write(tmp_path / "none.jsonl", task_data(), []), task_data())
    assert (len(found), set(found.column_names)) == (0, {"text", "label", "row"})


def test_the_hash_is_of_the_texts_in_their_order_and_not_of_the_files(tmp_path: Path) -> None:
    rows = [("good, very", "yes"), ("bad", "no"), ("ünder\u2028", "no")]
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    lines = [json.dumps({"label": label, "text": text, "id": 1}) for text, label in rows]
    (tmp_path / "b.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "c.jsonl").write_text("\n".join(reversed(lines)), encoding="utf-8")
    a, b, c = (
        describe_train(read_task_data(str(tmp_path / name), dev=str(tmp_path / "a.csv")))
        for name in ("a.csv", "b.jsonl", "c.jsonl")
    )
    assert a["train"] == b["train"] != c["train"]
    assert (a["task"]["name"], b["task"]["name"]) == ("a", "b")
    joined, apart = task_data(pairs=True), task_data(pairs=True)
    apart = TaskData(
        apart.task, apart.train.map(lambda row: {"text": row["text"] + row["text_pair"], "text_pair": ""}), {}
    )
    assert describe_train(joined)["train"] != describe_train(apart)["train"]


def test_rows_of_other_data_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "augmented.jsonl", task_data())
    with names(DataError, path, 3, "mine"):
        read_augmented(path, task_data(texts=TEXTS[::-1]))
    with names(DataError, path, "'bad', 'good'", "regression"):
        read_augmented(path, task_data(kind="regression"))
    with names(DataError, path, "mine"):
        read_augmented(path, task_data(pairs=True))
    with names(DataError, path, "teacher", "emdistill augment --overwrite"):
        read_augmented(path, task_data(), teacher="abd")


@pytest.mark.parametrize("name", ["task", "train", "settings"])
@pytest.mark.parametrize("value", [[1.5], "x", None, 3])
def test_a_header_that_says_something_else_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    data = task_data()
    with names(DataError, f"{tmp_path / 'augmented.jsonl'}:1"):
        read_augmented(write(tmp_path / "augmented.jsonl", data, **{name: value}), data)


@pytest.mark.parametrize("labels", [[[1.5], "good"], 3, None, {"bad": 0}, "bad, good"])
def test_labels_of_a_header_may_be_anything(tmp_path: Path, labels: Any) -> None:
    data = task_data()
    task = describe_train(data)["task"] | {"labels": labels}
    with names(DataError, tmp_path / "augmented.jsonl", ", ".join(data.task.labels)):
        read_augmented(write(tmp_path / "augmented.jsonl", data, task=task), data)


def test_bad_lines_are_named_with_their_numbers(tmp_path: Path) -> None:
    data = task_data(pairs=True)
    good = {"row": 1, "text": "a", "text_pair": "b", "label": "bad"}
    bad: dict[int, tuple[dict[str, Any], list[str]]] = {
        3: (good | {"row": 3}, ["row 3"]),
        4: (good | {"row": True}, ["row True"]),
        5: (good | {"label": "goods"}, ["'goods'", "bad, good", "'good'"]),
        7: ({"row": 1, "text": " ", "label": "bad"}, ["'text'", "'text_pair'"]),
        8: (good | {"label": 1}, ["label '1'"]),
    }
    rows = [bad[line][0] if line in bad else good for line in range(2, 9)]
    with names(DataError, *(f"rows.jsonl:{line}" for line in bad)) as caught:
        read_augmented(write(tmp_path / "rows.jsonl", data, rows), data)
    lines = str(caught.value).splitlines()
    for number, (_, named) in bad.items():
        (line,) = [line for line in lines if f"rows.jsonl:{number}:" in line]
        assert not unnamed(line, *named)
    scores = task_data(kind="regression")
    for label in ("many", True, float("nan"), None):
        with names(DataError, "scores.jsonl:2", "label"):
            read_augmented(write(tmp_path / "scores.jsonl", scores, [{"row": 0, "text": "a", "label": label}]), scores)


def test_a_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    data = task_data()
    path = write(tmp_path / "augmented.jsonl", data)
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.rsplit("\n", 2)[0] + "\n", encoding="utf-8")
    with names(DataError, path, 2, 3):
        read_augmented(path, data)
    path.write_text(whole + whole.rsplit("\n", 2)[1] + "\n", encoding="utf-8")
    with names(DataError, path, 4, 3):
        read_augmented(path, data)
    path.write_text(whole[:-9], encoding="utf-8")
    with names(DataError, "augmented.jsonl:4"):
        read_augmented(path, data)
    path.write_text(whole.split("\n", 1)[1], encoding="utf-8")
    with names(DataError, path, "emdistill augment"):
        read_augmented(path, data)
    path.write_text("", encoding="utf-8")
    with names(DataError, path):
        read_augmented(path, data)
    with names(DataError, tmp_path / "augmentd.jsonl", "'augmented.jsonl'"):
        read_augmented(tmp_path / "augmentd.jsonl", data)
    (tmp_path / "augmented.csv").write_text("row,text\n", encoding="utf-8")
    with names(DataError, tmp_path / "augmented.csv", ".jsonl"):
        read_augmented(tmp_path / "augmented.csv", data)


def test_an_interruption_leaves_the_old_file_and_no_half_one(tmp_path: Path) -> None:
    data = task_data()
    path = write(tmp_path / "augmented.jsonl", data)
    before = path.read_bytes()

    def interrupted() -> Iterator[dict[str, Any]]:
        yield rows_of(data)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_augmented(path, describe_train(data), interrupted())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["augmented.jsonl"]
