"""Case C: costs, transport and gradient of all layers in a fraction of the released approach's time and memory.

    python benchmarks/layer_costs.py --rounds 7 --output benchmarks/results/layer_costs.json

Student 4 layers, teacher 12, width 768, 12 heads, no padding; forward, solve and gradient with regard to every student
layer. "plain" and "compiled" are emdistill's two kernels, "reference" is reference_approach.py. Peak memory is what
the stage adds, in a fresh process each, inputs not counted, the student's gradients counted. Errors of loss and
gradient are against a float64 computation.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import ot
import reference_approach
import torch
from measure import arguments, interleave, memory_rise, peak_memory, print_table, ratio, relative_error, save, shown
from measure import summary as summarised
from torch import Tensor

from emdistill.mapping import EmdMapping, layer_costs

WIDTH, HEADS = 768, 12
CONTENDERS = ("reference", "plain", "compiled")
Layers = dict[str, tuple[list[Tensor], list[Tensor]]]  # kind -> student layers, teacher layers
Result = tuple[Tensor, list[Tensor]]  # loss, gradients of the student's layers


def main(argv: Sequence[str] | None = None) -> None:
    """Time, errors and memory; with --child, only the memory of one contender."""
    child = {"choices": CONTENDERS, "help": "print one contender's MB (for this script)"}
    cold = {"action": "store_true", "help": "no untimed call before each timed one: memory as another left it"}
    parser = arguments(__doc__, child=child, cold=cold)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    # Fewer pairs compile faster.
    (students, teachers), batch, lengths, rounds = (
        ((2, 4), 4, (32,), 2) if options.short else ((4, 12), 32, (64, 128), 7)
    )
    make_layers = partial(random_layers, students, teachers)
    if options.child:
        print(child_memory(options.child, make_layers, batch, lengths[-1]))
        return
    times: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    for length in lengths:
        inputs = make_layers(batch, length)
        for kinds in (("hidden",), ("scores",), ("hidden", "scores")):
            layers = {kind: inputs[kind] for kind in kinds}
            case = f"{' + '.join(kinds)} {batch}×{length}"
            times[case] = time_stages(layers, options.rounds or rounds, settle=not options.cold)
            errors[case] = error_stages(layers) if len(kinds) == 1 else None
    flags = ["--short"] if options.short else []
    flags += ["--threads", str(options.threads)]
    with ThreadPoolExecutor(2) as pool:
        megabytes = pool.map(lambda name: peak_memory([__file__, "--child", name, *flags]), CONTENDERS)
        memory = dict(zip(CONTENDERS, megabytes, strict=True))
    print_tables(times, errors, memory, f"scores {batch}×{lengths[-1]}")
    save(options.output, {"case": "C", "times": times, "errors": errors, "peak_mb": memory})


def random_layers(
    students: int, teachers: int, batch: int, length: int, kinds: Sequence[str] = ("hidden", "scores")
) -> Layers:
    """Teacher layers that drift from the first to the last, student layers near some of them, as in training."""
    random = torch.Generator().manual_seed(0)
    shapes = {"hidden": (batch, length, WIDTH), "scores": (batch, HEADS, length, length)}
    layers = {}
    for kind in kinds:
        shape = shapes[kind]
        teacher = [torch.randn(shape, generator=random)]
        for _ in range(teachers - 1):
            teacher.append(teacher[-1] + 0.3 * torch.randn(shape, generator=random))
        chosen = teacher[teachers // students - 1 :: teachers // students]
        student = [layer.add(torch.randn(shape, generator=random), alpha=0.5).requires_grad_() for layer in chosen]
        layers[kind] = (student, teacher)
    return layers


def stage(name: str, layers: Layers) -> Result:
    """One contender's forward, solve and gradient."""
    student, teacher = next(iter(layers.values()))
    if name == "reference":
        weights = reference_approach.LayerWeights.uniform(len(student), len(teacher))
        losses = [reference_approach.layer_loss(*both, kind, weights) for kind, both in layers.items()]
        weights.advance()
        loss = torch.stack(losses).sum()
    else:
        mask = torch.ones(student[0].shape[0], student[0].shape[-2], dtype=torch.long)
        costs = torch.stack([layer_costs(*both, mask, compiled=name == "compiled") for both in layers.values()])
        loss = (EmdMapping(len(student), len(teacher))(costs.detach()) * costs).sum()
    student_layers = [layer for own, _ in layers.values() for layer in own]
    return loss.detach(), list(torch.autograd.grad(loss, student_layers))


def exact_stage(layers: Layers) -> Result:
    """Loss and gradient in float64, pair by pair, the gradient in closed form."""
    total, grads = torch.zeros((), dtype=torch.float64), []
    for student, teacher in layers.values():
        student, teacher = ([layer.detach().double() for layer in side] for side in (student, teacher))
        count = student[0].numel()
        costs = torch.stack([torch.stack([(s - t).square().mean() for t in teacher]) for s in student])
        masses = [torch.full((size,), 1 / size, dtype=torch.float64) for size in costs.shape]
        flow = ot.emd(*masses, costs)
        total += (flow * costs).sum()
        for own, row in zip(student, flow, strict=True):
            used = row.nonzero().flatten().tolist()
            grads.append(2 / count * sum(row[j] * (own - teacher[j]) for j in used))
    return total, grads


def time_stages(layers: Layers, rounds: int, settle: bool) -> dict[str, Any]:
    """Milliseconds of every contender, and how many times faster than the reference."""
    contenders: dict[str, Callable[[], object]] = {name: partial(stage, name, layers) for name in CONTENDERS}
    seconds = interleave(contenders, rounds, settle=settle)
    return {
        "ms": {name: summarised(values) for name, values in seconds.items()},
        "speedup": {name: ratio(seconds["reference"], seconds[name]) for name in CONTENDERS[1:]},
    }


def error_stages(layers: Layers) -> dict[str, dict[str, float]]:
    """Relative errors of loss and gradient of every contender."""
    true_loss, true_grads = exact_stage(layers)
    errors = {}
    for name in CONTENDERS:
        loss, grads = stage(name, layers)
        gradient = max(relative_error(grad, true) for grad, true in zip(grads, true_grads, strict=True))
        errors[name] = {"loss": relative_error(loss, true_loss), "gradient": gradient}
    return errors


def child_memory(name: str, make_layers: Callable[..., Layers], batch: int, length: int) -> float:
    """MB that one contender's score stage adds, everything that happens once (compilation) done before."""
    for small_batch, small_length in ((2, 8), (3, 12)):
        stage(name, make_layers(small_batch, small_length, ["scores"]))
    return memory_rise(partial(stage, name, make_layers(batch, length, ["scores"])))


def print_tables(times: dict[str, Any], errors: dict[str, Any], memory: dict[str, float], memory_case: str) -> None:
    """Times, errors and memory, one table each."""
    print_table(
        "Forward, solve and gradient: median ms (quartiles), and how many times faster than the reference approach",
        ["case", *CONTENDERS, *(f"{name}: ratio" for name in CONTENDERS[1:])],
        [
            [case, *map(shown, times[case]["ms"].values()), *(shown(r) for r in times[case]["speedup"].values())]
            for case in times
        ],
    )
    print_table(
        "Relative error of loss, gradient against float64",
        ["case", *CONTENDERS],
        [
            [case, *(f"{error['loss']:.0e}, {error['gradient']:.0e}" for error in found.values())]
            for case, found in errors.items()
            if found
        ],
    )
    print_table(
        f"Peak memory above the inputs, {memory_case}",
        ["contender", "MB", "share of the reference"],
        [[name, f"{mb:,.0f}", f"1/{memory['reference'] / mb:.1f}"] for name, mb in memory.items()],
    )


if __name__ == "__main__":
    main()
