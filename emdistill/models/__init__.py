"""Who teaches: load encoders, capture their states, freeze a teacher."""

from emdistill.models.capture import capture, check_capture
from emdistill.models.encoder import (
    encoder_layers,
    encoder_shape,
    fingerprint,
    load_classifier,
    load_tokenizer,
    name_outputs,
    same_tokens,
    save_student,
)
from emdistill.models.teacher import Teacher, check_above_chance

__all__ = [
    "Teacher",
    "capture",
    "check_above_chance",
    "check_capture",
    "encoder_layers",
    "encoder_shape",
    "fingerprint",
    "load_classifier",
    "load_tokenizer",
    "name_outputs",
    "same_tokens",
    "save_student",
]
