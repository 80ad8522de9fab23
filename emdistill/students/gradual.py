"""A student whose units leave step by step while it learns: all of the teacher's kept layers first, its shape at last.

    kept(t) = target + (whole − target) · (1 − t)³         units of every kind, t from 0 to 1
    I(u) ← β · I(u) + (1 − β) · |Σ over a batch u · ∂L/∂u|   the smoothed importance of a unit; the lowest leave

A unit that has left is 0 in every parameter that makes or reads it, and LayerNorms go over those that are left: so the
student at the end is, cut out, the same function. The sums come from parameters and their gradients, for a matrix W
that reads u has Σ_k W_ku ∂L/∂W_ku = Σ over the batch u · ∂L/∂u.

Sources: CoFi (Xia et al., ACL 2022, arXiv 2204.00408) and HomoDistil (Liang et al., ICLR 2023, arXiv 2302.09632), whose
idea it is; the schedule is Zhu and Gupta's (2017, arXiv 1710.01878).
"""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from emdistill.models.encoder import encoder_layers
from emdistill.models.families import require
from emdistill.models.families.family import RESIDUAL
from emdistill.students.extract import ExtractionPlan, Sizes, cut_out, highest_units, kept_units, parameter_place
from emdistill.students.importance import Importance
from emdistill.students.keep_layers import tensor_place
from emdistill.students.shape import StudentShape, shape_of

SMOOTHING = 0.9  # β
WARMUP = 0.1  # the share of the steps before the first unit leaves: importance is measured first
GONE = -1.0  # the score of a unit that has left


class UnitScores(nn.Module):
    """The smoothed importance of an encoder's units, GONE where they have left: buffers, for checkpoints have them."""

    def __init__(self, shape: StudentShape) -> None:
        super().__init__()
        self.register_buffer("residual", torch.zeros(shape.width))
        for name, size in (
            ("heads", shape.heads), ("query_key", shape.width), ("value", shape.width),
            ("feed_forward", shape.feed_forward),
        ):  # fmt: skip
            self.register_buffer(name, torch.zeros(shape.layers, size))

    @property
    def importance(self) -> Importance:
        """As scores by which units are chosen."""
        scores = dict(self.named_buffers())
        return Importance(scores.pop("residual"), **{name: tuple(each.unbind()) for name, each in scores.items()})


def begin(encoder: PreTrainedModel) -> None:
    """Let units leave from now on: the encoder carries their scores, and its LayerNorms go over those that are left.

    Raises ModelError for a family whose units are not known.
    """
    require(encoder, "cut")
    scores = encoder.unit_scores = UnitScores(shape_of(encoder.config)).to(encoder.device, encoder.dtype)

    def over_those_left(norm: nn.LayerNorm, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return masked_layer_norm(inputs[0], (scores.get_buffer("residual") >= 0).to(inputs[0]), norm)

    for norm in _norms(encoder):
        norm.register_forward_hook(over_those_left)


def masked_layer_norm(states: Tensor, mask: Tensor, norm: nn.LayerNorm) -> Tensor:
    """What a LayerNorm of the units of `mask`, [d] of 0 and 1, makes of them, [.., d]; 0 at the others."""
    count = mask.sum()
    centred = (states - (states * mask).sum(dim=-1, keepdim=True) / count) * mask
    deviation = (centred.square().sum(dim=-1, keepdim=True) / count + norm.eps).sqrt()
    return centred / deviation * norm.weight + norm.bias * mask


@torch.no_grad()
def note_gradients(encoder: PreTrainedModel) -> None:
    """Smooth the importance of the units that are left by that of the batch whose gradients lie at the parameters."""
    batch = batch_importance(encoder)
    for name, smoothed in _scores(encoder).named_buffers():
        own = getattr(batch, name)
        now = (own if name == "residual" else torch.stack(own)).to(smoothed)
        smoothed.copy_(torch.where(smoothed < 0, smoothed, SMOOTHING * smoothed + (1 - SMOOTHING) * now))


def batch_importance(encoder: PreTrainedModel) -> Importance:
    """|Σ over the batch u · ∂L/∂u| of every unit, from the gradients at the parameters (see the head of this file).

    residual   summed over the outputs of all LayerNorms
    query_key  of queries and of keys, added
    """
    names, heads = require(encoder, "cut").layer, encoder.config.num_attention_heads
    assert names is not None
    layers = [layer.get_submodule for layer in encoder_layers(encoder)]
    contexts = [_product(of(names.attention_output), "weight").sum(dim=0) for of in layers]
    return Importance(
        residual=torch.stack([_made(norm).abs() for norm in _norms(encoder)]).sum(dim=0),
        heads=tuple(context.reshape(heads, -1).sum(dim=-1).abs() for context in contexts),
        query_key=tuple(_made(of(names.query)).abs() + _made(of(names.key)).abs() for of in layers),
        value=tuple(context.abs() for context in contexts),
        feed_forward=tuple(_product(of(names.feed_forward_output), "weight").sum(dim=0).abs() for of in layers),
    )


def _made(module: nn.Module) -> Tensor:
    """Σ u · ∂L/∂u of the units that a module makes: over its rows and biases."""
    product = _product(module, "weight")
    made = product if product.ndim == 1 else product.sum(dim=1)
    return made if getattr(module, "bias", None) is None else made + _product(module, "bias")


def _product(module: nn.Module, name: str) -> Tensor:
    """A parameter times its gradient; 0 where it has none."""
    parameter = module.get_parameter(name)
    gradient = parameter.grad
    return torch.zeros_like(parameter) if gradient is None else parameter.detach() * gradient


def sizes_at(progress: float, whole: Sizes, target: Sizes) -> Sizes:
    """How many units are left at a progress from 0 to 1, by the cubic schedule after the warm-up."""
    left = (1 - min(1.0, max(0.0, (progress - WARMUP) / (1 - WARMUP)))) ** 3
    return Sizes(*(end + round((start - end) * left) for start, end in zip(whole, target, strict=True)))


@torch.no_grad()
def leave(encoder: PreTrainedModel, target: StudentShape, progress: float) -> None:
    """Let the least important units go until as many are left as the schedule says; all that have left are 0 again."""
    whole = shape_of(encoder.config)
    plan = _plan(encoder, sizes_at(progress, Sizes.of(whole), Sizes.of(target)))
    for name, scores in _scores(encoder).named_buffers():
        kept = getattr(plan, name)
        for row, units in [(scores, kept)] if name == "residual" else zip(scores, kept, strict=True):
            row.index_fill_(0, _others(units, len(row), row), GONE)
    for name, parameter in encoder.named_parameters():
        for axis, units in kept_units(parameter_place(encoder, name), plan).items():
            parameter.index_fill_(axis, _others(units, parameter.shape[axis], parameter), 0)


@torch.no_grad()
def cut_to(encoder: PreTrainedModel, target: StudentShape) -> tuple[PreTrainedModel, ExtractionPlan]:
    """The student of the units that are left, and which they are: the same function, on the CPU.

    Queries shrink as heads do, for scores are divided by √(head size). The encoder no longer carries scores afterwards.
    """
    plan = _plan(encoder, Sizes.of(target))
    del encoder.unit_scores
    student = cut_out(encoder, plan)
    factor = (target.head_size / shape_of(encoder.config).head_size) ** 0.5
    for name, parameter in student.named_parameters():
        if _asks(student, name):
            parameter.mul_(factor)
    return student, plan


def _plan(encoder: PreTrainedModel, sizes: Sizes) -> ExtractionPlan:
    return highest_units(encoder, range(len(encoder_layers(encoder))), sizes, _scores(encoder).importance)


def _scores(encoder: PreTrainedModel) -> UnitScores:
    return cast(UnitScores, encoder.unit_scores)


def _asks(encoder: PreTrainedModel, name: str) -> bool:
    """Whether a parameter makes queries, of states or of positions."""
    layer, module = tensor_place(encoder, name.rpartition(".")[0])
    names = require(encoder, "cut").layer
    return layer is not None and names is not None and (module == names.query or module.endswith("pos_query_proj"))


def _others(units: tuple[int, ...], count: int, like: Tensor) -> Tensor:
    """The numbers below `count` that are none of `units`."""
    left = torch.ones(count, dtype=torch.bool)
    left[list(units)] = False
    return left.nonzero().flatten().to(like.device)


def _norms(encoder: PreTrainedModel) -> Iterator[nn.LayerNorm]:
    """The LayerNorms of the residual stream's units, in the encoder and in its head."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.LayerNorm) and parameter_place(encoder, f"{name}.weight").axes == (RESIDUAL,):
            yield module
