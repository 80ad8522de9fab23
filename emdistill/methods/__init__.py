"""The papers: each method composes losses and stages, and holds no loop."""

from __future__ import annotations

from collections.abc import Callable

from emdistill.methods.bert_emd import bert_emd
from emdistill.methods.hard_labels import hard_labels
from emdistill.methods.soft_targets import soft_targets
from emdistill.training.stage import Stage

Method = Callable[..., list[Stage]]

METHODS: dict[str, Method] = {
    "bert-emd": bert_emd,
    "soft-targets": soft_targets,
    "hard-labels": hard_labels,
}

__all__ = ["METHODS", "Method"]
