"""A tagger that is shipped: the same windows and logits as in PyTorch, and in example.py without either."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from emdistill.data.batches import PaddingCollator, tokenise
from emdistill.runs.reading import remember_reading
from emdistill.ship.gate import logit_difference
from emdistill.ship.int8_choice import Sample, logits_of
from emdistill.ship.onnx import export_onnx, open_onnx
from emdistill.ship.onnx_folder import MODEL, write_onnx_folder
from emdistill.tasks import KINDS
from emdistill.tasks.answers import flat
from emdistill.tasks.task import Task
from emdistill.tasks.words import rule_of
from emdistill.training import predict_logits

KIND = KINDS["tagging"]
TASK = Task("t", KIND, ("O", "B-x", "I-x"), ("entity_f1",), words=rule_of(["Ann", "'s", "book", "."]))
LONG = " ".join(["a good movie, not xyzzy!"] * 40)
LENGTH = 24


@pytest.fixture(scope="module")
def tagger(tiny_encoder: Any) -> PreTrainedModel:
    model: PreTrainedModel = tiny_encoder(head=KIND.head, labels=3, problem_type=KIND.problem_type)
    model.config.id2label = dict(enumerate(TASK.labels))
    return model


@pytest.fixture(scope="module")
def folder(tagger: PreTrainedModel, tokenizer_factory: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only looked at."""
    folder, tokenizer = tmp_path_factory.mktemp("shipped"), tokenizer_factory()
    remember_reading(tagger, tokenizer, TASK, LENGTH)
    export_onnx(tagger, folder / MODEL, token_types=False)
    write_onnx_folder(folder, tagger, tokenizer)
    return folder


def rows() -> Dataset:
    return TASK.rows_of_text({"text": ["it", LONG, "a good book.", "(it's)"]})


def test_the_folder_answers_every_word_as_pytorch_and_as_its_example(
    folder: Path, tagger: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    expected = predict_logits(tagger, tiny_tokenizer, rows(), max_length=LENGTH)
    shipped = open_onnx(folder)
    assert shipped.config.reading.words == TASK.words
    for batch_size in (1, 4):
        found = shipped.predict_logits(rows(), batch_size=batch_size)
        assert [len(row) for row in found] == [len(words) for words in rows()["words"]]
        assert logit_difference(expected, found).largest < 1e-4
    done = subprocess.run(
        [sys.executable, str(folder / "example.py"), *rows()["text"]], capture_output=True, text=True, check=True
    )
    for line, text, words, row in zip(done.stdout.splitlines(), rows()["text"], rows()["words"], expected, strict=True):
        tagged, given = line.split("\t")
        assert given == text
        assert json.loads(tagged) == [
            {"word": text[start:end], "start": start, "end": end, "tag": TASK.labels[answer]}
            for (start, end), answer in zip(words, row.argmax(axis=1), strict=True)
        ]


def test_int8_is_chosen_by_the_logits_of_words(
    folder: Path, tagger: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    examples = tokenise(rows(), tiny_tokenizer, LENGTH, KIND).remove_columns("length").to_list()
    batches = [
        {name: values.numpy() for name, values in PaddingCollator(tiny_tokenizer)([row]).items()} for row in examples
    ]
    (found,) = logits_of(folder / MODEL, [Sample(batches, lambda _: 0.0, KIND)])
    expected = flat(predict_logits(tagger, tiny_tokenizer, rows(), max_length=LENGTH))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_reading_of_earlier_versions_has_no_rule_for_words(tagger: PreTrainedModel, tiny_tokenizer: Any) -> None:
    remember_reading(tagger, tiny_tokenizer, replace(TASK, words=None), LENGTH)
    assert "words" not in tagger.config.emdistill
