"""The one place that tells teachers apart: a model, several models, a file of answers, or nobody."""

from dataclasses import replace
from pathlib import Path

from emdistill.config import NO_TEACHER, RunConfig
from emdistill.data.labels import as_the_model_counts
from emdistill.data.teacher_answers import is_answers_file, read_teacher_answers
from emdistill.errors import ConfigError
from emdistill.files import sha256
from emdistill.runs.describe import by_name, file_hashes, student_hashes
from emdistill.tasks.task import TaskData
from emdistill.teachers.opened import Nobody, OpenTeacher, TeacherFile, TeacherModel
from emdistill.teachers.several import TeacherModels, teacher_names, teacher_weights
from emdistill.teachers.text_alone import answered_text


def open_teacher(config: RunConfig, data: TaskData | None) -> tuple[OpenTeacher, TaskData]:
    """The teacher, and the data with labels as it counts them or, of a file, with its answers beside the rows of train.

    data   None: there is text without labels alone, and the teacher's answers to it are the labels
    Raises ModelError, TeacherError, DataError for a teacher that cannot be used, or not for these data, ConfigError
    for a file of answers, or several teachers, without data.
    """
    names = teacher_names(config.teacher)
    if config.head is not None and (len(names) > 1 or config.teacher == NO_TEACHER or is_answers_file(config.teacher)):
        raise ConfigError(f"--head {config.head} is of one model with several heads, not of --teacher {config.teacher}")
    if len(names) < 2:
        teacher_weights(config.teacher_weights, names)  # a wrong one is refused now
    if config.teacher == NO_TEACHER:
        if data is None:
            raise ConfigError(f"--teacher {NO_TEACHER} learns from labelled rows: name them with --data")
        return Nobody(config), data
    if len(names) > 1:
        if data is None:
            raise ConfigError(f"--teacher {config.teacher}: several teachers need labelled rows; name them with --data")
        models = TeacherModels(config)
        return models, as_the_model_counts(data, models.model.labels, models.model.kind)
    if is_answers_file(config.teacher):
        if data is None:
            raise ConfigError(
                f"--teacher {config.teacher} is a file of answers, and the labels it chooses from are those of the "
                f"data: name labelled rows with --data; the file itself will do, where it has a column of labels"
            )
        answers = read_teacher_answers(Path(config.teacher), data.task)
        teacher = TeacherFile(config, answers, data)
        notes = tuple(dict.fromkeys((*data.notes, *teacher.record.notes)))
        return teacher, replace(data, train=answers.beside(data.train), notes=notes)
    model = TeacherModel(config)
    data = data or answered_text(config, model.model)
    return model, as_the_model_counts(data, model.model.labels, model.model.kind)


def input_hashes(config: RunConfig, teacher: OpenTeacher, data: TaskData) -> dict[str, str]:
    """SHA-256 of all that a run reads, by name: what two runs of one configuration may still differ in."""
    files = {name: Path(place) for name in ("mapping", "augmented") if (place := getattr(config, name))}
    text = teacher.unlabelled(config, data.task)
    texts = {} if text is None else by_name(text.digests())
    return {
        "teacher": teacher.fingerprint,
        **student_hashes(config),
        **file_hashes(data),
        **{f"unlabelled {name}": hash for name, hash in texts.items()},
        **{name: sha256(file) for name, file in files.items() if file.is_file()},
    }
