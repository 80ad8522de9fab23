"""Whether other learning rates or more epochs make a better teacher than the defaults of `emdistill finetune`.

    python benchmarks/finetune_defaults.py --data ../shared/data/glue --encoder DIR_OR_HUB_ID --output runs/finetune \\
        --settings 1e-4x5,5e-5x5,5e-5x10,2e-4x5 --seeds 0

A setting is LEARNING_RATExEPOCHS, all else as in recipes/finetune.yaml. Prints the task's first metric on dev, and on
the held-out part of train by which a checkpoint was kept. Runs already finished are reused, interrupted ones resumed.
"""

import statistics
from pathlib import Path

from jsonargparse import auto_cli

from emdistill import finetune
from emdistill.options import load_finetune_config
from emdistill.runs.record import RUN_FILE, read_run


def main(
    data: str,
    encoder: str,
    output: str = "runs/finetune",
    task: str = "mrpc",
    settings: str = "1e-4x5,5e-5x5,5e-5x10,2e-4x5",
    seeds: str = "0",
    precision: str = "bf16",
) -> None:
    """Fine-tune what is missing and print a line a setting.

    Args:
        data: the folder that holds the GLUE folders.
        encoder: folder or hub id of the pretrained encoder.
        output: folder of all runs.
        task: a GLUE task.
        settings: LEARNING_RATExEPOCHS, comma separated.
        seeds: seeds, comma separated.
        precision: bf16 (autocast in training, scores in float32) or fp32.
    """
    for setting in settings.split(","):
        rate, _, epochs = setting.partition("x")
        training = {
            "learning_rate": float(rate), "num_train_epochs": float(epochs), "bf16": precision == "bf16",
            "disable_tqdm": True,
        }  # fmt: skip
        on_dev, held_out = [], []
        for seed in seeds.split(","):
            folder = Path(output) / f"{task}-{setting}-{seed}"
            finetune(
                load_finetune_config(
                    model=encoder, task=task, data=data, output=str(folder), seed=int(seed), training=training,
                    resume=(folder / RUN_FILE).exists(),
                )
            )  # fmt: skip
            run = read_run(folder)
            metric = run["task"]["metrics"][0]
            on_dev.append(run.scores["teacher"][metric])
            held_out.append(max(line.get(f"eval_{metric}", 0.0) for line in run.log[0].log))
        each = " ".join(f"{value:.4f}" for value in on_dev)
        print(
            f"{task} {setting}: dev {statistics.mean(on_dev):.4f} ({each}), "
            f"held-out part of train {statistics.mean(held_out):.4f}",
            flush=True,
        )


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
