"""What teaches each stage: the teacher itself, or its outputs, written once."""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from emdistill.config import CacheChoice
from emdistill.data.batches import padding_collator
from emdistill.losses import Objective
from emdistill.models.teacher import Teacher, TeacherSource
from emdistill.models.teacher_cache import open_teacher_cache
from emdistill.training.stage import Stage
from emdistill.training.two_vocabularies import teacher_examples


def stage_teachers(
    stages: Sequence[Stage],
    teacher: Teacher,
    examples: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    cache: CacheChoice,
    folder: Path,
) -> list[TeacherSource | None]:
    """One teacher per stage, None where labels alone are read; cached outputs are written to `folder` now.

    tokenizer   the teacher's
    cache   logits: stages that read nothing but predictions take them from the cache; states: every stage takes all
            it reads from there, in half precision; none: the teacher runs at every step
    Raises CacheError where they do not fit.
    """

    def of_stage(objective: Objective) -> TeacherSource | None:
        if not objective.taught:
            return None
        if cache == "none" or (cache == "logits" and objective.teacher_needs):
            return teacher
        return open_teacher_cache(
            teacher,
            teacher_examples(examples),
            folder,
            needs=objective.teacher_needs,
            layers=objective.teacher_layers,
            collate=padding_collator(tokenizer),
            description="the teacher's outputs",
        )

    return [of_stage(stage.objective) for stage in stages]
