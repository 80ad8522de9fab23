"""The compiled kernels against plain PyTorch, which tests/mapping/test_layer_costs.py holds to float64."""

from collections.abc import Iterator

import pytest
import torch
from encoder_states import random_layers
from messages import names
from torch import Tensor

from emdistill.errors import ConfigError
from emdistill.mapping import kernels, layer_costs

SHAPES = [(3, 7, 5), (3, 4, 7, 7)]


@pytest.fixture(autouse=True)
def _kernels_of_this_test() -> Iterator[None]:
    kernels._compile.cache_clear()
    yield
    kernels._compile.cache_clear()


def layers(count: int, shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return random_layers(count, shape, seed, dtype)


def costs_and_gradients(
    shape: tuple[int, ...], dtype: torch.dtype, compiled: bool, pairs: list[tuple[int, int]] | None = None
) -> list[Tensor]:
    """Of 2 student and 3 teacher layers, a padded batch, and NaN in what is padding."""
    mask = torch.ones(shape[0], shape[-2], dtype=torch.long)
    mask[1, 4:] = 0
    student, teacher = layers(2, shape, 1), layers(3, shape, 2, dtype)
    for layer in student + teacher:
        layer[1, ..., 4:, :] = float("nan")
    for layer in student:
        layer.requires_grad_()
    costs = layer_costs(student, teacher, mask, pairs=pairs, compiled=compiled)
    weights = torch.rand(costs.shape, generator=torch.Generator().manual_seed(3))
    return [costs, *torch.autograd.grad((weights * costs).sum(), student)]


def test_same_numbers_one_compilation_for_all_shapes() -> None:
    """Scores of several sizes, and hidden states of a half-precision teacher."""
    kinds = [(SHAPES[0], torch.float16), (SHAPES[1], torch.float32)]
    for few, dtype in kinds:
        for number, shape in enumerate([few, (2, *few[1:]), (5, *few[1:-2], 9, 9 if len(few) == 4 else 6)]):
            # The first of a kind compiles; from then on a compilation is an error.
            with torch.compiler.set_stance("default" if number == 0 else "fail_on_recompile"):
                found = costs_and_gradients(shape, dtype, compiled=True)
            expected = costs_and_gradients(shape, dtype, compiled=False)
            for ours, plain in zip(found, expected, strict=True):
                assert ours.dtype == plain.dtype
                torch.testing.assert_close(ours, plain, rtol=2e-6, atol=1e-7)
    assert kernels._compile.cache_info().currsize == 2 * len(kinds)


def test_gradients_of_a_compiled_cost_in_float64() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    student, teacher = layers(2, (2, 3, 4), 1, torch.float64), layers(2, (2, 3, 4), 2, torch.float64)
    for layer in student + teacher:
        layer.requires_grad_()

    def costs(*both: Tensor) -> Tensor:
        return layer_costs(both[:2], both[2:], mask, compiled=True)

    assert torch.autograd.gradcheck(costs, (*student, *teacher))


@pytest.mark.parametrize("shape", [(1, 4, 6), (2, 1, 3, 3)])
def test_sizes_of_one_are_left_to_plain_pytorch(shape: tuple[int, ...]) -> None:
    student, teacher, mask = layers(1, shape, 1), layers(1, shape, 2), torch.ones(shape[0], shape[-2])
    with torch.compiler.set_stance("fail_on_recompile"):
        found = layer_costs(student, teacher, mask, compiled=True)
    assert torch.equal(found, layer_costs(student, teacher, mask))
    assert kernels._compile.cache_info().currsize == 0


def test_without_a_compiler_the_numbers_are_the_same_and_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object, **__: object) -> object:
        def refuse(*_: object) -> None:
            raise RuntimeError("no working C++ compiler")

        return refuse

    monkeypatch.setattr(torch, "compile", no_compiler)
    with names(UserWarning, "no working C++ compiler"):
        first = costs_and_gradients(SHAPES[0], torch.float32, compiled=True)
    second = costs_and_gradients(SHAPES[0], torch.float32, compiled=True)
    for found in (first, second):
        for ours, plain in zip(found, costs_and_gradients(SHAPES[0], torch.float32, compiled=False), strict=True):
            assert torch.equal(ours, plain)


@pytest.mark.parametrize("pairs", [[(1, 1), (1, 0), (0, 1), (0, 0)], [(0, 0), (0, 0), (1, 1), (1, 1)]])
def test_pairs_may_stand_in_any_order_and_twice(pairs: list[tuple[int, int]]) -> None:
    student, teacher, mask = layers(2, (3, 7, 5), 1), layers(2, (3, 7, 5), 2), torch.ones(3, 7)
    every, found = layer_costs(student, teacher, mask), layer_costs(student, teacher, mask, pairs=pairs)
    for pair in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert found[pair] == (every[pair] if pair in pairs else 0)


@pytest.mark.parametrize("compiled", [False, True])
def test_only_the_pairs_asked_for(compiled: bool) -> None:
    """The others stay 0 and send no gradient; layers in no pair may be absent."""
    mask, pairs = torch.ones(3, 7), [(0, 1), (2, 3), (2, 1)]
    student, teacher = layers(3, (3, 7, 5), 1), layers(5, (3, 7, 5), 2)
    for layer in student:
        layer.requires_grad_()
    every = layer_costs(student, teacher, mask)
    few = layer_costs([student[0], None, student[2]], [None, teacher[1], None, teacher[3], None], mask,
                      pairs=pairs, compiled=compiled)  # fmt: skip
    expected = torch.zeros(3, 5)
    for pair in pairs:
        expected[pair] = every[pair].detach()
    torch.testing.assert_close(few.detach(), expected)
    chosen = torch.stack([every[pair] for pair in pairs]).sum()
    wanted = torch.autograd.grad(chosen, [student[0], student[2]])
    torch.testing.assert_close(torch.autograd.grad(few.sum(), [student[0], student[2]]), wanted)


@pytest.mark.parametrize(
    ("layers_given", "pairs", "named"),
    [
        ([True, True], [(0, 5)], ["teacher", 5, "0..2"]),
        ([True, False], [(1, 0)], ["student layer 1"]),
    ],
)
def test_pairs_that_cannot_be_computed_are_refused(
    layers_given: list[bool], pairs: list[tuple[int, int]], named: list[object]
) -> None:
    student = [layer if given else None for layer, given in zip(layers(2, (2, 3, 4), 1), layers_given, strict=True)]
    with names(ConfigError, *named):
        layer_costs(student, layers(3, (2, 3, 4), 2), torch.ones(2, 3), pairs=pairs)
