"""`augment`: variants of the training texts, labelled by the teacher, in one file that is written whole and reused."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from messages import names, unnamed
from transformers import BertForMaskedLM, PreTrainedModel

from emdistill.commands.augment import augment
from emdistill.commands.predict import predict_file
from emdistill.data.augmentation import read_augmented, read_header, train_texts
from emdistill.data.read import read_task_data
from emdistill.errors import ConfigError, DataError, EmdistillError, ModelError, OutputError, TeacherError
from emdistill.models import fingerprint, load_classifier
from emdistill.models.word_candidates import load_masked_lm

SIDES = ("the movie was very good", "A bad, bad book.", "it is not the movie", "good and bad in the book", "of it")


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[..., PreTrainedModel], tokenizer_factory: Any
) -> Path:
    """teacher/, other/, scorer/, bytes/ and masked-lm/, all random; data. Leave it as it is."""
    folder = tmp_path_factory.mktemp("augment")
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    models = {
        "teacher": tiny_encoder(seed=2, **labels),
        "other": tiny_encoder(seed=9, **labels),
        "scorer": tiny_encoder(labels=1, seed=3),
        "bytes": tiny_encoder("roberta", seed=2, **labels),
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
        "dev": str(place / "pairs.csv"),
    }
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
    with names(OutputError, output, "--overwrite", "dev"):
        augment(**options(place, output, data=str(place / "dev.csv")))
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
        ({"max_length": 1}, ConfigError, "--max_length"),
        ({"max_length": 1000}, ConfigError, "--max_length 1000"),
        ({"output": "{tmp}/a.csv"}, ConfigError, ".jsonl"),
        ({"output": "{tmp}/nix/a.jsonl"}, OutputError, "{tmp}/nix"),
        ({"output": "{tmp}/folder.jsonl"}, OutputError, "{tmp}/folder.jsonl"),
        ({"data": "{tmp}/own.jsonl", "output": "{tmp}/own.jsonl", "overwrite": True}, OutputError, "{tmp}/own.jsonl"),
        ({"data": "{tmp}/nix.csv"}, DataError, "{tmp}/nix.csv"),
        ({"data": "{tmp}/empty.csv"}, DataError, "empty"),
        ({"teacher": "{place}/scorer"}, TeacherError, "regression"),
        ({"teacher": "{place}/bytes"}, EmdistillError, "RoBERTa"),
        ({"masked_lm": "{tmp}/nix"}, ModelError, "{tmp}/nix"),
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


def test_the_signature_makes_a_command_line() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(augment)
    words = ["--teacher=t", "--data=d", "--output=o.jsonl", "--copies=5", "--masked_lm=m", "--overwrite=true"]
    values = parser.parse_args(words).as_dict()
    assert (values["copies"], values["masked_lm"], values["overwrite"], values["replace"]) == (5, "m", True, 0.4)
    described = [action.help for action in parser._actions if action.dest in values]
    assert all(described)
