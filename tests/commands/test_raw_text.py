"""General distillation by the command line: raw text in, a `--student` for any task out."""

import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_folders import read_record as record
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, BertConfig, BertForMaskedLM

from emdistill import distill
from emdistill.cli import main
from emdistill.methods import METHODS
from emdistill.models import fingerprint
from emdistill.training import run_stages

SHORT = (
    "--max-length=16",
    "--training.max_steps=4",
    "--training.learning_rate=5e-3",
    "--training.per_device_train_batch_size=8",
    "--training.disable_tqdm",
)
OF_LAYERS_ALONE = ("tinybert", "minilm", "minilm-v1", "sentence-vectors")
LAYERS_ONLY = ("balanced", "bert-emd", "tinybert", "patient-kd", "minilm", "minilm-v1", "distilbert", "matched-layers")


@pytest.fixture(scope="module")
def text(place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and beside it a pretrained encoder with a masked-LM head: masked/."""
    folder = tmp_path_factory.mktemp("text")
    documents = ("\n".join(sentence for sentence, _ in place.sentences(8)) for _ in range(30))
    with lzma.open(folder / "corpus.txt.xz", "wt", encoding="utf-8") as file:
        file.write("\n\n".join(documents))
    config = BertConfig.from_pretrained(place.folder / "encoder")
    torch.manual_seed(0)
    BertForMaskedLM(config).save_pretrained(folder / "masked")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "masked" / name).write_bytes((place.folder / "encoder" / name).read_bytes())
    return folder


@pytest.fixture
def words(place, text: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The command, `further` last; masked=True: the teacher has a masked-LM head."""

    def command(*further: str, masked: bool = False, student: str = "2", output: str = "general") -> list[str]:
        teacher = text / "masked" if masked else place.folder / "encoder"
        files = [f"--teacher={teacher}", f"--data={text}/corpus.txt.xz", f"--output={tmp_path / output}"]
        return ["distill", "--task=text", *files, f"--student={student}", *SHORT, *further]

    return command


@pytest.mark.parametrize("method", LAYERS_ONLY)
def test_every_method_of_layers_teaches_without_a_head(words, tmp_path: Path, method: str) -> None:
    assert main(words(f"--method={method}", "--training.max_steps=12")) == 0
    run = record(tmp_path / "general")
    assert run["status"] == "finished"
    before, after = run["held_out_loss"]["before"], run["held_out_loss"]["after"]
    assert before.keys() == after.keys()
    assert after["loss"] < before["loss"]
    assert "soft_targets" not in after
    model, report = AutoModel.from_pretrained(tmp_path / "general" / "student", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.config.num_hidden_layers == 2
    assert {path.name for path in (tmp_path / "general").iterdir()} >= {"student", "run.json", "report.html"}
    assert not (tmp_path / "general" / "checkpoints").exists()
    assert not (tmp_path / "general" / "teacher_cache").exists()


@pytest.mark.parametrize("method", [name for name in METHODS if name != "cross-view"])  # which is of tasks alone
def test_every_method_learns_from_a_masked_lm(words, tmp_path: Path, method: str) -> None:
    assert main(words(f"--method={method}", masked=True)) == 0
    terms = record(tmp_path / "general")["held_out_loss"]["after"]
    assert bool({"soft_targets", "hard_labels"} & terms.keys()) == (method not in OF_LAYERS_ALONE)
    _, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "general" / "student", output_loading_info=True)
    assert not report["missing_keys"]


@pytest.mark.parametrize("method", ["soft-targets", "hard-labels"])
def test_predictions_need_a_head(words, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(f"--method={method}")) == 2
    assert "masked-LM head" in capsys.readouterr().err
    assert not (tmp_path / "general" / "run.json").exists()
    assert main(words("--method=tinybert")) == 0  # what was read of the text does not stand in the way


STUDENTS = {"2": False, "1,3": True, "2x12": True, "3x24": False, "chain:ac": True, "chain:fa": False}


@pytest.mark.parametrize(("student", "masked"), STUDENTS.items())
def test_its_student_is_one_for_a_task(place, words, tmp_path: Path, student: str, masked: bool) -> None:
    assert main(words("--method=tinybert", masked=masked, student=student)) == 0
    general = f"--student={tmp_path / 'general' / 'student'}"
    assert main(place.distill(general, "--output", str(tmp_path / "task"), "--method=tinybert")) == 0
    run = record(tmp_path / "task")
    assert run["student"]["shape"]["layers"] == (3 if student == "3x24" else 2)
    assert run["scores"]["student"]["accuracy"] > 0


def test_a_fresh_student_and_rows(words, tmp_path: Path) -> None:
    assert main(words("--method=minilm", "--student-birth=fresh", "--rows=20", student="2x12")) == 0
    rows = record(tmp_path / "general")["rows"]
    assert rows["train"] + rows["held out"] <= 20


def test_a_resumed_run_is_the_uninterrupted_one(words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    further = ("--method=bert-emd", "--training.max_steps=6", "--objective.unmasked_share=0.5")
    assert main(words(*further, masked=True, output="whole")) == 0
    original = run_stages.StopOnRequest.on_step_end

    def stop_at_3(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        self.requested = self.requested or state.global_step == 3
        return original(self, args, state, control, **kwargs)

    monkeypatch.setattr(run_stages.StopOnRequest, "on_step_end", stop_at_3)
    assert main(words(*further, masked=True, output="parts")) == 130
    monkeypatch.undo()
    assert main(words(*further, masked=True, output="parts")) == 2  # neither --resume nor --overwrite
    assert main(words(*further, "--resume", masked=True, output="parts")) == 0
    one, other = (AutoModelForMaskedLM.from_pretrained(tmp_path / name / "student") for name in ("whole", "parts"))
    assert fingerprint(one) == fingerprint(other)
    assert record(tmp_path / "whole")["held_out_loss"] == record(tmp_path / "parts")["held_out_loss"]
    assert main(words(*further, "--resume", masked=True, output="parts")) == 0  # finished: left as it is


def test_a_run_is_replaced_when_asked_to(words, tmp_path: Path) -> None:
    assert main(words("--method=tinybert")) == 0
    assert main(words("--method=minilm", "--overwrite")) == 0
    assert list(record(tmp_path / "general")["objective"]) == ["joint"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--text-pair=other", "--text-pair"),
        ("--kind=classification", "--kind"),
        ("--teacher-cache=states", "--teacher-cache states"),
        ("--max-length=5", "--max-length 5 leaves"),
        ("--mapping=nothing", "nothing"),
    ],
)
def test_what_raw_text_has_not_is_refused(
    words, tmp_path: Path, option: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words("--method=tinybert", option)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "general" / "run.json").exists()


def test_from_python(place, text: Path, tmp_path: Path) -> None:
    artifact = distill(
        task="text", teacher=str(text / "masked"), data=str(text / "corpus.txt.xz"), student="2", method="distilbert",
        output=str(tmp_path / "general"), max_length=16, quiet=True,
        training={"max_steps": 2, "disable_tqdm": True},
    )  # fmt: skip
    model, tokenizer = artifact.load()
    assert isinstance(model, BertForMaskedLM)
    assert tokenizer("a movie")["input_ids"]


@pytest.mark.parametrize("masked", [True, False])
def test_a_bilstm_learns_sentence_vectors_for_any_task(place, words, tmp_path: Path, masked: bool) -> None:
    options = ("--method=sentence-vectors", "--training.max_steps=60", "--training.learning_rate=1e-2")
    assert main(words(*options, student="bilstm:8", masked=masked)) == 0
    general = tmp_path / "general" / "student"
    losses = record(tmp_path / "general")["held_out_loss"]
    assert {name: losses["after"][name] < losses["before"][name] for name in losses["before"]} == {
        "loss": True, "vectors": True, "directions": True
    }  # fmt: skip
    stored = load_file(general / "model.safetensors")
    assert not any("classifier" in name or "map" in name for name in stored)
    task = tmp_path / "task"
    assert main(place.distill(f"--student={general}", f"--output={task}", "--method=soft-targets")) == 0
    assert record(task)["scores"]["student"]["accuracy"] > 0
    assert {f"bilstm.{name}" for name in stored} < {*load_file(task / "student" / "model.safetensors")}


def test_layers_teach_a_bilstm_and_words_do_not(words, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("--method=tinybert", "--objective.attention_scores=0", student="bilstm:8", masked=True)) == 0
    assert main(words("--method=soft-targets", student="bilstm:8", masked=True, output="other")) == 2
    assert "masked-LM head" in capsys.readouterr().err
    assert not (tmp_path / "other" / "run.json").exists()


def test_sentence_vectors_are_of_raw_text(place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(place.distill(f"--output={tmp_path / 'task'}", "--student=2", "--method=sentence-vectors")) == 2
    assert "--task text" in capsys.readouterr().err
