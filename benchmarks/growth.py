"""Growth: the time of a step is linear in its tokens, and in M·N, the number of layer pairs.

    python benchmarks/growth.py --rounds 7 --output benchmarks/results/growth.json --plot benchmarks/results/growth.png

The cost stage (hidden states and scores: costs, transport, gradient) and the whole BERT-EMD step (teacher forward,
student forward, losses, backward, AdamW; student width 312, teacher 768), each over four sizes of the batch at length
64, and over four numbers of pairs: of the cost stage both sides grow, of the whole step the student alone, since a
deeper teacher does more than be compared. A line a + b·x is fitted to the medians.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import arguments, interleave, print_table, save, shown
from measure import summary as summarised
from training_steps import OurStep, emd_objective, random_batch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from emdistill.mapping import EmdMapping, layer_costs
from emdistill.models.teacher import Teacher
from emdistill.students.fresh import fresh_student

HEADS = 12
Series = dict[str, dict[int, Callable[[], object]]]  # name -> size -> what is timed


@dataclass(frozen=True)
class Sizes:
    """What is fixed and what grows; widths divide by 12 heads."""

    length: int
    batches: tuple[int, ...]
    batch: int  # where the pairs grow
    pairs: tuple[tuple[int, int], ...]  # layers of student and teacher, cost stage
    students: tuple[int, ...]  # layers of the student, whole step
    teacher_layers: int
    student_layers: int  # where the batch grows
    student_width: int
    teacher_width: int
    compiled: bool  # compilation takes longer than the short form may


FULL = Sizes(64, (8, 16, 24, 32), 16, ((2, 6), (3, 8), (4, 12), (6, 16)), (2, 4, 6, 8), 12, 4, 312, 768, True)
SHORT = Sizes(16, (4, 8, 12, 16), 8, ((2, 2), (2, 4), (3, 4), (4, 4)), (1, 2, 3, 4), 4, 2, 24, 48, False)


def main(argv: Sequence[str] | None = None) -> None:
    """Time all four series, fit, print and draw."""
    parser = arguments(__doc__, plot={"type": Path, "metavar": "FILE.png", "help": "draw the series here"})
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    sizes, rounds = (SHORT, 3) if options.short else (FULL, 7)
    series = {
        name: fitted(contenders, options.rounds or rounds)
        for name, contenders in {**cost_stages(sizes), **whole_steps(sizes)}.items()
    }
    print_table(
        "Median ms over four sizes, and the line through them",
        ["series", "sizes: ms (quartiles)", "a + b·x, ms", "r²", "largest deviation"],
        [
            [name, "\n".join(f"{x}: {shown(ms)}" for x, ms in found["ms"].items()), equation(found),
             f"{found['r2']:.4f}", f"{found['deviation']:.1%}"]
            for name, found in series.items()
        ],
    )  # fmt: skip
    if options.plot:
        draw(series, options.plot)
    save(options.output, {"case": "growth", "series": series})


def cost_stages(sizes: Sizes) -> Series:
    """Tokens, then pairs of layers."""
    fixed = (sizes.student_layers, sizes.teacher_layers)
    return {
        "cost stage, tokens": {batch * sizes.length: cost_stage(sizes, batch, *fixed) for batch in sizes.batches},
        "cost stage, pairs": {m * n: cost_stage(sizes, sizes.batch, m, n) for m, n in sizes.pairs},
    }


def cost_stage(sizes: Sizes, batch: int, students: int, teachers: int) -> Callable[[], object]:
    """Costs of hidden states and scores, their flows, and the gradient of all student layers."""
    length, width = sizes.length, sizes.teacher_width
    mask = torch.ones(batch, length, dtype=torch.long)
    kinds = []
    for shape in ((batch, length, width), (batch, HEADS, length, length)):
        student = [torch.randn(shape).requires_grad_() for _ in range(students)]
        kinds.append((student, [torch.randn(shape) for _ in range(teachers)]))
    mapping = EmdMapping(students, teachers)

    def stage() -> object:
        costs = torch.stack([layer_costs(*both, mask, compiled=sizes.compiled) for both in kinds])
        loss = (mapping(costs.detach()) * costs).sum()
        return torch.autograd.grad(loss, [layer for student, _ in kinds for layer in student])

    return stage


def whole_steps(sizes: Sizes) -> Series:
    """Tokens with one student, then students of several depths with one number of tokens."""
    shape = {"hidden_size": sizes.teacher_width, "intermediate_size": 4 * sizes.teacher_width}
    config = BertConfig(num_hidden_layers=sizes.teacher_layers, num_attention_heads=HEADS, num_labels=2, **shape)
    teacher = BertForSequenceClassification(config)
    step = training_step(teacher, sizes, sizes.student_layers)
    batches = {batch: random_batch(batch, sizes.length, config.vocab_size) for batch in (*sizes.batches, sizes.batch)}
    return {
        "whole step, tokens": {batch * sizes.length: partial(step, batches[batch]) for batch in sizes.batches},
        "whole step, pairs": {
            layers * sizes.teacher_layers: partial(training_step(teacher, sizes, layers), batches[sizes.batch])
            for layers in sizes.students
        },
    }


def training_step(teacher: PreTrainedModel, sizes: Sizes, layers: int) -> OurStep:
    """BERT-EMD's step for a student of so many layers."""
    student = fresh_student(teacher, layers, sizes.student_width, HEADS, labels=("no", "yes"))
    step = OurStep(Teacher(teacher), student, emd_objective(student, teacher))
    for loss in step.model.objective.layer_losses():
        loss.compiled = sizes.compiled
    return step


def fitted(contenders: Mapping[int, Callable[[], object]], rounds: int) -> dict[str, Any]:
    """The medians of a series and the least-squares line through them."""
    seconds = interleave({str(x): step for x, step in contenders.items()}, rounds, settle=True)
    times = {x: summarised(values) for x, values in seconds.items()}
    return {"ms": times, **line(list(contenders), [ms["median"] for ms in times.values()])}


def line(xs: Sequence[float], ys: Sequence[float]) -> dict[str, float]:
    """y = a + b·x by least squares; r²; the largest deviation from it as a share of y."""
    x, y = np.asarray(xs, dtype=float), np.asarray(ys, dtype=float)
    b, a = np.polyfit(x, y, 1)
    residuals = y - (a + b * x)
    r2 = 1 - residuals @ residuals / ((y - y.mean()) @ (y - y.mean()))
    return {"a": float(a), "b": float(b), "r2": float(r2), "deviation": float(np.abs(residuals / y).max())}


def equation(found: Mapping[str, float]) -> str:
    return f"{found['a']:.3g} + {found['b']:.3g}·x"


def draw(series: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """One panel a series: medians with quartiles, and the line."""
    from matplotlib.figure import Figure  # of the bench extra; only the picture needs it

    figure = Figure(figsize=(9, 7), layout="constrained")
    for axes, (name, found) in zip(figure.subplots(2, 2).flat, series.items(), strict=True):
        x = np.array([float(size) for size in found["ms"]])
        median, low, high = (np.array([ms[key] for ms in found["ms"].values()]) for key in ("median", "low", "high"))
        axes.errorbar(x, median, yerr=[median - low, high - median], fmt="o", capsize=3)
        ends = np.array([0, 1.05 * x.max()])
        axes.plot(ends, found["a"] + found["b"] * ends, linewidth=1)
        axes.set_title(f"{name}: {equation(found)} ms, r² = {found['r2']:.4f}", fontsize=10)
        axes.set(ylabel="ms", ylim=(0, None))
        axes.set_xlabel("tokens" if name.endswith("tokens") else "layer pairs, M·N")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
