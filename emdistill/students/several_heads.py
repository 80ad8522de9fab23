"""A student of several tasks: an encoder that was born as any student is, with a head per task around it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.models.multi_task import MultiTaskModel, TaskOutputs, build_task_model, head_end, share
from emdistill.models.stored_config import class_with_head
from emdistill.models.task_head import LabelEmbedding, TaskHead


def with_heads(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    outputs: Mapping[str, TaskOutputs],
    teachers: Mapping[str, PreTrainedModel],
    *,
    seed: int,
) -> MultiTaskModel:
    """The encoder of `student` with a head per task; its own head is left behind.

    teachers   models whose heads the tasks of these names begin with, where they are of one size; others begin fresh
    The same seed gives the same weights; torch's random state stays. Raises ModelError for a layer that is not there, a
    family that has no such head or cannot end below its last layer.
    """
    models = {}
    for number, (task, answers) in enumerate(outputs.items()):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed + number)
            model = build_task_model(class_with_head(student.config, answers.head), student.config, answers)
        share(model, student)
        if task in teachers:
            _begin_as_the_teachers(model, teachers[task])
        names = [name.replace("_", " ") for name in answers.labels or (task,)]
        _begin_as_words(model, student, [tokenizer(name, add_special_tokens=False)["input_ids"] for name in names])
        models[task] = model
    return MultiTaskModel(models, outputs)


def _begin_as_the_teachers(model: PreTrainedModel, teacher: PreTrainedModel) -> None:
    own, theirs = head_end(model), head_end(teacher)
    if not isinstance(theirs, nn.Linear):
        return
    if isinstance(own, nn.Linear) and own.weight.shape == theirs.weight.shape:
        own.load_state_dict(theirs.state_dict())
    elif isinstance(own, TaskHead) and own.width == theirs.in_features:
        own.begin_as(theirs)


def _begin_as_words(model: PreTrainedModel, student: PreTrainedModel, names: list[list[int]]) -> None:
    """Label embeddings begin as the mean of the word vectors of each label's name; of a score, of the task's."""
    head = head_end(model)
    words: Tensor = student.get_input_embeddings().get_parameter("weight").detach()
    if isinstance(head, TaskHead) and isinstance(head.output, LabelEmbedding) and words.shape[1] == head.width:
        head.output.begin_as(torch.stack([(words[ids] if ids else words).mean(dim=0) for ids in names]))
