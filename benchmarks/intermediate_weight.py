"""How much the intermediate terms should weigh (β) in our normalisation, measured on the docstrings task.

    python benchmarks/intermediate_weight.py --output runs/weight --betas 0,0.1,0.3,1,3,10 --seeds 0
    # another factor on attention scores than the recipe's, in a folder of its own
    python benchmarks/intermediate_weight.py --output runs/weight-1 --betas 1,10 --objective '{"attention_scores": 1}'
    python benchmarks/intermediate_weight.py --output runs/weight-0 --betas 10,30 --objective '{"attention_scores": 0}'

The score is on 2,100 rows held out of train, never on the task's dev set, so that choosing β by it leaves dev clean.
β = 0 is the student that learns from the teacher's predictions alone.
"""

import statistics
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from emdistill import distill, finetune
from emdistill.commands.demo import find_encoder
from emdistill.data.docstrings import read_docstrings
from emdistill.data.read import hold_out
from emdistill.options import load_config, load_finetune_config
from emdistill.runs.record import RUN_FILE
from emdistill.tasks.task import TaskData


def main(
    output: str = "runs/weight",
    betas: str = "0,0.1,0.3,1,3,10",
    seeds: str = "0",
    train_size: int = 2100,
    epochs: float = 3,
    student: str = "3",
    precision: str = "bf16",
    objective: dict[str, Any] | None = None,
) -> None:
    """Train the teacher once, a student a β and seed, and print a line each.

    Args:
        output: folder of all runs.
        betas: weights of the intermediate terms, comma separated.
        seeds: seeds of the students, comma separated.
        train_size: sentences the students learn from; the teacher learns from three times as many.
        epochs: passes over them.
        student: the student, as for `emdistill distill --student`.
        precision: bf16 (autocast in training) or fp32.
        objective: further settings of bert-emd.
    """
    folder = Path(output)
    training = {"num_train_epochs": epochs, "bf16": precision == "bf16", "disable_tqdm": True}
    data = read_docstrings(train_size=3 * train_size + 2100)
    rest, judged = hold_out(data.train, data.task, 0.5, seed=1, at_most=2100)
    for_teacher = TaskData(data.task, rest, {"dev": judged})
    for_student = TaskData(data.task, rest.select(range(train_size)), {"dev": judged})
    teacher = folder / "teacher"
    finetune(
        load_finetune_config(
            model=str(find_encoder()), data="docstrings", output=str(teacher), seed=0, select="last",
            training=training, resume=(teacher / RUN_FILE).exists(),
        ),
        examples=for_teacher,
    )  # fmt: skip
    for beta in betas.split(","):
        accuracies = []
        for seed in seeds.split(","):
            run = folder / f"student-{student}-beta-{beta}-seed-{seed}"
            config = load_config(
                teacher=str(teacher), data="docstrings", output=str(run), student=student, method="bert-emd",
                select="last", seed=int(seed), objective={**(objective or {}), "beta": float(beta)},
                training=training, resume=(run / RUN_FILE).exists(),
            )  # fmt: skip
            accuracies.append(distill(config, examples=for_student).scores["student"]["accuracy"])
        each = " ".join(f"{value:.4f}" for value in accuracies)
        print(f"beta {beta}: {statistics.mean(accuracies):.4f} ({each})", flush=True)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
