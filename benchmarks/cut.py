"""What a student cut out of its teacher is worth before any training: by importance (per text, position), at random.

    python benchmarks/cut.py --teacher runs/mrpc/teacher --task mrpc --data ../shared/data/glue/MRPC --output cut.json

For each shape: the student's logits against the teacher's (mean squared difference, and soft cross-entropy for
classes), its score, and the error of its last hidden states, relative to the variance of the teacher's units that it
keeps; all on the development set. Each with the means of its states put right, as `distill` does, and without.
"""

import json
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.data.batches import PaddingCollator, tokenise
from emdistill.data.read import read_task_data
from emdistill.models.arithmetic import fast_float32
from emdistill.models.capture import capture
from emdistill.models.encoder import load_classifier, load_tokenizer
from emdistill.students.extract import ExtractionPlan, cut_out, plan_extraction
from emdistill.students.importance import random_importance, taylor_importance
from emdistill.students.shape import complete_shape
from emdistill.tasks.task import TaskData
from emdistill.training.splits import sample_batches


def main(
    teacher: str,
    data: str,
    output: str,
    task: str | None = None,
    shapes: str = "6x312,4x312,4x192",
    seeds: str = "0,1,2",
) -> None:
    """Print a line a shape, choice of units and correction, and write OUTPUT.

    Args:
        teacher: the fine-tuned teacher.
        data: its data.
        output: the JSON file to write.
        task: a task's name, if it has one.
        shapes: layers x width, separated by commas.
        seeds: seeds of the random choices, separated by commas.
    """
    found = read_task_data(data, task=task)
    model, tokenizer = load_classifier(teacher), load_tokenizer(teacher)
    sample = sample_batches(found, tokenizer, select="held-out", max_length=128)
    chosen = {f"per {per}": taylor_importance(model, sample, per=per) for per in ("text", "position")}
    chosen |= {f"random {seed}": random_importance(model, int(seed)) for seed in seeds.split(",")}
    results: dict[str, dict[str, float]] = {}
    for shape in shapes.split(","):
        layers, width = map(int, shape.split("x"))
        for name, importance in chosen.items():
            plan = plan_extraction(model, complete_shape(model.config, layers, width), importance)
            for means, texts in (("means put right", sample), ("as cut", ())):
                student = cut_out(model, plan, texts)
                results[f"{shape}, {name}, {means}"] = found_errors = errors(student, model, plan, found, tokenizer)
                each = ", ".join(f"{metric} {value:.3f}" for metric, value in found_errors.items())
                print(f"{shape:6s} {name:12s} {means:16s} {each}", flush=True)
    Path(output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def errors(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    plan: ExtractionPlan,
    data: TaskData,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, float]:
    """How far the student is from its teacher on the development set."""
    dev = next(iter(data.evaluation.values()))
    rows = tokenise(dev.remove_columns("label"), tokenizer, 128).remove_columns("length").to_list()
    collate, kept = PaddingCollator(tokenizer), torch.tensor(plan.residual)
    student.train(False)
    ours, theirs, squares, states = [], [], 0.0, []
    with fast_float32():
        for start in range(0, len(rows), 32):
            batch: dict[str, Any] = dict(collate(rows[start : start + 32]))
            own, taught = (capture(encoder, batch, {"hidden"}) for encoder in (student, teacher))
            tokens = batch["attention_mask"].bool()
            target = taught.hidden[-1][tokens][:, kept].double()
            squares += (own.hidden[-1][tokens] - target).square().sum().item()
            states.append(target)
            ours.append(own.logits)
            theirs.append(taught.logits)
    logits, targets, units = torch.cat(ours), torch.cat(theirs), torch.cat(states)
    found = {"logits, MSE": (logits - targets).square().mean().item()}
    if data.task.kind.link == "softmax":
        found["soft cross-entropy"] = -(targets.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean().item()
    found |= data.task.score(logits.numpy(), dev.with_format("numpy")["label"][:])
    found["hidden states, relative error"] = squares / (units - units.mean(0)).square().sum().item()
    return found


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
