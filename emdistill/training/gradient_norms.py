"""How strongly each loss term pulls at the student: what to balance weights by."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emdistill.processes import mean_over_processes


def gradient_norms(terms: Mapping[str, Tensor], student: nn.Module) -> dict[str, float]:
    """‖∂(weight · term)/∂θ‖₂ over the student's weights, one per term; of the mean over the processes."""
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    norms = {}
    for name, term in terms.items():
        if not term.requires_grad:
            norms[name] = 0.0
            continue
        gradients = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
        reached = [mean_over_processes(gradient.float()) for gradient in gradients if gradient is not None]
        norms[name] = torch.stack([gradient.norm() for gradient in reached]).norm().item()
    return norms
