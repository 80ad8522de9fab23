"""More to learn from: variants of a task's training texts, labelled by the teacher (TinyBERT's augmentation)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

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
from emdistill.data.labels import as_the_model_counts
from emdistill.data.read import read_task_data
from emdistill.errors import ConfigError, DataError, OutputError
from emdistill.models.encoder import fingerprint, load_classifier, load_tokenizer
from emdistill.models.inputs import longest_text
from emdistill.models.teacher import Teacher
from emdistill.models.word_candidates import (
    MaskedWordCandidates,
    NeighbourCandidates,
    check_word_pieces,
    load_masked_lm,
)
from emdistill.runs.describe import file_hashes
from emdistill.runs.reading import recall_reading
from emdistill.tasks.task import Task, TaskData
from emdistill.training import predict_logits
from emdistill.training.splits import check_max_length

NAMES = ("text", "text_pair")
SHOWN = 4
LABELLED_AT_ONCE = 512


def augment(
    teacher: str,
    data: str,
    output: str,
    task: str | None = None,
    text: str = "text",
    text_pair: str | None = None,
    label: str = "label",
    dev: str | None = None,
    kind: str | None = None,
    masked_lm: str | None = None,
    copies: int = 20,
    replace: float = 0.4,
    candidates: int = 15,
    max_length: int | None = None,
    seed: int = 42,
    overwrite: bool = False,
) -> Path:
    """Write variants of the training texts, labelled by the teacher, for `emdistill distill --augmented`.

    Args:
        teacher: folder or hub id of the fine-tuned teacher.
        data: a GLUE folder, a CSV, TSV, JSONL or Parquet file, a hub dataset, or 'docstrings'.
        output: file to write: .jsonl.
        task: a task's name (see `emdistill tasks`); files of your own need none.
        text: column of the text.
        text_pair: column of the second text of a pair.
        label: column of the label; it is read as `distill` reads it, and never given to a variant.
        dev: file of the development set; without it a part of the data is held out, the same as by `distill`.
        kind: kind of task, such as classification or regression; found from the labels if not given.
        masked_lm: folder or hub id of an encoder with a masked-LM head, which proposes words that fit the context;
            without it words are replaced by their neighbours in the teacher's embedding table.
        copies: variants per row at most; the two sides of a pair take turns.
        replace: probability that a word is replaced.
        candidates: how many words may replace a word.
        max_length: tokens per sentence or pair at most, when the teacher labels; as it was trained if not given.
        seed: seed of the replacements.
        overwrite: replace the output file if it exists.
    """
    place = Path(output)
    _check_options(place, copies, replace, candidates, seed, max_length, reads=(data, dev))
    found = read_task_data(data, task=task, text=text, text_pair=text_pair, label=label, dev=dev, kind=kind)
    judge = Teacher(load_classifier(teacher))
    found = as_the_model_counts(found, judge.labels, judge.kind)
    tokenizer = load_tokenizer(teacher)
    check_word_pieces(tokenizer, teacher)
    length = max_length or min(recall_reading(judge.model).max_length, longest_text(judge.model))
    check_max_length(length, judge.model)
    judge.to(torch.accelerator.current_accelerator() or "cpu")
    table = judge.model.get_input_embeddings().get_parameter("weight")
    neighbours = NeighbourCandidates(table, tokenizer, candidates, without=STOP_WORDS)
    masked = None if masked_lm is None else _masked_candidates(masked_lm, candidates, judge.model.device)
    settings = {"copies": copies, "replace": replace, "candidates": candidates, "max_length": length, "seed": seed}
    header = describe_train(found) | {
        "teacher": judge.fingerprint,
        "masked_lm": None if masked is None else fingerprint(masked.model),
        "settings": settings,
        "files": file_hashes(found),
    }
    console = Console(soft_wrap=True, markup=False, highlight=False)
    if place.exists() and not overwrite:
        _check_same(place, header, found)
        console.print(f"{place} is written already, from this data, with this teacher and these settings")
        return place

    originals = train_texts(found)
    sides = _take_apart(originals, masked, neighbours)
    variants = _vary(originals, sides, copies=copies, replace=replace, seed=seed)
    if not variants:
        raise DataError("no word of its texts can be replaced, so there are no variants", file=data)
    labels = _label(variants, partial(predict_logits, judge.model, tokenizer, max_length=length), found.task)
    named = [found.task.kind.written(label, found.task.labels) for label in labels]
    words = sum(variant.words for variant in variants)
    counts = {"variants": len(variants), "words": words, "replaced": sum(variant.replaced for variant in variants)}
    rows = (
        {"row": variant.row, **dict(zip(NAMES, variant.texts, strict=False)), "label": name}
        for variant, name in zip(variants, named, strict=True)
    )
    write_augmented(place, header | counts, rows)
    console.print(_summary(found, variants, labels))
    Console().print(_examples(originals, variants, named, seed))
    return place


def _check_options(
    place: Path,
    copies: int,
    replace: float,
    candidates: int,
    seed: int,
    max_length: int | None,
    reads: Sequence[str | None],
) -> None:
    least = {"copies": (copies, 1), "candidates": (candidates, 1), "seed": (seed, 0), "max_length": (max_length, 3)}
    for name, (value, smallest) in least.items():
        if value is not None and value < smallest:
            raise ConfigError(f"--{name} must be at least {smallest}, not {value}")
    if not 0 < replace <= 1:
        raise ConfigError(f"--replace is a probability above 0, at most 1, not {replace}")
    if place.suffix != ".jsonl":
        raise ConfigError(f"--output {place}: augmented rows are JSON Lines; name a file that ends in .jsonl")
    if not place.absolute().parent.is_dir():
        raise OutputError(f"--output {place}: there is no folder {place.parent}; make it first")
    if place.is_dir():
        raise OutputError(f"--output {place} is a folder; name a file")
    if any(name is not None and Path(name).resolve() == place.resolve() for name in reads):
        raise OutputError(f"{place} is read by this command, which would replace it; choose another --output")


def _check_same(place: Path, header: Mapping[str, Any], data: TaskData) -> None:
    """Raise OutputError unless the file is whole and was written with these settings."""
    try:
        before = read_header(place)
        read_augmented(place, data)
    except DataError as error:
        raise OutputError(f"{error}\n{place} exists already; --overwrite replaces it") from None
    pairs = {name: (before.get(name), header[name]) for name in ("teacher", "masked_lm")}
    settings = before.get("settings", {})
    pairs |= {name: (settings.get(name), value) for name, value in header["settings"].items()}
    if differs := [f"{name}: {then} then, {now} now" for name, (then, now) in pairs.items() if then != now]:
        listed = "\n  ".join(differs)
        raise OutputError(f"{place} was written otherwise; --overwrite replaces it:\n  {listed}")


# ------------------------------------------------------------------------------------------------- the variants


def _masked_candidates(source: str, count: int, device: torch.device) -> MaskedWordCandidates:
    model, tokenizer = load_masked_lm(source), load_tokenizer(source)
    check_word_pieces(tokenizer, source)
    model.to(device)  # type: ignore[arg-type]
    return MaskedWordCandidates(model, tokenizer, count)


def _take_apart(
    originals: Sequence[tuple[str, ...]], masked: MaskedWordCandidates | None, neighbours: NeighbourCandidates
) -> dict[str, Side]:
    """Every different text once: its pieces, and the candidates of its words."""
    sides: dict[str, Side] = {}
    texts = list(dict.fromkeys(text for texts in originals for text in texts))
    for text in _with_bar(texts, "words that fit"):
        pieces = split_words(text)
        places = replaceable(pieces)
        in_context = {} if masked is None else masked(pieces, places)
        near = neighbours(pieces[place] for place in places if not in_context.get(place))
        words = {place: in_context.get(place) or near[pieces[place]] for place in places}
        sides[text] = pieces, {place: found for place, found in words.items() if found}
    return sides


def _vary(
    originals: Sequence[tuple[str, ...]], sides: Mapping[str, Side], *, copies: int, replace: float, seed: int
) -> list[Variant]:
    """The variants of all rows; none is there twice, and none is a training row."""
    seen = set(originals)
    variants = []
    for row, texts in enumerate(originals):
        for variant in augment_row(row, [sides[text] for text in texts], copies=copies, replace=replace, seed=seed):
            if variant.texts not in seen:
                seen.add(variant.texts)
                variants.append(variant)
    return variants


def _label(variants: Sequence[Variant], predict: Callable[[Dataset], np.ndarray], task: Task) -> list[Any]:
    """The teacher's answers, as the task's kind decodes them."""
    parts = []
    for start in _with_bar(range(0, len(variants), LABELLED_AT_ONCE), "the teacher labels"):
        columns = zip(*(variant.texts for variant in variants[start : start + LABELLED_AT_ONCE]), strict=True)
        texts = Dataset.from_dict(dict(zip(NAMES, map(list, columns), strict=False)))
        parts.append(predict(texts))
    return list(task.kind.decode(np.concatenate(parts)))


def _with_bar(items: Sequence[Any], description: str) -> Iterable[Any]:
    """A progress bar on stderr: results go to stdout."""
    return track(items, description=description, transient=True, console=Console(stderr=True))


# ------------------------------------------------------------------------------------------------- what was made


def _summary(data: TaskData, variants: Sequence[Variant], labels: Sequence[Any]) -> str:
    words, replaced = sum(variant.words for variant in variants), sum(variant.replaced for variant in variants)
    lines = [
        f"{len(variants):,} variants of {len(data.train):,} rows, {len(variants) / len(data.train):.1f} a row",
        f"{replaced / words:.1%} of the words of an altered text were replaced, {replaced / len(variants):.1f} a text",
    ]
    gold = data.train["label"][:]
    lines.append(data.task.kind.summary(labels, [gold[variant.row] for variant in variants], data.task.labels))
    return "\n".join(lines)


def _examples(
    originals: Sequence[tuple[str, ...]], variants: Sequence[Variant], labels: Sequence[Any], seed: int
) -> Table:
    table = Table("row", "as written", "variant", "label", box=box.SIMPLE_HEAD)
    chosen = np.random.default_rng(seed).choice(len(variants), min(SHOWN, len(variants)), replace=False)
    for place in sorted(chosen):
        variant = variants[place]
        before, after = originals[variant.row][variant.side], variant.texts[variant.side]
        # Text, for a sentence may hold what rich would take for markup: "[last]".
        table.add_row(str(variant.row), Text(before), Text(after), str(labels[place]))
    return table
