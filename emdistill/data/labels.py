"""Data whose labels are numbered as a model numbers its logits: by name, wherever the names are the same."""

from collections.abc import Sequence
from dataclasses import replace

from datasets import Dataset

from emdistill.data.arrow_files import chunk_by_chunk
from emdistill.errors import EmdistillError, TeacherError, listing
from emdistill.tasks import TaskKind
from emdistill.tasks.kind import text_of
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
    The same names, in any order and case, are mapped by name. Names of which none is the model's keep their order, for
    a model's own may be numbers.
    Raises `error`: another kind of task, another number of labels, names of which only some are the model's.
    """
    task, some = data.task, some or not kind.one_answer
    if kind.problem_type != task.kind.problem_type or kind.named != task.kind.named:
        raise error(
            f"{model} does {kind.name}, the data ask for {task.kind.name}; take a model of this task, "
            "or say what the labels are: --kind"
        )
    if not task.labels:  # a score
        return data
    read = [text_of(name) for name in names]  # as labels of data are
    index = {name.casefold(): place for place, name in enumerate(read)}
    if len(index) < len(names):  # names that differ in case alone
        index = {name: place for place, name in enumerate(read)}
    order = [index.get(name, index.get(name.casefold())) for name in task.labels]
    known = [place for place in order if place is not None]
    unknown = [name for name, place in zip(task.labels, order, strict=True) if place is None]
    as_many = len(names) == len(task.labels)
    in_place = all(place in (None, number) for number, place in enumerate(order))
    if not (as_many or (some and len(names) > len(task.labels))):
        raise error(
            f"{model} tells {len(names)} labels apart ({listing(names)}), the data have {len(task.labels)} "
            f"({listing(task.labels)}); take a model that was fine-tuned on this task"
        )
    columns = [column.strip() for column in task.label.split(",")]
    if len(names) > len(columns) > 1 and columns == [*task.labels]:  # what a column does not say is not known to be 0
        raise error(
            f"--label names columns of {len(columns)} of the {len(names)} labels that {model} tells apart; name one of "
            f"each: --label {','.join(names)}"
        )
    if unknown and in_place and (not some or (as_many and not known)):
        return data
    if unknown:
        raise error(
            f"{model} does not know the label {listing(unknown)} of the data; its labels are {listing(names)}; "
            "take a model that was fine-tuned on this task, correct its id2label, or write the labels as it names them"
        )
    if known == list(range(len(names))):
        return data
    labels = list(names)
    for place, name in zip(known, task.labels, strict=True):
        labels[place] = name

    def of_the_model(examples: Dataset) -> Dataset:
        columns = examples.to_dict()
        columns["label"] = [kind.permuted(label, known, len(names)) for label in columns["label"]]
        return Dataset.from_dict(columns, features=examples.features)

    return replace(
        data,
        task=replace(task, labels=tuple(labels)),
        train=chunk_by_chunk(data.train, of_the_model),
        evaluation={name: chunk_by_chunk(examples, of_the_model) for name, examples in data.evaluation.items()},
    )
