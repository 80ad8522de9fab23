"""General distillation: raw text in, a student for any task out; `distill --task text`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from emdistill.config import NO_TEACHER, RunConfig, as_option, read_by
from emdistill.console import say
from emdistill.data.batches import MaskingCollator, PaddingCollator, text_encoder
from emdistill.data.corpus import CorpusSplits, corpus_dataset
from emdistill.errors import ConfigError
from emdistill.methods import compose_stages
from emdistill.models.encoder import encoder_shape, load_encoder, load_tokenizer, same_tokens
from emdistill.models.masked_lm import has_masked_lm_head
from emdistill.models.teacher import Teacher
from emdistill.processes import is_first_process
from emdistill.runs.describe import describe_model, objective_and_sizes, student_hashes
from emdistill.runs.distillation import as_distillation
from emdistill.runs.learn import learn, new_record
from emdistill.runs.open_run import Run, open_run
from emdistill.runs.student_artifact import StudentArtifact, write_student
from emdistill.show.cards import text_card
from emdistill.show.run_report import write_run_report
from emdistill.states import NOTHING, WORDS
from emdistill.students import make_student
from emdistill.teachers.opened import cache_folder
from emdistill.teachers.several import teacher_names
from emdistill.training.evaluate import mean_terms
from emdistill.training.lesson import Collator, Lesson, prove
from emdistill.training.projections import fit_projections
from emdistill.training.run_stages import seed_everything
from emdistill.training.splits import HELD_OUT_SEED, LAST_IS_KEPT, check_max_length
from emdistill.training.stage_arguments import stage_arguments

# Options of a task's data, which raw text has not.
OF_A_TASK = (
    "text_pair", "dev", "kind", "augmented", "unlabelled", "unlabelled_rows", "labelled_share", "teacher_weights",
    "head",
)  # fmt: skip
COUNTS = ("documents", "paragraphs", "pieces", "tokens", "dropped")  # of the corpus, in the record
SAMPLE_PIECES = 64


def distill_text(config: RunConfig) -> StudentArtifact:
    """Distil a pretrained teacher on raw text and write the run folder, whose student/ is a `--student` for any task.

    A teacher with a masked-LM head can teach words too; without one it teaches by its layers alone.
    Raises an EmdistillError before any training where an input cannot be used; Interrupted after Ctrl-C.
    """
    _check_options(config)
    folder = Path(config.output)
    with open_run(folder, overwrite=config.overwrite, resume=config.resume, reads=read_by(config)) as run:
        return _distill_text(config, run)


def _distill_text(config: RunConfig, run: Run) -> StudentArtifact:
    folder = run.folder
    part = _lesson(config, folder)
    lesson, text, teacher = part.lesson, part.text, part.teacher
    record = new_record(
        config,
        lesson,
        hashes={
            "teacher": teacher.fingerprint,
            **student_hashes(config),
            text.corpus.path.name: text.corpus.sha256,
        },
        corpus={name: getattr(text.corpus, name) for name in COUNTS},
        selection=LAST_IS_KEPT,
        rows={"train": len(text.train), "held out": len(text.held_out)},
        teacher=describe_model(teacher.model),
        student=describe_model(lesson.student),
    )
    if run.is_finished(record):
        return StudentArtifact(folder)
    say(
        f"raw text: {record.rows['train']:,} pieces of at most {config.max_length} tokens to learn from, "
        f"{record.rows['held out']:,} held out; {record.selection}\n{objective_and_sizes(record)}"
    )
    prove(lesson)
    run.begin(record, keep=("teacher_cache",))  # the tokens of the text stand there, and have just been written
    teacher.dtype = lesson.arguments[0].teacher_dtype
    fit_projections(lesson.stages, lesson.student, teacher, part.sample)
    before = record.held_out_loss["before"] = part.held_out_loss()
    learn(run, lesson, [teacher if stage.objective.taught else None for stage in lesson.stages])
    after = record.held_out_loss["after"] = part.held_out_loss()
    losses = ", ".join(f"{name} {before[name]:.4g} -> {value:.4g}" for name, value in after.items())
    say(f"held-out text: {losses}")
    if is_first_process():
        write_student(folder, lesson.student, lesson.tokenizer, text_card(as_distillation(folder, record)))
        run.save()
        write_run_report(folder)
    run.finish()
    return StudentArtifact(folder)


@dataclass(frozen=True)
class TextPart:
    """What a student learns from raw text: the lesson, the text, and batches of some of its pieces."""

    lesson: Lesson
    text: CorpusSplits
    teacher: Teacher
    collator: Collator
    sample: Callable[[], list[dict[str, Any]]]

    def held_out_loss(self) -> dict[str, float]:
        """The loss on the held-out pieces, and its terms."""
        terms: dict[str, float] = {}
        for stage in self.lesson.stages:
            terms |= mean_terms(
                self.lesson.student,
                self.teacher,
                stage.objective,
                self.text.held_out,
                self.collator,
                description="held-out text",
            )
        return {"loss": sum(terms.values()), **terms}


def _lesson(config: RunConfig, folder: Path) -> TextPart:
    """The text in pieces, the student as it is born, and what it learns."""
    teacher = Teacher(load_encoder(config.teacher))
    tokenizer = load_tokenizer(config.teacher)
    check_max_length(config.max_length, teacher.model)
    predictions = WORDS if has_masked_lm_head(teacher.model) else NOTHING
    text = corpus_dataset(
        config.data,
        text_encoder(tokenizer),
        max_length=config.max_length,
        folder=cache_folder(config),
        seed=HELD_OUT_SEED,
        rows=config.rows,
        description="reading the text",
    )
    masking = MaskingCollator(tokenizer, seed=config.seed) if predictions == WORDS else None
    plain = PaddingCollator(tokenizer)
    sample = partial(_sample, text, masking or plain)
    student, student_tokenizer = make_student(
        config.student,
        teacher.model,
        tokenizer,
        predictions=predictions,
        seed=config.seed,
        source=config.student_source,
        birth=config.student_birth,
        embedding_rank=config.embedding_rank,
        sample=lambda _: sample(),
    )
    same_tokens(tokenizer, student_tokenizer)  # the text is cut into pieces of one tokenizer
    check_max_length(config.max_length, student)
    if not has_masked_lm_head(student):
        predictions = NOTHING
    seed_everything(config.seed)
    stages = compose_stages(config, encoder_shape(student), teacher.shape, predictions)
    arguments = [
        stage_arguments(stage, config.training, folder=folder, choose=False, metric="loss", seed=config.seed)
        for stage in stages
    ]
    unmasked_share = max(stage.objective.unmasked_share for stage in stages)
    if masking is not None and unmasked_share:
        masking = MaskingCollator(tokenizer, unmasked_share=unmasked_share, seed=config.seed)
    # Words are masked only where an objective asks for them.
    collator = masking if masking is not None and any(stage.objective.predicts for stage in stages) else plain
    lesson = Lesson(student, student_tokenizer, stages, arguments, text.train, teacher, collator=collator)
    return TextPart(lesson, text, teacher, collator, sample)


def _sample(text: CorpusSplits, collator: Collator) -> list[dict[str, Any]]:
    every = max(1, len(text.train) // SAMPLE_PIECES)  # neighbours are of one document
    chosen = text.train.select(range(0, len(text.train), every)[:SAMPLE_PIECES])
    rows = chosen.remove_columns("length").to_list()
    return [dict(collator(rows[start : start + 16])) for start in range(0, len(rows), 16)]


def _check_options(config: RunConfig) -> None:
    given = [as_option(name) for name in OF_A_TASK if getattr(config, name) is not None]
    if given:
        raise ConfigError(f"{', '.join(given)}: raw text (--task text) has no labels, pairs or columns; leave it out")
    if config.teacher == NO_TEACHER:
        raise ConfigError(
            f"--teacher {NO_TEACHER}: raw text (--task text) has nothing to say without one; name an encoder"
        )
    if not config.data:
        raise ConfigError("--task text learns from raw text; name it with --data")
    if len(teacher_names(config.teacher)) > 1:
        raise ConfigError(f"--teacher {config.teacher}: one teacher teaches on raw text (--task text); name one")
    if config.teacher_cache == "states":
        raise ConfigError(
            "--teacher-cache states: the states of a whole raw text would fill the disk, and masks change from epoch "
            "to epoch; leave it out"
        )
