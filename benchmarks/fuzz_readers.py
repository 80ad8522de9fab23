"""What `fuzz.py` breaks: for each reader a small valid input, the files to break, and the calls that read it."""

import bz2
import gzip
import hashlib
import json
import lzma
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from datasets import ClassLabel, Dataset, Features, Value
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from run_folders import MACHINE, add_flows, add_gate, add_predictions, read_record, write_record, write_run_folder

from emdistill.commands.predict import predict_file
from emdistill.data.augmentation import describe_train, read_augmented, write_augmented
from emdistill.data.files import Columns, read_inputs
from emdistill.data.mixture_file import read_mixture
from emdistill.data.paragraphs import read_corpus
from emdistill.data.read import read_task_data
from emdistill.data.row_writer import RowWriter
from emdistill.data.tagged_words import read_words
from emdistill.data.teacher_answers import read_teacher_answers
from emdistill.data.unlabelled import every_nth_text, unlabelled_text
from emdistill.mapping.files import read_mapping
from emdistill.models.encoder import fingerprint, load_classifier, load_encoder, save_student
from emdistill.models.label_names import name_outputs
from emdistill.options import load_config
from emdistill.runs.baseline_record import BaselineRecord, ModelRow, write_baselines
from emdistill.runs.comparison import read_comparison, run_place
from emdistill.runs.compression import (
    BaselineLine,
    CandidateRow,
    CompressionRecord,
    FinalRow,
    FormRow,
    PlanRow,
    Trial,
)
from emdistill.runs.flows import truncate_flows
from emdistill.runs.gate_record import Machine
from emdistill.runs.open_run import check_same_run
from emdistill.runs.reading import remember_reading
from emdistill.runs.record import read_run
from emdistill.runs.search_record import read_search, write_search
from emdistill.ship.measurement import weight_files
from emdistill.ship.onnx import export_onnx
from emdistill.ship.onnx_folder import write_onnx_folder
from emdistill.ship.subject import read_subject
from emdistill.show.candidates import read_runs
from emdistill.show.comparison_report import comparison_record
from emdistill.show.compress_report import write_compress_report
from emdistill.show.page import PLOTLY, share_script
from emdistill.show.run_report import write_run_report
from emdistill.show.runs_report import write_runs_report
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task, TaskData

Files = Mapping[str, bytes]
Call = Callable[[Path], object]

TEXTS = [f"the movie number {row} was {'good' if row % 2 else 'bad'}" for row in range(8)]
ROWS = [{"text": text, "label": ("bad", "good")[row % 2]} for row, text in enumerate(TEXTS)]
TASK = Task("own", KINDS["classification"], ("bad", "good"), ("accuracy",))
MILLISECONDS = {"teacher": 40.0, "student": 20.0, "onnx": 10.0, "int8": 4.0}
LENGTH = 24
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({word for text in TEXTS for word in text.split()}))


@dataclass(frozen=True)
class Reader:
    """A valid input, and what reads the folder that it lies in.

    broken  the files that are mutated, all if not given
    """

    files: Callable[[], Files]
    calls: tuple[Call, ...]
    broken: tuple[str, ...] = ()


def lines(rows: Sequence[Any]) -> bytes:
    """JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def table(between: str, rows: Sequence[Mapping[str, str]] = ROWS) -> bytes:
    """Cells between commas or tabs, below a header."""
    return "".join(between.join(cells) + "\n" for cells in [rows[0], *(row.values() for row in rows)]).encode()


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), sink)
    return bytes(sink.getvalue())


def zst(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zst,
}  # fmt: skip


@cache
def folder_files(write: Callable[[Path], object]) -> Files:
    """The files that `write` leaves in a folder, by their paths in it."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        return {
            str(path.relative_to(name)): path.read_bytes() for path in sorted(Path(name).rglob("*")) if path.is_file()
        }


# data


def read(file: str, **options: Any) -> Call:
    return lambda folder: read_task_data(str(folder / file), **options)


def predicted(file: str, output: str) -> Call:
    """As predict reads rows, and writes them with its answers."""

    def rows(folder: Path) -> None:
        rows = read_inputs(folder / file)
        writer = RowWriter(Path(output).suffix, folder / file, rows, TASK.labels)
        writer.write(folder / output, [{"prediction": TASK.labels[0]}] * len(rows))

    return rows


def rows_of(file: str, content: Callable[[], bytes], *further: Call) -> Reader:
    calls = (read(file), read(file, kind="multi-label", evaluating=True), predicted(file, "out.jsonl"), *further)
    return Reader(lambda: {file: content()}, calls)


def conll() -> bytes:
    sentence = "EU B-ORG\nrejects O\nGerman B-MISC\ncall O\n\n"
    return (sentence * 3 + "Peter B-PER\nBlackburn I-PER\n").encode()


def conllu() -> bytes:
    words = [
        ("1", "The", "DET"),
        ("2", "dog", "NOUN"),
        ("3-4", "didn't", "_"),
        ("3", "did", "AUX"),
        ("4", "n't", "PART"),
    ]
    sentence = "".join("\t".join([number, word, word, tag, *"______"]) + "\n" for number, word, tag in words)
    return (f"# text = The dog didn't\n{sentence}\n" * 3).encode()


def squad() -> bytes:
    context = "The Normans were in Normandy, a region in France."
    questions = [
        {
            "id": str(row),
            "question": f"Where, in {row}?",
            "answers": [{"text": "Normandy", "answer_start": 20}] * (row % 2),
        }
        for row in range(4)
    ]
    return as_json(
        {"version": "v2.0", "data": [{"title": "x", "paragraphs": [{"context": context, "qas": questions}]}]}
    )


def mixture() -> bytes:
    return (
        b"temper: 0.75\ngate: true\ntasks:\n  - {name: one, data: one.csv, teacher: t, weight: 2}\n"
        b"  - {name: two, data: two.csv, text: body, label: stars, teacher: u, rows: 100}\n"
    )


def recipe() -> bytes:
    return (
        b"teacher: t/\ndata: x.csv\noutput: o/\nstudent: '3'\nmethod: bert-emd\nmapping: emd\nmax_length: 64\nseed: 3\n"
        b"label: y\nobjective:\n  beta: 10.0\n  schedule: joint\ntraining:\n  num_train_epochs: 3\n"
        b"  learning_rate: 1.0e-4\n  lr_scheduler_type: linear\n"
    )


def layers() -> dict[str, Any]:
    return {"student_layers": 3, "teacher_layers": 6, "pairs": [[0, 1], [1, 3, 0.5], [2, 5]], "about": {"score": 0.9}}


@cache
def labelled() -> TaskData:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "train.csv")
        file.write_bytes(table(","))
        return read_task_data(str(file))


def augmented(folder: Path) -> None:
    rows = [
        {"row": row, "text": f"{text} indeed", "label": row % 2} for row, text in enumerate(labelled().train["text"])
    ]
    named = [row | {"label": TASK.labels[labelled().train["label"][row["row"]]]} for row in rows]
    header = describe_train(labelled()) | {"teacher": "t" * 64, "settings": {"copies": 1}, "variants": len(rows)}
    write_augmented(folder / "augmented.jsonl", header, named)


def unlabelled(file: str) -> Call:
    def texts(folder: Path) -> object:
        text = unlabelled_text(str(folder / file), TASK, Columns(), folder, None)
        return list(every_nth_text(text, 1, []))

    return texts


def raw_text(suffix: str = "") -> Reader:
    """Text alone, perhaps packed; read as further text, and as a corpus."""
    file = f"more.txt{suffix}"
    content = ("\n".join(TEXTS) + "\n\n").encode()
    calls = (unlabelled(file), lambda folder: list(read_corpus(folder / file)))
    return Reader(lambda: {file: PACK[suffix](content) if suffix else content}, calls)


def answers() -> bytes:
    return lines([{"text": text, "logits": [row / 2, -1.0], "note": row} for row, text in enumerate(TEXTS)])


# runs


def run_folder(folder: Path) -> None:
    """A finished run with all that it may leave, its student, and its data beside it."""
    write_run_folder(folder)
    add_flows(folder)
    add_predictions(folder)
    add_gate(folder, milliseconds=MILLISECONDS)
    row = ModelRow(scores={"accuracy": 0.8}, standard_error=1.0, bytes=10**6, p50=3.0, p95=4.0, seconds=10.0)
    other = ModelRow(scores={"accuracy": 0.7}, lead=10.0, lead_error=2.0, bytes=10**5, p50=0.1, p95=0.2, seconds=1.0)
    baselines = {"tfidf": other, "static": ModelRow(problem="it is not installed")}
    machine = Machine(**MACHINE)
    record = BaselineRecord(
        metric="accuracy", dev_rows=40, machine=machine, teacher=row, student=row, baselines=baselines
    )
    write_baselines(folder, record)
    write_model(folder / "student")
    for name in ("reviews.csv", "dev.csv"):
        (folder / name).write_bytes(table(","))
    run = read_record(folder)
    run["config"]["max_length"] = LENGTH
    run["hashes"]["teacher"] = fingerprint(load_classifier(folder / "student"))
    for file in run["task"]["files"]:
        file["sha256"] = hashlib.sha256(table(",")).hexdigest()
    write_record(folder, run)


@cache
def other_run() -> Path:
    """The same run, valid, in a place of its own."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-run-"))
    run_folder(folder)
    share_script(folder)
    return folder


def subject(folder: Path) -> object:
    """As export reads a run whose data and teacher have moved."""
    data, dev = folder / "reviews.csv", folder / "dev.csv"
    return read_subject(str(folder), data=str(data), dev=str(dev), teacher=str(folder / "student"))


def several(folder: Path) -> None:
    write_runs_report(folder / "runs.html", read_runs([folder, other_run()]))


def resumed(folder: Path) -> None:
    """As --resume reads a run: it must be the run that it was, and has flows up to a step."""
    check_same_run(folder, read_run(folder), read_run(other_run()))
    truncate_flows(folder / "flows.jsonl", 30, stage="joint")


def compared(folder: Path) -> object:
    place = run_place(folder, "bert-emd", 42)
    if not place.exists():
        place.parent.mkdir()
        place.symlink_to(folder)
    comparison = read_comparison(folder, ["bert-emd"], [42])
    return comparison and comparison_record(comparison)


def page(folder: Path) -> None:
    """As report writes the page of a run; the script of its charts, 4 MB, is not copied each time."""
    if not (folder / PLOTLY).exists():
        (folder / PLOTLY).symlink_to(other_run() / PLOTLY)
    write_run_report(folder)


PAGES = (page, several)


def of_run(broken: str, *further: Call) -> Reader:
    return Reader(partial(folder_files, run_folder), (*PAGES, *further), (broken,))


def compression(folder: Path) -> None:
    form = FormRow(p50=3.0, p95=4.0, bytes=1e7, keeps=True, score=0.8)
    trials = [Trial(candidate="3 balanced", rung=0, score=0.7, seconds=3.0)]
    trials += [Trial(candidate="4x312 soft-targets", rung=0, score=None, seconds=1.0, problem="it broke")]
    rows = [CandidateRow(student="3", method="balanced", predicted={"int8": form}, seconds=100.0)]
    rows += [CandidateRow(student="4x312", method="soft-targets", predicted={"onnx": form}, seconds=90.0)]
    final = FinalRow(
        candidate=rows[0].name,
        folder="finals/3",
        scores={"accuracy": 0.8},
        forms={"int8": form},
        ship="int8",
        seconds=99.0,
    )
    write_search(
        folder,
        CompressionRecord(
            command="emdistill compress", settings={"seed": 42}, task="reviews", metric="accuracy", budget="5ms",
            hours=1.0, machine=Machine(**MACHINE), status="finished", spent=300.0, held_out_rows=40, dev_rows=40,
            teacher={"accuracy": 0.9}, candidates={row.name: row for row in rows},
            baselines={"tfidf": BaselineLine(held_out=0.7, score=0.7, p95=0.2, bytes=1e5)},
            plan=PlanRow(candidates=tuple(row.name for row in rows), shares=(0.1, 0.3), finals=1), trials=trials,
            finals=[final], delivered=rows[0].name, verdict="worth it",
        ),
    )  # fmt: skip


def compression_page(folder: Path) -> None:
    if record := read_search(folder, CompressionRecord):
        write_compress_report(folder / "page.html", record)


# models


def small_model() -> PreTrainedModel:
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    name_outputs(config, labels=TASK.labels, problem_type="single_label_classification")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertForSequenceClassification(config).eval()


def small_tokenizer() -> PreTrainedTokenizerFast:
    ids = {token: place for place, token in enumerate(VOCABULARY)}
    rules = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    rules.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, ids[name]) for name in VOCABULARY[2:4]],
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), VOCABULARY, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=rules, **names)


def write_model(folder: Path) -> None:
    model, tokenizer = small_model(), small_tokenizer()
    remember_reading(model, tokenizer, TASK, LENGTH)
    save_student(model, tokenizer, folder)
    (folder / "new.csv").write_bytes(table(","))


def write_parts(folder: Path) -> None:
    """A model whose weights stand in several files."""
    write_model(folder)
    model = small_model()
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="4KB")


def write_onnx(folder: Path) -> None:
    model, tokenizer = small_model(), small_tokenizer()
    remember_reading(model, tokenizer, TASK, LENGTH)
    export_onnx(model, folder / "model.onnx", token_types=False)
    write_onnx_folder(folder, model, tokenizer)
    (folder / "new.csv").write_bytes(table(","))


def of_model(write: Callable[[Path], None], *broken: str) -> Reader:
    def weights(folder: Path) -> object:
        return weight_files(str(folder), small_model())

    further: tuple[Call, ...] = () if write is write_onnx else (load_encoder, weights)
    call = lambda folder: predict_file(str(folder), str(folder / "new.csv"), str(folder / "out.jsonl"), overwrite=True)  # noqa: E731
    return Reader(partial(folder_files, write), (call, *further), broken)


def of_file(file: str, content: Callable[[], bytes], *calls: Call) -> Reader:
    """A reader of one file; the calls take its folder."""
    return Reader(lambda: {file: content()}, calls)


def of_path(file: str, content: Callable[[], bytes], *calls: Call) -> Reader:
    """The same, whose calls take the file."""
    return of_file(file, content, *(partial(_in_folder, call, file) for call in calls))


def _in_folder(call: Call, file: str, folder: Path) -> object:
    return call(folder / file)


def several_labels() -> bytes:
    return lines([{"text": text, "label": ["a", "b"][: row % 3]} for row, text in enumerate(TEXTS)])


def glue() -> bytes:
    labels = ("entailment", "not_entailment")
    rows = enumerate(TEXTS)
    return table(
        "\t", [{"index": str(n), "sentence1": text, "sentence2": text, "label": labels[n % 2]} for n, text in rows]
    )


def saved(folder: Path) -> None:
    """As the package datasets saves rows whose labels are classes."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(TASK.labels))})
    Dataset.from_list(ROWS, features=features).save_to_disk(folder)


def tags() -> bytes:
    return lines([{"tokens": ["a", "b"], "tags": ["B-X", "O"]}] * 4)


def entities() -> bytes:
    return lines([{"text": "in Rome", "entities": [{"start": 3, "end": 7, "label": "LOC"}]}] * 4)


def pairs_of_layers(path: Path) -> object:
    return read_mapping(path, 3, 6)


TAGGING = {"kind": "tagging"}
READERS = {
    "CSV": rows_of("train.csv", partial(table, ",")),
    "TSV": rows_of("train.tsv", partial(table, "\t"), predicted("train.tsv", "out.tsv")),
    "JSONL": rows_of("train.jsonl", partial(lines, ROWS), predicted("train.jsonl", "out.parquet")),
    "JSONL, lists": rows_of("train.jsonl", several_labels),
    "JSONL, tags": of_file("t.jsonl", tags, read("t.jsonl", **TAGGING)),
    "JSONL, entities": of_file("t.jsonl", entities, read("t.jsonl", **TAGGING)),
    "Parquet": rows_of("train.parquet", partial(parquet, ROWS), predicted("train.parquet", "out.parquet")),
    "saved data set": Reader(partial(folder_files, saved), (read("", text="text"),)),
    "GLUE": of_file("RTE/train.tsv", glue, read("", task="rte")),
    "CoNLL": of_file("t.conll", conll, read("t.conll"), lambda folder: read_words(folder / "t.conll")),
    "CoNLL-U": of_file("t.conllu", conllu, read("t.conllu"), lambda folder: read_words(folder / "t.conllu")),
    "SQuAD": of_file("t.json", squad, read("t.json"), read("t.json", kind="span-answers-or-none")),
    "mixture": of_path("tasks.yaml", mixture, read_mixture),
    "recipe": of_path("run.yaml", recipe, load_config),
    "mapping, YAML": of_path("m.yaml", lambda: as_json(layers()), pairs_of_layers),
    "mapping, JSON": of_path("m.json", lambda: as_json(layers()), pairs_of_layers),
    "augmented": Reader(
        partial(folder_files, augmented), (lambda folder: read_augmented(folder / "augmented.jsonl", labelled()),)
    ),
    "unlabelled": raw_text(),
    **{f"unlabelled, {suffix[1:]}": raw_text(suffix) for suffix in PACK},
    "unlabelled, JSONL": of_file("more.jsonl", partial(lines, ROWS), unlabelled("more.jsonl")),
    "answers": of_path("answers.jsonl", answers, lambda path: read_teacher_answers(path, TASK)),
    "run.json": of_run("run.json", resumed, compared, subject),
    "flows": of_run("flows.jsonl", resumed),
    "predictions": of_run("predictions.jsonl"),
    "gate.json": of_run("onnx/gate.json"),
    "baselines.json": of_run("baselines.json"),
    "compress.json": Reader(partial(folder_files, compression), (compression_page,)),
    "model": of_model(write_model, "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    "model in parts": of_model(write_parts, "model.safetensors.index.json"),
    "ONNX folder": of_model(write_onnx, "config.json", "model.onnx", "tokenizer.json"),
}
