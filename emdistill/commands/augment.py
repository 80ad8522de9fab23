"""More to learn from: variants of training texts, labelled by the teacher, or of text without labels (TinyBERT)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from emdistill.commands._text_variants import some_places, variants_made, word_counts, write_text_variants
from emdistill.config import check_limits
from emdistill.console import Table, print_table, say
from emdistill.data.augmentation import (
    STOP_WORDS,
    Side,
    Variant,
    augment_row,
    describe_train,
    read_augmented,
    read_header,
    replaceable,
    split_words,
    train_texts,
    write_augmented,
)
from emdistill.data.files import Columns
from emdistill.data.labels import as_the_model_counts
from emdistill.data.read import apart, read_task_data
from emdistill.data.text_hashes import Texts
from emdistill.data.unlabelled import sources, unlabelled_text
from emdistill.errors import ConfigError, DataError, OutputError, differences
from emdistill.models.encoder import fingerprint, load_classifier, load_tokenizer
from emdistill.models.inputs import longest_text
from emdistill.models.teacher import Teacher
from emdistill.models.word_candidates import (
    MaskedWordCandidates,
    NeighbourCandidates,
    check_special_tokens,
    check_word_pieces,
    load_masked_lm,
)
from emdistill.options import load_options
from emdistill.runs.describe import file_hashes
from emdistill.runs.places import check_file
from emdistill.runs.reading import recall_reading
from emdistill.tasks.answers import check_finite
from emdistill.tasks.kind import check_one_answer
from emdistill.tasks.task import Task, TaskData
from emdistill.teachers.text_alone import read_dev, task_of_text
from emdistill.training import predict_logits
from emdistill.training.evaluate import with_bar
from emdistill.training.splits import check_max_length

NAMES = ("text", "text_pair")
LABELLED_AT_ONCE = 512
SIDES_KEPT = 1024

Draw = Callable[[Callable[[str], Side], int, Texts], list[Variant]]
"""(what takes a text apart, a row's number, its texts) -> its variants."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Everything that decides the variants.

    Args:
        teacher: folder or hub id of the fine-tuned teacher.
        output: file to write: .jsonl. Of labelled rows it has variants with the teacher's labels; of text without
            labels it has variants alone, in the columns of the texts.
        data: a GLUE folder, a CSV, TSV, JSONL or Parquet file, a hub dataset, or 'messages'; with --unlabelled its
            texts are those that are left out.
        unlabelled: vary this text instead of the labelled rows: files as for data, .txt with a text per line, or hub
            datasets, separated by commas. Texts of the labelled rows and of dev are left out.
        task: a task's name (see `emdistill tasks`); files of your own need none.
        kind: kind of task, such as classification or regression; found from the labels if not given.
        dev: file of the development set; without it a part of the data is held out, the same as by `distill`.
        text: column of the text.
        text_pair: column of the second text of a pair.
        label: column of the label; it is read as `distill` reads it, and never given to a variant.
        masked_lm: folder or hub id of an encoder with a masked-LM head, which proposes words that fit the context;
            without it words are replaced by their neighbours in the teacher's embedding table.
        copies: variants per row at most; the two sides of a pair take turns.
        replace: probability that a word is replaced.
        candidates: how many words may replace a word.
        max_length: tokens per sentence or pair at most, when the teacher labels; as it was trained if not given.
            Not with --unlabelled, where nothing is labelled.
        seed: seed of the replacements.
        overwrite: replace the output file if it exists.
    """

    teacher: str
    output: str
    data: str | None = None
    unlabelled: str | None = None
    task: str | None = None
    kind: str | None = None
    dev: str | None = None
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    masked_lm: str | None = None
    copies: int = 20
    replace: float = 0.4
    candidates: int = 15
    max_length: int | None = None
    seed: int = 42
    overwrite: bool = False

    @property
    def columns(self) -> Columns:
        """Of a file of one's own."""
        return Columns(self.text, self.text_pair, self.label)

    def drawn(self, side: Callable[[str], Side], row: int, texts: Texts) -> list[Variant]:
        """The variants of a row; side: what takes a text apart."""
        sides = [side(text) for text in texts]
        return augment_row(row, sides, copies=self.copies, replace=self.replace, seed=self.seed)


def augment(config: AugmentConfig | None = None, **options: Any) -> Path:
    """Write variants of texts: of labelled rows for `distill --augmented`, of other text for `distill --unlabelled`.

    Returns the file. Raises ConfigError, DataError, ModelError, TeacherError and OutputError before anything is
    written.

    config   an AugmentConfig, or its fields as keywords: augment(teacher=..., data=..., output=..., copies=10)
    """
    config = config if config is not None else load_options(AugmentConfig, None, options)
    place = _checked_place(config)
    examples = None
    if config.data is not None:
        reading = {"task": config.task, "dev": config.dev, "kind": config.kind, **config.columns._asdict()}
        examples = apart(read_task_data(config.data, **reading), config.dev)
    judge, tokenizer = Teacher(load_classifier(config.teacher)), load_tokenizer(config.teacher)
    if examples is not None:
        examples = as_the_model_counts(examples, judge.labels, judge.kind)
        check_one_answer(examples.task.kind, "a file of labelled variants")
    check_word_pieces(tokenizer, config.teacher)
    length = config.max_length or min(recall_reading(judge.model).max_length, longest_text(judge.model))
    check_max_length(length, judge.model)
    if config.unlabelled is not None:
        _vary_text(config, config.unlabelled, judge, tokenizer, examples)
        return place
    assert examples is not None  # there is one of the two
    masked, take_apart = _words(config, judge, tokenizer)
    numbers = {name: getattr(config, name) for name in ("copies", "replace", "candidates")}
    header = describe_train(examples) | {
        "teacher": judge.fingerprint,
        "masked_lm": None if masked is None else fingerprint(masked.model),
        "settings": {**numbers, "max_length": length, "seed": config.seed},
        "files": file_hashes(examples),
    }
    if place.exists() and not config.overwrite:
        _check_same(place, header, examples)
        say(f"{place} is written already, from this data, with this teacher and these settings")
        return place
    variants = _vary(train_texts(examples), take_apart, config.drawn)
    if not variants:
        raise DataError("no word of its texts can be replaced, so there are no variants", file=config.data)
    labels = _label(variants, partial(predict_logits, judge.model, tokenizer, max_length=length), examples.task)
    _write_rows(place, header, examples, variants, labels)
    return place


def _checked_place(config: AugmentConfig) -> Path:
    """The file to write; raises ConfigError for options that do not go together, OutputError for no such file."""
    check_limits(copies=config.copies, candidates=config.candidates, seed=config.seed, max_length=config.max_length)
    if not 0 < config.replace <= 1:
        raise ConfigError(f"--replace is a probability above 0, at most 1, not {config.replace}")
    if config.data is None and config.unlabelled is None:
        raise ConfigError("there is nothing to vary: name labelled rows with --data, or other text with --unlabelled")
    if config.unlabelled is not None and config.max_length is not None:
        raise ConfigError("--max-length is for the teacher's labels, and with --unlabelled nothing is labelled")
    place = Path(config.output)
    reads = (config.data, config.dev, *(() if config.unlabelled is None else sources(config.unlabelled)))
    # Variants of labelled rows say what they were made of and how: the same are not written again.
    check_file(place, (".jsonl",), overwrite=config.overwrite or config.unlabelled is None, reads=reads)
    return place


def _vary_text(
    config: AugmentConfig, unlabelled: str, judge: Teacher, tokenizer: Any, examples: TaskData | None
) -> None:
    """Write variants of text without labels; what is scored or labelled is left out of it."""
    place = Path(config.output)
    task = examples.task if examples else task_of_text(unlabelled, judge, config.columns, config.task, config.kind)
    text = unlabelled_text(unlabelled, task, config.columns, place.parent, None)
    scored, labelled = [], []
    if examples is not None:
        scored, labelled = [*examples.evaluation.values()], [examples.train]
    elif config.dev is not None:
        scored = [read_dev(config.dev, task)]
    _, take_apart = _words(config, judge, tokenizer)
    draw = partial(config.drawn, lru_cache(SIDES_KEPT)(take_apart))
    write_text_variants(place, text, scored=scored, labelled=labelled, draw=draw)


def _words(
    config: AugmentConfig, judge: Teacher, tokenizer: Any
) -> tuple[MaskedWordCandidates | None, Callable[[str], Side]]:
    """Who proposes words in context, if anybody does; and what takes a text apart."""
    judge.to(torch.accelerator.current_accelerator() or "cpu")
    table = judge.model.get_input_embeddings().get_parameter("weight")
    neighbours = NeighbourCandidates(table, tokenizer, config.candidates, without=STOP_WORDS)
    source, masked = config.masked_lm, None
    if source is not None:
        masked = _masked_candidates(source, config.candidates, judge.model.device)
    return masked, partial(_take_apart, masked=masked, neighbours=neighbours)


def _write_rows(
    place: Path, header: Mapping[str, Any], examples: TaskData, variants: Sequence[Variant], labels: Sequence[Any]
) -> None:
    """The file of labelled variants, and what is said of it."""
    named = [examples.task.kind.written(label, examples.task.labels) for label in labels]
    counts = word_counts(variants)
    rows = (
        {"row": variant.row, **dict(zip(NAMES, variant.texts, strict=False)), "label": name}
        for variant, name in zip(variants, named, strict=True)
    )
    write_augmented(place, {**header, **counts}, rows)
    gold = examples.train["label"][:]
    say(
        f"{variants_made(counts, len(gold), 'row')}\n"
        + examples.task.kind.summary(labels, [gold[variant.row] for variant in variants], examples.task.labels)
    )
    print_table(_shown(train_texts(examples), variants, named, header["settings"]["seed"]))


def _check_same(place: Path, header: Mapping[str, Any], data: TaskData) -> None:
    """Raise OutputError unless the file is whole and was written with these settings."""
    try:
        before = read_header(place)
        read_augmented(place, data)
    except DataError as error:
        raise OutputError(f"{error}\n{place} exists already; --overwrite replaces it") from None
    of_teachers = ("teacher", "masked_lm")
    then, now = ({name: each.get(name) for name in of_teachers} | each.get("settings", {}) for each in (before, header))
    if other := differences(then, now):
        raise OutputError(f"{place} was written otherwise; --overwrite replaces it:\n{other}")


def _masked_candidates(source: str, count: int, device: torch.device) -> MaskedWordCandidates:
    model, tokenizer = load_masked_lm(source), load_tokenizer(source)
    check_word_pieces(tokenizer, source)
    check_special_tokens(tokenizer, source)
    model.to(device)  # type: ignore[arg-type]
    return MaskedWordCandidates(model, tokenizer, count)


def _take_apart(text: str, masked: MaskedWordCandidates | None, neighbours: NeighbourCandidates) -> Side:
    """The pieces of a text, and the candidates of its words."""
    pieces = split_words(text)
    places = replaceable(pieces)
    in_context = {} if masked is None else masked(pieces, places)
    near = neighbours(pieces[place] for place in places if not in_context.get(place))
    candidates = {place: in_context.get(place) or near[pieces[place]] for place in places}
    return pieces, {place: words for place, words in candidates.items() if words}


def _vary(originals: Sequence[Texts], take_apart: Callable[[str], Side], draw: Draw) -> list[Variant]:
    """The variants of all rows; none is there twice, and none is a training row."""
    every = dict.fromkeys(text for texts in originals for text in texts)
    sides = {text: take_apart(text) for text in with_bar([*every], "words that fit")}
    seen, variants = set(originals), []
    for row, texts in enumerate(originals):
        for variant in draw(sides.__getitem__, row, texts):
            if variant.texts not in seen:
                seen.add(variant.texts)
                variants.append(variant)
    return variants


def _label(variants: Sequence[Variant], predict: Callable[[Dataset], np.ndarray], task: Task) -> list[Any]:
    """The teacher's answers, as the task's kind decodes them."""
    labels: list[Any] = []
    for start in with_bar(range(0, len(variants), LABELLED_AT_ONCE), "the teacher labels"):
        columns = zip(*(variant.texts for variant in variants[start : start + LABELLED_AT_ONCE]), strict=True)
        texts = Dataset.from_dict(dict(zip(NAMES, map(list, columns), strict=False)))
        logits = predict(texts)
        check_finite(logits)
        labels += list(task.kind.decode(logits, texts))
    return labels


def _shown(originals: Sequence[Texts], variants: Sequence[Variant], labels: Sequence[Any], seed: int) -> Table:
    """A few variants beside the texts that they were made of."""
    lines = []
    for place in some_places(len(variants), seed):
        variant = variants[place]
        before, after = originals[variant.row][variant.side], variant.texts[variant.side]
        lines.append([str(variant.row), before, after, str(labels[place])])
    return Table(["row", "as written", "variant", "label"], lines, words=(0, 1, 2, 3))
