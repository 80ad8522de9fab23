"""Case E: a whole training step against the reference approach, against TextBrewer, and against the arithmetic floor.

    python benchmarks/step.py [--short] [--rounds N] [--threads N] [--output FILE.json]
    python benchmarks/step.py --agreement 100    # instead: the fast path and the plain one train the same student

Teacher: BERT-base's shape with random weights, 2 labels; student: 4×312; batches 8×128 and 32×64 without padding.
What a step is stands in training_steps.py; TextBrewer, and ours with the same losses, in textbrewer_peer.py.
"Cached teacher" reads its states from a teacher cache on disk, in half precision.

"MKL" is ours with float32 products as PyTorch takes them; without that word they are oneDNN's (models/arithmetic.py).
The floor is the FLOPs of the matrix products of one teacher forward and, three times, of one student forward, over
the rate of a 1024³ product timed in every round, by either library; projections and elementwise work are not counted.
"""

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from measure import arguments, interleave, print_table, ratio, save, shown, summary
from textbrewer_peer import peers
from torch import Tensor
from training_steps import (
    Inputs,
    OurStep,
    PlainStep,
    ReferenceStep,
    Step,
    emd_objective,
    models,
    our_steps,
    peer_steps,
    random_batch,
)
from transformers import PreTrainedModel

from emdistill.models.arithmetic import fast_float32
from emdistill.models.teacher import Teacher
from emdistill.models.teacher_cache import TeacherCache, open_teacher_cache

CASES = ((8, 128), (32, 64))
SHORT_CASES = ((4, 32), (8, 16))
GEMM_SIZE, GEMM_REPEATS = 1024, 5


def product_flops(model: PreTrainedModel, batch: int, length: int) -> float:
    """FLOPs of all matrix products of one forward pass of a BERT classifier."""
    config, tokens = model.config, batch * length
    width, inner = config.hidden_size, config.intermediate_size
    layer = 2 * tokens * width * (4 * width + 2 * inner) + 4 * tokens * length * width
    head = 2 * batch * width * (width + config.num_labels)
    return config.num_hidden_layers * layer + head


def cache_of(teacher: Teacher, inputs: Inputs, folder: Path) -> TeacherCache:
    """All of the teacher's states of one batch's examples, kept on disk."""
    columns = {name: inputs[name].tolist() for name in ("input_ids", "attention_mask")}

    def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        return {name: torch.tensor([row[name] for row in rows]) for name in columns}

    needs = ("hidden", "attention", "embeddings")
    return open_teacher_cache(teacher, Dataset.from_dict(columns), folder, needs=needs, collate=collate)


def gemm(arithmetic: Callable[[], AbstractContextManager[None]]) -> Callable[[], None]:
    """Some products by which the floor is set."""
    left, right, out = (torch.rand(GEMM_SIZE, GEMM_SIZE) for _ in range(3))

    def products() -> None:
        with arithmetic():
            for _ in range(GEMM_REPEATS):
                torch.mm(left, right, out=out)

    return products


def measure_case(
    teacher: PreTrainedModel, student: PreTrainedModel, batch: int, length: int, rounds: int, folder: Path
) -> dict[str, Any]:
    """Time every contender on one batch and print what came out."""
    torch.manual_seed(0)
    inputs = random_batch(batch, length, teacher.config.vocab_size)
    ours = our_steps(teacher, student, cache_of(Teacher(teacher), inputs, folder))
    steps: dict[str, Step] = {
        "reference approach": ReferenceStep(teacher, student),
        **ours,
        **peer_steps(teacher, student),
    }
    contenders = {name: lambda step=step: step(inputs) for name, step in steps.items()}
    contenders |= {"floor, MKL": gemm(nullcontext), "floor": gemm(fast_float32)}
    seconds = interleave(contenders, rounds, settle=True)
    flops = product_flops(teacher, batch, length) + 3 * product_flops(student, batch, length)
    share = flops / (GEMM_REPEATS * 2 * GEMM_SIZE**3)
    for floor in ("floor, MKL", "floor"):
        seconds[floor] = [share * products for products in seconds[floor]]
    stages = [ours["ours"].stages(inputs) for _ in range(rounds)]
    return show_case(f"{batch}×{length}", seconds, {name: [took[name] for took in stages] for name in stages[0]})


def show_case(title: str, seconds: dict[str, list[float]], stages: dict[str, list[float]]) -> dict[str, Any]:
    """Print and return times, ratios and stages of one case."""
    baselines = {name: "reference approach" for name in seconds if name.startswith("ours")}
    baselines |= peers(seconds)
    ratios = {name: ratio(seconds[baseline], seconds[name]) for name, baseline in baselines.items()}
    pairs = (("ours", "floor"), ("ours, MKL", "floor, MKL"), ("ours", "floor, MKL"))
    above_floor = {f"{ours} / {floor}": ratio(seconds[ours], seconds[floor]) for ours, floor in pairs}
    rows = []
    for name, values in seconds.items():
        faster = f"{shown(ratios[name])} × {baselines[name]}" if name in ratios else ""
        rows.append((name, shown(summary(values)), faster))
    print_table(f"One training step, {title}", ["", "ms", "faster than"], rows)
    rows = [(name, shown(summary(values))) for name, values in stages.items()]
    print_table(f"Where the time of ours goes, {title}", ["", "ms"], rows)
    print("; ".join(f"{name}: {shown(figures)}" for name, figures in above_floor.items()), end="\n\n")
    return {
        "milliseconds": {name: summary(values) for name, values in seconds.items()},
        "faster": {name: {"than": baselines[name], **figures} for name, figures in ratios.items()},
        "stages": {name: summary(values) for name, values in stages.items()},
        "ours_over_floor": above_floor,
    }


def agreement(teacher: PreTrainedModel, student: PreTrainedModel, steps: int) -> float:
    """The largest relative difference of both paths' losses, trained from one seed on the same padded batches."""
    live = Teacher(teacher)
    torch.manual_seed(0)
    objective = emd_objective(student, teacher)
    sides = (PlainStep(live, student, objective), OurStep(live, student, objective))
    worst = 0.0
    for number in range(steps):
        torch.manual_seed(number)
        inputs = random_batch(8, 64, teacher.config.vocab_size, shortest=6)
        losses = []
        for side in sides:
            torch.manual_seed(number)  # the same dropout
            losses.append(side(inputs).item())
        worst = max(worst, abs(losses[1] - losses[0]) / abs(losses[0]))
        if number in (0, steps - 1):
            print(f"step {number + 1}: plain {losses[0]:.7g}, fast {losses[1]:.7g}")
    return worst


def main() -> None:
    """Run case E, or the agreement of both paths."""
    steps = {"type": int, "metavar": "STEPS", "help": "compare the fast path with the plain one for so many steps"}
    options = arguments(__doc__, agreement=steps).parse_args()
    torch.set_num_threads(options.threads)
    teacher, student = models(options.short)
    if options.agreement:
        worst = agreement(teacher, student, options.agreement)
        print(f"largest relative difference of the loss in {options.agreement} steps: {worst:.1e} (at most 1e-4)")
        save(options.output, {"steps": options.agreement, "largest_relative_difference": worst})
        raise SystemExit(worst >= 1e-4)
    cases = {}
    with tempfile.TemporaryDirectory() as folder:
        for batch, length in SHORT_CASES if options.short else CASES:
            rounds = options.rounds or (2 if options.short else 7)
            cases[f"{batch}x{length}"] = measure_case(teacher, student, batch, length, rounds, Path(folder))
    save(options.output, {"cases": cases})


if __name__ == "__main__":
    main()
