from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset

from emdistill.data.batches import tokenise
from emdistill.data.task import Task, TaskData
from emdistill.errors import ConfigError
from emdistill.training import evaluate, predict_logits
from emdistill.training.splits import check_max_length, longest_text, make_splits

TASK = Task("reviews", "classification", ("bad", "good"), ("accuracy", "macro_f1"))


@pytest.fixture
def data() -> TaskData:
    texts = [" ".join(["very"] * (row % 7)) + f" good {row}" for row in range(60)]
    examples = Dataset.from_dict({"text": texts, "label": [row % 2 for row in range(60)]})
    dev = Dataset.from_dict({"text": ["bad", "a very good movie", "it is"], "label": [0, 1, 0]})
    return TaskData(TASK, examples, {"dev": dev})


def ids(dataset: Dataset) -> set[tuple[int, ...]]:
    return {tuple(row) for row in dataset["input_ids"]}


def test_the_held_out_part_is_of_train_and_not_trained_on(data: TaskData, tiny_tokenizer) -> None:
    splits = make_splits(data, tiny_tokenizer, select="held-out", max_length=32, batch_size=8)
    assert (len(splits.train), len(splits.choose_on)) == (54, 6)
    assert not ids(splits.train) & ids(splits.choose_on)
    assert ids(splits.train) | ids(splits.choose_on) == ids(tokenise(data.train, tiny_tokenizer, 32))
    assert sorted(splits.choose_on["labels"]) == [0, 0, 0, 1, 1, 1]
    assert "accuracy on 6 rows held out of train" in splits.selection


def test_dev_and_last_are_said_in_the_result(data: TaskData, tiny_tokenizer) -> None:
    on_dev = make_splits(data, tiny_tokenizer, select="dev", max_length=32, batch_size=8)
    assert len(on_dev.train) == 60
    assert ids(on_dev.choose_on) == ids(tokenise(data.evaluation["dev"], tiny_tokenizer, 32))
    assert "flatters" in on_dev.selection
    last = make_splits(data, tiny_tokenizer, select="last", max_length=32, batch_size=8)
    assert last.choose_on is None
    assert "the last checkpoint is kept" in last.selection


def test_padding_and_cut_texts_are_counted(data: TaskData, tiny_tokenizer) -> None:
    splits = make_splits(data, tiny_tokenizer, select="last", max_length=6, batch_size=60)
    lengths = np.array(splits.train["length"])
    assert splits.padding == pytest.approx(1 - lengths.sum() / (len(lengths) * lengths.max()))
    assert splits.cut == (lengths == 6).sum() > 0


def test_positions_bound_the_length(tiny_encoder) -> None:
    bert, roberta = tiny_encoder("bert"), tiny_encoder("roberta", pad_token_id=1)
    assert (longest_text(bert), longest_text(roberta)) == (128, 126)
    check_max_length(126, bert, roberta)
    with pytest.raises(ConfigError, match="--max_length 127: this encoder reads 126 tokens at most"):
        check_max_length(127, bert, roberta)


def test_scores_and_logits_are_in_the_order_of_the_rows(data: TaskData, tiny_encoder, tiny_tokenizer) -> None:
    model = tiny_encoder("bert").train()
    texts = data.train.select_columns("text")
    logits = predict_logits(model, tiny_tokenizer, texts, max_length=32, batch_size=7)
    assert model.training  # as it was found
    model.eval()
    for row in (0, 13, 59):
        alone = model(**tiny_tokenizer(texts[row]["text"], return_tensors="pt")).logits.detach().numpy()
        np.testing.assert_allclose(logits[row : row + 1], alone, atol=1e-5)
    scores = evaluate(model, tiny_tokenizer, TASK, {"dev": data.train, "other": data.evaluation["dev"]}, max_length=32)
    assert list(scores) == ["accuracy", "macro_f1", "other/accuracy", "other/macro_f1"]
    assert scores["accuracy"] == pytest.approx((logits.argmax(-1) == np.array(data.train["label"])).mean())


def test_the_progress_bar_goes_to_stderr(data: TaskData, tiny_encoder, tiny_tokenizer, capsys) -> None:
    evaluate(tiny_encoder("bert"), tiny_tokenizer, TASK, data.evaluation, max_length=32, description="dev")
    assert capsys.readouterr().out == ""
