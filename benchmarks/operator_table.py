"""Are the prices of `emdistill compress` right? Predicted against measured milliseconds and bytes, on an idle machine.

    python benchmarks/operator_table.py --teacher teacher/ --output prices.json

Students of depths that were not measured are predicted from graphs of 1 and 4 layers, then exported and timed in a
measurement of their own. A line per student and form: the ratios predicted / measured of the median, the 95th
percentile and the bytes.
"""

import json
from pathlib import Path
from statistics import median
from typing import Any

from jsonargparse import auto_cli

from emdistill.models.encoder import load_classifier
from emdistill.models.size import parameter_count
from emdistill.ship.operator_table import FEW, MANY, along_layers, measure_graphs
from emdistill.students.fresh import fresh_student
from emdistill.students.shape import complete_shape, shape_of

PARTS = ("p50", "p95", "bytes")


def main(
    teacher: str, output: str, layers: str = "2,3,6", widths: str = "384,312,192", threads: int = 1, rounds: int = 3
) -> None:
    """Predict, measure, compare.

    Args:
        teacher: folder of a fine-tuned teacher.
        output: file of the figures.
        layers: depths to predict, separated by commas.
        widths: widths of the students, separated by commas.
        threads: CPU threads.
        rounds: times that prediction and measurement are repeated.
    """
    model = load_classifier(teacher)
    depths, rows = [int(number) for number in layers.split(",")], []
    for number in range(rounds):
        for width in map(int, widths.split(",")):
            own = shape_of(model.config)
            shape = own if width == own.width else complete_shape(model.config, 1, width)

            def student(depth: int, shape: Any = shape) -> Any:
                return fresh_student(model, depth, shape.width, shape.heads, shape.feed_forward)

            known = measure_graphs({str(depth): student(depth) for depth in (FEW, MANY)}, threads=threads)
            for depth in depths:
                ((_, measured),) = measure_graphs({str(depth): student(depth)}, threads=threads).items()
                for form, cost in measured.items():
                    told = along_layers(known[str(FEW)][form], known[str(MANY)][form], depth)
                    rows.append(
                        {
                            "round": number, "student": f"{depth}x{width}", "form": form, "ms": round(cost.p50, 3),
                            **{part: round(getattr(told, part) / getattr(cost, part), 3) for part in PARTS},
                        }
                    )  # fmt: skip
                    print(rows[-1])
    for part in PARTS:
        errors = sorted(abs(row[part] - 1) for row in rows)
        print(f"{part}: median error {median(errors):.1%}, nine of ten below {errors[int(0.9 * len(errors))]:.1%}")
    size = parameter_count(model)
    Path(output).write_text(json.dumps({"teacher_parameters": size, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
