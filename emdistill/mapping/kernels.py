"""Sums of squared differences between layers, and their gradient, without storing a difference.

Two ways to the same numbers. Plain PyTorch takes a part of the entries at a time, so that what it works on stays in
the cache. The compiled way (torch.compile) reads each layer once for a block of pairs and keeps the sums in registers.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor

Pair = tuple[int, int]
Kernel = Callable[..., Any]

# Entries of one layer that plain PyTorch works on at once: near the cache on a CPU, few launches on an accelerator.
ENTRIES_ON_CPU = 2**17
ENTRIES_ON_ACCELERATOR = 2**25
# Pairs of one compiled kernel: as many sums as stay in registers.
STUDENTS_PER_BLOCK = 4
TEACHERS_PER_BLOCK = 6
# Sizes to compile for: large enough for threads, and all distinct, so that none is taken to equal another.
BATCH, HEADS, LENGTH, WIDTH = 29, 11, 61, 640


def squared_differences(
    students: Sequence[Tensor], teachers: Sequence[Tensor], pairs: Sequence[Pair], valid: Tensor, *, compiled: bool
) -> Tensor:
    """Σ_valid (s_i − t_j)² of every pair (i, j), [pairs] in float64.

    Layers [B, L, d] or [B, h, L, L]; valid, bool, broadcasts over a layer. Differences and partial sums are float32,
    float64 where a layer is. What is not valid may hold anything, NaN included.
    """
    if compiled and (sums := _compiled_sums(students, teachers, pairs, valid)) is not None:
        return sums
    partial = []
    for part in _parts(students[0]):
        own, other = _flat(students, valid, part), _flat(teachers, valid, part)
        partial.append(torch.stack([(own[i] - other[j]).square_().sum() for i, j in pairs]))
    return torch.stack(partial).double().sum(dim=0)


def pulls(
    own: Sequence[Tensor],
    other: Sequence[Tensor],
    pairs: Sequence[Pair],
    weights: Tensor,
    valid: Tensor,
    *,
    compiled: bool,
) -> list[Tensor]:
    """Σ_j w_p (own_i − other_j) over the pairs p = (i, j) of each own layer, in its type; 0 where not valid.

    weights [pairs], in the type that differences are taken in.
    """
    if compiled and (pulled := _compiled_pulls(own, other, pairs, weights, valid)) is not None:
        return pulled
    pulled = [torch.zeros_like(layer, memory_format=torch.contiguous_format) for layer in own]
    if weights.device.type == "cpu":  # a flow moves most pairs nothing; an accelerator would have to be waited for
        moved = weights.nonzero().flatten().tolist()
        pairs, weights = [pairs[place] for place in moved], weights[moved]
    for part in _parts(own[0]):
        mine, others = _flat(own, valid, part), _flat(other, valid, part)
        sums = [torch.zeros_like(layer) for layer in mine]
        for (i, j), weight in zip(pairs, weights, strict=True):
            sums[i].addcmul_(mine[i] - others[j], weight)
        for layer, values in zip(pulled, sums, strict=True):
            layer[part] = values.view(layer[part].shape).to(layer.dtype)
    return pulled


def _parts(layer: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of the first two dimensions that together cover a layer, each of a bounded number of entries."""
    limit = ENTRIES_ON_CPU if layer.device.type == "cpu" else ENTRIES_ON_ACCELERATOR
    entries = layer[0, 0].numel()
    examples = max(1, limit // (entries * layer.shape[1]))
    inner = max(1, limit // entries)
    for first in range(0, layer.shape[0], examples):
        for second in range(0, layer.shape[1], inner):
            yield slice(first, first + examples), slice(second, second + inner)


def _flat(layers: Sequence[Tensor], valid: Tensor, part: tuple[slice, slice]) -> list[Tensor]:
    """That part of every layer, in one type, zero where it is not valid."""
    dtype = accumulation_dtype(layers)
    valid = valid[part] if valid.shape[1] > 1 else valid[part[0]]
    return [torch.where(valid, layer[part], 0).to(dtype).flatten() for layer in layers]


def accumulation_dtype(layers: Sequence[Tensor]) -> torch.dtype:
    """The type that differences of these layers are taken in."""
    return torch.float64 if any(layer.dtype == torch.float64 for layer in layers) else torch.float32


# The compiled way.


def _compiled_sums(
    students: Sequence[Tensor], teachers: Sequence[Tensor], pairs: Sequence[Pair], valid: Tensor
) -> Tensor | None:
    sums: dict[Pair, Tensor] = {}
    for rows, columns in _grids(pairs, STUDENTS_PER_BLOCK, TEACHERS_PER_BLOCK):
        own, other = _contiguous(students, rows), _contiguous(teachers, columns)
        kernel = _kernel_for(_grid_sums, own, other)
        if kernel is None:
            return None
        sums |= zip(((i, j) for i in rows for j in columns), kernel(own, other, None, valid).unbind(), strict=True)
    return torch.stack([sums[pair] for pair in pairs])


def _compiled_pulls(
    own: Sequence[Tensor], other: Sequence[Tensor], pairs: Sequence[Pair], weights: Tensor, valid: Tensor
) -> list[Tensor] | None:
    place = {pair: number for number, pair in enumerate(pairs)}
    pulled: dict[int, Tensor] = {}
    for rows, columns in _grids(pairs, STUDENTS_PER_BLOCK, len(other)):
        mine, others = _contiguous(own, rows), _contiguous(other, columns)
        kernel = _kernel_for(_grid_pulls, mine, others)
        if kernel is None:
            return None
        chosen = torch.stack([weights[place[i, j]] for i in rows for j in columns]).view(len(rows), len(columns))
        pulled |= zip(rows, kernel(mine, others, chosen, valid), strict=True)
    return [pulled[i] if i in pulled else torch.zeros_like(layer) for i, layer in enumerate(own)]


def _contiguous(layers: Sequence[Tensor], chosen: Sequence[int]) -> list[Tensor]:
    return [layers[number].detach().contiguous() for number in chosen]


def _grid_sums(students: list[Tensor], teachers: list[Tensor], weights: None, valid: Tensor) -> Tensor:
    """Unrolled over the pairs: the compiler fuses it into one pass over all layers."""
    dtype = accumulation_dtype([*students, *teachers])
    sums = []
    for student in students:
        for teacher in teachers:
            difference = torch.where(valid, student.to(dtype) - teacher.to(dtype), 0)
            sums.append((difference * difference).sum(dim=-1))
    return torch.stack(sums).double().flatten(1).sum(dim=1)


def _grid_pulls(own: list[Tensor], other: list[Tensor], weights: Tensor, valid: Tensor) -> list[Tensor]:
    pulled = []
    for i, mine in enumerate(own):
        total = torch.zeros_like(mine, dtype=weights.dtype)
        for j, others in enumerate(other):
            total = total + weights[i, j] * (mine.to(weights.dtype) - others.to(weights.dtype))
        pulled.append(torch.where(valid, total, 0).to(mine.dtype))
    return pulled


def _grids(pairs: Sequence[Pair], rows: int, columns: int) -> Iterator[tuple[list[int], list[int]]]:
    """Rows × columns that together are the pairs, each at most so large, in parts of like size."""
    columns_of: dict[int, list[int]] = {}
    for i, j in pairs:
        columns_of.setdefault(i, []).append(j)
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for i, some in columns_of.items():
        rows_of.setdefault(tuple(some), []).append(i)
    for shared, alike in rows_of.items():
        for part in _even_parts(alike, rows):
            for block in _even_parts(shared, columns):
                yield part, block


def _even_parts(numbers: Sequence[int], most: int) -> list[list[int]]:
    count = -(-len(numbers) // most)
    bounds = [len(numbers) * part // count for part in range(count + 1)]
    return [list(numbers[start:stop]) for start, stop in pairwise(bounds)]


def _kernel_for(function: Kernel, own: Sequence[Tensor], other: Sequence[Tensor]) -> Kernel | None:
    """`function` compiled for so many layers of these types; None where there is no compiler.

    Nor where some size is 1, for which it would be compiled anew.
    """
    layer = own[0]
    if min(layer.shape) == 1:
        return None
    return _compile(function, len(own), len(other), layer.ndim, layer.dtype, other[0].dtype, layer.device)


@cache
def _compile(
    function: Kernel,
    own: int,
    other: int,
    dimensions: int,
    own_type: torch.dtype,
    other_type: torch.dtype,
    device: torch.device,
) -> Kernel | None:
    """Compiled at sizes that stay unknown to the compiler, so that no later batch makes it compile anew."""
    shape = (BATCH, LENGTH, WIDTH) if dimensions == 3 else (BATCH, HEADS, LENGTH, LENGTH)
    layers = [torch.zeros(shape, dtype=own_type, device=device) for _ in range(own)]
    others = [torch.zeros(shape, dtype=other_type, device=device) for _ in range(other)]
    weights = torch.zeros(own, other, dtype=accumulation_dtype([*layers, *others]), device=device)
    valid = torch.ones(BATCH, *([1] * (dimensions - 3)), LENGTH, shape[-1] if dimensions == 4 else 1, device=device)
    # Code of its own: torch.compile keeps a handful of variants of one code object and then gives up.
    code = cast(FunctionType, function).__code__.replace(co_name=f"costs_{own}x{other}")
    kernel: Kernel = torch.compile(FunctionType(code, globals()), dynamic=True, fullgraph=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own notes
            kernel(layers, others, None if function is _grid_sums else weights, valid.bool())
    except Exception as error:  # what a missing compiler raises differs from platform to platform
        warnings.warn(f"layer costs run uncompiled, several times slower: {error}", stacklevel=2)
        return None
    return kernel
