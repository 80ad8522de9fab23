"""Extract Then Distill: a narrower, shallower student cut out of its teacher, unit by unit.

    student parameter = teacher parameter [kept rows, kept columns]

The residual stream (embeddings, LayerNorms, each layer's inputs and outputs, pooler, head) keeps one set of units. Each
layer keeps its own feed-forward neurons, heads, and neurons inside the heads: queries and keys share theirs, and so do
values and the output projection. At the teacher's size the student is the teacher. Then the states get the teacher's
means (mean_states.py); else the errors grow from layer to layer.

Source: Extract Then Distill (Chen et al., arXiv 2104.11928, ICANN 2021).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from emdistill.errors import ConfigError, ModelError
from emdistill.models.families import family_of
from emdistill.models.families.family import EMBEDDING, FEED_FORWARD, HEAD, QUERY_KEY, RESIDUAL, VALUE, Axes
from emdistill.students.importance import Importance
from emdistill.students.keep_layers import blank_like, evenly_spaced, kept_tensors, tensor_place
from emdistill.students.mean_states import match_means
from emdistill.students.shape import StudentShape, resize, shape_of


@dataclass(frozen=True)
class ExtractionPlan:
    """The teacher's layers and units that make the student: indices from 0, increasing; all but `residual` per layer.

    residual          the units of the residual stream
    layers            the teacher's layer of each student layer
    query_key, value  the neurons of the kept heads, counted over all heads side by side
    """

    residual: tuple[int, ...]
    layers: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]
    query_key: tuple[tuple[int, ...], ...]
    value: tuple[tuple[int, ...], ...]
    feed_forward: tuple[tuple[int, ...], ...]


def check_part(teacher: PreTrainedModel, shape: StudentShape) -> None:
    """Raise ConfigError unless a student of `shape` can be cut out of the teacher, ModelError where nothing can be."""
    whole = shape_of(teacher.config)
    birth = "or start from fresh weights: --student-birth fresh"
    sizes = f"no student of {shape} can be cut from a teacher of {whole} (layers x width x heads x feed-forward width)"
    if shape.layers > whole.layers or shape.width > whole.width or shape.feed_forward > whole.feed_forward:
        raise ConfigError(f"{sizes}: take a smaller one, {birth}")
    if shape.heads > whole.heads or shape.head_size > whole.head_size:
        heads = f"{shape.heads} heads of {shape.head_size} are no part of {whole.heads} heads of {whole.head_size}"
        raise ConfigError(f"{sizes}: its {heads}; name other heads, {birth}")
    if _has_narrow_embeddings(teacher) and shape.width == teacher.config.embedding_size:
        raise ConfigError(
            f"{sizes}: at the width of its embeddings, {shape.width}, an {family_of(teacher).name} has no projection "
            f"between embeddings and layers; take another width, {birth}"
        )
    units = {RESIDUAL: whole.width, FEED_FORWARD: whole.feed_forward, HEAD: whole.heads}
    for name, _, tensor in kept_tensors(teacher, range(whole.layers)):
        for axis, size in zip(parameter_place(teacher, name).axes, tensor.shape, strict=False):
            if axis in units and size < units[axis]:  # as of convolutions in groups (DeBERTa's conv_groups)
                raise ModelError(
                    f"{name} of this {type(teacher).__name__} has {size} units where its layers have {units[axis]}, so "
                    f"no student can be cut from it; keep whole layers (--student 3), {birth}"
                )


class Sizes(NamedTuple):
    """How many units are kept: of the residual stream, and per layer heads, neurons of a head, feed-forward neurons."""

    width: int
    heads: int
    head_size: int
    feed_forward: int

    @classmethod
    def of(cls, shape: StudentShape) -> "Sizes":
        """Those of a stock model."""
        return cls(shape.width, shape.heads, shape.head_size, shape.feed_forward)


def plan_extraction(teacher: PreTrainedModel, shape: StudentShape, importance: Importance) -> ExtractionPlan:
    """The units of the highest scores; the layers evenly spaced, the last among them.

    Raises ConfigError for a shape that is no part of the teacher.
    """
    check_part(teacher, shape)
    layers = evenly_spaced(shape.layers, shape_of(teacher.config).layers)
    return highest_units(teacher, layers, Sizes.of(shape), importance)


def highest_units(
    encoder: PreTrainedModel, layers: Sequence[int], sizes: Sizes, importance: Importance
) -> ExtractionPlan:
    """So many units of the highest scores, in the encoder's order, of these layers.

    All layers keep the same heads where they share a table with a column per head (MPNet): by their summed scores.
    """
    of_heads = [importance.heads[layer] for layer in layers]
    if family_of(encoder).shares_heads:
        of_heads = [torch.stack(of_heads).sum(dim=0)] * len(layers)
    heads = tuple(_highest(scores, sizes.heads) for scores in of_heads)

    def neurons(scores: Sequence[Tensor]) -> tuple[tuple[int, ...], ...]:
        """Of each kept head the neurons of the highest scores."""
        whole = shape_of(encoder.config).head_size
        return tuple(
            tuple(
                head * whole + neuron
                for head in heads_kept
                for neuron in _highest(scores[layer][head * whole : (head + 1) * whole], sizes.head_size)
            )
            for layer, heads_kept in zip(layers, heads, strict=True)
        )

    return ExtractionPlan(
        residual=_highest(importance.residual, sizes.width),
        layers=tuple(layers),
        heads=heads,
        query_key=neurons(importance.query_key),
        value=neurons(importance.value),
        feed_forward=tuple(_highest(importance.feed_forward[layer], sizes.feed_forward) for layer in layers),
    )


def cut_out(
    teacher: PreTrainedModel, plan: ExtractionPlan, sample: Sequence[Mapping[str, Tensor]] = ()
) -> PreTrainedModel:
    """The student of the planned units, on the CPU; with a sample its states get the teacher's means (mean_states.py).

    Raises ModelError for a parameter that its family does not know.
    """
    config = copy.deepcopy(teacher.config)
    shape = StudentShape(len(plan.layers), len(plan.residual), len(plan.heads[0]), len(plan.feed_forward[0]))
    resize(config, shape, plan.layers)
    student = blank_like(teacher, config)
    tensors = kept_tensors(teacher, plan.layers)
    student.load_state_dict({new: _cut(tensor, parameter_place(teacher, old), plan) for old, new, tensor in tensors})
    if sample:
        match_means(student, teacher, sample, layers=plan.layers, residual=plan.residual)
    return student


class ParameterPlace(NamedTuple):
    """The layer of a parameter, if any, and what its axes count."""

    layer: int | None
    axes: Axes


def parameter_place(encoder: PreTrainedModel, name: str) -> ParameterPlace:
    """The place of the parameter of this name; raises ModelError for one that its family does not know."""
    family = family_of(encoder)
    module, _, kind = name.rpartition(".")
    layer, module = tensor_place(encoder, module)
    known = family.outside if layer is None or family.layer is None else family.layer.axes
    axes = known.get(module)
    if axes is None:
        raise ModelError(
            f"the units of {name} of this {type(encoder).__name__} are not known, so no student can be cut from it; "
            "keep whole layers (--student 3), or start from fresh weights: --student-birth fresh"
        )
    if not _has_narrow_embeddings(encoder):
        axes = tuple(RESIDUAL if axis == EMBEDDING else axis for axis in axes)
    return ParameterPlace(layer, axes[:1] if kind == "bias" else axes)


def kept_units(place: ParameterPlace, plan: ExtractionPlan) -> dict[int, tuple[int, ...]]:
    """Axis of a parameter -> the units on it that are kept, for every axis that counts units."""
    row = 0 if place.layer is None else plan.layers.index(place.layer)
    units = {
        RESIDUAL: plan.residual,
        QUERY_KEY: plan.query_key[row],
        VALUE: plan.value[row],
        FEED_FORWARD: plan.feed_forward[row],
        HEAD: plan.heads[row],
    }
    return {number: units[axis] for number, axis in enumerate(place.axes) if axis in units}


def _cut(tensor: Tensor, place: ParameterPlace, plan: ExtractionPlan) -> Tensor:
    """The kept rows, and columns, of a parameter."""
    for axis, units in kept_units(place, plan).items():
        tensor = tensor.index_select(axis, torch.tensor(units, device=tensor.device))
    return tensor


def _has_narrow_embeddings(encoder: PreTrainedModel) -> bool:
    """Whether the embeddings have a width of their own, which a student keeps."""
    width = encoder.config.hidden_size
    return "embedding_size" in family_of(encoder).as_wide and getattr(encoder.config, "embedding_size", width) != width


def _highest(scores: Tensor, count: int) -> tuple[int, ...]:
    """The places of the `count` highest scores, increasing; of equal scores the first."""
    places = scores.argsort(descending=True, stable=True)[:count]
    return tuple(places.sort().values.tolist())
