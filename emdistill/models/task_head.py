"""The head of one of several tasks: what it reads beside the features that all tasks share, and how it answers.

    s = the features that all tasks share: what the last matrix of an ordinary head reads      [.., d]
    p = tanh(W_t s + b_t)                           the task's private features                [.., d]
    z = [s; p], or with a gate                      g ⊙ s + (1 − g) ⊙ p,  g = σ(G_t [s; p] + c_t)
    logits = U z + b, or by label embeddings        E V z + b,  E [C, d]

Without any part it is the ordinary head. Sources: shared and private features with adversarial and orthogonal terms:
Liu et al., ACL 2017 (arXiv 1704.05742); the gate between them: Liu et al., EMNLP 2016 (arXiv 1606.05101), here
element by element; label embeddings: Zhang et al., EMNLP 2018 (arXiv 1710.07210). Compared by Li et al., 2020 (arXiv
1908.07820).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

OPEN = 2.0  # the gate's bias at the start: σ(2) = 0.88 of the shared features pass


@dataclass(frozen=True)
class HeadParts:
    """What a head has beside its last matrix: private features, a gate between them and the shared ones, label
    embeddings."""

    private: bool = False
    gate: bool = False
    label_embedding: bool = False

    @property
    def any(self) -> bool:
        """Whether there is any such part."""
        return self.private or self.gate or self.label_embedding


class TaskHead(nn.Module):
    """Features [.., d] -> logits [.., C]; see the equations above. A gate implies private features.

    matrix  the ordinary head's last matrix: at the start private features count for nothing, or little by a gate
    """

    def __init__(self, matrix: nn.Linear, parts: HeadParts) -> None:
        super().__init__()
        self.width = width = matrix.in_features
        private = parts.private or parts.gate
        self.private = nn.Sequential(nn.Linear(width, width), nn.Tanh()) if private else None
        self.gate = nn.Linear(2 * width, width) if parts.gate else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.constant_(self.gate.bias, OPEN)
        both = private and not parts.gate
        self.output: nn.Module
        if parts.label_embedding:
            self.output = LabelEmbedding(width, 2 * width if both else width, matrix.out_features)
        else:
            self.output = nn.Linear(2 * width if both else width, matrix.out_features)
            self.begin_as(matrix)

    @torch.no_grad()
    def begin_as(self, matrix: nn.Linear) -> None:
        """Answer as this matrix would, as far as the private features allow; label embeddings have none."""
        if isinstance(self.output, nn.Linear):
            self.output.weight.zero_()
            self.output.weight[:, : matrix.in_features] = matrix.weight
            self.output.bias.copy_(matrix.bias)

    def share(self, other: "TaskHead") -> None:
        """Take the other task's space of label embeddings."""
        if isinstance(self.output, LabelEmbedding) and isinstance(other.output, LabelEmbedding):
            self.output.transform = other.output.transform

    def forward(self, shared: Tensor) -> Tensor:
        features = shared
        if self.private is not None:
            private = self.private(shared)
            both = torch.cat([shared, private], dim=-1)
            if self.gate is not None:
                gate = self.gate(both).sigmoid()
                features = gate * shared + (1 - gate) * private
            else:
                features = both
        logits: Tensor = self.output(features)
        return logits


class LabelEmbedding(nn.Module):
    """logits = E V z + b: how near the features are to each label's vector.

    embeddings  E [C, d], a vector per label; they begin as the encoder's word vectors of the label's name (`begin_as`)
    transform   V [d, features], one for all tasks, so that their labels lie in one space
    Source: Zhang et al., Multi-Task Label Embedding for Text Classification, EMNLP 2018.
    """

    def __init__(self, width: int, features: int, labels: int) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(torch.randn(labels, width) * width**-0.5)
        self.transform = nn.Linear(features, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(labels))

    @torch.no_grad()
    def begin_as(self, vectors: Tensor) -> None:
        """Begin with these directions [C, d], of unit length."""
        self.embeddings.copy_(nn.functional.normalize(vectors, dim=-1))

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.transform(features) @ self.embeddings.T + self.bias
        return logits
