"""The papers: each method composes losses and stages, and holds no loop.

A method is a function of what the run gives, the student's and the teacher's shape (layers, width, heads) and what the
student predicts, and of its own settings; its Args are the options of --objective.
"""

from __future__ import annotations

from collections.abc import Callable

from emdistill.methods.bert_emd import bert_emd
from emdistill.methods.distilbert import distilbert
from emdistill.methods.hard_labels import hard_labels
from emdistill.methods.minilm import minilm
from emdistill.methods.patient_kd import patient_kd
from emdistill.methods.soft_targets import soft_targets
from emdistill.methods.tinybert import tinybert
from emdistill.training.stage import Stage

Method = Callable[..., list[Stage]]

METHODS: dict[str, Method] = {
    "bert-emd": bert_emd,
    "tinybert": tinybert,
    "patient-kd": patient_kd,
    "minilm": minilm,
    "distilbert": distilbert,
    "soft-targets": soft_targets,
    "hard-labels": hard_labels,
}

__all__ = ["METHODS", "Method"]
