"""What it costs to move student layer i onto teacher layer j: one mean squared difference per pair."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emdistill.errors import ConfigError
from emdistill.mapping.kernels import Pair, accumulation_dtype, pulls, squared_differences
from emdistill.mapping.transport import solve_transport
from emdistill.processes import mean_over_processes, shared_count
from emdistill.values import with_choices

Heads = Literal["equal", "mean", "match"]
Scale = Literal["squared", "relative"]

# The least variance of a teacher layer, as a share of its mean square: of less, rounding is a part that shows.
VARIANCE_FLOOR = 1e-4


@with_choices
def layer_costs(
    student_layers: Sequence[Tensor | None],
    teacher_layers: Sequence[Tensor | None],
    mask: Tensor,
    *,
    heads: Heads = "equal",
    scale: Scale = "squared",
    pairs: Sequence[Pair] | None = None,
    compiled: bool = False,
) -> Tensor:
    """The mean squared difference of every student and teacher layer over valid entries only, [M, N].

    D[i, j] = Σ_valid (s_i − t_j)² / count, with scale "relative" divided by the teacher layer's `layer_variances`

    Layers are hidden states [B, L, d] (valid: a token; count = tokens · d) or attention scores [B, h, L, L]
    (valid: query and key are tokens; count = pairs · h); mask [B, L], 1 = token. Whatever padded positions
    hold, NaN included, changes nothing. The result is float32, or float64 where a layer is; differentiable once.
    heads     for scores: "equal" needs equal head counts; "mean" averages the heads on both sides; "match" moves the
              heads of each layer pair onto each other by a transport with uniform masses, a constant for the gradient
    pairs     the (i, j) to compute, the others stay 0; layers in none of them may be None; no pair: all 0
    compiled  by a compiled kernel, which takes seconds to make once and is several times faster; same numbers
    Raises ConfigError where the layers or the mask do not fit each other.
    """
    shape = len(student_layers), len(teacher_layers)
    every = [(i, j) for i in range(shape[0]) for j in range(shape[1])]
    pairs = every if pairs is None else list(pairs)
    if not pairs and every:
        return torch.zeros(shape, device=mask.device)
    own = recorded("states", "student", student_layers, {i for i, _ in pairs})
    other = recorded("states", "teacher", teacher_layers, {j for _, j in pairs})
    students, teachers, rows, columns = list(own.values()), list(other.values()), list(own), list(other)
    _check(students, teachers, mask, heads)
    local = [(rows.index(i), columns.index(j)) for i, j in pairs]
    if students[0].ndim == 4 and heads == "mean":
        students, teachers = _mean_heads(students), _mean_heads(teachers)
    if students[0].ndim == 4 and heads == "match":
        values = _matched_head_costs(students, teachers, mask, local, compiled)
    else:
        values = _pair_costs(students, teachers, mask, local, compiled)
    if scale == "relative":
        values = values / layer_variances(teachers, mask)[[j for _, j in local]]
    if pairs == every:
        return values.view(shape)
    return at_pairs(dict(zip(pairs, values.unbind(), strict=True)), shape)


def at_pairs(costs: Mapping[Pair, Tensor], shape: tuple[int, int]) -> Tensor:
    """The matrix [M, N] of the costs of these pairs, at least one, 0 elsewhere."""
    none = next(iter(costs.values())).new_zeros(())
    every = [costs.get((i, j), none) for i in range(shape[0]) for j in range(shape[1])]
    return torch.stack(every).view(shape)


def recorded(kind: str, side: str, layers: Sequence[Tensor | None], numbers: Collection[int]) -> dict[int, Tensor]:
    """The layers of these numbers; raises ConfigError, with the kind of states, for one that is not there."""
    if not layers:
        raise ConfigError(f"there are no {kind} of {side} layers to compare: record at least one")
    chosen: dict[int, Tensor] = {}
    for number in sorted(numbers):
        if not 0 <= number < len(layers):
            raise ConfigError(f"a pair names {side} layer {number}, but there are {len(layers)} (0..{len(layers) - 1})")
        layer = layers[number]
        if layer is None:
            raise ConfigError(f"the {kind} of {side} layer {number} were not recorded, but are to be compared")
        chosen[number] = layer
    return chosen


@torch.no_grad()
def layer_variances(layers: Sequence[Tensor], mask: Tensor) -> Tensor:
    """The variance of each layer over the batch's valid entries, a mean over width or heads, [N]; a constant.

    V[j] = Σ_valid (t_j − mean(t_j))² / count, the mean of each feature of hidden states [B, L, d], of each head of
    scores [B, h, L, L]; at least VARIANCE_FLOOR of the mean square, and 1 for a layer of zeros.
    A squared difference over V is the share of the layer's variance that is not explained: 0 for a student that says
    all, 1 for one that knows the mean alone.
    """
    tokens, dtype = mask != 0, accumulation_dtype(layers)
    variances = []
    for layer in layers:
        valid, count = _valid(layer, tokens), _count(layer, tokens)
        entries = torch.where(valid, layer.to(dtype), 0)
        over = (0, 1) if layer.ndim == 3 else (0, 2, 3)
        features = layer.shape[2 if layer.ndim == 3 else 1]
        mean = mean_over_processes(entries.sum(over, keepdim=True)) * features / count
        squares = torch.stack([torch.where(valid, entries - mean, 0).square().sum(), entries.square().sum()])
        variance, mean_square = mean_over_processes(squares) / count
        floored = torch.maximum(variance, VARIANCE_FLOOR * mean_square)
        variances.append(torch.where(floored > 0, floored, 1))
    return torch.stack(variances)


def _pair_costs(
    students: Sequence[Tensor], teachers: Sequence[Tensor], mask: Tensor, pairs: Sequence[Pair], compiled: bool
) -> Tensor:
    tokens = (mask != 0).to(students[0].device)
    costs: Tensor = _PairCosts.apply(tokens, pairs, compiled, len(students), *students, *teachers)  # type: ignore[no-untyped-call]
    return costs


def _mean_heads(layers: Sequence[Tensor]) -> list[Tensor]:
    dtype = accumulation_dtype(layers)
    return [layer.to(dtype).mean(dim=1, keepdim=True) for layer in layers]


def _matched_head_costs(
    students: Sequence[Tensor], teachers: Sequence[Tensor], mask: Tensor, pairs: Sequence[Pair], compiled: bool
) -> Tensor:
    """Costs of each pair of layers, [pairs], through those of all pairs of their heads."""
    student_heads, teacher_heads = students[0].shape[1], teachers[0].shape[1]
    costs = _pair_costs(
        [head for layer in students for head in torch.split(layer, 1, dim=1)],
        [head for layer in teachers for head in torch.split(layer, 1, dim=1)],
        mask,
        [
            (i * student_heads + student_head, j * teacher_heads + teacher_head)
            for i, j in pairs
            for student_head in range(student_heads)
            for teacher_head in range(teacher_heads)
        ],
        compiled,
    ).view(len(pairs), student_heads, teacher_heads)
    student_masses = torch.full((student_heads,), 1 / student_heads, dtype=torch.float64)
    teacher_masses = torch.full((teacher_heads,), 1 / teacher_heads, dtype=torch.float64)
    flows = [solve_transport(pair, student_masses, teacher_masses).flow for pair in costs.detach().cpu()]
    return (torch.stack(flows).to(costs.device) * costs).sum(dim=(1, 2))


class _PairCosts(torch.autograd.Function):
    """D of every pair without keeping any difference; backward in closed form.

    With G = dLoss/dD:  dLoss/ds_i = 2/count · Σ_j G_ij (s_i − t_j), and dLoss/dt_j likewise.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, pairs: Sequence[Pair], compiled: bool, students: int, *layers: Tensor
    ) -> Tensor:
        ctx.pairs, ctx.compiled, ctx.students = pairs, compiled, students
        ctx.count = _count(layers[0], tokens)
        ctx.save_for_backward(tokens, *layers)
        with torch.autocast(tokens.device.type, enabled=False):
            sums = squared_differences(
                layers[:students], layers[students:], pairs, _valid(layers[0], tokens), compiled=compiled
            )
            costs: Tensor = (sums / ctx.count).to(accumulation_dtype(layers))
            return costs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_costs: Tensor) -> tuple[Any, ...]:
        tokens, *layers = ctx.saved_tensors
        students, teachers = layers[: ctx.students], layers[ctx.students :]
        needed = ctx.needs_input_grad[4:]
        valid = _valid(layers[0], tokens)
        grads: list[Tensor | None] = [None] * len(layers)
        with torch.autocast(tokens.device.type, enabled=False):
            weights = 2 * grad_costs / ctx.count
            if any(needed[: len(students)]):
                grads[: len(students)] = pulls(students, teachers, ctx.pairs, weights, valid, compiled=ctx.compiled)
            if any(needed[len(students) :]):
                turned = [(j, i) for i, j in ctx.pairs]
                grads[len(students) :] = pulls(teachers, students, turned, weights, valid, compiled=ctx.compiled)
        return (None, None, None, None, *(grad if asks else None for grad, asks in zip(grads, needed, strict=True)))


def _valid(layer: Tensor, tokens: Tensor) -> Tensor:
    """Which entries of a layer count; broadcasts over its width, or over its heads."""
    return tokens[:, :, None] if layer.ndim == 3 else (tokens[:, :, None] & tokens[:, None, :])[:, None]


def _count(layer: Tensor, tokens: Tensor) -> Tensor:
    """The number of valid entries of one layer, the mean over the processes; a tensor: no accelerator need wait."""
    lengths = tokens.sum(dim=1)
    own = lengths.sum() * layer.shape[-1] if layer.ndim == 3 else lengths.square().sum() * layer.shape[1]
    return shared_count(own)


def _check(student_layers: Sequence[Tensor], teacher_layers: Sequence[Tensor], mask: Tensor, heads: str) -> None:
    """Refuse layers that cannot be compared, naming the side, the shapes and the mend."""
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
    # An accelerator would have to be waited for: there, an empty mask gives NaN.
    if mask.device.type == "cpu" and not mask.any():
        raise ConfigError("the mask has no token: every position is padding, so there is nothing to compare")


def _shape(side: str, layers: Sequence[Tensor]) -> tuple[int, ...]:
    """The one shape that all layers of a side share."""
    shapes = list(dict.fromkeys(tuple(layer.shape) for layer in layers))
    if len(shapes) > 1:
        raise ConfigError(f"{side} layers differ in shape: {', '.join(map(str, shapes))}; all must have one shape")
    shape = shapes[0]
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[2] != shape[3]):
        raise ConfigError(f"{side} layers have shape {shape}; hidden states are [B, L, d], scores [B, h, L, L]")
    if not all(layer.is_floating_point() for layer in layers):
        raise ConfigError(f"{side} layers hold {layers[0].dtype}; states must be floating point")
    return shape
