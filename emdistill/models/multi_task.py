"""One encoder, a head per task: a model of transformers for every task, all around the same weights.

The model of a task is transformers' own class for its kind (say BertForSequenceClassification), so that whatever reads,
runs, captures or scores such a model works on it. All tasks have the same modules, but for the last matrix of the head,
which is the task's own (a TaskHead, where tasks share by more than their encoder). A task may be answered from a lower
layer: its model then ends there.

On the disk: config.json is the encoder's, with the tasks under "emdistill"; model.safetensors has the encoder's tensors
under their usual names, so that transformers' AutoModel reads the encoder, and each head's under `heads.TASK.`.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from emdistill.errors import ModelError, listing, nearest
from emdistill.models.families import require
from emdistill.models.label_names import name_outputs
from emdistill.models.task_head import HeadParts, TaskHead
from emdistill.states import SEQUENCE, TASK
from emdistill.values import typed

HEADS = "heads"
TASKS = "tasks"  # the entry of config.json's "emdistill"


@dataclass(frozen=True)
class TaskOutputs:
    """What the encoder answers to one task.

    labels        names of the logits; empty for a score
    problem_type  transformers' name for the kind
    head          what stands on the encoder (TaskKind.head)
    layer         how many layers its head reads; None: all
    parts         what its head has beside the last matrix
    reading       how its texts are read, for whoever opens the saved model (runs/reading.py)
    """

    labels: tuple[str, ...]
    problem_type: str
    head: str = SEQUENCE
    layer: int | None = None
    parts: HeadParts = field(default_factory=HeadParts)
    reading: Mapping[str, Any] | None = None


class MultiTaskModel(PreTrainedModel):
    """The models of all tasks, around one encoder.

    models   task -> its model; the deepest one, the `body`, gives the others the modules that both have (`share`)
    outputs  task -> what it answers
    """

    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, models: Mapping[str, PreTrainedModel], outputs: Mapping[str, TaskOutputs]) -> None:
        body = max(models.values(), key=_size)
        super().__init__(copy.deepcopy(body.config))
        self.outputs = dict(outputs)
        self.tasks = nn.ModuleDict(models)
        for model in models.values():
            if model is not body:
                share(model, body)
                own, others = head_end(model), head_end(body)
                if isinstance(own, TaskHead) and isinstance(others, TaskHead):
                    own.share(others)
        firsts: dict[int, str] = {}
        # Known before any tracing, which gives every way to a module an object of its own.
        self._encoder_of = {task: firsts.setdefault(id(model.base_model), task) for task, model in models.items()}

    @property
    def body(self) -> PreTrainedModel:
        """The model that has most: all layers, and a pooler where any has one. The others share its modules."""
        return max(map(self.of, self.outputs), key=_size)

    def of(self, task: str) -> PreTrainedModel:
        """The model of a task."""
        model = self.tasks[task]
        assert isinstance(model, PreTrainedModel)
        return model

    def of_batch(self, batch: Mapping[str, Tensor]) -> PreTrainedModel:
        """The model that answers a batch, all of whose rows are of one task."""
        return self.of([*self.outputs][int(batch[TASK][0])])

    def answers(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """The outputs of all heads for the same inputs, by task; the encoder runs once, and once per lower layer."""
        outputs: dict[str, Any] = {}
        answers = {}
        for task, encoder in self._encoder_of.items():
            model = self.of(task)
            base = model.base_model
            if encoder not in outputs:
                outputs[encoder] = base(**inputs, return_dict=True)
            setattr(model, model.base_model_prefix, _Given(outputs[encoder]))
            try:
                answers[task] = model(**inputs)
            finally:
                setattr(model, model.base_model_prefix, base)
        return answers

    def gradient_checkpointing_enable(self, *args: Any, **options: Any) -> None:
        for task in self.outputs:
            self.of(task).gradient_checkpointing_enable(*args, **options)  # type: ignore[no-untyped-call]

    def gradient_checkpointing_disable(self) -> None:
        for task in self.outputs:
            self.of(task).gradient_checkpointing_disable()  # type: ignore[no-untyped-call]

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:  # type: ignore[override]
        """Write config.json and model.safetensors, whole."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        config = copy.deepcopy(self.body.config)
        for name in ("id2label", "label2id", "problem_type"):
            config.__dict__.pop(name, None)
        config.architectures = [type(self.body.base_model).__name__]
        # A list, for transformers sorts the entries of a dictionary.
        config.emdistill = {TASKS: [{"name": task, **asdict(outputs)} for task, outputs in self.outputs.items()]}
        config.save_pretrained(folder)
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.tensors().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor once, by its name on the disk."""
        shared = _without_end(self.body)
        own = {
            f"{HEADS}.{task}.{name}": tensor
            for task in self.outputs
            for name, tensor in self.of(task).state_dict().items()
            if name not in _without_end(self.of(task)) or name not in shared
        }
        return shared | own


class _Given(nn.Module):
    """Stands for an encoder that has run: gives its outputs again."""

    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.given = (outputs,)

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.given[0]


def _size(model: PreTrainedModel) -> tuple[int, int]:
    """Layers, and modules that are not the task's own."""
    return int(model.config.num_hidden_layers), len(_without_end(model))


def _without_end(model: PreTrainedModel) -> dict[str, Tensor]:
    """A model's tensors but those of the last matrix of its head."""
    place = output_place(model)
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(f"{place}.")}


def task_model(model: nn.Module, batch: Mapping[str, Tensor]) -> nn.Module:
    """The model that answers a batch: of several tasks that of the batch's task."""
    return model.of_batch(batch) if isinstance(model, MultiTaskModel) else model


def output_place(model: PreTrainedModel) -> str:
    """Where the last matrix of a model's head is; raises ModelError for a model without a head of such a form."""
    prefix = f"{model.base_model_prefix}."
    outside = [(name, module) for name, module in model.named_modules() if not f"{name}.".startswith(prefix)]
    places = [name for name, module in outside if isinstance(module, TaskHead)]
    places = places or [name for name, module in outside if isinstance(module, nn.Linear)]
    if not places:
        raise ModelError(f"a {type(model).__name__} has no head that ends in a matrix, so it cannot be one of several")
    return str(places[-1])


def head_end(model: PreTrainedModel) -> nn.Linear | TaskHead:
    """The last matrix of a model's head, or the TaskHead in its place."""
    end = model.get_submodule(output_place(model))
    assert isinstance(end, nn.Linear | TaskHead)
    return end


def share(model: PreTrainedModel, body: PreTrainedModel) -> None:
    """Put the modules of `body` in the place of those of `model`, but the last matrix of the head.

    A model of fewer layers gets those that it has; what `body` lacks (a pooler) stays its own.
    """
    own = head_end(model)
    if model.base_model.state_dict().keys() <= body.base_model.state_dict().keys() and (
        model.config.num_hidden_layers == body.config.num_hidden_layers
    ):
        setattr(model, model.base_model_prefix, body.base_model)
    _share(model, body, own)


def _share(module: nn.Module, body: nn.Module, own: nn.Module) -> None:
    for name, child in module.named_children():
        others = getattr(body, name, None)
        if child is own or others is None:
            continue
        if next(child.parameters(recurse=False), None) is not None:
            setattr(module, name, others)
        else:
            _share(child, others, own)


def build_task_model(kind: type[PreTrainedModel], config: PreTrainedConfig, outputs: TaskOutputs) -> PreTrainedModel:
    """A model of this class over the encoder's configuration for one task, with fresh weights.

    Raises ModelError for a layer that the encoder does not have, or a family that cannot end there.
    """
    config = copy.deepcopy(config)
    for name in ("id2label", "label2id"):
        config.__dict__.pop(name, None)
    name_outputs(config, labels=outputs.labels, problem_type=outputs.problem_type)
    config.architectures = [kind.__name__]
    config.emdistill = dict(outputs.reading or {})
    if outputs.layer is not None:
        layers = config.num_hidden_layers
        if not 1 <= outputs.layer <= layers:
            raise ModelError(f"the student has {layers} layers; a task asks to be answered after layer {outputs.layer}")
        require(config, "keep").keep(config, range(outputs.layer))
    model = kind(config)
    if outputs.parts.any:
        matrix = head_end(model)
        assert isinstance(matrix, nn.Linear)
        parent, _, name = output_place(model).rpartition(".")
        setattr(model.get_submodule(parent), name, TaskHead(matrix, outputs.parts))
    model.train(False)
    return model


def saved_tasks(config: PreTrainedConfig) -> dict[str, TaskOutputs]:
    """The tasks of a saved model by its configuration; {} of a model of one task. Raises ValueError by field."""
    entries = typed((getattr(config, "emdistill", None) or {}).get(TASKS, []), list[dict[str, Any]], TASKS)
    names = typed([entry.get("name") for entry in entries], list[str], TASKS)
    return dict(zip(names, typed(entries, list[TaskOutputs], TASKS), strict=True))


def chosen_task(tasks: Sequence[str], task: str | None, source: object) -> str:
    """The task that is meant; raises ModelError where it is not there, or none is named and there are several."""
    if task is None and len(tasks) == 1:
        return tasks[0]
    if task is None:
        raise ModelError(f"{source} answers several tasks: {listing(tasks)}; say which one: --head {tasks[0]}")
    if task not in tasks:
        raise ModelError(f"{source} has no head {task!r}; it has: {listing(tasks)}.{nearest(task, tasks)}")
    return task


@torch.no_grad()
def load_task_tensors(model: PreTrainedModel, task: str, tensors: Mapping[str, Tensor], source: object) -> None:
    """Fill the model of a task from the tensors of a saved model; raises ModelError where some are absent."""
    prefix = f"{HEADS}.{task}."
    wanted = model.state_dict()
    found = {name: tensor for name, tensor in tensors.items() if name in wanted}
    found |= {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    wrong = [name for name, tensor in wanted.items() if name not in found or found[name].shape != tensor.shape]
    if wrong:
        raise ModelError(
            f"{source}: {len(wrong)} tensors of the head {task!r} are absent or of another size than config.json "
            f"says, e.g. {wrong[0]}; config.json and the weights do not belong together"
        )
    model.load_state_dict({name: found[name] for name in wanted})
