"""TinyBERT with each of its parts left out, at equal steps.

    emdistill augment --teacher runs/mrpc/teacher --task mrpc --data ../shared/data/glue/MRPC --copies 2 \\
        --output mrpc.jsonl
    python benchmarks/tinybert_ablations.py --teacher runs/mrpc/teacher --task mrpc --data ../shared/data/glue/MRPC \\
        --general general/student --augmented mrpc.jsonl --output runs/ablations --seeds 0,1,2

The student is one of raw text (benchmarks/births.py says how it is made); the steps are the same for every row, so that
more data is not more training. Runs that are finished are reused. Prints each variant's mean over the seeds and its
paired difference to the whole method with a 95 % interval; writes OUTPUT/results.json.
"""

import json
import statistics
from pathlib import Path
from typing import Any

from births import done
from glue_students import begun
from jsonargparse import auto_cli

from emdistill import distill
from emdistill.models.arithmetic import has_bfloat16
from emdistill.options import load_config
from emdistill.runs.comparison import paired_difference
from emdistill.runs.record import read_run

TRANSFORMER = ("attention_scores", "hidden_states")
WHOLE = "whole"
VARIANTS: dict[str, dict[str, Any]] = {
    WHOLE: {},
    "no general distillation": {"student": "4x312", "student_birth": "fresh"},
    "cut out instead of general distillation": {"student": "4x312"},
    "no augmentation": {"augmented": None},
    "no task distillation": {"method": "hard-labels", "augmented": None, "objective": {}},
    "no embeddings": {"objective": {"embeddings": 0}},
    "no soft targets": {"objective": {"alpha": 0}},
    "no attention scores": {"objective": {"attention_scores": 0}},
    "no hidden states": {"objective": {"hidden_states": 0}},
    "no Transformer losses": {"objective": dict.fromkeys(TRANSFORMER, 0)},
}


def main(
    teacher: str,
    task: str,
    data: str,
    general: str,
    augmented: str,
    output: str,
    seeds: str = "0,1,2",
    rows: int | None = None,
    max_steps: int = 200,
    variants: str | None = None,
    teacher_cache_folder: str | None = None,
) -> None:
    """Run what is missing and print the table.

    Args:
        teacher: the fine-tuned teacher.
        task: a task's name.
        data: its data.
        general: the student of raw text.
        augmented: the file that `emdistill augment` wrote.
        output: folder of all runs.
        seeds: seeds, comma separated.
        rows: so many training rows.
        max_steps: steps of both phases together.
        variants: some of the variants, separated by commas; all if not given.
        teacher_cache_folder: folder of the teacher's outputs, if runs elsewhere share it.
    """
    folder = Path(output)
    chosen = [int(seed) for seed in seeds.split(",")]
    wanted = {WHOLE, *(VARIANTS if variants is None else variants.split(","))}
    scores: dict[str, list[float]] = {name: [] for name in VARIANTS if name in wanted}
    for seed in chosen:
        for name in scores:
            changes = VARIANTS[name]
            run = folder / f"{name.replace(' ', '-')}-{seed}"
            options = {
                "teacher": teacher, "task": task, "data": data, "student": general, "augmented": augmented,
                "method": "tinybert", "select": "last", "rows": rows, "seed": seed, "check_teacher": False,
                "teacher_cache": "states", "teacher_cache_folder": teacher_cache_folder or str(folder / "cache"),
                "training": {
                    "max_steps": max_steps, "bf16": has_bfloat16(), "disable_tqdm": True, "gradient_norm_steps": 0,
                },
            }  # fmt: skip
            if not done(run):
                distill(load_config(**options | changes, output=str(run), resume=begun(run)), quiet=True)
            record = read_run(run)
            metric = record["task"]["metrics"][0]
            scores[name].append(record.scores["student"][metric])
            print(f"seed {seed} {name}: {metric} {scores[name][-1]:.4f}", flush=True)
    results = {}
    for name, values in scores.items():
        difference = paired_difference(values, scores[WHOLE])
        results[name] = {"scores": values, "difference": [difference.mean, difference.low, difference.high]}
        interval = "" if name == WHOLE else f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
        print(f"{name:34s} {statistics.mean(values):.4f}  {interval}")
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
