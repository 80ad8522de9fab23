"""The learned transport beside the exact one and Sinkhorn's: error, gradients, time; and its training.

    python benchmarks/learned_transport.py --output benchmarks/results/learned-transport.json
    python benchmarks/learned_transport.py --steps 4000 --weights emdistill/mapping/learned.safetensors   # trains anew

Problems it has not seen: costs drawn at random, costs that are distances of random points, and layers that cost more
the further apart they are; layer weights drawn at random. The reference is the exact solver in float64.
"""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from jsonargparse import auto_cli
from safetensors.torch import save_file
from torch import Tensor

from emdistill.mapping import sinkhorn_plan, solve_transport
from emdistill.mapping.learned import PriceNet, learned_plan, price_net

SIZES = [(3, 6), (4, 12), (6, 12), (12, 24)]
KINDS = ("random", "points", "depth")
Problem = tuple[Tensor, Tensor, Tensor]


def main(
    output: str | None = None, weights: str | None = None, steps: int = 4000, problems: int = 200, seed: int = 0
) -> None:
    """Train where weights are asked for, then measure.

    Args:
        output: file of the figures.
        weights: file to write the trained weights to.
        steps: of training.
        problems: measured per size and kind.
        seed: of the training; the problems measured have others.
    """
    net = price_net() if weights is None else train(steps, seed)
    if weights is not None:
        save_file({name: value.contiguous() for name, value in net.state_dict().items()}, weights)
    rows = [measure(net, *size, kind, problems) for size in SIZES for kind in KINDS]
    for row in rows:
        print({name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in row.items()})
    if output is not None:
        Path(output).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def draw(generator: torch.Generator, count: int, students: int, teachers: int, kind: str) -> Problem:
    """So many problems: costs [count, M, N], and layer weights of both sides."""

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    if kind == "random":
        costs = random(count, students, teachers)
    elif kind == "points":
        first, second = (torch.randn(count, size, 4, generator=generator) for size in (students, teachers))
        costs = torch.cdist(first, second) ** 2
    else:
        depth = torch.linspace(0, 1, students)[:, None] - torch.linspace(0, 1, teachers)[None, :]
        costs = (depth.abs() + 0.3 * random(count, 1, teachers) + 0.1 * random(count, students, teachers)) ** 2
    spread = random(count, 1)  # from equal weights to very unequal ones
    drawn = [torch.randn(count, size, generator=generator) for size in (students, teachers)]
    first, second = (torch.softmax(3 * spread.double() * values.double(), dim=-1) for values in drawn)
    return costs.double(), first, second


def train(steps: int, seed: int) -> PriceNet:
    """Raise the cost that the prices prove, on problems of all sizes; no problem is solved for it."""
    torch.manual_seed(seed)
    generator, sizes = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    net = PriceNet()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        students, teachers = int(sizes.integers(1, 13)), int(sizes.integers(1, 25))
        problem = draw(generator, 128, students, teachers, KINDS[step % len(KINDS)])
        scale = problem[0].mean(dim=(-2, -1))
        loss = -(learned_plan(net, *problem).cost / scale).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(f"step {step}: cost {-loss.item():.4f} of the mean cost")
    return net.requires_grad_(False).eval()


def measure(net: PriceNet, students: int, teachers: int, kind: str, problems: int) -> dict[str, object]:
    """Errors against exact transport, in shares of its cost; the gradients' likeness; microseconds of each."""
    drawn = draw(torch.Generator().manual_seed(10_000 + students), problems, students, teachers, kind)
    exact = [solve_transport(*(part[number] for part in drawn)) for number in range(problems)]
    costs, flows = (torch.stack(part) for part in zip(*((plan.cost, plan.flow) for plan in exact), strict=True))
    matrices = drawn[0].clone().requires_grad_()
    plan = learned_plan(net, matrices, *drawn[1:])
    (slope,) = torch.autograd.grad(plan.cost.sum(), matrices)
    paid = (plan.flow.detach() * drawn[0]).sum(dim=(-2, -1))
    smooth = sinkhorn_plan(*drawn, epsilon=0.01)
    below = (costs - plan.cost.detach()) / costs

    def likeness(first: Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(first.double().flatten(1), flows.flatten(1)).median())

    def each(solve: Callable[..., object]) -> float:
        return timed(lambda: [solve(*(part[number] for part in drawn)) for number in range(20)]) / 20

    return {
        "students": students, "teachers": teachers, "kind": kind,
        "below": float(below.median()), "worst_below": float(below.max()),
        "plan_above": float(((paid - costs) / costs).median()),
        "sinkhorn_above": float(((smooth.cost - costs) / costs).median()),
        "gradient_cosine": likeness(slope), "flow_cosine": likeness(plan.flow.detach()),
        "sinkhorn_cosine": likeness(smooth.flow),
        "exact_us": each(solve_transport), "sinkhorn_us": each(sinkhorn_plan),
        "learned_us": each(lambda *problem: learned_plan(net, *problem)),
        "learned_batch_us": timed(lambda: learned_plan(net, *drawn)) / problems,
    }  # fmt: skip


def timed(call: Callable[[], object]) -> float:
    """Microseconds, the median of five."""
    seconds = []
    for _ in range(5):
        started = perf_counter()
        call()
        seconds.append(perf_counter() - started)
    return 1e6 * median(seconds)


if __name__ == "__main__":
    torch.set_num_threads(1)
    auto_cli(main, as_positional=False)
