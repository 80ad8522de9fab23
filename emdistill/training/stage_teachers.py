"""What teaches each stage: the teacher itself, or its outputs, written once."""

from collections.abc import Collection, Sequence
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from emdistill.config import CacheChoice
from emdistill.data.batches import PaddingCollator
from emdistill.models.teacher import Teacher, TeacherSource
from emdistill.models.teacher_cache import TeacherCache, open_teacher_cache
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
    """One teacher per stage, None where no teacher is read; cached outputs are written to `folder` now.

    tokenizer   the teacher's
    cache   logits: stages that read nothing but predictions take them from the cache; states: every stage takes all
            it reads from there, in half precision; none: the teacher runs at every step
    Raises CacheError where they do not fit.
    """

    def of_stage(stage: Stage) -> TeacherSource | None:
        objective = stage.objective
        if not stage.reads_teacher:
            return None
        if cache == "none" or (cache == "logits" and objective.needs):
            return teacher
        return cached(teacher, examples, tokenizer, folder, needs=objective.needs, layers=objective.teacher_layers)

    return [of_stage(stage) for stage in stages]


def cached(
    teacher: Teacher,
    examples: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    needs: Collection[str] = (),
    layers: Collection[int] | None = None,
) -> TeacherCache:
    """The teacher's logits, and these states, of all examples, written to `folder` now; tokenizer is the teacher's."""
    return open_teacher_cache(
        teacher,
        teacher_examples(examples),
        folder,
        needs=needs,
        layers=layers,
        collate=PaddingCollator(tokenizer),
        description="the teacher's outputs",
    )
