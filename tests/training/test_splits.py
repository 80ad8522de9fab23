from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from messages import names, unnamed

from emdistill.data.batches import tokenise
from emdistill.data.files import Columns
from emdistill.data.unlabelled import UnlabelledText, unlabelled_text
from emdistill.errors import ConfigError
from emdistill.models.inputs import longest_text
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task, TaskData
from emdistill.training import evaluate, predict_logits
from emdistill.training.splits import check_max_length, make_splits, sample_batches

TASK = Task("reviews", KINDS["classification"], ("bad", "good"), ("accuracy", "macro_f1"))


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
    assert not unnamed(splits.selection, "accuracy", 6, "train")


def test_dev_and_last_are_said_in_the_result(data: TaskData, tiny_tokenizer) -> None:
    on_dev = make_splits(data, tiny_tokenizer, select="dev", max_length=32, batch_size=8)
    assert len(on_dev.train) == 60
    assert ids(on_dev.choose_on) == ids(tokenise(data.evaluation["dev"], tiny_tokenizer, 32))
    assert not unnamed(on_dev.selection, "dev")
    last = make_splits(data, tiny_tokenizer, select="last", max_length=32, batch_size=8)
    assert last.choose_on is None
    assert not unnamed(last.selection, "last")


def test_padding_and_cut_texts_are_counted(data: TaskData, tiny_tokenizer) -> None:
    splits = make_splits(data, tiny_tokenizer, select="last", max_length=6, batch_size=60)
    lengths = np.array(splits.train["length"])
    assert splits.padding == pytest.approx(1 - lengths.sum() / (len(lengths) * lengths.max()))
    whole = map(len, tiny_tokenizer(data.train["text"][:])["input_ids"])
    assert splits.cut == sum(length > 6 for length in whole) < (lengths == 6).sum()  # of these some fit


def test_positions_bound_the_length(tiny_encoder) -> None:
    bert, roberta = tiny_encoder("bert"), tiny_encoder("roberta", pad_token_id=1)
    assert (longest_text(bert), longest_text(roberta)) == (128, 126)
    check_max_length(126, bert, roberta)
    with names(ConfigError, "--max-length", 127, 126):
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


def test_rows_are_drawn_once_for_all_seeds_with_the_classes_shares(data: TaskData, tiny_tokenizer) -> None:
    options = {"select": "held-out", "max_length": 32, "batch_size": 8}
    few, again = (make_splits(data, tiny_tokenizer, rows=20, **options) for _ in range(2))
    assert few.train["input_ids"] == again.train["input_ids"]
    assert sorted(few.train["labels"]) == [0] * 10 + [1] * 10
    every = make_splits(data, tiny_tokenizer, **options)
    assert ids(few.train) < ids(every.train)
    assert ids(few.choose_on) == ids(every.choose_on)  # chosen on the same rows, however many are learned from
    assert len(make_splits(data, tiny_tokenizer, rows=1000, **options).train) == 54


@pytest.mark.parametrize(("share", "labelled"), [(None, 60), (0.3, 60), (0.5, 84), (0.75, 252)])
def test_labelled_rows_are_at_least_the_share_of_all_that_is_asked_for(
    data: TaskData, tiny_tokenizer, tmp_path: Path, share: float | None, labelled: int
) -> None:
    """Beside 84 texts: whole copies, and of the last one a part."""
    splits = make_splits(
        data, tiny_tokenizer, select="last", max_length=32, batch_size=8, text=more(tmp_path), labelled_share=share
    )
    has_label = [label >= 0 for label in splits.train["labels"]]
    assert (sum(has_label), len(has_label)) == (labelled, labelled + 84)
    times = Counter(tuple(row) for row in splits.train["input_ids"][:labelled])
    assert len(times) == 60
    assert {*times.values()} <= {labelled // 60, labelled // 60 + 1}
    again = make_splits(
        data, tiny_tokenizer, select="last", max_length=32, batch_size=8, text=more(tmp_path), labelled_share=share
    )
    assert again.train["input_ids"] == splits.train["input_ids"]


def more(folder: Path) -> UnlabelledText:
    """84 texts without labels."""
    (folder / "more.txt").write_text("".join(f"the book {row}\n" for row in range(84)))
    return unlabelled_text(str(folder / "more.txt"), TASK, Columns("text", None), folder / "tokens", None)


def test_augmented_rows_of_what_is_not_learned_from_are_left_out(data: TaskData, tiny_tokenizer) -> None:
    variants = Dataset.from_dict(
        {
            "text": [f"changed {row}" for row in range(60)],
            "label": [1 - row % 2 for row in range(60)],
            "row": list(range(60)),
        }
    )
    plain = make_splits(data, tiny_tokenizer, select="held-out", max_length=32, batch_size=8)
    more = make_splits(data, tiny_tokenizer, select="held-out", max_length=32, batch_size=8, augmented=variants)
    assert len(more.train) == 2 * len(plain.train) == 108
    assert ids(more.choose_on) == ids(plain.choose_on)
    every = enumerate(data.train["text"])
    learned = {row for row, text in every if tuple(tiny_tokenizer(text)["input_ids"]) in ids(plain.train)}
    changed = {tuple(tiny_tokenizer(f"changed {row}")["input_ids"]) for row in learned}
    assert ids(more.train) == ids(plain.train) | changed
    labels = {tuple(row["input_ids"]): row["labels"] for row in more.train}
    assert all(labels[tuple(tiny_tokenizer(f"changed {row}")["input_ids"])] == 1 - row % 2 for row in learned)


def test_a_sample_is_the_same_rows_whatever_the_seed(data: TaskData, tiny_tokenizer) -> None:
    batches = sample_batches(data, tiny_tokenizer, select="last", max_length=32, batch_size=16)
    assert [len(batch["labels"]) for batch in batches] == [16, 16, 16, 12]
    texts = {
        tuple(tiny_tokenizer(text)["input_ids"]): label
        for text, label in zip(*data.train.to_dict().values(), strict=True)
    }
    for batch in batches:
        for row, mask, label in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            assert texts.pop(tuple(row[mask.bool()].tolist())) == label
    assert not texts
    held_out = make_splits(data, tiny_tokenizer, select="held-out", max_length=32, batch_size=8).choose_on
    fewer = sample_batches(data, tiny_tokenizer, select="held-out", max_length=32, batch_size=16)
    rows = [pair for batch in fewer for pair in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    read = {tuple(row[mask.bool()].tolist()) for row, mask in rows}
    assert len(read) == 54
    assert not read & ids(held_out)
    few = make_splits(data, tiny_tokenizer, select="last", max_length=32, batch_size=8, rows=20).train
    (batch,) = sample_batches(data, tiny_tokenizer, select="last", max_length=32, rows=20)
    cut = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    assert {tuple(row[mask.bool()].tolist()) for row, mask in cut} == ids(few)  # and no label of another row
