"""What made the run: its command, every option, the files that were read, the versions."""

import json
from typing import Any

from emdistill.config import as_command
from emdistill.console import ABSENT
from emdistill.runs.distillation import Distillation
from emdistill.show.page import Command, Fold, Section, Small

GROUPS = {
    "Data": (
        "data", "task", "text", "text_pair", "label", "dev", "kind", "rows", "max_length", "augmented",
        "unlabelled", "unlabelled_rows", "labelled_share",
    ),
    "Teacher and student": (
        "teacher", "head", "check_teacher", "teacher_cache", "teacher_cache_folder",
        "student", "student_birth", "student_source", "embedding_rank",
    ),
    "Method": ("method", "mapping", "objective"),
    "Training": ("select", "seed", "training", "output", "keep_checkpoints"),
}  # fmt: skip


def configuration(run: Distillation) -> Section:
    """Options in groups; those of a later version stand under further options."""
    record, task = run.record, run.task
    options = {name: _flat(name, value) for name, value in record.config.items()}
    groups = {title: [line for name in names for line in options.get(name, [])] for title, names in GROUPS.items()}
    further = options.keys() - {name for names in GROUPS.values() for name in names}
    groups["Further options"] = [line for name, lines in options.items() if name in further for line in lines]
    rows = {file.name: f"{file.rows:,}" for file in task.files} if task else {}
    hashes = [[name, rows.get(name, ""), digest] for name, digest in record.hashes.items()]
    versions = [[*pair] for pair in record.versions.items()]
    tables = [(title, ["option", "value"], lines) for title, lines in groups.items()]
    tables += [("Files read", ["name", "rows", "SHA-256"], hashes), ("Versions", ["package", "version"], versions)]
    folds = [Fold(names, lines, title, words=range(len(names))) for title, names, lines in tables if lines]
    cut = Small("Longer paths in the command are cut to their last part.")
    return Section("Configuration", [Command(as_command("distill", record.config)), cut, *folds])


def _flat(name: str, value: Any) -> list[list[str]]:
    """[option, value] lines, sections opened: training.learning_rate."""
    if isinstance(value, dict):
        return [line for inner, item in value.items() for line in _flat(f"{name}.{inner}", item)]
    return [[name, ABSENT if value is None else json.dumps(value) if isinstance(value, bool) else str(value)]]
