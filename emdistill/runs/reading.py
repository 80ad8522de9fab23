"""How a saved model reads sentences: written into its config.json, so that it scores new files the same way."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Self

from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.config import LIMITS
from emdistill.data.read import form_of, read_task_data
from emdistill.errors import ModelError
from emdistill.models.teacher import kind_of
from emdistill.tasks.task import Task, TaskData
from emdistill.values import typed

SHORTEST, LONGEST = map(int, LIMITS["max_length"])
Length = Annotated[int, Field(ge=SHORTEST, le=LONGEST)]


@dataclass(frozen=True)
class Reading:
    """The columns and the length a model was trained with; transformers passes over this entry of config.json."""

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    max_length: Length = 128
    kind: str | None = None
    words: str | None = None  # how plain text is cut into words (Task.words)

    def written(self) -> dict[str, Any]:
        """As config.json holds it: without a rule for words where the kind has none."""
        return {name: value for name, value in asdict(self).items() if name != "words" or value is not None}

    def of(self, text: str | None, text_pair: str | None, label: str | None = None) -> Self:
        """With these columns where they are named; a text that is named comes without the model's second one."""
        pair = text_pair or (None if text else self.text_pair)
        return replace(self, text=text or self.text, text_pair=pair, label=label or self.label)

    def read(self, data: str, **options: Any) -> TaskData:
        """Task and examples of data with these columns; options and errors as of `read_task_data`."""
        return read_task_data(data, text=self.text, text_pair=self.text_pair, label=self.label, **options)


def remember_reading(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int) -> None:
    """Note in the model's config and tokenizer how its texts were read."""
    model.config.emdistill = reading_of(task, max_length)
    tokenizer.model_max_length = max_length


def reading_of(task: Task, max_length: int) -> dict[str, Any]:
    """The entry of a config.json that says how a task's texts are read."""
    return Reading(task.text, task.text_pair, task.label, max_length, task.kind.name, task.words).written()


def recall_reading(model: PreTrainedModel) -> Reading:
    """How the model's texts were read; of a model that emdistill did not make, as data of its kind are by default.

    Raises ModelError.
    """
    written = model.config.to_dict().get("emdistill") or form_of(kind_of(model)).columns._asdict()
    try:
        return typed(written, Reading)
    except ValueError as error:
        raise ModelError(f"{model.name_or_path}: config.json cannot be used (emdistill.{error})") from None
