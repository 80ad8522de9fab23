"""The papers: each method composes losses and stages, and holds no loop.

A method is a function of what the run gives, the student's and the teacher's shape (layers, width, heads) and what the
student predicts, and of its own settings; its Args are the options of --objective.
"""

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from emdistill.config import RunConfig, SharedSettings
from emdistill.errors import ConfigError, nearest, shown
from emdistill.methods._shared import with_shared_settings
from emdistill.methods.balanced import balanced
from emdistill.methods.bert_emd import bert_emd
from emdistill.methods.cross_view import cross_view
from emdistill.methods.distilbert import distilbert
from emdistill.methods.hard_labels import hard_labels
from emdistill.methods.matched_layers import matched_layers
from emdistill.methods.minilm import minilm
from emdistill.methods.minilm_v1 import minilm_v1
from emdistill.methods.mobilebert import mobilebert
from emdistill.methods.patient_kd import patient_kd
from emdistill.methods.sentence_vectors import sentence_vectors
from emdistill.methods.soft_targets import soft_targets
from emdistill.methods.tinybert import tinybert
from emdistill.states import EncoderShape, Predictions
from emdistill.training.stage import Stage

Method = Callable[..., list[Stage]]
GIVEN_BY_THE_RUN = {"student", "teacher", "predictions"}  # parameters of a method that are no settings

METHODS: dict[str, Method] = {
    "balanced": balanced,
    "bert-emd": bert_emd,
    "tinybert": tinybert,
    "patient-kd": patient_kd,
    "minilm": minilm,
    "minilm-v1": minilm_v1,
    "mobilebert": mobilebert,
    "distilbert": distilbert,
    "matched-layers": matched_layers,
    "soft-targets": soft_targets,
    "sentence-vectors": sentence_vectors,
    "cross-view": cross_view,
    "hard-labels": hard_labels,
}


def load_method(name: str) -> Method:
    """The method of that name, or `path.py:function`; raises ConfigError for what is neither."""
    if name in METHODS:
        return METHODS[name]
    path, _, function = name.rpartition(":")
    if not path.endswith(".py"):
        own = f" Of a file name the function too: {name}:FUNCTION" if name.endswith(".py") else nearest(name, METHODS)
        raise ConfigError(f"there is no method '{name}'; `emdistill methods` lists them.{own}")
    if not Path(path).is_file():
        raise ConfigError(f"--method {name}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--method {name}: {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's own file raises
        raise ConfigError(f"--method {name}: {path} cannot be imported: {type(error).__name__}: {error}") from error
    method = vars(module).get(function)
    if not callable(method):
        raise ConfigError(f"--method {name}: {path} has no function '{function}'.{nearest(function, vars(module))}")
    if missing := GIVEN_BY_THE_RUN - inspect.signature(method).parameters.keys():
        raise ConfigError(f"--method {name}: the function must take {', '.join(sorted(missing))}")
    return method  # type: ignore[no-any-return]


def compose_stages(
    config: RunConfig, student: EncoderShape, teacher: EncoderShape, predictions: Predictions
) -> list[Stage]:
    """The stages of the method that the configuration names, for these two encoders.

    Raises ConfigError where it learns from layers and the student, a bag, has none, or where it gives something else.
    """
    method = load_method(config.method)
    mapping = {} if config.mapping is None else {"mapping": config.mapping}
    if mapping and "mapping" not in inspect.signature(method).parameters:
        raise ConfigError(f"--mapping {config.mapping}: the method {config.method} takes no mapping; leave it out")
    shared = {setting.name for setting in fields(SharedSettings)} - inspect.signature(method).parameters.keys()
    settings = {name: value for name, value in config.objective.items() if name in shared}
    own = {name: value for name, value in config.objective.items() if name not in shared}
    if student.layers:
        stages = method(student, teacher, predictions=predictions, **mapping, **own)
    else:  # it is composed for a student like the teacher, to see what it would read of it
        alike = teacher if teacher.layers else EncoderShape(1, student.width, 1)
        stages = method(alike, alike if teacher == student else teacher, predictions=predictions, **mapping, **own)
        if any(stage.objective.student_needs - {"features"} for stage in stages):
            raise ConfigError(
                f"--method {config.method} learns from layers, and a {config.student} has none; take --method "
                "soft-targets, or hard-labels"
            )
    if not stages or not isinstance(stages, list) or not all(isinstance(stage, Stage) for stage in stages):
        raise ConfigError(f"--method {config.method}: it must return a list of stages, not {shown(stages)}")
    with_shared_settings(stages, SharedSettings(**settings), predictions)
    return stages


__all__ = ["GIVEN_BY_THE_RUN", "METHODS", "Method", "compose_stages", "load_method"]
