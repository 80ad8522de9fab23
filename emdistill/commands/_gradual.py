"""`--student-birth gradual`: a stage before the method's own, in which units leave until the shape is reached."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from emdistill.config import RunConfig
from emdistill.errors import ConfigError
from emdistill.models.encoder import encoder_shape
from emdistill.runs.learn import learn
from emdistill.runs.open_run import Run
from emdistill.students import student_kind
from emdistill.students.gradual import begin, cut_to
from emdistill.students.shape import shape_of
from emdistill.tasks.task import Task
from emdistill.teachers.opened import OpenTeacher
from emdistill.training.leaving_units import LeavingUnits
from emdistill.training.lesson import Lesson
from emdistill.training.stage_arguments import stage_arguments

STAGE = "gradual"
SHARE = 0.4  # of the budget, until the shape is reached
AFTER_BIRTH = 1 - SHARE  # what is left to the method


def check_gradual(config: RunConfig) -> None:
    """Raise ConfigError where this student cannot be born so."""
    if student_kind(config.student) != "shape":
        raise ConfigError(
            f"--student-birth gradual cuts a student of a shape, and --student {config.student} is none; "
            "name layers x width: --student 4x312"
        )
    if config.embedding_rank is not None:
        raise ConfigError(
            f"--embedding-rank {config.embedding_rank}: embeddings are factorised at birth, not after units have left; "
            "leave it out, or choose --student-birth importance"
        )


def birth_lesson(config: RunConfig, teacher: OpenTeacher, task: Task, lesson: Lesson, layers: Sequence[int]) -> Lesson:
    """The student as these layers, whole, and the first taught stage of the method, composed for it."""
    whole, _ = teacher.student(task, seed=config.seed, spec="".join(f"{layer}," for layer in layers))
    begin(whole)
    stages = teacher.stages(config, encoder_shape(whole), task)
    first = next((stage for stage in stages if stage.reads_teacher), stages[0])
    stage = replace(first, name=STAGE, share=SHARE)
    arguments = stage_arguments(
        stage, config.training, folder=Path(config.output), choose=False, metric=task.metrics[0], seed=config.seed
    )
    return replace(lesson, student=whole, stages=[stage], arguments=[arguments], choose_on=None, score=None)


def be_born(run: Run, teacher: OpenTeacher, lesson: Lesson) -> None:
    """Let the units leave, and give the lesson's student, in place, the weights of those that are left."""
    birth, student, record = lesson.birth, lesson.student, run.record.student
    assert birth is not None
    assert record is not None
    shape = shape_of(student.config)
    learn(run, birth, teacher.stage_sources(birth), callbacks=[LeavingUnits(birth.student, shape)])
    cut, plan = cut_to(birth.student, shape)
    student.load_state_dict(cut.state_dict())
    run.record.student = replace(record, cut_out=({**record.cut_out[0], "heads": plan.heads},))
