"""`emdistill predict` of a tagger on words that are given one by one: CoNLL and CoNLL-U in, tags beside them out."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from messages import unnamed

from emdistill.cli import main
from emdistill.commands.evaluate import evaluate_model
from emdistill.data.files import read_inputs, with_list
from emdistill.data.tagged_files import given_words
from emdistill.data.tagged_words import words_problem
from emdistill.models import load_classifier, load_tokenizer
from emdistill.runs.reading import remember_reading
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task
from emdistill.tasks.words import MARKS
from emdistill.training import predict_logits

KIND = KINDS["tagging"]
TASK = Task("t", KIND, ("O", "B-x", "I-x"), ("entity_f1",), words=MARKS)
SENTENCES = [["a", "good", "movie", ",", "not", "xyz-zy"], ["it"], ["very"] * 40]  # the last takes several windows
LENGTH = 24


@pytest.fixture
def model(tiny_encoder: Any, tiny_tokenizer: Any, tmp_path: Path) -> Path:
    tagger = tiny_encoder(head=KIND.head, labels=3, problem_type=KIND.problem_type)
    tagger.config.id2label = dict(enumerate(TASK.labels))
    tagger.config.label2id = {name: index for index, name in enumerate(TASK.labels)}
    remember_reading(tagger, tiny_tokenizer, TASK, LENGTH)
    for part in (tagger, tiny_tokenizer):
        part.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def predict(model: Path, file: Path, output: Path, *words: str) -> int:
    return main(["predict", "--model", str(model), "--input", str(file), "--output", str(output), *words])


def test_words_of_the_file_are_tagged_one_by_one(model: Path, tmp_path: Path) -> None:
    """As the same words are tagged from Python; `xyz-zy` stays one word, which plain text would be cut at its dash."""
    file = tmp_path / "new.conll"
    file.write_text("\n\n".join("\n".join(sentence) for sentence in SENTENCES) + "\n")
    assert predict(model, file, tmp_path / "tagged.conll") == 0
    assert predict(model, file, tmp_path / "tagged.jsonl", "--logits") == 0
    texts, places = [" ".join(sentence) for sentence in SENTENCES], []
    for sentence in SENTENCES:
        ends = np.cumsum([len(word) + 1 for word in sentence]).tolist()
        places.append([(end - 1 - len(word), end - 1) for end, word in zip(ends, sentence, strict=True)])
    rows = TASK.rows_of_text({"text": texts}, {"words": places})
    logits = predict_logits(load_classifier(model), load_tokenizer(model), rows, max_length=LENGTH)
    expected = [[TASK.labels[tag] for tag in row.argmax(axis=1)] for row in logits]
    lines = [json.loads(line) for line in (tmp_path / "tagged.jsonl").read_text().splitlines()]
    assert [line["tokens"] for line in lines] == SENTENCES
    assert [line["prediction"] for line in lines] == expected
    assert [len(line["logits"]) for line in lines] == [len(sentence) for sentence in SENTENCES]
    blocks = (tmp_path / "tagged.conll").read_text().strip().split("\n\n")
    written = [[line.split(" ") for line in block.splitlines()] for block in blocks]
    assert written == [[*map(list, zip(*pair, strict=True))] for pair in zip(SENTENCES, expected, strict=True)]


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".parquet"])
def test_what_is_written_is_scored(model: Path, tmp_path: Path, suffix: str) -> None:
    """Tokens and tags stay lists in .csv and .tsv too."""
    file, output = tmp_path / "in.jsonl", tmp_path / f"out{suffix}"
    rows = [{"tokens": words, "tags": ["O"] * (len(words) - 1) + ["B-x"]} for words in SENTENCES]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert predict(model, file, output, "--text", "tokens") == 0
    assert evaluate_model(str(model), str(output)) == evaluate_model(str(model), str(file))


def test_words_of_a_txt_file_are_not_taken_for_sentences(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("\n\n".join("\n".join(f"{word} O" for word in words) for words in SENTENCES) + "\n")
    assert predict(model, file, tmp_path / "out.jsonl") == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["tokens"] for line in lines] == SENTENCES


def test_text_that_looks_like_a_list_is_text(model: Path, tmp_path: Path) -> None:
    texts = ["[1]", "[]", '["a"]']
    (tmp_path / "in.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text, "entities": []}) + "\n" for text in texts))
    for file in (tmp_path / "in.txt", tmp_path / "in.jsonl"):
        assert predict(model, file, tmp_path / "out.jsonl", "--overwrite") == 0
        lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert ["".join(word["word"] for word in line["predicted_words"]) for line in lines] == texts
    assert evaluate_model(str(model), str(tmp_path / "in.jsonl"))["entity_f1"] >= 0  # of tags that are all O, too


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_lists_of_words_are_tagged_as_words(model: Path, tmp_path: Path, suffix: str) -> None:
    """What predict writes of CoNLL is read back; texts may stand beside lists."""
    file, output = tmp_path / "new.conll", tmp_path / f"again{suffix}"
    file.write_text("\n\n".join("\n".join(sentence) for sentence in SENTENCES) + "\n")
    assert predict(model, file, output) == 0
    rows = [row.cells for row in read_inputs(output, "tokens", None, partial(words_problem, source=output))]
    tags = [row.pop("prediction") for row in rows]
    words = [{"tokens": given_words(row["tokens"], output)} for row in rows]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*words, {"tokens": "it was good"}]))
    assert predict(model, tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--text", "tokens") == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["prediction"] for line in lines[:-1]] == [with_list(cell) for cell in tags]
    assert len(lines[-1]["prediction"]) == 3


@pytest.mark.parametrize("words", ["[]", '["a", ""]', '["a", 1]', '["\\ud800"]'])
def test_a_list_of_something_else_is_refused(model: Path, tmp_path: Path, capsys: Any, words: str) -> None:
    (tmp_path / "in.jsonl").write_text(f'{{"text": ["it"]}}\n{{"text": {words}}}\n')
    assert predict(model, tmp_path / "in.jsonl", tmp_path / "out.jsonl") == 2
    assert not unnamed(capsys.readouterr().err, "in.jsonl:2", "'text'")


def test_conllu_stays_conllu(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.conllu"
    file.write_text("# text = it\n1\tit" + "\t_" * 8 + "\n")
    assert predict(model, file, tmp_path / "tagged.conllu") == 0
    comment, line = (tmp_path / "tagged.conllu").read_text().splitlines()
    assert comment == "# text = it"
    assert line.split("\t")[9].removeprefix("Predicted=") in TASK.labels


@pytest.mark.parametrize(
    ("file", "output", "words", "tokens"),
    [
        ("new.conll", "out.conllu", [], [".conll", ".jsonl"]),
        ("new.txt", "out.conll", [], [".jsonl"]),
        ("new.conll", "out.conll", ["--logits"], ["--logits", ".jsonl"]),
        ("new.conll", "out.json", ["--logits"], ["--logits", ".jsonl"]),
        ("new.conll", "out.jsonl", ["--text", "2"], ["--text", 2]),
        ("new.conll", "out.jsonl", ["--text-pair", "2"], ["--text-pair"]),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    model: Path, tmp_path: Path, capsys: Any, file: str, output: str, words: list[str], tokens: list[object]
) -> None:
    (tmp_path / file).write_text("it\n")
    assert predict(model, tmp_path / file, tmp_path / output, *words) == 2
    assert not unnamed(capsys.readouterr().err, *tokens)
    assert not (tmp_path / output).exists()


def test_a_model_of_another_task_is_refused(
    tiny_encoder: Any, tiny_tokenizer: Any, tmp_path: Path, capsys: Any
) -> None:
    for part in (tiny_encoder(), tiny_tokenizer):
        part.save_pretrained(tmp_path / "other")
    (tmp_path / "new.conll").write_text("it\n")
    assert predict(tmp_path / "other", tmp_path / "new.conll", tmp_path / "out.jsonl") == 2
    assert not unnamed(capsys.readouterr().err, "new.conll", "classification")
