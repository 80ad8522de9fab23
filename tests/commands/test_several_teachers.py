"""Several teachers by the command line: what they teach together, what is recorded, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from messages import unnamed
from run_folders import read_record
from safetensors.torch import load_file
from scipy.special import softmax

from emdistill.cli import main
from emdistill.config import RunConfig
from emdistill.models import fingerprint, load_classifier
from emdistill.runs.answers import PREDICTIONS, read_predictions
from emdistill.runs.reading import remember_reading
from emdistill.runs.record import read_run
from emdistill.ship.subject import read_subject
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task
from emdistill.teachers.several import TeacherModels


@pytest.fixture(scope="module")
def second(place: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher with other weights, which counts its labels the other way round."""
    folder = tmp_path_factory.mktemp("second") / "second"
    shutil.copytree(place.folder / "teacher", folder, ignore=shutil.ignore_patterns("run.json"))
    model = load_classifier(folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
        for weight in model.classifier.parameters():
            weight.copy_(weight.flip(0))
    model.config.id2label, model.config.label2id = {0: "good", 1: "bad"}, {"good": 0, "bad": 1}
    model.save_pretrained(folder)
    return folder


def distilled(place: Any, output: Path, teachers: list[Path | str], *words: str) -> Path:
    assert main(place.distill(*words, f"--teacher={','.join(map(str, teachers))}", f"--output={output}")) == 0
    return output


def teacher_answers(run: Path) -> np.ndarray:
    logits = read_predictions(run / PREDICTIONS)["dev"].teacher
    assert logits is not None
    return np.asarray(torch.tensor(logits).softmax(-1))


@pytest.mark.parametrize("cache", ["none", "logits", "states"])
def test_the_mean_of_their_answers_teaches_and_each_is_recorded(
    place: Any, second: Path, tmp_path: Path, cache: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = place.folder / "teacher"
    words = ("--teacher-weights=3,1", "--teacher-cache", cache, "--teacher-cache-folder", str(tmp_path / "cache"))
    run = distilled(place, tmp_path / "run", [first, second], *words)
    printed = capsys.readouterr().out
    assert not unnamed(printed, "teacher teacher", "teacher second")
    record = read_record(run)
    models = [load_classifier(folder) for folder in (first, second)]
    each = record["teachers"]
    assert [(one["name"], one["weight"]) for one in each] == [("teacher", 0.75), ("second", 0.25)]
    assert [one["sha256"] for one in each] == [fingerprint(model) for model in models]
    assert record["teacher"]["parameters"] == sum(one["model"]["parameters"] for one in each)
    assert {"teacher", "teacher teacher", "teacher second", "student"} == record["scores"].keys()
    assert record["hashes"]["teacher"] not in {one["sha256"] for one in each}
    assert (len(list((tmp_path / "cache").glob("*/index.json"))) >= 1) == (cache != "none")

    assert main(place.distill(*words, f"--teacher={first},{second}", f"--output={run}", "--resume")) == 0
    assert read_run(run).teachers[1].name == "second"
    assert read_subject(str(run)).teacher is None
    assert (run / "report.html").is_file()
    assert not unnamed((run / "student" / "README.md").read_text(), "teacher,second")


def test_the_answers_are_the_weighted_mean_in_the_first_ones_order(place: Any, second: Path, tmp_path: Path) -> None:
    first = place.folder / "teacher"
    alone = [
        teacher_answers(distilled(place, tmp_path / folder.name, [folder], "--method=soft-targets"))
        for folder in (first, second)
    ]
    own_order = [alone[0], alone[1][:, ::-1]]
    words = ("--method=soft-targets", "--teacher-weights=3,1")
    together = teacher_answers(distilled(place, tmp_path / "both", [first, second], *words))
    np.testing.assert_allclose(together, 0.75 * own_order[0] + 0.25 * own_order[1], atol=1e-5)
    other = teacher_answers(distilled(place, tmp_path / "other", [second, first], "--method=soft-targets"))
    np.testing.assert_allclose(other[:, ::-1], (own_order[0] + own_order[1]) / 2, atol=1e-5)


def test_one_teacher_twice_teaches_as_it_does_alone(place: Any, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "teacher"
    shutil.copytree(place.folder / "teacher", copy)
    runs = [
        distilled(place, tmp_path / "alone", [place.folder / "teacher"]),
        distilled(place, tmp_path / "twice", [place.folder / "teacher", copy]),
    ]
    assert [one["name"] for one in read_record(runs[1])["teachers"]] == ["teacher (1)", "teacher (2)"]
    weights, others = (load_file(run / "student" / "model.safetensors") for run in runs)
    for name in {name for name in weights if not name.endswith("key.bias")}:  # whose gradient is rounding alone
        torch.testing.assert_close(weights[name], others[name], rtol=0, atol=1e-3)


def test_a_students_baselines_and_a_comparison_under_several(place: Any, second: Path, tmp_path: Path) -> None:
    teachers = f"--teacher={place.folder}/teacher,{second}"
    words = place.distill(teachers, f"--output={tmp_path / 'run'}", "--baselines=frozen,int8-teacher")
    assert main(words) == 0
    both = ["compare", *place.distill(teachers, f"--output={tmp_path / 'all'}", "--seeds=1")[1:]]
    assert main([*both, "--methods=soft-targets,hard-labels", "--student=2"]) == 0


@pytest.mark.parametrize("kind", ["tagging", "span-answers"])
def test_several_answers_per_row_have_the_mean_of_each(
    kind: str, tiny_encoder: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    asked = KINDS[kind]
    labels = asked.label_names([]) or ("O", "B-x", "I-x")
    task = Task("t", asked, labels, asked.metrics_of(labels))
    for seed in (1, 2):
        model = tiny_encoder(head=asked.head, labels=len(labels), problem_type=asked.problem_type, seed=seed)
        model.config.id2label = dict(enumerate(labels))
        remember_reading(model, tiny_tokenizer, task, 32)
        for part in (model, tiny_tokenizer):
            part.save_pretrained(tmp_path / str(seed))
    texts = {"text": ["a good movie", "it"]} | ({"text_pair": ["it was bad", "a"]} if kind == "span-answers" else {})
    names = [str(tmp_path / str(seed)) for seed in (1, 2)]
    config = RunConfig(teacher=",".join(names), teacher_weights="1,3", student="1", method="soft-targets", output="run")
    teachers = TeacherModels(config)
    together = teachers.logits({"dev": task.rows_of_text(texts)}, max_length=32)["dev"]
    each = [teachers.logits_of_each[name]["dev"] for name in teachers.unique_names()]
    axis = 0 if kind == "span-answers" else 1
    for row, one, other in zip(together, *each, strict=True):
        expected = 0.25 * softmax(one, axis) + 0.75 * softmax(other, axis)
        np.testing.assert_allclose(softmax(row, axis), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "tokens"),
    [
        (["--teacher={first},{second}", "--teacher-weights=1"], ["--teacher-weights", 1, 2]),
        (["--teacher={first},{second}", "--teacher-weights=1,0"], ["--teacher-weights", "1,0"]),
        (["--teacher={first},{second}", "--teacher-weights=a,b"], ["--teacher-weights", "a,b"]),
        (["--teacher={first}", "--teacher-weights=1"], ["--teacher-weights"]),
        (["--teacher={first},{first}.jsonl"], ["--teacher", "file of answers"]),
        (["--teacher={first},{other}"], ["bad", "fine"]),
        (["--teacher={first},{second}", "--task=text"], ["--teacher", "--task"]),
        (["--teacher={first},{second}", "--data="], ["--teacher", "--data"]),
        (["--teacher={first},{second}", "--head=mood"], ["--teacher", "--head", "mood"]),
        (["--teacher=none", "--teacher-weights=1"], ["--teacher-weights"]),
        (["--teacher={first}", "--labelled-share=0.5"], ["--labelled-share", "--unlabelled"]),
    ],
)
def test_what_cannot_teach_together_is_refused(
    place: Any, second: Path, tmp_path: Path, words: list[str], tokens: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(second, other)
    model = load_classifier(other)
    model.config.id2label = {0: "fine", 1: "poor"}
    model.config.label2id = {"fine": 0, "poor": 1}
    model.save_pretrained(other)
    written = [word.format(first=place.folder / "teacher", second=second, other=other) for word in words]
    assert main(place.distill(*written, f"--output={tmp_path / 'run'}")) == 2
    assert not unnamed(capsys.readouterr().err, *tokens)
    assert not (tmp_path / "run").exists()


def test_teachers_of_other_tokens_are_refused(
    place: Any, second: Path, tmp_path: Path, tokenizer_factory: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(second, other)
    tokenizer = tokenizer_factory()
    tokenizer_factory(tuple(reversed(list(tokenizer.get_vocab())))).save_pretrained(other)
    words = place.distill(f"--teacher={place.folder}/teacher,{other}", f"--output={tmp_path / 'run'}")
    assert main(words) == 2
    assert not unnamed(capsys.readouterr().err, "--teacher", "other", "tokens")
