"""Does a change of the code leave every student as it was, bit for bit? Two checkouts, the same commands.

    python benchmarks/same_students.py --before ../before --after . --data ../shared/data --output same

BEFORE and AFTER are checkouts of this repository. Each fine-tunes a teacher per task and distils one small student by
every method and birth below, from the same rows and seed; what is compared is the SHA-256 of model.safetensors. What
stands in OUTPUT is not made again. Prints a line per student, and ends with 1 where one differs.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from jsonargparse import auto_cli

from emdistill.commands.demo import find_encoder

ROWS = 96
BUDGET = ["--training.num_train_epochs", "1", "--training.per_device_train_batch_size", "16", "--max_length", "48"]
MRPC, STSB = ("mrpc", "MRPC"), ("stsb", "STS-B")
STUDENTS: dict[str, tuple[tuple[str, str], list[str]]] = {
    "bert-emd": (MRPC, ["--method", "bert-emd"]),
    "bert-emd-cut": (STSB, ["--method", "bert-emd", "--student", "4x312"]),
    "bert-emd-states": (MRPC, ["--method", "bert-emd", "--teacher_cache", "states", "--student", "1,3"]),
    "tinybert-fresh": (STSB, ["--method", "tinybert", "--student", "2x96", "--student_birth", "fresh"]),
    "patient-kd": (MRPC, ["--method", "patient-kd"]),
    "minilm": (MRPC, ["--method", "minilm"]),
    "distilbert": (STSB, ["--method", "distilbert", "--embedding_rank", "64"]),
    "soft-targets": (MRPC, ["--method", "soft-targets", "--select", "last"]),
    "hard-labels": (STSB, ["--method", "hard-labels"]),
}


def same_students(*, before: Path, after: Path, data: Path, output: Path) -> int:
    """Make every student by both checkouts and compare.

    Args:
        before: a checkout of the repository.
        after: the other one.
        data: folder with glue/MRPC, glue/STS-B and corpus/wiki.txt.xz.
        output: folder of the students; what is there is not made again.
    """
    places = {"before": before.resolve(), "after": after.resolve()}
    made = {name: make_students(place, data.resolve(), output / name) for name, place in places.items()}
    different = 0
    for name, digest in made["before"].items():
        same = made["after"][name] == digest
        different += not same
        print(f"{name:<20} {digest[:12]} {'the same' if same else 'DIFFERS: ' + made['after'][name][:12]}")
    return int(different > 0)


def make_students(checkout: Path, data: Path, output: Path) -> dict[str, str]:
    """SHA-256 of the weights of every teacher and student, made by the code of `checkout`."""
    output.mkdir(parents=True, exist_ok=True)
    digests = {}
    common = ["--rows", str(ROWS), "--seed", "7", *BUDGET]
    for task, folder in (MRPC, STSB):
        place = output / f"teacher-{task}"
        source = ["--task", task, "--data", str(data / "glue" / folder)]
        run(checkout, place, "finetune", "--model", str(find_encoder()), *source, *common, "--output", str(place))
        digests[place.name] = digest(place)
    for name, ((task, folder), options) in STUDENTS.items():
        place = output / name
        teacher = ["--teacher", str(output / f"teacher-{task}"), "--check_teacher", "false"]
        source = ["--task", task, "--data", str(data / "glue" / folder)]
        run(checkout, place, "distill", *teacher, *source, *options, *common, "--output", str(place))
        digests[name] = digest(place / "student")
    text, place = data / "corpus" / "wiki.txt.xz", output / "raw-text"
    source = [
        "--teacher",
        str(find_encoder()),
        "--task",
        "text",
        "--data",
        str(text),
        "--method",
        "bert-emd",
        "--student",
        "2x96",
    ]
    run(checkout, place, "distill", *source, "--student_birth", "fresh", *common, "--output", str(place))
    digests["raw-text"] = digest(place / "student")
    return digests


def run(checkout: Path, place: Path, *words: str) -> None:
    """The command, by the code of `checkout`, unless it has finished already."""
    if any(place.rglob("model.safetensors")) and '"status": "finished"' in (place / "run.json").read_text():
        return
    environment = {**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-m", "emdistill.cli", *words], cwd=checkout, env=environment, check=True)


def digest(folder: Path) -> str:
    """SHA-256 of the weights' bytes."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(auto_cli(same_students))
