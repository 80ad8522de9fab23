"""What the processor multiplies well: bfloat16, int8 in sums that hold, float32 by the better of two libraries."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch

PRODUCTS: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]

# Rounding leaves some 3e-7 of a product of 768 terms; bfloat16 leaves 3e-3.
FLOAT32_ERROR = 2e-6


def has_bfloat16(device: torch.device | None = None) -> bool:
    """Whether the processor has bfloat16 instructions; emulated, bfloat16 is many times slower than float32.

    device   the accelerator that is there if not given, else the CPU
    """
    device = device or torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # A torch that cannot say what its processor has gets float32.
    return device.type == "cpu" and any(has for name, has in _capabilities().items() if "bf16" in name)


def int8_overflows() -> bool:
    """Whether the processor adds two products of int8 in 16 bits, which 8-bit weights overflow: x86 without VNNI."""
    capabilities = _capabilities()
    vnni = any(has for name, has in capabilities.items() if name.endswith(("_vnni", "_vnni_int8")))
    return bool(capabilities.get("avx2")) and not vnni


def _capabilities() -> Mapping[str, Any]:
    found: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return found()


@contextmanager
def fast_float32() -> Iterator[None]:
    """While open, oneDNN computes float32 products on a CPU, where it does so in float32.

    PyTorch leaves them to MKL, which on AMD's processors is half as fast. PyTorch chooses oneDNN where it may use
    bfloat16; where it would (onednn_keeps_float32), or where the user has set the precision, nothing changes.
    """
    change = PRODUCTS.fp32_precision == "none" and onednn_keeps_float32()
    with _bfloat16_allowed() if change else nullcontext():
        yield


@contextmanager
def _bfloat16_allowed() -> Iterator[None]:
    before = PRODUCTS.fp32_precision
    PRODUCTS.fp32_precision = "bf16"
    try:
        yield
    finally:
        PRODUCTS.fp32_precision = before


@cache
def onednn_keeps_float32() -> bool:
    """Whether oneDNN, allowed bfloat16, still multiplies in float32 here; tried on a few products."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    with _bfloat16_allowed():
        for rows, inner, columns in ((512, 768, 768), (384, 312, 1200), (24, 768, 2)):
            left = torch.randn(rows, inner, generator=generator)
            right = torch.randn(inner, columns, generator=generator)
            exact = left.double() @ right.double()
            if not (left @ right - exact).norm() <= FLOAT32_ERROR * exact.norm():
                return False
    return True
