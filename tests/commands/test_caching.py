"""Teacher cache, token budgets and fixed mappings as a user asks for them on the command line."""

from pathlib import Path

import pytest
from messages import unnamed
from run_folders import read_record
from safetensors.torch import load_file

from emdistill import StudentArtifact
from emdistill.cli import main


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """When and how long every file is."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def student_of(folder: Path) -> bytes:
    return (folder / "student" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("choice", ["none", "logits", "states"])
def test_every_choice_makes_a_student_and_leaves_no_cache(place, tmp_path: Path, choice: str) -> None:
    run = tmp_path / "run"
    assert main(place.distill("--output", str(run), "--teacher_cache", choice)) == 0
    assert not (run / "teacher_cache").exists()
    assert not (run / "checkpoints").exists()
    record = read_record(run)
    assert record["config"]["teacher_cache"] == choice
    assert record["timings"]["teacher_cache_seconds"] >= 0
    assert record["scores"]["student"]["accuracy"] >= 0.4


def test_the_cache_of_a_run_is_kept_with_its_checkpoints(place, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--method", "bert-emd", "--teacher_cache", "states", "--keep-checkpoints"]
    assert main(place.distill("--output", str(run), *words)) == 0
    (index,) = run.glob("teacher_cache/*/index.json")
    kinds = {path.name.partition("-")[0] for path in index.parent.glob("*.bin")}
    assert kinds == {"logits.bin", "embeddings.bin", "hidden", "attention"}
    assert len(list(index.parent.glob("hidden-*.bin"))) == 4  # every layer of the teacher
    assert (run / "checkpoints").is_dir()


def test_two_runs_share_a_folder_and_the_second_writes_nothing(place, tmp_path: Path) -> None:
    shared = ["--teacher_cache", "states", "--teacher_cache_folder", f"{tmp_path}/cache", "--select", "last"]
    assert main(place.distill("--output", f"{tmp_path}/one", *shared)) == 0
    before = stamps(tmp_path / "cache")
    assert before
    assert main(place.distill("--output", f"{tmp_path}/two", *shared)) == 0
    assert stamps(tmp_path / "cache") == before  # and neither run has removed it
    assert student_of(tmp_path / "one") == student_of(tmp_path / "two")
    assert not (tmp_path / "one" / "teacher_cache").exists()
    # predictions alone need no more, over the same sentences
    assert main(place.distill("--output", f"{tmp_path}/three", *shared, "--method", "soft-targets")) == 0
    assert stamps(tmp_path / "cache") == before


def test_no_cache_is_written_where_the_teacher_runs_anyway(place, tmp_path: Path) -> None:
    """The default, logits, is for stages that read nothing else."""
    folder = ["--teacher_cache_folder", f"{tmp_path}/cache"]
    assert main(place.distill("--output", f"{tmp_path}/joint", *folder)) == 0
    assert not (tmp_path / "cache").exists()
    assert main(place.distill("--output", f"{tmp_path}/soft", *folder, "--method", "soft-targets")) == 0
    assert [path.name for path in (tmp_path / "cache").glob("*/*.bin")] == ["logits.bin"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--teacher-cache", "all"], ["--teacher-cache", "none, logits, states", "'all'"]),
        (["--teacher-cache-folder", "{place}/new.csv"], ["new.csv"]),
        (["--training.tokens_per_batch", "5"], ["--training.tokens_per_batch", 5]),
        (["--training.tokens_per_batch", "-1"], ["--training.tokens_per_batch", 0, -1]),
        (["--training.teacher_bf16", "maybe"], ["--training.teacher_bf16", "true", "false", "'maybe'"]),
        (["--training.compile_costs", "3"], ["--training.compile_costs", "true", "false", 3]),
    ],
)
def test_what_cannot_be_used_is_refused(place, tmp_path: Path, capsys, words: list[str], named: list[object]) -> None:
    words = [word.format(place=place.folder) for word in words] + ["--method", "soft-targets"]
    assert main(place.distill("--output", f"{tmp_path}/run", *words)) == 2
    err = capsys.readouterr().err
    assert not unnamed(err, *named)
    assert "Traceback" not in err
    if "teacher-cache-folder" not in words[0]:
        assert not (tmp_path / "run").exists()


def test_batches_of_a_number_of_tokens(place, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    assert main(place.distill("--output", str(run), "--training.tokens_per_batch=100", "--select=last")) == 0
    padding = read_record(run)["share_of_padding"]
    assert 0 <= padding < 0.2
    assert f"{padding:.1%}" in capsys.readouterr().out
    words = ["--model", f"{place.folder}/encoder", "--data", f"{place.folder}/reviews.csv", *place.reviews, *place.fast]
    words += [*place.quiet, "--output", f"{tmp_path}/teacher", "--training.tokens_per_batch=100"]
    assert main(["finetune", *words, "--training.num_train_epochs=1"]) == 0


FIXED = """
from emdistill.losses import AttentionScoreCosts, HiddenStateCosts, LayerLoss, Objective, Projection
from emdistill.mapping import uniform_mapping
from emdistill.training.stage import Stage


def method(student, teacher, *, predictions: str = "classes"):
    loss = LayerLoss([HiddenStateCosts(), AttentionScoreCosts()], uniform_mapping(student.layers, teacher.layers))
    weights = {"hidden_states": 1.0, "attention_scores": 1.0}
    return [Stage("layers", Objective([loss], weights, Projection(student, teacher, "shared")))]
"""


def test_a_method_of_the_users_own_over_a_fixed_mapping(place, tmp_path: Path) -> None:
    """Its flows are recorded and drawn, though it has no layer weights; of the teacher's 4 layers it keeps 2."""
    (tmp_path / "fixed.py").write_text(FIXED)
    words = ["--method", f"{tmp_path}/fixed.py:method", "--teacher_cache", "states", "--select", "last"]
    words += ["--teacher_cache_folder", f"{tmp_path}/cache", "--training.flow_steps=2"]
    assert main(place.distill("--output", f"{tmp_path}/run", *words)) == 0
    files = {path.name for path in (tmp_path / "cache").glob("*/*.bin")}
    assert files == {"logits.bin", *(f"{kind}-{layer}.bin" for kind in ("hidden", "attention") for layer in (1, 3))}
    record = StudentArtifact(tmp_path / "run").flows()[-1]
    assert record.flows["hidden_states"] == [[0, 1, 0, 0], [0, 0, 0, 1]]
    assert record.student_weights == record.teacher_weights == {}
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Flow: which layer teaches which" in page
    assert "Layer weights" not in page
    assert (tmp_path / "run" / "report.html").is_file()
    assert load_file(tmp_path / "run" / "student" / "model.safetensors")
