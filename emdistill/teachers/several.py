"""Several teachers of one task: the mean of their answers teaches; layers, and the student's, are the first one's."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from datasets import Dataset

from emdistill.config import RunConfig, source_name
from emdistill.console import counted
from emdistill.data.teacher_answers import is_answers_file
from emdistill.errors import ConfigError, TeacherError, TokenizerError, listing
from emdistill.models.encoder import load_classifier, load_tokenizer
from emdistill.models.teacher import Teacher, TeacherSource
from emdistill.models.teacher_ensemble import Member, TeacherEnsemble, mean_answers
from emdistill.runs.describe import describe_model
from emdistill.runs.record import MemberRecord, ModelRecord
from emdistill.tasks.answers import each_row
from emdistill.tasks.kind import name_finder
from emdistill.teachers.opened import Logits, TeacherModel, cache_folder
from emdistill.training.evaluate import Reading, predict_sets
from emdistill.training.lesson import Lesson
from emdistill.training.splits import check_max_length
from emdistill.training.stage_teachers import cached
from emdistill.training.two_vocabularies import teachers_own


def teacher_names(teacher: str) -> list[str]:
    """The teachers that --teacher names: separated by commas, where no file or folder has that name as a whole."""
    if Path(teacher).exists():
        return [teacher]
    return [name.strip() for name in teacher.split(",") if name.strip()]


def teacher_weights(weights: str | None, names: list[str]) -> list[float]:
    """A weight per teacher, 1 where none are given; raises ConfigError for another number of them, or none above 0."""
    if weights is None:
        return [1.0] * len(names)
    try:
        numbers = [float(word) for word in weights.split(",")]
    except ValueError:
        raise ConfigError(f"--teacher-weights {weights}: give numbers, separated by commas, as in 2,1") from None
    if len(numbers) != len(names) or len(names) < 2:
        raise ConfigError(
            f"--teacher-weights {weights}: {counted(len(numbers), 'weight')} for {counted(len(names), 'teacher')}; "
            "several have one each"
        )
    if not all(0 < number < math.inf for number in numbers):
        raise ConfigError(
            f"--teacher-weights {weights}: a weight is above 0 and finite; leave out whom it is to silence"
        )
    return numbers


class TeacherModels(TeacherModel):
    """Fine-tuned encoders of one task that read the same tokens, all of which are run."""

    def __init__(self, config: RunConfig) -> None:
        self.names = teacher_names(config.teacher)
        if files := [name for name in self.names if is_answers_file(name)]:
            raise ConfigError(
                f"--teacher {config.teacher}: several teachers are models, and {files[0]} is a file of answers; "
                "take one file alone, with the mean of all answers in it"
            )
        weights = teacher_weights(config.teacher_weights, self.names)
        super().__init__(replace(config, teacher=self.names[0]))
        first = self.model
        self.models = [first, *map(self._beside_the_first, self.names[1:])]
        orders = [label_order(first, other, name) for other, name in zip(self.models, self.names, strict=True)]
        members = [Member(*member) for member in zip(self.models, weights, orders, strict=True)]
        self.source: TeacherEnsemble = TeacherEnsemble(members, first.kind.link)
        self.classifier = None
        prints = [model.fingerprint for model in self.models]
        self.fingerprint = hashlib.sha256(" ".join(prints).encode()).hexdigest()

    def _beside_the_first(self, name: str) -> Teacher:
        model, tokenizer = load_classifier(name), load_tokenizer(name)
        if teachers_own(tokenizer, self.tokenizer) is not None:
            raise TokenizerError(
                f"--teacher: {name} reads other tokens than {self.names[0]}, and several teachers share one tokenizer; "
                "write the answers of each with emdistill predict --logits, and distil from one file of their mean"
            )
        check_max_length(self.config.max_length, model)
        return Teacher(model)

    def logits(self, evaluation: Mapping[str, Dataset], **reading: Unpack[Reading]) -> Logits:
        """The mean of all answers; each teacher's own stay in `logits_of_each`."""
        members, names = self.source.members, self.unique_names()
        self.logits_of_each = {
            name: {
                part: each_row(lambda own, order=member.order: own[:, order], logits)
                for part, logits in predict_sets(model.model, self.tokenizer, evaluation, **reading).items()
            }
            for name, model, member in zip(names, self.models, members, strict=True)
        }

        def mean(*answers: np.ndarray) -> np.ndarray:
            weights = [member.weight for member in members]
            return mean_answers([*map(torch.from_numpy, answers)], weights, self.source.link).numpy()

        return {part: each_row(mean, *(self.logits_of_each[name][part] for name in names)) for part in evaluation}

    def stage_sources(self, lesson: Lesson) -> list[TeacherSource | None]:
        for model in self.models:
            model.dtype = lesson.arguments[0].teacher_dtype
        firsts = super().stage_sources(lesson)
        others: list[TeacherSource] = list(self.models[1:])
        if self.config.teacher_cache != "none" and any(firsts):
            folder = cache_folder(self.config)
            others = [cached(model, lesson.train, self.tokenizer, folder) for model in self.models[1:]]

        def ensemble(first: TeacherSource) -> TeacherEnsemble:
            sources = zip(self.source.members, [first, *others], strict=True)
            return TeacherEnsemble([replace(member, source=source) for member, source in sources], self.source.link)

        return [None if first is None else ensemble(first) for first in firsts]

    def describe(self) -> ModelRecord:
        """All of them: their sizes added up, the first one's shape."""
        each = [member.model for member in self.describe_each()]
        return replace(each[0], parameters=sum(one.parameters for one in each), bytes=sum(one.bytes for one in each))

    def describe_each(self) -> tuple[MemberRecord, ...]:
        total = sum(member.weight for member in self.source.members)
        return tuple(
            MemberRecord(name, member.weight / total, model.fingerprint, describe_model(model.model))
            for name, model, member in zip(self.unique_names(), self.models, self.source.members, strict=True)
        )

    def unique_names(self) -> list[str]:
        """What records call them: the last part of their place, with a number where two share it."""
        names = [source_name(name) for name in self.names]
        return [f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names, start=1)]


def label_order(first: Teacher, other: Teacher, name: str) -> tuple[int, ...]:
    """The place of each of the first teacher's labels among the other's logits; raises TeacherError where one lacks."""
    places = [*map(name_finder(other.labels), first.labels)]
    order = tuple(place for place in places if place is not None)
    if other.kind.problem_type != first.kind.problem_type or not (
        len(order) == len(places) and sorted(order) == [*range(len(other.labels))]
    ):
        raise TeacherError(
            f"{name} does {other.kind.name} ({listing(other.labels)}), and the first teacher {first.kind.name} "
            f"({listing(first.labels)}); several teachers have the same labels"
        )
    return order
