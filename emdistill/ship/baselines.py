"""What a user could take instead of the student, learned and measured on the same rows and the same machine."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from emdistill.baselines import Fitted, encoder_means, over_vectors, static_vectors, tfidf
from emdistill.baselines.linear import columns
from emdistill.config import LABELS_ALONE, LearningConfig, RunConfig, TeachingConfig, flatten, recipe_of, source_name
from emdistill.console import say, say_scores, silent
from emdistill.errors import ConfigError, Interrupted, ModelError
from emdistill.models.arithmetic import fast_float32
from emdistill.models.encoder import Classifier, load_encoder, load_tokenizer
from emdistill.options import load_config
from emdistill.processes import process_count
from emdistill.runs.answers import Logits
from emdistill.runs.baseline_record import FOLDER, OWN_INT8, TITLES
from emdistill.runs.record import RUN_FILE
from emdistill.runs.student_artifact import StudentArtifact
from emdistill.ship.baseline_folder import write_baseline
from emdistill.ship.bench import Bench, Contender, run_contender, time_all, torch_contender
from emdistill.ship.exported import write_exported
from emdistill.ship.int8_choice import MAX_DROP_ON_TRAIN, training_sample
from emdistill.ship.onnx import open_onnx
from emdistill.ship.onnx_folder import INT8
from emdistill.students import student_kind
from emdistill.tasks.task import TaskData
from emdistill.teachers.opened import OpenTeacher
from emdistill.training.arguments import BUDGET
from emdistill.training.evaluate import score_sets
from emdistill.training.splits import labelled_rows


@dataclass(frozen=True)
class Setting:
    """What baselines are made from, and measured on.

    student  None where there are several
    distil   does the run of a configuration, for the student on labels alone; None where that stands already
    """

    config: RunConfig
    data: TaskData
    teacher: OpenTeacher
    student: Classifier | None = None
    distil: Callable[[RunConfig], StudentArtifact] | None = None

    @cached_property
    def train(self) -> Dataset:
        """The rows whose labels the student has."""
        return labelled_rows(self.data, select=self.config.select, rows=self.config.rows)

    def encoder(self) -> tuple[Any, Any, str]:
        """The encoder that stays frozen, its tokenizer, and whose it is."""
        config = self.config
        given = config.student if student_kind(config.student) == "pretrained" else None
        if source := config.student_source or given:
            return load_encoder(source).base_model, load_tokenizer(source), source_name(source)
        teacher = self.teacher.born_from
        assert teacher is not None  # under a file of answers the student has an encoder of its own
        return teacher.model.base_model, teacher.tokenizer, "the teacher's encoder, fine-tuned on the task"

    def taught(self, logits: Mapping[str, Logits] | None) -> Contender | None:
        """The teacher with its logits on dev; None where nobody teaches, or a file does not answer all of it."""
        if logits is None:
            return None
        if self.teacher.classifier is None:
            return Contender([logits], note="its answers alone; there is no one model to measure")
        return torch_contender(self.teacher.classifier, [logits], max_length=self.config.max_length)


def measure_baselines(
    names: Sequence[str],
    setting: Setting,
    student: Contender,
    teacher_logits: Mapping[str, Logits] | None,
    *,
    there: Mapping[str, Contender] | None = None,
) -> Bench:
    """Make every baseline of these names, score it, and time all models in turns; one that fails is a problem noted.

    teacher_logits   by evaluation set; None where a file of answers lacks some
    there            baselines that exist already, by name
    """
    bench = Bench(setting.data.task, setting.data.evaluation, setting.taught(teacher_logits), dict(there or {}))
    for name in names:
        if name in bench.baselines:
            continue
        made = make_baseline(name, setting)
        if isinstance(made, str):
            bench.problems[name] = made
            say(f"{TITLES[name]}: not computed: {made}")
            continue
        bench.baselines[name] = made
        scores = score_sets(bench.task, made.logits[0], bench.evaluation)
        say(f"{TITLES[name]} on dev: {say_scores(scores)}")
    time_all(bench, student)
    return bench


def make_baseline(name: str, setting: Setting) -> Contender | str:
    """A baseline, or why it could not be had: whatever is wrong with it, what it is to stand beside is not lost."""
    started = time.perf_counter()
    try:
        with fast_float32():
            made = BASELINES[name](setting)
    except Interrupted:
        raise
    except Exception as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return replace(made, seconds=time.perf_counter() - started if made.seconds is None else made.seconds)


def labels_alone(config: RunConfig) -> RunConfig:
    """The same student, budget and seed on labels alone, in the run's own folder; the learning rate is the recipe's."""
    recipe = recipe_of(RunConfig, config.method, config.student)
    common = {
        setting.name: getattr(config, setting.name) for setting in {*fields(TeachingConfig), *fields(LearningConfig)}
    }
    folder = Path(config.output) / FOLDER / "labels"
    own = {name: value for name, value in config.training.items() if recipe.get(f"training.{name}") != value}
    budget = {name: value for name, value in config.training.items() if name in BUDGET}
    common |= {
        "training": own | budget, "output": str(folder), "baselines": "none", "overwrite": False,
        "resume": (folder / RUN_FILE).exists(), "method": LABELS_ALONE,
    }  # fmt: skip
    return load_config(**flatten(common))


def _fitted(setting: Setting, fitted: Fitted) -> Contender:
    logits = {name: fitted.logits(*columns(examples)) for name, examples in setting.data.evaluation.items()}

    def answer(text: str, pair: str | None) -> object:
        return fitted.logits([text], None if pair is None else [pair])

    def save(folder: Path) -> None:
        write_baseline(folder, fitted, setting.data.task)

    return Contender([logits], fitted.bytes, answer, note=fitted.note, save=save)


def _tfidf(setting: Setting) -> Contender:
    return _fitted(setting, tfidf(setting.train, setting.data.task))


def _frozen(setting: Setting) -> Contender:
    encoder, tokenizer, note = setting.encoder()
    embedding = encoder_means(encoder.eval(), tokenizer, max_length=setting.config.max_length, note=note)
    frozen = _fitted(setting, over_vectors(setting.train, setting.data.task, embedding))
    return replace(frozen, save=None)  # an encoder is exported by itself


def _static(setting: Setting) -> Contender:
    encoder, tokenizer, note = setting.encoder()
    embedding = static_vectors(encoder, tokenizer, note=f"from {note}")
    return _fitted(setting, over_vectors(setting.train, setting.data.task, embedding))


def _labels(setting: Setting) -> Contender:
    assert setting.distil is not None  # a comparison has its own
    if process_count() > 1:
        raise ConfigError("several processes train here; train it by itself, with --method hard-labels")
    artifact = setting.distil(labels_alone(setting.config))
    seconds = artifact.run.timings.get("training_seconds")
    return run_contender([artifact.folder], max_length=setting.config.max_length, seconds=seconds)


def _int8_teacher(setting: Setting) -> Contender:
    if setting.teacher.classifier is None:
        raise ModelError("no one model taught, so there is none to make int8 of")
    return _int8(setting.teacher.classifier, setting)


def _int8_student(setting: Setting) -> Contender:
    if setting.student is None:
        raise ModelError("there is no one student here; emdistill export RUN --int8 makes and measures it")
    return _int8(setting.student, setting)


def _int8(classifier: Classifier, setting: Setting) -> Contender:
    """A model as `emdistill export --int8` writes it."""
    model, tokenizer, length = classifier.model, classifier.tokenizer, setting.config.max_length
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder, silent():
        part, sample = Path(folder), training_sample(setting.data, tokenizer, length)
        made = write_exported(part, model, tokenizer, [sample], max_drop=MAX_DROP_ON_TRAIN, threads=threads)
        if made is None:
            raise ModelError(
                f"whatever stays in float32, int8 costs over {MAX_DROP_ON_TRAIN:g} points on training rows"
            )
        size, graph = (part / INT8).stat().st_size, open_onnx(part / INT8, threads=threads)
    evaluation = setting.data.evaluation
    logits = {name: graph.predict_logits(examples, max_length=length) for name, examples in evaluation.items()}

    def answer(text: str, pair: str | None) -> object:
        return graph.logits(graph.pad(graph.encode([text], None if pair is None else [pair], max_length=length)))

    return Contender([logits], size, answer, note=f"{made.method} quantisation, ONNX Runtime")


BASELINES: dict[str, Callable[[Setting], Contender]] = {
    "tfidf": _tfidf,
    "frozen": _frozen,
    "static": _static,
    "labels": _labels,
    "int8-teacher": _int8_teacher,
    OWN_INT8: _int8_student,
}
"""How each of TITLES (runs/baseline_record.py) is made."""
