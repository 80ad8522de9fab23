"""layer_costs, values and gradients, against a plain float64 recomputation that slices padding away."""

import itertools

import pytest
import torch
from encoder_states import random_layers as layers
from messages import names
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from emdistill.errors import ConfigError, TransportError
from emdistill.mapping import costs as costs_module
from emdistill.mapping import kernels, layer_costs
from emdistill.mapping.costs import VARIANCE_FLOOR


def random_mask(batch: int, length: int, seed: int) -> Tensor:
    """Tokens anywhere, not only in front; the first example whole, so that no mask is empty."""
    mask = (torch.rand(batch, length, generator=torch.Generator().manual_seed(seed)) < 0.6).long()
    mask[0] = 1
    return mask


def valid_entries(layer: Tensor, mask: Tensor) -> Tensor:
    """All entries that count, one example after the other, in float64."""
    kept = []
    for states, tokens in zip(layer.double(), mask.bool(), strict=True):
        kept.append(states[tokens] if layer.ndim == 3 else states[:, tokens][:, :, tokens])
    return torch.cat([states.flatten() for states in kept])


def reference(student: list[Tensor], teacher: list[Tensor], mask: Tensor) -> Tensor:
    rows = []
    for s in student:
        rows.append(torch.stack([(valid_entries(s, mask) - valid_entries(t, mask)).square().mean() for t in teacher]))
    return torch.stack(rows)


SHAPES = [(3, 7, 5), (3, 4, 7, 7), (1, 1, 1), (2, 1, 6, 6)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("entries", "seed"), [(1, 0), (30, 1), (2**17, 2), (2**17, 3)])
def test_values_and_gradients(shape: tuple[int, ...], seed: int, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "ENTRIES_ON_CPU", entries)  # from a row at a time to all at once
    mask = random_mask(shape[0], shape[-2], seed)
    student, teacher = layers(3, shape, seed), layers(4, shape, seed + 100)
    for layer in student + teacher:
        layer.requires_grad_()
    weights = torch.rand(3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = reference(student, teacher, mask)
    expected_grads = torch.autograd.grad((weights * expected).sum(), student + teacher)
    costs = layer_costs(student, teacher, mask)
    grads = torch.autograd.grad((weights * costs).sum(), student + teacher)
    torch.testing.assert_close(costs, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(grads, expected_grads, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("heads", ["equal", "mean", "match"])
@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 3, 4, 4)])
def test_gradcheck(shape: tuple[int, ...], heads: costs_module.Heads) -> None:
    mask = random_mask(shape[0], shape[-2], 1)
    student, teacher = layers(2, shape, 1), layers(3, shape, 2)
    for layer in student + teacher:
        layer.requires_grad_()

    def costs(*both: Tensor) -> Tensor:
        return layer_costs(both[:2], both[2:], mask, heads=heads)

    assert torch.autograd.gradcheck(costs, (*student, *teacher))


@pytest.mark.parametrize("shape", [(3, 7, 5), (3, 4, 7, 7)])
@pytest.mark.parametrize("heads", ["equal", "mean", "match"])
@pytest.mark.parametrize("rubbish", [1e30, float("nan"), float("inf"), float("-inf")])
def test_padded_positions_change_nothing(shape: tuple[int, ...], heads: costs_module.Heads, rubbish: float) -> None:
    mask = random_mask(shape[0], shape[-2], 5)
    student, teacher = layers(2, shape, 1, torch.float32), layers(3, shape, 2, torch.float32)
    tokens = mask.bool()
    valid = tokens[..., None] if len(shape) == 3 else (tokens[:, None, :, None] & tokens[:, None, None, :])

    def costs_and_grads(fill: float | None) -> tuple[Tensor, ...]:
        filled = [x.clone() if fill is None else torch.where(valid, x, fill) for x in student + teacher]
        leaves = [x.requires_grad_() for x in filled]
        costs = layer_costs(leaves[:2], leaves[2:], mask, heads=heads)
        return costs, *torch.autograd.grad(costs.square().sum(), leaves)

    clean, dirty = costs_and_grads(None), costs_and_grads(rubbish)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))
    for grad in dirty[1:]:
        assert torch.equal(torch.where(valid, 0.0, grad), torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 32, 64), (2, 4, 24, 24)])
def test_half_precision_states_are_summed_in_float32(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    mask = random_mask(shape[0], shape[-2], 0)
    student = [layer.requires_grad_() for layer in layers(2, shape, 1, dtype)]
    teacher = layers(3, shape, 2, dtype)
    costs = layer_costs(student, teacher, mask)
    assert costs.dtype == torch.float32
    torch.testing.assert_close(costs.double(), reference(student, teacher, mask), rtol=1e-6, atol=0)
    grads = torch.autograd.grad(costs.sum(), student)
    leaves = [layer.detach().double().requires_grad_() for layer in student]
    expected = torch.autograd.grad(reference(leaves, teacher, mask).sum(), leaves)
    smallest = torch.finfo(dtype).smallest_normal
    for grad, exact in zip(grads, expected, strict=True):
        assert grad.dtype == dtype
        torch.testing.assert_close(grad.double(), exact, rtol=torch.finfo(dtype).eps, atol=max(smallest, 1e-9))


@pytest.mark.parametrize("noise", [1.0, 0.1, 0.01])
def test_precision_with_outlier_dimensions(noise: float) -> None:
    """Late in training the costs are small beside the states; a Gram expansion would cancel here."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.ones(256)
    scale[[3, 200]] = 50.0
    student = [torch.randn(4, 32, 256, generator=generator) * scale for _ in range(2)]
    teacher = [s + noise * torch.randn(s.shape, generator=generator) for s in student]
    mask = torch.ones(4, 32)
    torch.testing.assert_close(
        layer_costs(student, teacher, mask).double(), reference(student, teacher, mask), rtol=1e-6, atol=0
    )


def test_autocast_changes_nothing() -> None:
    student, teacher = layers(2, (2, 8, 16), 1, torch.float32), layers(3, (2, 8, 16), 2, torch.float32)
    mask = torch.ones(2, 8)
    results = []
    for enabled in (False, True):
        leaves = [s.clone().requires_grad_() for s in student]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            costs = layer_costs(leaves, teacher, mask)
            results.append((costs, *torch.autograd.grad(costs.sum(), leaves)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_only_what_needs_a_gradient_gets_one() -> None:
    student, teacher = layers(2, (2, 4, 3), 1), layers(2, (2, 4, 3), 2)
    student[1].requires_grad_()
    layer_costs(student, teacher, torch.ones(2, 4)).sum().backward()
    assert student[1].grad is not None
    assert all(layer.grad is None for layer in (student[0], *teacher))
    assert not layer_costs(student[:1], teacher, torch.ones(2, 4)).requires_grad


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_any_mask_type_and_strided_layers(dtype: torch.dtype) -> None:
    mask = random_mask(3, 6, 0)
    student = [x.transpose(0, 1).requires_grad_() for x in layers(2, (6, 3, 5), 1)]
    teacher = layers(3, (3, 6, 5), 2)
    costs = layer_costs(student, teacher, mask.to(dtype))
    torch.testing.assert_close(costs, reference(student, teacher, mask))
    grads = torch.autograd.grad(costs.sum(), student)
    torch.testing.assert_close(grads, torch.autograd.grad(reference(student, teacher, mask).sum(), student))


def test_mean_heads() -> None:
    mask = random_mask(2, 5, 0)
    student, teacher = layers(2, (2, 3, 5, 5), 1), layers(3, (2, 4, 5, 5), 2)
    expected = reference([s.mean(1, keepdim=True) for s in student], [t.mean(1, keepdim=True) for t in teacher], mask)
    torch.testing.assert_close(layer_costs(student, teacher, mask, heads="mean"), expected)


@pytest.mark.parametrize("heads", [(2, 4), (3, 3), (4, 2), (1, 3)])
def test_matched_heads_against_assignments(heads: tuple[int, int]) -> None:
    """Where one count divides the other, the cheapest flow gives each head of the larger side whole to one head."""
    mask = random_mask(2, 5, 0)
    student, teacher = layers(2, (2, heads[0], 5, 5), 1), layers(3, (2, heads[1], 5, 5), 2)
    costs = layer_costs(student, teacher, mask, heads="match")
    for (i, s), (j, t) in itertools.product(enumerate(student), enumerate(teacher)):
        pairs = reference(list(s.split(1, dim=1)), list(t.split(1, dim=1)), mask)
        most = max(heads)
        copies = pairs.repeat_interleave(most // heads[0], 0).repeat_interleave(most // heads[1], 1).numpy()
        expected = copies[linear_sum_assignment(copies)].mean()
        assert costs[i, j].item() == pytest.approx(expected, rel=1e-12)


def test_matching_finds_permuted_heads() -> None:
    mask = random_mask(2, 5, 0)
    student = [layer.requires_grad_() for layer in layers(2, (2, 4, 5, 5), 1)]
    teacher = [layer.detach()[:, [2, 0, 3, 1]] for layer in student]
    matched = layer_costs(student, teacher, mask, heads="match")
    assert matched.diagonal().tolist() == [0.0, 0.0]
    assert (layer_costs(student, teacher, mask).diagonal() > 0.5).all()
    assert (matched <= layer_costs(student, teacher, mask) * (1 + 1e-12)).all()


def unexplained(student: list[Tensor], teacher: list[Tensor], mask: Tensor) -> Tensor:
    """Σ (s − t)² / Σ (t − mean)² over valid entries, the mean of each feature, or head."""
    shares = []
    for t in teacher:
        features = t.unbind(-1 if t.ndim == 3 else 1)
        spread = torch.zeros((), dtype=torch.float64)
        for part in features:
            entries = valid_entries(part[..., None] if t.ndim == 3 else part[:, None], mask)
            spread += (entries - entries.mean()).square().sum()
        shares.append(spread / valid_entries(t, mask).numel())
    return reference(student, teacher, mask) / torch.stack(shares).detach()


@pytest.mark.parametrize("shape", [(3, 7, 5), (3, 4, 7, 7)])
def test_relative_costs_are_the_share_of_variance_that_is_left(shape: tuple[int, ...]) -> None:
    mask = random_mask(shape[0], shape[-2], 0)
    student, teacher = layers(2, shape, 1), layers(3, shape, 2)
    teacher = [10.0**number * (layer + 3) for number, layer in enumerate(teacher)]
    for layer in student + teacher:
        layer.requires_grad_()
    expected = unexplained(student, teacher, mask)
    costs = layer_costs(student, teacher, mask, scale="relative")
    torch.testing.assert_close(costs, expected, rtol=1e-10, atol=0)
    grads, wanted = (torch.autograd.grad(total.sum(), student + teacher) for total in (costs, expected))
    torch.testing.assert_close(grads, wanted, rtol=1e-10, atol=1e-14)
    some = layer_costs(student, [teacher[0], None, teacher[2]], mask, scale="relative", pairs=[(1, 2), (0, 0)])
    torch.testing.assert_close(some, expected * torch.tensor([[1, 0, 0], [0, 0, 1]]))
    fit = layer_costs([t.mean((0, 1), keepdim=True).expand(shape) if t.ndim == 3 else t for t in teacher],
                      teacher, torch.ones_like(mask), scale="relative").diagonal()  # fmt: skip
    torch.testing.assert_close(fit, torch.full_like(fit, float(len(shape) == 3)))  # the mean alone: 1; all: 0


@pytest.mark.parametrize("heads", ["mean", "match"])
def test_relative_costs_of_unlike_head_counts(heads: costs_module.Heads) -> None:
    mask = random_mask(2, 5, 0)
    student, teacher = layers(2, (2, 3, 5, 5), 1), layers(3, (2, 4, 5, 5), 2)
    like = [t.mean(1, keepdim=True) for t in teacher] if heads == "mean" else teacher
    variances = reference(like, like, mask).diagonal() + unexplained(like, like, mask).diagonal()
    assert not variances.any()
    zeros = [torch.zeros_like(t) for t in like]
    spreads = (reference(zeros, like, mask) / unexplained(zeros, like, mask))[0]
    costs = layer_costs(student, teacher, mask, heads=heads, scale="relative")
    torch.testing.assert_close(costs, layer_costs(student, teacher, mask, heads=heads) / spreads)


@pytest.mark.parametrize("shape", [(3, 7, 5), (3, 4, 7, 7)])
@pytest.mark.parametrize("rubbish", [1e6, float("nan")])
def test_relative_costs_do_not_see_padding(shape: tuple[int, ...], rubbish: float) -> None:
    mask = random_mask(shape[0], shape[-2], 0)
    valid = mask.bool()[..., None] if len(shape) == 3 else (mask[:, None, :, None] & mask[:, None, None]).bool()
    student, teacher = layers(1, shape, 1, torch.float32), layers(2, shape, 2, torch.float32)
    spoiled = [torch.where(valid, layer, rubbish) for layer in teacher]
    expected = layer_costs(student, teacher, mask, scale="relative")
    assert torch.equal(layer_costs(student, spoiled, mask, scale="relative"), expected)


def test_teacher_layers_that_do_not_vary_leave_relative_costs_finite() -> None:
    mask = torch.ones(2, 3)
    student = layers(1, (2, 3, 4), 1)
    flat, nothing = torch.full((2, 3, 4), 5.0, dtype=torch.float64), torch.zeros(2, 3, 4, dtype=torch.float64)
    costs = layer_costs(student, [flat, nothing], mask, scale="relative")
    squared = layer_costs(student, [flat, nothing], mask)
    torch.testing.assert_close(costs, squared / torch.tensor([[25 * VARIANCE_FLOOR, 1]]))


def test_nan_at_a_token_is_seen() -> None:
    student, teacher = layers(2, (2, 2, 3, 3), 1), layers(2, (2, 2, 3, 3), 2)
    student[1][0, 0, 0, 0] = float("nan")
    costs = layer_costs(student, teacher, torch.ones(2, 3))
    assert costs.isnan().tolist() == [[False, False], [True, True]]
    with names(TransportError, "nan"):
        layer_costs(student, teacher, torch.ones(2, 3), heads="match")


HIDDEN, SCORES = (2, 4, 6), (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("student", "teacher", "mask", "heads", "named"),
    [
        ([], [HIDDEN], (2, 4), "equal", ["student"]),
        ([HIDDEN], [], (2, 4), "equal", ["teacher"]),
        ([HIDDEN], [(2, 4, 8)], (2, 4), "equal", ["width 8"]),
        ([HIDDEN, (2, 4, 8)], [HIDDEN], (2, 4), "equal", ["student"]),
        ([HIDDEN], [HIDDEN, SCORES], (2, 4), "equal", ["teacher"]),
        ([HIDDEN], [SCORES], (2, 4), "equal", ["hidden states"]),
        ([HIDDEN], [(2, 5, 6)], (2, 4), "equal", ["batch"]),
        ([SCORES], [(3, 3, 4, 4)], (2, 4), "equal", ["batch"]),
        ([(2, 3, 4, 5)], [(2, 3, 4, 5)], (2, 4), "equal", ["[B, h, L, L]"]),
        ([(4, 6)], [(4, 6)], (4, 6), "equal", ["[B, L, d]"]),
        ([SCORES], [(2, 12, 4, 4)], (2, 4), "equal", [3, 12, "'mean'", "'match'"]),
        ([HIDDEN], [HIDDEN], (4, 2), "equal", ["mask", "(4, 2)", "(2, 4)"]),
        ([SCORES], [SCORES], (2, 3), "match", ["mask", "(2, 3)", "(2, 4)"]),
        ([HIDDEN], [HIDDEN], (2, 4), "average", ["'average'", "equal, mean, match"]),
    ],
)
def test_what_does_not_fit_is_refused(
    student: list[tuple[int, ...]],
    teacher: list[tuple[int, ...]],
    mask: tuple[int, ...],
    heads: costs_module.Heads,
    named: list[object],
) -> None:
    with names(ConfigError, *named):
        layer_costs([torch.rand(s) for s in student], [torch.rand(t) for t in teacher], torch.ones(mask), heads=heads)


@pytest.mark.parametrize("shape", [HIDDEN, SCORES])
def test_a_mask_without_tokens_is_refused(shape: tuple[int, ...]) -> None:
    with names(ConfigError, "mask"):
        layer_costs([torch.rand(shape)], [torch.rand(shape)], torch.zeros(2, 4))


def test_integer_states_are_refused() -> None:
    with names(ConfigError, "torch.int64"):
        layer_costs([torch.ones(HIDDEN, dtype=torch.long)], [torch.ones(HIDDEN)], torch.ones(2, 4))
