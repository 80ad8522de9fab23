"""`augment`: variants of the training texts, labelled by the teacher, in one file that is written whole and reused."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from messages import names, unnamed
from transformers import BertForMaskedLM, PreTrainedModel

from emdistill.commands.augment import augment
from emdistill.commands.predict import predict_file
from emdistill.data.augmentation import read_augmented, read_header, train_texts
from emdistill.data.read import read_task_data
from emdistill.data.text_hashes import normalised
from emdistill.errors import ConfigError, DataError, EmdistillError, ModelError, OutputError, TeacherError
from emdistill.models import fingerprint, load_classifier
from emdistill.models.word_candidates import load_masked_lm

SIDES = ("the movie was very good", "A bad, bad book.", "it is not the movie", "good and bad in the book", "of it")


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[..., PreTrainedModel], tokenizer_factory: Any
) -> Path:
    """teacher/, other/, scorer/, tagger/, bytes/ and masked-lm/, all random; data. Leave it as it is."""
    folder = tmp_path_factory.mktemp("augment")
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    models = {
        "teacher": tiny_encoder(seed=2, **labels),
        "other": tiny_encoder(seed=9, **labels),
        "scorer": tiny_encoder(labels=1, seed=3),
        "bytes": tiny_encoder("roberta", seed=2, **labels),
        "tagger": tiny_encoder(seed=5, problem_type="multi_label_classification", **labels),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        models["masked-lm"] = BertForMaskedLM(models["teacher"].config)
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tokenizer_factory().save_pretrained(folder / name)
    vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "Ġgood")
    tokenizer_factory(vocabulary).save_pretrained(folder / "bytes")
    write_csv(
        folder / "reviews.csv",
        [("text", "label"), *((text, ("bad", "good")[i % 2]) for i, text in enumerate(SIDES * 2))],
    )
    pairs = [(text, SIDES[i - 1], str(i + 0.5)) for i, text in enumerate(SIDES)]
    write_csv(folder / "pairs.csv", [("one", "two", "score"), *pairs])
    write_csv(folder / "dev.csv", [("text", "label"), ("good", "good"), ("bad", "bad")])
    return folder


def write_csv(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def options(place: Path, output: Path, **more: Any) -> dict[str, Any]:
    given = {"teacher": place / "teacher", "data": place / "reviews.csv", "dev": place / "dev.csv", "output": output}
    return {name: str(path) for name, path in given.items()} | {"copies": 6} | more


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_variants_are_labelled_by_the_teacher_and_by_nobody_else(place: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "augmented.jsonl"
    assert augment(**options(place, output)) == output
    said = capsys.readouterr().out
    header, *rows = lines(output)
    data = read_task_data(str(place / "reviews.csv"), dev=str(place / "dev.csv"))
    found = read_augmented(output, data, teacher=fingerprint(load_classifier(place / "teacher")))
    assert len(found) == len(rows) == header["variants"] > 10
    originals = train_texts(data)
    texts = [(row["text"],) for row in rows]
    assert len(set(texts)) == len(texts)
    assert not set(texts) & set(originals)
    assert max(map([row["row"] for row in rows].count, range(len(originals)))) <= 6

    write_csv(tmp_path / "variants.csv", [("text",), *texts])
    predict_file(str(place / "teacher"), str(tmp_path / "variants.csv"), str(tmp_path / "predicted.jsonl"))
    assert [row["label"] for row in rows] == [row["prediction"] for row in lines(tmp_path / "predicted.jsonl")]

    same = sum(row["label"] == data.task.labels[data.train[row["row"]]["label"]] for row in rows) / len(rows)
    assert 0 < same < 1  # a random teacher and the labels of the file do not agree
    assert not unnamed(said, f"{len(rows)} variants", "10 rows", f"{len(rows) / 10:.1f}", f"{same:.1%}")
    assert f"{header['replaced'] / header['words']:.1%}" in said


def without_data(place: Path, output: Path, unlabelled: Path, **more: Any) -> dict[str, Any]:
    given = {"teacher": str(place / "teacher"), "unlabelled": str(unlabelled), "output": str(output), "copies": 6}
    return given | more


FURTHER = (
    "A good book, a bad movie", "not a movie", "the movie was VERY good!", "good", "of the", "bad in a book",
    "a good book; a bad movie",
)  # fmt: skip


def test_variants_of_text_are_texts_and_none_that_is_known(place: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """The same in chunks of any size; the labelled rows, dev and the texts themselves are not among them."""
    (tmp_path / "more.txt").write_text("\n".join(FURTHER))
    files = {}
    for size in (1, 3, 1000):
        monkeypatch.setattr("emdistill.commands._text_variants.ROWS_AT_ONCE", size)
        monkeypatch.setattr("emdistill.data.unlabelled.ROWS_AT_ONCE", size)
        output = tmp_path / f"{size}.jsonl"
        assert augment(**options(place, output, unlabelled=f"{tmp_path}/more.txt")) == output
        files[size] = output.read_bytes()
        said = capsys.readouterr().out
    assert files[1] == files[3] == files[1000]
    rows = lines(output)
    assert {tuple(row) for row in rows} == {("text",)}
    assert not unnamed(said, f"{len(rows)} variants", "4 texts", "4 of 7", "1 repeated", "1 among", "1 in the sets")
    texts = [normalised(row["text"]) for row in rows]
    assert len({*texts}) == len(texts) > 6
    known = {normalised(text) for text in (*SIDES, *FURTHER[:1], "good", "bad")}
    assert not known & {*texts}


@pytest.mark.parametrize("teacher", ["teacher", "scorer", "tagger"])
def test_text_of_every_kind_of_task_needs_no_labelled_rows(place: Path, tmp_path: Path, teacher: str) -> None:
    pairs = [(one, two) for one in SIDES[:3] for two in SIDES[:3]]
    (tmp_path / "pairs.txt").write_text("".join(f"{one}\t{two}\n" for one, two in pairs))
    given = {"teacher": str(place / teacher), "text": "one", "text_pair": "two"}
    output = augment(**without_data(place, tmp_path / "of-pairs.jsonl", tmp_path / "pairs.txt", **given))
    rows = [(row["one"], row["two"]) for row in lines(output)]
    assert len(set(rows)) == len(rows) > 9
    for row in rows:
        assert not {row} & set(pairs)
        assert any(row[0] == one or row[1] == two for one, two in pairs)


def test_dev_is_left_out_without_labelled_rows_too(place: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "more.txt").write_text("good\nthe bad book\nBAD.")
    text = tmp_path / "more.txt"
    augment(**without_data(place, tmp_path / "all.jsonl", text))
    assert not unnamed(capsys.readouterr().out, "3 of 3")
    output = augment(**without_data(place, tmp_path / "less.jsonl", text, dev=str(place / "dev.csv")))
    assert not unnamed(capsys.readouterr().out, "1 of 3", "2 in the sets")
    assert all(row["text"].startswith("the ") for row in lines(output))


def test_a_masked_lm_varies_text_too_and_a_seed_decides(place: Path, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("\n".join(FURTHER))
    changes: list[dict[str, Any]] = [{}, {}, {"seed": 1}, {"masked_lm": str(place / "masked-lm")}]
    files = [
        augment(**without_data(place, tmp_path / f"{number}.jsonl", tmp_path / "more.txt", **change)).read_bytes()
        for number, change in enumerate(changes)
    ]
    assert files[0] == files[1]
    assert len({*files}) == 3


def test_all_text_is_checked_before_any_is_varied(place: Path, tmp_path: Path, monkeypatch) -> None:
    def unexpected(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("emdistill.commands.augment.augment_row", unexpected)
    text = tmp_path / "more.jsonl"
    text.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*SIDES, " "]))
    with names(DataError, f"{text}:6", "'text'"):
        augment(**without_data(place, tmp_path / "variants.jsonl", text))
    text.write_text("".join(json.dumps({"text": text}) + "\n" for text in SIDES))
    with pytest.raises(KeyboardInterrupt):
        augment(**without_data(place, tmp_path / "variants.jsonl", text))
    assert [file.name for file in tmp_path.iterdir()] == ["more.jsonl"]


def test_a_file_of_text_is_replaced_only_if_asked(place: Path, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("\n".join(FURTHER))
    given = without_data(place, tmp_path / "variants.jsonl", tmp_path / "more.txt")
    before = augment(**given).read_bytes()
    with names(OutputError, tmp_path / "variants.jsonl", "--overwrite"):
        augment(**given)
    assert augment(**given, overwrite=True).read_bytes() == before


def test_one_seed_gives_one_file_and_another_gives_another(place: Path, tmp_path: Path) -> None:
    one, again, other = (
        augment(**options(place, tmp_path / f"{name}.jsonl", seed=seed)).read_bytes()
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    )
    assert one == again != other


def test_of_a_pair_one_side_is_altered_and_scores_are_the_teachers(place: Path, tmp_path: Path, capsys) -> None:
    columns = {
        "data": str(place / "pairs.csv"),
        "text": "one",
        "text_pair": "two",
        "label": "score",
        "dev": str(tmp_path / "dev.csv"),
    }
    write_csv(tmp_path / "dev.csv", [("one", "two", "score"), ("good", "bad", "1"), ("bad", "good", "2.5")])
    scorer = options(place, tmp_path / "pairs.jsonl", teacher=str(place / "scorer"), kind="regression", **columns)
    header, *rows = lines(augment(**scorer))
    assert f"{len(rows)} variants" in capsys.readouterr().out
    for row in rows:
        before = SIDES[row["row"]], SIDES[row["row"] - 1]
        assert (row["text"] == before[0]) != (row["text_pair"] == before[1])
    assert {row["text"] == SIDES[row["row"]] for row in rows} == {True, False}
    write_csv(tmp_path / "variants.csv", [("one", "two"), *((row["text"], row["text_pair"]) for row in rows)])
    predict_file(
        str(place / "scorer"),
        str(tmp_path / "variants.csv"),
        str(tmp_path / "predicted.jsonl"),
        text="one",
        text_pair="two",
    )
    predicted = [row["prediction"] for row in lines(tmp_path / "predicted.jsonl")]
    assert [row["label"] for row in rows] == pytest.approx(predicted, abs=1e-5)
    assert header["task"] == {"name": "pairs", "kind": "regression", "labels": []}


def test_what_is_written_is_reused_and_never_replaced_unasked(place: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "augmented.jsonl"
    augment(**options(place, output))
    before = output.read_bytes(), output.stat().st_mtime_ns
    capsys.readouterr()
    augment(**options(place, output))
    assert (output.read_bytes(), output.stat().st_mtime_ns) == before
    assert not unnamed(capsys.readouterr().out, output)

    with names(OutputError, output, "--overwrite", "copies", 6, 7):
        augment(**options(place, output, copies=7))
    teachers = (fingerprint(load_classifier(place / name)) for name in ("teacher", "other"))
    with names(OutputError, output, "--overwrite", "teacher", *teachers):
        augment(**options(place, output, teacher=str(place / "other")))
    write_csv(tmp_path / "few.csv", [("text", "label"), ("very good", "good"), ("very bad", "bad")])
    with names(OutputError, output, "--overwrite", "few"):
        augment(**options(place, output, data=str(tmp_path / "few.csv")))
    output.write_bytes(before[0][:-20])
    with names(OutputError, re.compile(re.escape(str(output)) + r":\d+: "), "--overwrite"):
        augment(**options(place, output))
    augment(**options(place, output, overwrite=True))
    assert output.read_bytes() == before[0]


def test_a_masked_lm_proposes_words_in_their_context(place: Path, tmp_path: Path) -> None:
    without = augment(**options(place, tmp_path / "without.jsonl"))
    output = augment(**options(place, tmp_path / "with.jsonl", masked_lm=str(place / "masked-lm")))
    assert read_header(without)["masked_lm"] is None
    assert read_header(output)["masked_lm"] == fingerprint(load_masked_lm(place / "masked-lm"))
    assert lines(output)[1:] != lines(without)[1:]
    with names(ModelError, place / "teacher"):
        augment(**options(place, tmp_path / "other.jsonl", masked_lm=str(place / "teacher")))
    assert not (tmp_path / "other.jsonl").exists()


def test_an_interruption_leaves_no_file(place: Path, tmp_path: Path, monkeypatch) -> None:
    def interrupted(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("emdistill.commands.augment.predict_logits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        augment(**options(place, tmp_path / "augmented.jsonl"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"copies": 0}, ConfigError, "--copies"),
        ({"candidates": 0}, ConfigError, "--candidates"),
        ({"seed": -1}, ConfigError, "--seed"),
        ({"replace": 0.0}, ConfigError, "--replace"),
        ({"replace": 1.5}, ConfigError, "--replace"),
        ({"max_length": 1}, ConfigError, "--max-length"),
        ({"max_length": 1000}, ConfigError, "--max-length 1000"),
        ({"output": "{tmp}/a.csv"}, ConfigError, ".jsonl"),
        ({"output": "{tmp}/nix/a.jsonl"}, OutputError, "{tmp}/nix"),
        ({"output": "{tmp}/folder.jsonl"}, OutputError, "{tmp}/folder.jsonl"),
        ({"data": "{tmp}/own.jsonl", "output": "{tmp}/own.jsonl", "overwrite": True}, OutputError, "{tmp}/own.jsonl"),
        ({"data": "{tmp}/empty.csv", "dev": "{tmp}/empty.csv"}, DataError, "--dev"),
        ({"data": "{tmp}/nix.csv"}, DataError, "{tmp}/nix.csv"),
        ({"data": "{tmp}/empty.csv"}, DataError, "empty"),
        ({"teacher": "{place}/scorer"}, TeacherError, "regression"),
        ({"teacher": "{place}/bytes"}, EmdistillError, "RoBERTa"),
        ({"masked_lm": "{tmp}/nix"}, ModelError, "{tmp}/nix"),
        ({"data": None}, ConfigError, "--unlabelled"),
        ({"unlabelled": "{tmp}/nix.txt"}, DataError, "{tmp}/nix.txt"),
        ({"unlabelled": ","}, ConfigError, "--unlabelled"),
        ({"unlabelled": "{tmp}/empty.csv"}, DataError, "{tmp}/empty.csv"),
        ({"unlabelled": "{place}/reviews.csv"}, DataError, "{place}/reviews.csv"),
        ({"unlabelled": "{place}/pairs.csv", "data": None, "dev": None}, DataError, "'text'"),
        ({"unlabelled": "{tmp}/empty.csv", "max_length": 8}, ConfigError, "--max-length"),
        (
            {"unlabelled": "{tmp}/empty.csv, {tmp}/own.jsonl", "output": "{tmp}/own.jsonl", "overwrite": True},
            OutputError,
            "{tmp}/own.jsonl",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    place: Path, tmp_path: Path, change: dict[str, Any], error: type[EmdistillError], named: str
) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    write_csv(tmp_path / "empty.csv", [("text", "label"), ("it is", "good"), ("of the 3rd", "bad")])
    for text in ("{tmp}", "{place}"):
        path = str({"{tmp}": tmp_path, "{place}": place}[text])
        change = {
            name: value.replace(text, path) if isinstance(value, str) else value for name, value in change.items()
        }
        named = named.replace(text, path)
    before = sorted(tmp_path.iterdir())
    with names(error, re.compile(re.escape(named))):
        augment(**options(place, tmp_path / "augmented.jsonl") | change)
    assert sorted(tmp_path.iterdir()) == before
