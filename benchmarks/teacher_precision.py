"""What bfloat16 products change in a real teacher: its logits, its answers, its score, its states.

    python benchmarks/teacher_precision.py --task mrpc --teacher TEACHER --data GLUE/MRPC [--task … and so on]

Every dev sentence goes through the teacher in float32 and in bfloat16 (autocast), the same batches for both.
"""

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from measure import arguments, print_table, save

from emdistill.data.batches import PaddingCollator, tokenise
from emdistill.data.read import read_task_data
from emdistill.models import load_classifier, load_tokenizer
from emdistill.models.teacher import Teacher
from emdistill.tasks.task import Task

BATCH = 64
COLUMNS = (
    *("task", "rows", "metric", "float32", "bfloat16", "same answer"),
    *("largest logit difference", "mean", "hidden", "scores"),
)


def main() -> None:
    parser = arguments(__doc__ or "")
    for name in ("task", "teacher", "data"):
        parser.add_argument(f"--{name}", action="append", required=True)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    rows = []
    for task, teacher, data in zip(options.task, options.teacher, options.data, strict=True):
        read = read_task_data(data, task=task)
        examples = next(iter(read.evaluation.values()))
        rows.append(compare(read.task, Path(teacher), examples.select(range(64)) if options.short else examples))
    print_table("float32 and bfloat16 teachers", COLUMNS, [[say(row[name]) for name in COLUMNS] for row in rows])
    save(options.output, {"rows": rows})


def compare(task: Task, folder: Path, examples: Dataset) -> dict[str, object]:
    """One task's row; hidden and scores: mean over the batches of ‖difference‖ / ‖float32‖, all layers together."""
    model, tokenizer = load_classifier(folder), load_tokenizer(folder)
    encoded = tokenise(examples, tokenizer, 128).remove_columns(["length", "labels"])
    collate = PaddingCollator(tokenizer)
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    errors: dict[str, list[float]] = {"hidden": [], "attention_scores": []}
    for start in range(0, len(encoded), BATCH):
        inputs = collate([encoded[row] for row in range(start, min(start + BATCH, len(encoded)))])
        full, reduced = (
            Teacher(model, dtype=dtype)(inputs, {"hidden", "attention"}) for dtype in (torch.float32, torch.bfloat16)
        )
        pairs.append((full.logits.float(), reduced.logits.float()))
        for kind, found in errors.items():
            found.append(relative_error(getattr(full, kind), getattr(reduced, kind), full.mask.bool()))
    logits = [torch.cat(side).numpy() for side in zip(*pairs, strict=True)]
    labels, metric = np.asarray(examples["label"]), task.metrics[0]
    difference = np.abs(logits[0] - logits[1])
    regression = task.kind.link == "identity"
    return {
        "task": task.name,
        "rows": len(encoded),
        "metric": metric,
        "float32": task.score(logits[0], labels)[metric],
        "bfloat16": task.score(logits[1], labels)[metric],
        "same answer": None if regression else float(np.mean(logits[0].argmax(1) == logits[1].argmax(1))),
        "largest logit difference": float(difference.max()),
        "mean": float(difference.mean()),
        "hidden": float(np.mean(errors["hidden"])),
        "scores": float(np.mean(errors["attention_scores"])),
    }


def relative_error(full: tuple[torch.Tensor, ...], reduced: tuple[torch.Tensor, ...], mask: torch.Tensor) -> float:
    """Over all layers, where query (and key) are tokens."""
    valid = mask[:, :, None] if full[0].ndim == 3 else (mask[:, :, None] & mask[:, None, :])[:, None]
    difference = sum(((a - b.float()) * valid).square().sum() for a, b in zip(full, reduced, strict=True))
    return float((difference / sum((a * valid).square().sum() for a in full)).sqrt())


def say(value: object) -> str:
    return "" if value is None else f"{value:.5f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
