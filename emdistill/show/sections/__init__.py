"""The sections of a run's page, in their order: a file here, and a line in SECTIONS."""

from collections.abc import Callable

from emdistill.runs.distillation import Distillation
from emdistill.show.page import Section
from emdistill.show.sections.answers import answers
from emdistill.show.sections.baselines import baselines
from emdistill.show.sections.configuration import configuration
from emdistill.show.sections.disagreement import disagreement
from emdistill.show.sections.flow import flow
from emdistill.show.sections.glance import glance
from emdistill.show.sections.latency import latency
from emdistill.show.sections.loss import loss
from emdistill.show.sections.weights import weights

SECTIONS: dict[str, Callable[[Distillation], Section | None]] = {
    "glance": glance,
    "baselines": baselines,
    "latency": latency,
    "loss": loss,
    "flow": flow,
    "weights": weights,
    "answers": answers,
    "disagreement": disagreement,
    "configuration": configuration,
}
"""What each makes of a run folder; None where the run has recorded nothing for it."""

OF_TASKS = frozenset(["baselines", "answers", "disagreement"])
"""Those that are made of each task by itself, where a student has learned several."""
