"""Make a teacher: fine-tune a pretrained encoder on a task."""

from pathlib import Path
from typing import Any

from emdistill.config import LABELS_ALONE, FinetuneConfig, read_by
from emdistill.console import say, say_scores
from emdistill.data.batches import note_cut
from emdistill.data.read import read_data
from emdistill.methods import METHODS
from emdistill.models.encoder import encoder_shape, fingerprint, load_classifier, load_tokenizer, save_student
from emdistill.models.inputs import longest_text
from emdistill.options import load_finetune_config
from emdistill.processes import is_first_process
from emdistill.runs.describe import describe_data, file_hashes
from emdistill.runs.learn import learn, new_record, prepare
from emdistill.runs.open_run import open_run
from emdistill.runs.reading import remember_reading
from emdistill.runs.record import RunRecord
from emdistill.tasks.task import TaskData
from emdistill.training import evaluate
from emdistill.training.lesson import Lesson, prove
from emdistill.training.run_stages import seed_everything
from emdistill.training.splits import check_max_length


def command(config: FinetuneConfig) -> str:
    """Fine-tune a pretrained encoder: make a teacher."""
    return f"{finetune(config)}: the fine-tuned model, with its run.json"


def finetune(config: FinetuneConfig | None = None, *, examples: TaskData | None = None, **options: Any) -> Path:
    """Fine-tune an encoder on a task's labels; the output folder is the model, with its run.json beside it.

    config   as load_finetune_config makes it, or its keywords: finetune(model="encoder/", task="mrpc",
             data="glue/MRPC", output="teacher/")
    examples   task and examples where they are read already; config.data then only names them
    Raises an EmdistillError before any training where an input cannot be used; Interrupted after Ctrl-C.
    """
    config = config if config is not None else load_finetune_config(**options)
    folder = Path(config.output)
    with open_run(folder, overwrite=config.overwrite, resume=config.resume, reads=read_by(config)) as run:
        data = examples or read_data(config)
        task = data.task
        lesson, record = _lesson(config, data)
        if run.is_finished(record):
            return folder
        for note in data.notes:
            say(f"note: {note}")
        say(f"{task.name}: {record.rows['train']:,} rows to learn from; {record.selection}")
        if cut := record.texts_cut_at_max_length:
            say(note_cut(cut, record.texts, config.max_length, longest_text(lesson.student)))
        prove(lesson)
        run.begin(record, also=("model.safetensors",))  # a half-trained run must not pass for the old one
        learn(run, lesson, [None] * len(lesson.stages))
        model, tokenizer = lesson.student, lesson.tokenizer
        scores = evaluate(
            model, tokenizer, task, data.evaluation, max_length=config.max_length, description="teacher on dev"
        )
        record.scores = {"teacher": scores}
        remember_reading(model, tokenizer, task, config.max_length)
        if is_first_process():
            save_student(model, tokenizer, folder)
        run.finish()
    say(f"dev: {say_scores(scores)}")
    return folder


def _lesson(config: FinetuneConfig, data: TaskData) -> tuple[Lesson, RunRecord]:
    """The encoder with a head for the task, which learns from the labels alone, and the record of it."""
    task = data.task
    seed_everything(config.seed)
    asked = task.predictions
    model = load_classifier(config.model, labels=task.labels, problem_type=asked.problem_type, head=asked.head)
    check_max_length(config.max_length, model)
    tokenizer = load_tokenizer(config.model)
    shape = encoder_shape(model)
    stages = METHODS[LABELS_ALONE](shape, shape, predictions=task.predictions)
    arguments, splits = prepare(config, data, tokenizer, stages)
    lesson = Lesson(model, tokenizer, stages, arguments, splits.train, choose_on=splits.choose_on, score=splits.score)
    record = new_record(
        config,
        lesson,
        hashes={"model": fingerprint(model), **file_hashes(data)},
        task=describe_data(data),
        selection=splits.selection,
        rows=splits.rows,
        texts_cut_at_max_length=splits.cut,
    )
    return lesson, record
