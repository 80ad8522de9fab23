"""What comes out of a run: a folder that explains itself, and the handle on it."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emdistill.files import write_whole
from emdistill.models.encoder import load_classifier, load_encoder, load_tasks, load_tokenizer, save_student
from emdistill.runs.flows import FLOWS, FlowRecord, read_flows
from emdistill.runs.record import RunRecord, read_run
from emdistill.tasks.task import RAW_TEXT


def write_student(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: str) -> None:
    """Write a run's student/: the plain transformers model, its tokenizer, and the model card as README.md."""
    save_student(model, tokenizer, folder / "student")
    write_card(folder, card)


def write_card(folder: Path, card: str) -> None:
    """Write the model card of a run's student."""
    write_whole(folder / "student" / "README.md", card)


@dataclass(frozen=True)
class StudentArtifact:
    """A finished run on disk, StudentArtifact("run"); everything is read when asked for."""

    folder: Path

    def __init__(self, folder: str | Path) -> None:
        object.__setattr__(self, "folder", Path(folder))

    @property
    def student_folder(self) -> Path:
        """The plain transformers model, for from_pretrained and pipeline."""
        return self.folder / "student"

    @property
    def run(self) -> RunRecord:
        """run.json: configuration, versions, hashes, scores, timings."""
        return read_run(self.folder)

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """{'teacher': {metric: value}, 'student': {metric: value}}."""
        return self.run.scores

    def flows(self) -> list[FlowRecord]:
        """The recorded flows and layer weights; empty for a method without layer mapping."""
        path = self.folder / FLOWS
        return read_flows(path) if path.exists() else []

    def load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The student and its tokenizer; of several tasks a MultiTaskModel."""
        run = self.run
        load = load_tasks if run.tasks else load_encoder if run.config["task"] == RAW_TEXT else load_classifier
        return load(self.student_folder), load_tokenizer(self.student_folder)
