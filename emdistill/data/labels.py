"""Data whose labels are numbered as a model numbers its logits: by name, wherever the names are the same."""

from collections.abc import Sequence
from dataclasses import replace

from datasets import Dataset

from emdistill.data.arrow_files import chunk_by_chunk
from emdistill.errors import EmdistillError, TeacherError, listing
from emdistill.states import NO_CLASS
from emdistill.tasks import TaskKind
from emdistill.tasks.answers import flat
from emdistill.tasks.kind import NUMBERED, BadLabel, is_unnamed, meaning, name_finder, number
from emdistill.tasks.task import TaskData


def as_the_model_counts(
    data: TaskData,
    names: Sequence[str],
    kind: TaskKind,
    *,
    model: str = "the teacher",
    error: type[EmdistillError] = TeacherError,
    some: bool = False,
) -> TaskData:
    """The same rows, label i being the model's logit i.

    names   the model's label names in the order of its logits, numbered ones (LABEL_0) among them
    some    the data may lack some of the model's labels, as a file to score; of tags they always may
    Names are compared as `name_finder` compares them. Where one side has but numbers in their order, in place of the
    other's words, as many labels keep their order.
    Raises `error`: another kind of task, another number of labels, names that are not the model's, and some numbers
    without 0 beside a model whose labels nobody has named, for 1 may be its LABEL_1 or its first.
    """
    task, some = data.task, some or not kind.one_answer
    if kind.problem_type != task.kind.problem_type or kind.named != task.kind.named:
        alike = (kind.named, kind.head) == (task.kind.named, task.kind.head)  # its config.json alone tells them apart
        named = (
            f', or name the model\'s in its config.json: "problem_type": "{task.kind.problem_type}"' if alike else ""
        )
        raise error(
            f"{model} does {kind.name}, the data ask for {task.kind.name}; take a model of this task, "
            f"or, where the labels are what it gives, say so: --kind {kind.name}{named}"
        )
    if not (task.labels or (some and kind.named)):  # a score; a file to score may have rows without any label alone
        return data
    columns = [column.strip() for column in task.label.split(",")]
    if len(names) > len(columns) > 1 and columns == [*task.labels]:  # what a column does not say is not known to be 0
        raise error(
            f"--label names columns of {len(columns)} of the {len(names)} labels that {model} tells apart; name one of "
            f"each: --label {','.join(names)}"
        )
    numbers: Sequence[int] = range(len(task.labels))
    if some and kind.link == "softmax" and None in map(name_finder(names), task.labels):
        numbers = _used(data)  # without names that no row has, such as B-x where there is but I-x
    labels = [task.labels[number] for number in numbers]
    try:
        places = _places(labels, names, some=some)
    except BadLabel as problem:
        raise error(f"{model} {problem}") from None
    if places == list(range(len(names))) and len(labels) == len(task.labels):
        return data
    of_number = dict(zip(numbers, places, strict=True))
    order = [of_number.get(number, NO_CLASS) for number in range(len(task.labels))]
    spelled = list(names)
    for name, place in zip(labels, places, strict=True):
        spelled[place] = name
    metrics = kind.metrics_of(spelled) if task.metrics == kind.metrics_of(task.labels) else task.metrics

    def of_the_model(examples: Dataset) -> Dataset:
        columns = examples.to_dict()
        columns["label"] = [kind.permuted(label, order, len(names)) for label in columns["label"]]
        return Dataset.from_dict(columns, features=examples.features)

    return replace(
        data,
        task=replace(task, labels=tuple(spelled), metrics=metrics),
        train=chunk_by_chunk(data.train, of_the_model),
        evaluation={name: chunk_by_chunk(examples, of_the_model) for name, examples in data.evaluation.items()},
    )


def _places(labels: Sequence[str], names: Sequence[str], *, some: bool) -> list[int]:
    """The model's logit of each label of the data; raises BadLabel, saying what the model does."""
    if not (len(names) == len(labels) or (some and len(names) > len(labels))):
        raise BadLabel(
            f"tells {len(names)} labels apart ({listing(names)}), the data have {len(labels)} ({listing(labels)}); "
            "take a model that was fine-tuned on this task"
        )
    found = dict(zip(labels, map(name_finder(names), labels), strict=True))
    known = [place for place in found.values() if place is not None]
    if twice := [place for place in known if known.count(place) > 1]:
        alike = [label for label, place in found.items() if place == twice[0]]
        raise BadLabel(f"has one label {names[twice[0]]!r} for {listing(alike)} of the data; write them alike")
    if len(labels) < len(names) and is_unnamed(names) and _lack_zero(labels):
        raise BadLabel(
            f"has labels that nobody has named ({listing(names)}), the data have {listing(labels)} alone, and "
            f"whether those are counted from 0 or from 1 is not said; name the model's labels in its config.json, "
            "id2label, or write the data's as the model does"
        )
    if len(known) == len(labels):
        return known
    # Of LABEL_0 to LABEL_4, which nobody has named, numbers from 1 to 5 know some.
    counted = [_are_counted(labels), is_unnamed(names) if known else _are_counted(names)]
    if len(names) == len(labels) and (all(counted) if known else any(counted)):
        return list(range(len(names)))
    unknown = [label for label, place in found.items() if place is None]
    raise BadLabel(
        f"does not know the label{'s' * (len(unknown) > 1)} {listing(unknown)} of the data; "
        f"its labels are {listing(names)}, those of the data {listing(labels)}; take a model that was fine-tuned on "
        "this task, correct its id2label, or write the labels as it names them"
    )


def _used(data: TaskData) -> list[int]:
    """The classes, or tags, that some row has."""
    sets = (data.train, *data.evaluation.values())
    return sorted({int(tag) for examples in sets for tag in flat(data.task.gold(examples)) if tag != NO_CLASS})


def _lack_zero(names: Sequence[str]) -> bool:
    """Whether all names are numbers above 0, which people may have counted from 1."""
    return min((number(name) or 0 for name in names), default=0) > 0


def _are_counted(names: Sequence[str]) -> bool:
    """Whether all names are whole numbers in their order, as LABEL_0 and LABEL_1 are."""
    numbers = [NUMBERED.fullmatch(meaning(name)) for name in names]
    values = [int(counted[1]) for counted in numbers if counted]
    return len(values) == len(names) and values == sorted(values)
