"""More to learn from: variants of a task's training texts, labelled by the teacher (TinyBERT's augmentation)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from emdistill.commands._places import check_file
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
from emdistill.training.evaluate import with_bar
from emdistill.training.splits import check_max_length

NAMES = ("text", "text_pair")
SHOWN = 4
LABELLED_AT_ONCE = 512


def augment(
    teacher: str,
    data: str,
    output: str,
    task: str | None = None,
    kind: str | None = None,
    dev: str | None = None,
    text: str = "text",
    text_pair: str | None = None,
    label: str = "label",
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
        data: a GLUE folder, a CSV, TSV, JSONL or Parquet file, a hub dataset, or 'messages'.
        output: file to write: .jsonl.
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
        seed: seed of the replacements.
        overwrite: replace the output file if it exists.
    """
    place = Path(output)
    check_limits(copies=copies, candidates=candidates, seed=seed, max_length=max_length)
    if not 0 < replace <= 1:
        raise ConfigError(f"--replace is a probability above 0, at most 1, not {replace}")
    check_file(place, (".jsonl",), overwrite=True, reads=(data, dev))
    examples = read_task_data(data, task=task, text=text, text_pair=text_pair, label=label, dev=dev, kind=kind)
    judge = Teacher(load_classifier(teacher))
    examples = as_the_model_counts(examples, judge.labels, judge.kind)
    tokenizer = load_tokenizer(teacher)
    check_word_pieces(tokenizer, teacher)
    length = max_length or min(recall_reading(judge.model).max_length, longest_text(judge.model))
    check_max_length(length, judge.model)
    judge.to(torch.accelerator.current_accelerator() or "cpu")
    table = judge.model.get_input_embeddings().get_parameter("weight")
    neighbours = NeighbourCandidates(table, tokenizer, candidates, without=STOP_WORDS)
    masked = None if masked_lm is None else _masked_candidates(masked_lm, candidates, judge.model.device)
    settings = {"copies": copies, "replace": replace, "candidates": candidates, "max_length": length, "seed": seed}
    header = describe_train(examples) | {
        "teacher": judge.fingerprint,
        "masked_lm": None if masked is None else fingerprint(masked.model),
        "settings": settings,
        "files": file_hashes(examples),
    }
    if place.exists() and not overwrite:
        _check_same(place, header, examples)
        say(f"{place} is written already, from this data, with this teacher and these settings")
        return place

    originals = train_texts(examples)
    sides = _take_apart(originals, masked, neighbours)
    variants = _vary(originals, sides, copies=copies, replace=replace, seed=seed)
    if not variants:
        raise DataError("no word of its texts can be replaced, so there are no variants", file=data)
    labels = _label(variants, partial(predict_logits, judge.model, tokenizer, max_length=length), examples.task)
    named = [examples.task.kind.written(label, examples.task.labels) for label in labels]
    counts = {
        "variants": len(variants),
        "words": sum(variant.words for variant in variants),
        "replaced": sum(variant.replaced for variant in variants),
    }
    rows = (
        {"row": variant.row, **dict(zip(NAMES, variant.texts, strict=False)), "label": name}
        for variant, name in zip(variants, named, strict=True)
    )
    write_augmented(place, header | counts, rows)
    gold = examples.train["label"][:]
    say(
        f"{len(variants):,} variants of {len(gold):,} rows, {len(variants) / len(gold):.1f} per row\n"
        f"{counts['replaced'] / counts['words']:.1%} of the words of an altered text were replaced, "
        f"{counts['replaced'] / len(variants):.1f} per text\n"
        + examples.task.kind.summary(labels, [gold[variant.row] for variant in variants], examples.task.labels)
    )
    print_table(_shown(originals, variants, named, seed))
    return place


# What `read_words` says of an option that is another verb's.
vars(augment)["elsewhere"] = {
    "unlabelled": "variants are made of training rows; give text without labels to the student itself, "
    "beside them: emdistill distill --augmented FILE --unlabelled FILE"
}


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
    if differences := [f"{name}: {then} then, {now} now" for name, (then, now) in pairs.items() if then != now]:
        listed = "\n  ".join(differences)
        raise OutputError(f"{place} was written otherwise; --overwrite replaces it:\n  {listed}")


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
    for text in with_bar(texts, "words that fit"):
        pieces = split_words(text)
        places = replaceable(pieces)
        in_context = {} if masked is None else masked(pieces, places)
        near = neighbours(pieces[place] for place in places if not in_context.get(place))
        candidates = {place: in_context.get(place) or near[pieces[place]] for place in places}
        sides[text] = pieces, {place: words for place, words in candidates.items() if words}
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
    for start in with_bar(range(0, len(variants), LABELLED_AT_ONCE), "the teacher labels"):
        columns = zip(*(variant.texts for variant in variants[start : start + LABELLED_AT_ONCE]), strict=True)
        texts = Dataset.from_dict(dict(zip(NAMES, map(list, columns), strict=False)))
        parts.append(predict(texts))
    return list(task.kind.decode(np.concatenate(parts)))


def _shown(
    originals: Sequence[tuple[str, ...]], variants: Sequence[Variant], labels: Sequence[Any], seed: int
) -> Table:
    """A few variants beside the texts that they were made of."""
    places = np.random.default_rng(seed).choice(len(variants), min(SHOWN, len(variants)), replace=False)
    lines = []
    for place in sorted(places):
        variant = variants[place]
        before, after = originals[variant.row][variant.side], variant.texts[variant.side]
        lines.append([str(variant.row), before, after, str(labels[place])])
    return Table(["row", "as written", "variant", "label"], lines, words=(0, 1, 2, 3))
