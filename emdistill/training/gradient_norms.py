"""How strongly each loss term pulls at the student: what to balance weights by."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def gradient_norms(terms: Mapping[str, Tensor], student: nn.Module) -> dict[str, float]:
    """‖∂(weight · term)/∂θ‖₂ over the student's weights, one per term."""
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    norms = {}
    for name, term in terms.items():
        if not term.requires_grad:
            norms[name] = 0.0
            continue
        gradients = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
        norms[name] = torch.stack([g.float().norm() for g in gradients if g is not None]).norm().item()
    return norms
