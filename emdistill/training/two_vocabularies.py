"""Teacher and student with a tokenizer each: examples and batches in the tokens of both, and where these meet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from emdistill.data.arrow_files import chunk_by_chunk
from emdistill.data.batches import PaddingCollator, encode, reader, tokenise, windowed
from emdistill.errors import TokenizerError
from emdistill.models.alignment import Span, token_spans, words_of_tokens
from emdistill.models.encoder import same_tokens
from emdistill.states import TEACHERS, WORDS_OF_TOKENS, student_part, teacher_part
from emdistill.tasks import TaskKind
from emdistill.tasks.columns import text_columns
from emdistill.tasks.features import Feature
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
    for side, each in (("student", tokenizer), ("teacher", teacher_tokenizer)):
        if not each.is_fast:
            raise TokenizerError(
                f"teacher and student read different tokens, which meet at words by their places in the text, and the "
                f"{side}'s {type(each).__name__} does not give places; take an encoder with a fast tokenizer "
                f"(tokenizer.json), or a method that compares no layers, which stage '{comparing[0]}' does: "
                "--method soft-targets"
            )


def tokenise_for_both(
    examples: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
    kind: TaskKind | None = None,
) -> Dataset:
    """`tokenise`, and where the teacher has a tokenizer of its own, its columns and the word of each token.

    teacher_input_ids and so on   the teacher's columns
    words, teacher_words          the number of each token's word (models/alignment.py); absent where a tokenizer does
                                  not say where its tokens are
    length                        of the longer reading
    """
    if teacher_tokenizer is None:
        return tokenise(examples, tokenizer, max_length, kind)
    if kind is not None and not kind.one_answer:
        rows = examples.to_dict()
        features = kind.features(rows, [reader(each) for each in (tokenizer, teacher_tokenizer)], max_length)
        return windowed(features, labelled="label" in rows, further=_words_of_features(features, rows))
    return chunk_by_chunk(examples, lambda chunk: _for_both(chunk, tokenizer, teacher_tokenizer, max_length))


def _for_both(
    examples: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Dataset:
    rows = examples.to_dict()
    own, others = (encode(rows, reader, max_length) for reader in (tokenizer, teacher_tokenizer))
    columns: dict[str, list[Any]] = {**own, **{TEACHERS + name: column for name, column in others.items()}}
    if own.is_fast and others.is_fast:
        pairs = zip(_spans(own, rows), _spans(others, rows), strict=True)
        columns |= _columns_of_words([words_of_tokens(*spans) for spans in pairs])
    both = zip(own["input_ids"], others["input_ids"], strict=True)
    columns["length"] = [max(map(len, readings)) for readings in both]
    if "label" in rows:
        columns["labels"] = rows["label"]
    return Dataset.from_dict(columns)


def _columns_of_words(words: Sequence[tuple[list[int], list[int]]]) -> dict[str, list[Any]]:
    return {
        WORDS_OF_TOKENS: [student for student, _ in words],
        TEACHERS + WORDS_OF_TOKENS: [teacher for _, teacher in words],
    }


def _words_of_features(features: Sequence[Feature], rows: Mapping[str, list[str]]) -> dict[str, list[Any]]:
    """Where the tokens of both readings of each feature meet."""
    words = []
    for feature in features:
        texts = [column[feature.row] for column in text_columns(rows)]
        spans = [token_spans(side.sequences, side.offsets, texts) for side in feature.sides]
        words.append(words_of_tokens(*spans))
    return _columns_of_words(words)


def _spans(encoding: Any, rows: Mapping[str, list[str]]) -> list[list[Span | None]]:
    """Where each token of each row stands."""
    texts = zip(*text_columns(rows), strict=True)
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
        batch = dict(PaddingCollator(self.tokenizer)([student_part(row) for row in rows]))
        if not any(name.startswith(TEACHERS) for name in rows[0]):
            return batch
        others = PaddingCollator(self.teacher_tokenizer)([teacher_part(row) for row in rows])
        return batch | {TEACHERS + name: values for name, values in others.items() if name != "row"}


def collator_for_both(tokenizer: PreTrainedTokenizerBase, teacher_tokenizer: PreTrainedTokenizerBase | None) -> Any:
    """What pads batches in the tokens of both; None: the teacher reads the student's."""
    return PaddingCollator(tokenizer) if teacher_tokenizer is None else TwoPartCollator(tokenizer, teacher_tokenizer)
