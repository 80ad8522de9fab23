"""A teacher whose answers stand beside the rows teaches as the model that gave them, bit for bit."""

from collections.abc import Callable

import numpy as np
import torch
from messages import names
from training_runs import Run, same_models

from emdistill.data.batches import PaddingCollator
from emdistill.errors import CaptureError
from emdistill.models.teacher import AnswersTeacher
from emdistill.models.teacher_cache import open_teacher_cache
from emdistill.states import TEACHER_LOGITS


def test_the_same_logits_make_the_same_student(new_run: Callable[..., Run]) -> None:
    by_model = new_run("model", method="soft-targets", cache="logits")
    folder = by_model.folder / "teacher_cache"
    cache = open_teacher_cache(by_model.teacher, by_model.train, folder, collate=PaddingCollator(by_model.tokenizer))
    by_model.go()
    masks = [torch.ones(1, length, dtype=torch.long) for length in by_model.train["length"]]
    batches = [{"row": torch.tensor([row]), "attention_mask": mask} for row, mask in enumerate(masks)]
    by_file = new_run("file", method="soft-targets")
    by_file.teacher = AnswersTeacher()
    by_file.train = by_model.train.add_column(TEACHER_LOGITS, [cache(batch).logits[0].tolist() for batch in batches])
    by_file.go()
    assert same_models(by_file.student, by_model.student)


def test_it_has_no_layers() -> None:
    batch = {TEACHER_LOGITS: torch.eye(2), "attention_mask": torch.ones(2, 3)}
    np.testing.assert_array_equal(AnswersTeacher().to("cpu")(batch).logits, np.eye(2))
    with names(CaptureError, "hidden"):
        AnswersTeacher()(batch, {"hidden"})
