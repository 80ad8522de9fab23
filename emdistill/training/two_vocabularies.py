"""Teacher and student with a tokenizer each: examples and batches in the tokens of both, and where these meet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from emdistill.data.batches import encode, padding_collator, tokenise
from emdistill.errors import TokenizerError
from emdistill.models.alignment import Span, token_spans, words_of_tokens
from emdistill.models.encoder import same_tokens
from emdistill.states import NO_WORD, TEACHERS, WORDS_OF_TOKENS, student_part, teacher_part
from emdistill.training.stage import Stage


def teachers_own(
    teacher_tokenizer: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedTokenizerBase | None:
    """The teacher's tokenizer where it reads texts in another way than the student's; None where both read alike."""
    try:
        same_tokens(teacher_tokenizer, tokenizer)
    except TokenizerError:
        return teacher_tokenizer
    alike = set(teacher_tokenizer.model_input_names) == set(tokenizer.model_input_names)
    return None if alike else teacher_tokenizer


def check_can_meet(
    stages: Sequence[Stage], tokenizer: PreTrainedTokenizerBase, teacher_tokenizer: PreTrainedTokenizerBase | None
) -> None:
    """Raise TokenizerError where a stage compares states, and one of two tokenizers does not say where its tokens are.

    None: the teacher reads the student's tokens.
    """
    comparing = [stage.name for stage in stages if stage.objective.needs]
    if teacher_tokenizer is None or not comparing:
        return
    for side, reader in (("student", tokenizer), ("teacher", teacher_tokenizer)):
        if not reader.is_fast:
            raise TokenizerError(
                f"teacher and student read different tokens, which meet at words by their places in the text, and the "
                f"{side}'s {type(reader).__name__} does not give places; take an encoder with a fast tokenizer "
                f"(tokenizer.json), or a method that compares no layers, which stage '{comparing[0]}' does: "
                "--method soft-targets"
            )


def tokenise_for_both(
    examples: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
) -> Dataset:
    """`tokenise`, and where the teacher has a tokenizer of its own, its columns and the word of each token.

    teacher_input_ids and so on   the teacher's columns
    words, teacher_words          the number of each token's word (models/alignment.py); absent where a tokenizer does
                                  not say where its tokens are
    length                        of the longer reading
    """
    if teacher_tokenizer is None:
        return tokenise(examples, tokenizer, max_length)
    rows = examples.to_dict()
    own, others = (encode(rows, reader, max_length) for reader in (tokenizer, teacher_tokenizer))
    columns: dict[str, list[Any]] = {**own, **{TEACHERS + name: column for name, column in others.items()}}
    if own.is_fast and others.is_fast:
        pairs = zip(_spans(own, rows), _spans(others, rows), strict=True)
        words = [words_of_tokens(*spans) for spans in pairs]
        columns[WORDS_OF_TOKENS] = [student for student, _ in words]
        columns[TEACHERS + WORDS_OF_TOKENS] = [teacher for _, teacher in words]
    both = zip(own["input_ids"], others["input_ids"], strict=True)
    columns["length"] = [max(map(len, readings)) for readings in both]
    if "label" in rows:
        columns["labels"] = rows["label"]
    return Dataset.from_dict(columns)


def _spans(encoding: Any, rows: Mapping[str, list[str]]) -> list[list[Span | None]]:
    """Where each token of each row stands."""
    texts = zip(*(rows[name] for name in ("text", "text_pair") if name in rows), strict=True)
    readings = zip(encoding.encodings, texts, strict=True)
    return [token_spans(reading.sequence_ids, reading.offsets, row) for reading, row in readings]


def teacher_examples(examples: Dataset) -> Dataset:
    """The teacher's columns under a tokenizer's names; all examples as they are where both read the same tokens."""
    names = {name: name.removeprefix(TEACHERS) for name in examples.column_names if name.startswith(TEACHERS)}
    return examples.select_columns([*names]).rename_columns(names) if names else examples


@dataclass(frozen=True)
class TwoPartCollator:
    """Pads the student's part of a batch and the teacher's, each in its tokenizer's way; labels stand there once.

    Rows without the teacher's columns, as of an evaluation, become a batch without them.
    """

    tokenizer: PreTrainedTokenizerBase
    teacher_tokenizer: PreTrainedTokenizerBase

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = _padded(self.tokenizer, [student_part(row) for row in rows])
        if not any(name.startswith(TEACHERS) for name in rows[0]):
            return batch
        others = _padded(self.teacher_tokenizer, [teacher_part(row) for row in rows])
        return batch | {TEACHERS + name: values for name, values in others.items() if name != "row"}


def collator_for_both(tokenizer: PreTrainedTokenizerBase, teacher_tokenizer: PreTrainedTokenizerBase | None) -> Any:
    """What pads batches in the tokens of both; None: the teacher reads the student's."""
    return padding_collator(tokenizer) if teacher_tokenizer is None else TwoPartCollator(tokenizer, teacher_tokenizer)


def _padded(tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """One part of a batch; padding belongs to no word."""
    words = [row.pop(WORDS_OF_TOKENS, None) for row in rows]
    batch: dict[str, Tensor] = dict(padding_collator(tokenizer)(rows))
    if words[0] is not None:
        length = batch["input_ids"].shape[1]
        left = tokenizer.padding_side == "left"
        gaps = [[NO_WORD] * (length - len(row)) for row in words]
        padded = [gap + row if left else row + gap for gap, row in zip(gaps, words, strict=True)]
        batch[WORDS_OF_TOKENS] = torch.tensor(padded)
    return batch
