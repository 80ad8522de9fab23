"""float32 stays float32, whichever library multiplies; what a processor has instructions for."""

from collections.abc import Iterator

import pytest
import torch

from emdistill.models import arithmetic
from emdistill.models.arithmetic import fast_float32, has_bfloat16, int8_overflows, onednn_keeps_float32

PRODUCTS = torch.backends.mkldnn.matmul


@pytest.fixture(autouse=True)
def _probe_anew() -> Iterator[None]:
    onednn_keeps_float32.cache_clear()
    yield
    onednn_keeps_float32.cache_clear()
    assert PRODUCTS.fp32_precision == "none"


def test_products_inside_have_float32_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(300, 500, generator=generator), torch.randn(500, 400, generator=generator)
    exact = left.double() @ right.double()
    with fast_float32():
        product = left @ right
    assert (product - exact).norm() <= 2e-6 * exact.norm()


@pytest.mark.parametrize(("exact", "inside"), [(True, "bf16"), (False, "none")])
def test_onednn_is_asked_only_where_it_keeps_float32(exact: bool, inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "onednn_keeps_float32", lambda: exact)
    with fast_float32():
        assert PRODUCTS.fp32_precision == inside
        with fast_float32():
            assert PRODUCTS.fp32_precision == inside
        assert PRODUCTS.fp32_precision == inside
    with pytest.raises(KeyboardInterrupt), fast_float32():
        raise KeyboardInterrupt


def test_a_product_that_is_not_float32_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "FLOAT32_ERROR", 1e-9)  # stricter than float32 is
    assert not onednn_keeps_float32()


def test_what_the_user_has_set_is_left_alone() -> None:
    PRODUCTS.fp32_precision = "ieee"
    try:
        with fast_float32():
            assert PRODUCTS.fp32_precision == "ieee"
        assert PRODUCTS.fp32_precision == "ieee"
    finally:
        PRODUCTS.fp32_precision = "none"


@pytest.mark.parametrize(
    ("capabilities", "has"), [({"avx512_bf16": True}, True), ({"avx512_bf16": False, "avx2": True}, False), ({}, False)]
)
def test_bfloat16_of_a_processor(capabilities: dict[str, bool], has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_bfloat16(torch.device("cpu")) is has
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert has_bfloat16(torch.device("cpu")) is False


@pytest.mark.parametrize(
    ("capabilities", "overflows"),
    [
        ({"avx2": True, "avx512_vnni": False, "avx_vnni": False}, True),
        ({"avx2": True, "avx512_4vnniw": True}, True),  # of another instruction set
        ({"avx2": True, "avx512_vnni": True}, False),
        ({"avx2": True, "avx_vnni": True}, False),
        ({"neon": True}, False),
        ({}, False),
    ],
)
def test_int8_overflows_without_instructions_for_it(
    capabilities: dict[str, bool], overflows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert int8_overflows() is overflows
