"""What is learned from, what chooses the checkpoint, and what scores: three parts of the data, told apart once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from emdistill.data.batches import LengthGroupedSampler, share_of_padding, tokenise
from emdistill.data.read import hold_out
from emdistill.data.task import TaskData

Selection = Literal["held-out", "dev", "last"]

HELD_OUT_SHARE = 0.1
HELD_OUT_AT_MOST = 1000
HELD_OUT_SEED = 42  # fixed: the same rows for every run seed, and for a teacher and its students


@dataclass(frozen=True)
class Splits:
    """Tokenised examples of a run.

    train      what is learned from
    choose_on  what chooses among checkpoints; None: the last one is kept
    selection  a sentence saying so, for the result
    padding    share of padded positions in an epoch's batches
    cut        how many training texts are longer than max_length tokens allow
    """

    train: Dataset
    choose_on: Dataset | None
    selection: str
    padding: float
    cut: int


def make_splits(
    data: TaskData,
    tokenizer: PreTrainedTokenizerBase,
    *,
    select: Selection,
    max_length: int,
    batch_size: int,
) -> Splits:
    """Hold out a part of train where a checkpoint is to be chosen on it, and tokenise."""
    regression = data.task.kind == "regression"
    dev_name, dev = next(iter(data.evaluation.items()))
    train, chosen, selection = data.train, None, "the last checkpoint is kept; nothing was chosen on any score"
    if select == "held-out":
        train, chosen = hold_out(data.train, data.task, HELD_OUT_SHARE, HELD_OUT_SEED, HELD_OUT_AT_MOST)
        selection = (
            f"the best checkpoint by {data.task.metrics[0]} on {len(chosen)} rows held out of train "
            f"(not trained on; seed {HELD_OUT_SEED})"
        )
    elif select == "dev":
        chosen = dev
        selection = (
            f"the best checkpoint by {data.task.metrics[0]} on {dev_name}: the {dev_name} score is the score it was "
            f"chosen by, and flatters"
        )
    encoded = tokenise(train, tokenizer, max_length, regression=regression)
    lengths = list(encoded["length"])
    batches = LengthGroupedSampler(lengths, batch_size, seed=0).batches()
    return Splits(
        train=encoded,
        choose_on=None if chosen is None else tokenise(chosen, tokenizer, max_length, regression=regression),
        selection=selection,
        padding=share_of_padding(lengths, batches),
        cut=sum(length >= max_length for length in lengths),
    )
