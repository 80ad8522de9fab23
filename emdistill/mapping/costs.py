"""What it costs to move student layer i onto teacher layer j: one mean squared difference a pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emdistill.errors import ConfigError
from emdistill.mapping.transport import solve_transport

Heads = Literal["equal", "mean", "match"]

# Differences held at once, M·N pairs together: near the cache on a CPU, few launches on an accelerator.
DIFFERENCES_ON_CPU = 2**20
DIFFERENCES_ON_ACCELERATOR = 2**25


def layer_costs(
    student_layers: Sequence[Tensor], teacher_layers: Sequence[Tensor], mask: Tensor, *, heads: Heads = "equal"
) -> Tensor:
    """The mean squared difference of every student and teacher layer over valid entries only, [M, N].

    D[i, j] = Σ_valid (s_i − t_j)² / count

    Layers are hidden states [B, L, d] (valid: a token; count = tokens · d) or attention scores [B, h, L, L]
    (valid: query and key are tokens; count = pairs · h); mask [B, L], 1 = token. Whatever padded positions
    hold, NaN included, changes nothing. The result is float32, or float64 where a layer is; differentiable once.
    heads, for scores: "equal" needs equal head counts; "mean" averages the heads on both sides; "match" moves
    the heads of each layer pair onto each other by a transport with uniform masses, whose flow is a constant
    for the gradient (h_S · h_T costs a pair: dear).
    Raises ConfigError where the layers or the mask do not fit each other.
    """
    _check(student_layers, teacher_layers, mask, heads)
    if student_layers[0].ndim == 4:
        if heads == "mean":
            student_layers, teacher_layers = _mean_heads(student_layers), _mean_heads(teacher_layers)
        elif heads == "match":
            return _matched_head_costs(student_layers, teacher_layers, mask)
    return _pair_costs(student_layers, teacher_layers, mask)


def _pair_costs(student_layers: Sequence[Tensor], teacher_layers: Sequence[Tensor], mask: Tensor) -> Tensor:
    mask = (mask != 0).to(student_layers[0].device)
    rows = _valid_rows(student_layers[0], mask)
    costs: Tensor = _PairCosts.apply(mask, rows, len(student_layers), *student_layers, *teacher_layers)  # type: ignore[no-untyped-call]
    return costs


def _mean_heads(layers: Sequence[Tensor]) -> list[Tensor]:
    dtype = _accumulation_dtype(layers)
    return [layer.to(dtype).mean(dim=1, keepdim=True) for layer in layers]


def _matched_head_costs(student_layers: Sequence[Tensor], teacher_layers: Sequence[Tensor], mask: Tensor) -> Tensor:
    students, teachers = len(student_layers), len(teacher_layers)
    student_heads, teacher_heads = student_layers[0].shape[1], teacher_layers[0].shape[1]
    costs = _pair_costs(
        [head for layer in student_layers for head in torch.split(layer, 1, dim=1)],
        [head for layer in teacher_layers for head in torch.split(layer, 1, dim=1)],
        mask,
    )
    costs = costs.view(students, student_heads, teachers, teacher_heads).transpose(1, 2)
    student_masses = torch.full((student_heads,), 1 / student_heads, dtype=torch.float64)
    teacher_masses = torch.full((teacher_heads,), 1 / teacher_heads, dtype=torch.float64)
    pairs = costs.detach().to("cpu").flatten(0, 1)
    flows = torch.stack([solve_transport(pair, student_masses, teacher_masses).flow for pair in pairs])
    return (flows.view(costs.shape).to(costs.device) * costs).sum(dim=(2, 3))


class _PairCosts(torch.autograd.Function):
    """D[i, j] without keeping any difference; backward in closed form.

    With G = dLoss/dD:  dLoss/ds_i = 2/count · (s_i Σ_j G_ij − Σ_j G_ij t_j), and dLoss/dt_j likewise.
    """

    @staticmethod
    def forward(ctx: Any, mask: Tensor, rows: Tensor, students: int, *layers: Tensor) -> Tensor:
        ctx.students = students
        ctx.save_for_backward(mask, rows, *layers)
        partial_sums = []
        with torch.autocast(mask.device.type, enabled=False):
            for _, chunk in _chunks(layers, mask, rows, students):
                difference = chunk[:students, None] - chunk[None, students:]
                partial_sums.append(difference.square_().sum(dim=(2, 3)))
            return torch.stack(partial_sums).sum(dim=0) / _count(layers[0], mask)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_costs: Tensor) -> tuple[Tensor | None, ...]:
        mask, rows, *layers = ctx.saved_tensors
        students, wanted = ctx.students, ctx.needs_input_grad[3:]
        grads = [
            torch.zeros_like(layer, memory_format=torch.contiguous_format) if needed else None
            for layer, needed in zip(layers, wanted, strict=True)
        ]
        with torch.autocast(mask.device.type, enabled=False):
            scaled = 2 * grad_costs / _count(layers[0], mask)
            for some, chunk in _chunks(layers, mask, rows, students):
                states = chunk.flatten(1)
                if any(wanted[:students]):
                    pull = _pull(scaled, states[:students], states[students:])
                    _write_rows(grads[:students], some, pull.view_as(chunk[:students]))
                if any(wanted[students:]):
                    pull = _pull(scaled.T, states[students:], states[:students])
                    _write_rows(grads[students:], some, pull.view_as(chunk[students:]))
        return (None, None, None, *grads)


def _pull(weights: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """own_i Σ_j w_ij − Σ_j w_ij other_j: away from the blend of the other side's layers."""
    return torch.addmm(own * weights.sum(dim=1, keepdim=True), weights, other, alpha=-1)


def _write_rows(grads: Sequence[Tensor | None], rows: Tensor, values: Tensor) -> None:
    for grad, value in zip(grads, values, strict=True):
        if grad is not None:
            grad.view(-1, grad.shape[-1]).index_copy_(0, rows, value.to(grad.dtype))


def _valid_rows(layer: Tensor, mask: Tensor) -> Tensor:
    """The numbers of the rows that count, a row being a token's state or the scores of one head's query."""
    valid = mask if layer.ndim == 3 else mask[:, None].expand(-1, layer.shape[1], -1)
    rows = valid.flatten().nonzero().flatten()
    if rows.numel() == 0:
        raise ConfigError("the mask has no token: every position is padding, so there is nothing to compare")
    return rows


def _chunks(layers: Sequence[Tensor], mask: Tensor, rows: Tensor, students: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Some row numbers at a time, and those rows of all layers, [layers, rows, width].

    Padded rows are left out and padded keys are zero, so nothing of them reaches a sum, NaN included.
    """
    width = layers[0].shape[-1]
    rows_of_example = layers[0][0].numel() // width
    dtype = _accumulation_dtype(layers)
    flat = [layer.reshape(-1, width) for layer in layers]
    limit = DIFFERENCES_ON_CPU if mask.device.type == "cpu" else DIFFERENCES_ON_ACCELERATOR
    pairs = students * (len(layers) - students)
    for some in torch.split(rows, max(1, limit // (pairs * width))):
        chunk = torch.stack([layer.index_select(0, some).to(dtype) for layer in flat])
        if layers[0].ndim == 4:
            chunk.masked_fill_(~mask[some // rows_of_example], 0)
        yield some, chunk


def _count(layer: Tensor, mask: Tensor) -> Tensor:
    """The number of valid entries of one layer; a tensor, so that an accelerator need not be waited for."""
    tokens = mask.sum(dim=1)
    return tokens.sum() * layer.shape[-1] if layer.ndim == 3 else tokens.square().sum() * layer.shape[1]


def _accumulation_dtype(layers: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(layer.dtype == torch.float64 for layer in layers) else torch.float32


def _check(student_layers: Sequence[Tensor], teacher_layers: Sequence[Tensor], mask: Tensor, heads: str) -> None:
    """Refuse layers that cannot be compared, naming the side, the shapes and the mend."""
    if heads not in get_args(Heads):
        raise ConfigError(f"heads={heads!r} is unknown; choose one of {', '.join(get_args(Heads))}")
    student, teacher = _shape("student", student_layers), _shape("teacher", teacher_layers)
    both = f"student layers {student} and teacher layers {teacher}"
    if len(student) != len(teacher):
        raise ConfigError(f"{both}: compare hidden states with hidden states and scores with scores")
    if (student[0], student[-2]) != (teacher[0], teacher[-2]):
        raise ConfigError(f"{both} do not come from one batch: batch and length must agree")
    if len(student) == 3 and student[2] != teacher[2]:
        raise ConfigError(f"{both} differ in width: project the student's states to width {teacher[2]} first")
    if len(student) == 4 and student[1] != teacher[1] and heads == "equal":
        raise ConfigError(
            f"the student has {student[1]} heads, the teacher {teacher[1]}: choose heads='mean' (average the heads) "
            "or heads='match' (match them by transport)"
        )
    expected = (student[0], student[-2])
    if tuple(mask.shape) != expected:
        raise ConfigError(f"the mask has shape {tuple(mask.shape)}, the layers need {expected} (batch, length)")


def _shape(side: str, layers: Sequence[Tensor]) -> tuple[int, ...]:
    """The one shape that all layers of a side share."""
    if len(layers) == 0:
        raise ConfigError(f"no {side} layers: give at least one tensor [B, L, d] or [B, h, L, L]")
    shapes = list(dict.fromkeys(tuple(layer.shape) for layer in layers))
    if len(shapes) > 1:
        raise ConfigError(f"{side} layers differ in shape: {', '.join(map(str, shapes))}; all must have one shape")
    shape = shapes[0]
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[2] != shape[3]):
        raise ConfigError(f"{side} layers have shape {shape}; hidden states are [B, L, d], scores [B, h, L, L]")
    if not all(layer.is_floating_point() for layer in layers):
        raise ConfigError(f"{side} layers hold {layers[0].dtype}; states must be floating point")
    return shape
