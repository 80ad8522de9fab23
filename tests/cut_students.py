"""A student cut from its teacher, without `--student`: the parts of emdistill.students in their order."""

from collections.abc import Mapping, Sequence

from torch import Tensor
from transformers import PreTrainedModel

from emdistill.models.families import require
from emdistill.students.extract import cut_out, plan_extraction
from emdistill.students.importance import Importance, random_importance
from emdistill.students.shape import complete_shape


def extract_student(
    teacher: PreTrainedModel,
    *sizes: int,
    importance: Importance | None = None,
    sample: Sequence[Mapping[str, Tensor]] = (),
    seed: int = 0,
) -> PreTrainedModel:
    """Layers, width, perhaps heads and feed-forward width; without importance the units are drawn by `seed`."""
    require(teacher, "cut")
    shape = complete_shape(teacher.config, *sizes)
    return cut_out(teacher, plan_extraction(teacher, shape, importance or random_importance(teacher, seed)), sample)
