"""Case P: direct differences keep seven digits however near the student comes; a Gram product loses them.

    python benchmarks/precision.py --output benchmarks/results/precision.json

Teacher states with two outlier dimensions (×50); the student is the teacher plus noise. The largest relative error of a
cost against float64 on the same inputs. "Gram" is ‖s‖² + ‖t‖² − 2 s·t with one float32 matrix product.
"""

from collections.abc import Callable, Sequence

import torch
from measure import arguments, print_table, save
from torch import Tensor

from emdistill.mapping import layer_costs

NOISES = (1.0, 0.1, 0.01)
OUTLIERS, OUTLIER_SCALE = (30, 500), 50.0
LAYERS, WIDTH = 4, 768
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main(argv: Sequence[str] | None = None) -> None:
    """Each noise and input type, each way to take the costs."""
    options = arguments(__doc__).parse_args(argv)
    torch.set_num_threads(options.threads)
    batch, length = (4, 16) if options.short else (32, 64)
    errors = {
        f"noise {noise:g}, {name}": cost_errors(*noisy_layers(batch, length, noise, dtype))
        for name, dtype in DTYPES.items()
        for noise in NOISES
    }
    columns = list(next(iter(errors.values())))
    rows = [[case, *(f"{error:.1e}" for error in found.values())] for case, found in errors.items()]
    print_table(f"Largest relative error of a cost, hidden states {batch}×{length}×{WIDTH}", ["case", *columns], rows)
    save(options.output, {"case": "P", "relative_errors": errors})


def noisy_layers(batch: int, length: int, noise: float, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Student and teacher layers; layer i of the student is layer i of the teacher plus noise."""
    random = torch.Generator().manual_seed(0)
    scales = torch.ones(WIDTH)
    scales[list(OUTLIERS)] = OUTLIER_SCALE
    teacher = [scales * torch.randn(batch, length, WIDTH, generator=random) for _ in range(LAYERS)]
    student = [layer + noise * torch.randn(layer.shape, generator=random) for layer in teacher]
    return [layer.to(dtype) for layer in student], [layer.to(dtype) for layer in teacher]


def cost_errors(student: list[Tensor], teacher: list[Tensor]) -> dict[str, float]:
    """Largest relative error of every way."""
    mask = torch.ones(student[0].shape[:2], dtype=torch.long)
    ways: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: layer_costs(student, teacher, mask, compiled=False),
        "compiled": lambda: layer_costs(student, teacher, mask, compiled=True),
        "Gram": lambda: gram_costs(student, teacher),
    }
    truth = exact_costs(student, teacher)
    return {name: largest_error(way(), truth) for name, way in ways.items()}


def largest_error(costs: Tensor, truth: Tensor) -> float:
    """max |costs − truth| / truth."""
    return ((costs.double() - truth).abs() / truth).max().item()


def exact_costs(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Mean squared differences in float64."""
    return torch.stack([torch.stack([(s.double() - t.double()).square().mean() for t in teacher]) for s in student])


def gram_costs(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """The same by ‖s‖² + ‖t‖² − 2 s·t, float32 throughout."""
    students, teachers = (torch.stack(side).flatten(1).float() for side in (student, teacher))
    squares = students.square().sum(dim=1)[:, None] + teachers.square().sum(dim=1)[None]
    return (squares - 2 * students @ teachers.T) / students.shape[1]


if __name__ == "__main__":
    main()
