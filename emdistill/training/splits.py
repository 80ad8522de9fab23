"""What is learned from, what chooses the checkpoint, and what scores: three parts of the data, told apart once."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.config import Selection
from emdistill.data.batches import (
    LengthGroupedSampler,
    TokenBudgetSampler,
    lengths_of,
    share_of_padding,
    texts_cut,
    tokenise,
    tokenizer_key,
)
from emdistill.data.read import hold_out
from emdistill.data.teacher_answers import answered_rows
from emdistill.data.unlabelled import UnlabelledText, unlabelled_dataset
from emdistill.errors import ConfigError
from emdistill.models.inputs import longest_text
from emdistill.states import TEACHER_LOGITS
from emdistill.tasks.task import Task, TaskData
from emdistill.training.evaluate import Score, score_features
from emdistill.training.two_vocabularies import collator_for_both, tokenise_for_both

HELD_OUT_SHARE = 0.1
HELD_OUT_AT_MOST = 1000
SAMPLE_ROWS = 256
HELD_OUT_SEED = 42  # fixed: the same rows for every run seed, and for a teacher and its students
LAST_IS_KEPT = "the last checkpoint is kept; nothing was chosen on any score"


@dataclass(frozen=True)
class Splits:
    """Tokenised examples of a run.

    train      what is learned from
    choose_on  what chooses among checkpoints; None: the last one is kept
    selection  a sentence saying so, for the result
    padding    share of padded positions in an epoch's batches
    cut        how many training texts have more than max_length tokens; of those without labels, that fill them
    batches    how many an epoch has
    labelled   those of train that have labels: all of them, or those before the text without labels
    rows       how many labelled rows are learned from, how many choose the checkpoint, and how many have no label
    score      of the training's logits on choose_on; None without it
    unlabelled   how many texts without labels were read, left out and kept; None where none were given
    """

    train: Dataset
    choose_on: Dataset | None
    selection: str
    padding: float
    cut: int
    batches: int
    labelled: Dataset
    rows: dict[str, int]
    score: Score | None = None
    unlabelled: dict[str, int] | None = None


def check_max_length(max_length: int, *models: PreTrainedModel) -> None:
    """Raise ConfigError where an encoder has no positions for `max_length` tokens."""
    longest = min(longest_text(model) for model in models)
    if max_length > longest:
        raise ConfigError(f"--max-length {max_length}: this encoder reads {longest} tokens at most; give that or less")


def make_splits(
    data: TaskData,
    tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    select: Selection,
    max_length: int,
    batch_size: int,
    tokens_per_batch: int = 0,
    rows: int | None = None,
    augmented: Dataset | None = None,
    text: UnlabelledText | None = None,
    labelled_share: float | None = None,
) -> Splits:
    """Hold out a part of train where a checkpoint is to be chosen on it, and tokenise.

    teacher_tokenizer  where it differs: what is learned from then has the tokens of both
    rows       learn from so many rows at most, drawn with a fixed seed
    augmented  further rows to learn from, `row` being the training row that each was made of; those made of rows
               that are not learned from are left out
    text       text without labels, learned from beside the labelled rows
    labelled_share  the labelled rows are repeated until they are this share of all, unless they are more already
    """
    task, readers = data.task, [each for each in (tokenizer, teacher_tokenizer) if each is not None]
    train = data.train if augmented is None else _numbered(data.train)
    train, choose_on = _learned_and_held_out(train, task, select, rows)
    if augmented is not None:
        train = _with_variants(train, augmented)
    selection = _selection(data, select, choose_on)
    if select == "dev":
        choose_on = next(iter(data.evaluation.values()))
    encode = partial(
        tokenise_for_both, tokenizer=tokenizer, max_length=max_length, teacher_tokenizer=teacher_tokenizer,
        kind=task.kind,
    )  # fmt: skip
    encoded = labelled = encode(train)
    unlabelled, with_labels = None, len(labelled)
    if text is not None:
        further, unlabelled = unlabelled_dataset(
            text,
            scored=[*data.evaluation.values(), *([] if choose_on is None else [choose_on])],
            labelled=train,
            task=task,
            encode=encode,
            features=labelled.features,
            key=f"{' '.join(map(tokenizer_key, readers))} {max_length}",
        )
        repeated = _repeated(labelled, len(further), labelled_share)
        encoded, with_labels = concatenate_datasets([*repeated, further]), sum(map(len, repeated))
    counts = {"train": len(train), "chosen on": 0 if choose_on is None else len(choose_on)}
    counts |= {} if unlabelled is None else {"unlabelled": unlabelled["kept"]}
    score = None
    if choose_on is not None:
        choose_on, score = _to_choose_on(choose_on, tokenizer, max_length, task)
    lengths = lengths_of(encoded)
    by_tokens = tokens_per_batch > 0
    sampler = (TokenBudgetSampler if by_tokens else LengthGroupedSampler)(lengths, tokens_per_batch or batch_size, 0)
    cut = 0
    if task.kind.one_answer:  # else a text is read in windows
        cut = texts_cut(train, labelled, readers, max_length) + int((lengths[with_labels:] >= max_length).sum())
    padding = share_of_padding(lengths, sampler.batches())
    return Splits(encoded, choose_on, selection, padding, cut, sampler.count, labelled, counts, score, unlabelled)


def _numbered(train: Dataset) -> Dataset:
    """The rows with their numbers, by which variants are found."""
    features = Features({**train.features, "row": Value("int64")})
    return Dataset.from_dict({**train.to_dict(), "row": list(range(len(train)))}, features=features)


def _with_variants(learned: Dataset, augmented: Dataset) -> Dataset:
    """The numbered rows, without their numbers, and the variants that were made of them."""
    numbers = set(learned["row"])
    variants = augmented.select([place for place, row in enumerate(augmented["row"]) if row in numbers])
    columns = {name: variants[name][:] for name in learned.column_names}
    more = Dataset.from_dict(columns, features=learned.features)  # as train has them, whatever the file's were
    return concatenate_datasets([learned, more]).remove_columns("row")


def _selection(data: TaskData, select: Selection, held_out: Dataset | None) -> str:
    """How the checkpoint is chosen, in a sentence."""
    best, dev = f"the best checkpoint by {data.task.metrics[0]} on", next(iter(data.evaluation))
    if held_out is not None:
        return f"{best} {len(held_out)} rows held out of train (not trained on; seed {HELD_OUT_SEED})"
    if select == "dev":
        return f"{best} {dev}: the {dev} score is the score it was chosen by, and flatters"
    return LAST_IS_KEPT


def _to_choose_on(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, task: Task
) -> tuple[Dataset, Score]:
    """The rows tokenised, longest first: like lengths share a batch; and what scores the training's logits on them."""
    features = tokenise(rows, tokenizer, max_length, task.kind)
    order = np.argsort(features["length"])[::-1]
    return features.select(order), score_features(task, rows, features, order.tolist())


def _repeated(labelled: Dataset, further: int, share: float | None) -> list[Dataset]:
    """The labelled rows as often as makes them this share of all; of the last copy a part, always the same."""
    count = len(labelled) if share is None else max(len(labelled), round(share / (1 - share) * further))
    copies, rest = divmod(count, len(labelled))
    part = np.sort(np.random.default_rng(HELD_OUT_SEED).permutation(len(labelled))[:rest])
    return [*[labelled] * copies, *([labelled.select(part)] if rest else [])]


def _learned_and_held_out(
    train: Dataset, task: Task, select: Selection, rows: int | None
) -> tuple[Dataset, Dataset | None]:
    """What is learned from, all of it answered by the teacher, and what is held out to choose a checkpoint on."""
    held_out = None
    if select == "held-out":
        train, held_out = hold_out(train, task, HELD_OUT_SHARE, HELD_OUT_SEED, HELD_OUT_AT_MOST)
        held_out = held_out.select_columns([name for name in held_out.column_names if name != TEACHER_LOGITS])
    train = answered_rows(train)
    if rows is not None and rows < len(train):
        _, train = hold_out(train, task, rows / len(train), HELD_OUT_SEED, rows)
    return train, held_out


def labelled_rows(data: TaskData, *, select: Selection, rows: int | None = None) -> Dataset:
    """The rows of train whose labels a run has: those it learns from, and those it chooses its checkpoint on."""
    train, held_out = _learned_and_held_out(data.train, data.task, select, rows)
    return train if held_out is None else concatenate_datasets([train, held_out])


def sample_batches(
    data: TaskData,
    tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    select: Selection,
    max_length: int,
    rows: int | None = None,
    count: int = SAMPLE_ROWS,
    batch_size: int = 32,
) -> list[dict[str, Tensor]]:
    """Batches of `count` rows that are learned from, with labels, always the same: what importance is measured on."""
    train, _ = _learned_and_held_out(data.train, data.task, select, rows)
    chosen = np.random.default_rng(HELD_OUT_SEED).permutation(len(train))[:count]
    encoded = tokenise_for_both(train.select(chosen), tokenizer, max_length, teacher_tokenizer, data.task.kind)
    examples = encoded.select(np.argsort(encoded["length"])).remove_columns("length").to_list()
    collate = collator_for_both(tokenizer, teacher_tokenizer)
    return [dict(collate(examples[start : start + batch_size])) for start in range(0, len(examples), batch_size)]
