"""`emdistill prune-vocabulary`: the same model over the tokens that a corpus uses; most of a student is their table."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import Dataset

from emdistill.config import as_command, check_limits
from emdistill.console import say
from emdistill.data.compressed import plain_path
from emdistill.data.files import Columns, read_inputs
from emdistill.data.paragraphs import OPENERS, read_corpus
from emdistill.data.read import form_of, read_task_data
from emdistill.data.rows import SUFFIXES
from emdistill.files import folder_written_whole
from emdistill.models.encoder import TOKENIZER_FILES, head_of, save_student
from emdistill.models.teacher import kind_of
from emdistill.models.vocabulary import Encoder, load_with_tokenizer, prune, same_words, used_tokens
from emdistill.runs.describe import describe_model
from emdistill.runs.places import check_replaceable
from emdistill.runs.reading import Reading, recall_reading
from emdistill.runs.record import RUN_FILE, ModelRecord
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task

CARD = "README.md"
WARNING = (
    "Other text may be split into smaller pieces, and be answered otherwise: score the smaller model on text that the "
    "data did not hold."
)
# What a saved model may consist of; nothing else is ever removed.
OWN_FILES = (
    *("config.json", "generation_config.json", "model.safetensors", CARD, *TOKENIZER_FILES),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
)


@dataclass(frozen=True)
class Corpus:
    """Texts, read anew by every call of `texts`, and further ones that the vocabulary is not made for."""

    name: str
    texts: Callable[[], Iterable[str]]
    unseen: Mapping[str, list[str]] = field(default_factory=dict)


def prune_vocabulary(
    model: str,
    data: str,
    output: str,
    task: str | None = None,
    text: str | None = None,
    text_pair: str | None = None,
    head: str | None = None,
    min_count: int = 1,
    overwrite: bool = False,
) -> Path:
    """Write the model with only those tokens in its vocabulary that the data use, and those that spell other text.

    On texts of the data its tokens and logits stay as they are; other text may be split into smaller pieces.

    Args:
        model: folder of a run, folder or hub id of a model.
        data: a GLUE folder, a hub dataset, or 'messages', of which the training texts count; a CSV, TSV, JSONL,
            Parquet or text file (.txt, .txt.xz, .txt.gz, .txt.bz2), of which all texts do.
        output: folder of the smaller model.
        task: a task's name (see `emdistill tasks`); files of your own need none.
        text: column of the text; the column the model was trained on if not given.
        text_pair: column of the second text of a pair.
        head: of a model of several tasks, the one whose head the smaller model keeps.
        min_count: keep tokens that are used at least so often; above 1 the rarer words of the data are split anew.
        overwrite: replace a model that stands in the output folder.
    """
    check_limits(min_count=min_count)
    source, place = _model_folder(model), Path(output).resolve()
    check_replaceable(place, OWN_FILES, "config.json", "a model", overwrite=overwrite, reads=(model, source, data))
    before = load_with_tokenizer(source, head)
    corpus = _read_corpus(data, task, before, text, text_pair)
    used = used_tokens(before.tokenizer, corpus.texts())
    after, vocabulary = prune(before, used, min_count=min_count)

    tokens = len(before.tokenizer), len(vocabulary)
    sizes = describe_model(before.model), describe_model(after.model)
    split_alike = {
        name: same_words(before.tokenizer, after.tokenizer, texts)
        for name, texts in {corpus.name: corpus.texts(), **corpus.unseen}.items()
    }
    options: dict[str, Any] = {"model": model, "data": data, "task": task, "text": text, "text_pair": text_pair}
    options |= {"output": output, "head": head, "min_count": None if min_count == 1 else min_count}
    findings = _say_sizes(tokens, sizes), _say_words(split_alike)
    with folder_written_whole(place) as part:
        save_student(after.model, after.tokenizer, part)
        (part / CARD).write_text(_card(source, corpus.name, findings, options), encoding="utf-8")
    say("\n".join((*findings, WARNING, f"{place}: the model over the smaller vocabulary")))
    return place


def _model_folder(model: str) -> str:
    """The student of a run; any other model as it is named."""
    folder = Path(model)
    return str(folder / "student") if (folder / RUN_FILE).is_file() and (folder / "student").is_dir() else model


def _read_corpus(data: str, task: str | None, encoder: Encoder, text: str | None, text_pair: str | None) -> Corpus:
    """Of a file all texts; of a task or hub dataset those of train, the others standing apart as unseen."""
    path, reading = Path(data), recall_reading(encoder.model).of(text, text_pair)
    if task is None and path.name.lower().endswith(tuple(OPENERS)):
        return Corpus(path.name, lambda: (paragraph.text for paragraph in read_corpus(path)))
    if task is None and plain_path(path).suffix.lower() in SUFFIXES:
        texts = _texts_of_file(path, encoder, reading, is_text_named=text is not None)
        return Corpus(path.name, lambda: texts)
    examples = read_task_data(data, task=task, text=reading.text, text_pair=reading.text_pair)
    learned = _texts(examples.train)
    return Corpus("train", lambda: learned, {name: _texts(rows) for name, rows in examples.evaluation.items()})


def _texts_of_file(path: Path, encoder: Encoder, reading: Reading, *, is_text_named: bool) -> list[str]:
    """As the model is asked to predict them: a tagger's may be lists of words."""
    model: Any = encoder.model
    columns = Columns(reading.text, reading.text_pair)
    if head_of(model) not in {kind.head for kind in KINDS.values()}:  # no task is asked of it
        rows = read_inputs(path, reading.text, reading.text_pair)
        return [row.cells[name] for name in columns.texts for row in rows]
    kind, labels = kind_of(model), tuple(map(str, model.config.id2label.values()))
    asked = Task("", kind, labels, kind.metrics_of(labels), words=reading.words)
    return _texts(form_of(kind).inputs(path, columns, asked, is_text_named=is_text_named).examples)


def _texts(rows: Dataset) -> list[str]:
    return [text for name in ("text", "text_pair") if name in rows.column_names for text in rows[name]]


def _say_sizes(tokens: tuple[int, int], sizes: tuple[ModelRecord, ModelRecord]) -> str:
    parameters, megabytes = [size.parameters for size in sizes], [size.bytes / 1e6 for size in sizes]
    return (
        f"{tokens[0]:,} tokens -> {tokens[1]:,}; {parameters[0]:,} parameters -> {parameters[1]:,}; "
        f"{megabytes[0]:.1f} MB -> {megabytes[1]:.1f} MB"
    )


def _say_words(split_alike: Mapping[str, tuple[int, int]]) -> str:
    """Floored, for 100 % must mean all of them."""
    shares = (
        f"{name} {100 if same == total else min(int(1000 * same / total) / 10, 99.9)} % of {total:,}"
        for name, (same, total) in split_alike.items()
    )
    return f"words split as before: {'; '.join(shares)}"


def _card(source: str, corpus: str, findings: Iterable[str], options: Mapping[str, Any]) -> str:
    """The model's own card, and what was done to it."""
    card = Path(source) / CARD
    before = f"{card.read_text(encoding='utf-8').rstrip()}\n\n" if card.is_file() else ""
    return (
        f"{before}## A smaller vocabulary\n\n"
        f"Its vocabulary was cut by emdistill {version('emdistill')} to the tokens that `{corpus}` uses and those that "
        "spell any other word;\nwhat is said elsewhere of sizes and scores was measured before.\n\n"
        + "".join(f"- {line}\n" for line in findings)
        + f"\n{WARNING}\n\n```sh\n{as_command('prune-vocabulary', options)}\n```\n"
    )
