"""Several tasks, one student: `distill --data tasks.yaml`, evaluated and asked head by head."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from messages import names, unnamed
from run_folders import read_record
from training_runs import AtStep
from transformers import AutoModel

from emdistill import distill
from emdistill.cli import main
from emdistill.commands.compare import compare
from emdistill.commands.evaluate import evaluate_model
from emdistill.errors import ConfigError, Interrupted, ModelError, OutputError
from emdistill.models import load_classifier
from emdistill.models.encoder import load_tasks
from emdistill.models.label_names import name_outputs
from emdistill.models.stored_config import class_with_head
from emdistill.runs.answers import read_predictions
from emdistill.runs.baseline_record import read_baselines
from emdistill.runs.flows import read_flows
from emdistill.runs.gate_record import read_gate
from emdistill.runs.record import read_run
from emdistill.ship import exported as exported_graphs
from emdistill.show.gate_tables import verdict_lines
from emdistill.tasks import KINDS as KINDS_OF

ROWS = {"sure": 40, "stars": 24, "marks": 64, "tags": 32}
KINDS = {"sure": "classification", "stars": "regression", "marks": "multi-label", "tags": "tagging"}
LABELS = {"sure": ("no", "yes"), "stars": (), "marks": ("long", "short", "very"), "tags": ("B-x", "I-x", "O")}
QUICK = {
    "student": "2",
    "max_length": 24,
    "check_teacher": False,
    "baselines": "none",
    "training": {
        "num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "disable_tqdm": True,
        "flow_steps": 2, "logging_steps": 2,
    },
}  # fmt: skip


def cell(task: str, row: int, draw: np.random.Generator) -> Any:
    if task == "stars":
        return round(float(draw.uniform(0, 5)), 2)
    if task == "sure":
        return LABELS["sure"][row % 2]
    return [name for name in LABELS["marks"] if draw.random() < 0.5]


def row_of(task: str, row: int, word: str, draw: np.random.Generator) -> dict[str, Any]:
    text = f"it was {'very ' * int(draw.integers(0, 4))}{word}"
    if task != "tags":
        return {"text": text, "label": cell(task, row, draw)}
    words = text.split()
    return {"tokens": words, "tags": ["B-x" if each in ("good", "bad", "book") else "O" for each in words]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[..., Any], tokenizer_factory: Any) -> Path:
    """Three tasks: their data, a random teacher for each, and tasks.yaml."""
    folder = tmp_path_factory.mktemp("several")
    for seed, (task, rows) in enumerate(ROWS.items()):
        draw = np.random.default_rng(seed)
        lines = [
            row_of(task, row, str(word), draw)
            for row, word in enumerate(draw.choice(["good", "bad", "not a book"], rows))
        ]
        (folder / f"{task}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        config = tiny_encoder("bert", layers=4, width=24).config
        name_outputs(config, labels=LABELS[task], problem_type=KINDS_OF[KINDS[task]].problem_type)
        torch.manual_seed(seed)
        model = class_with_head(config, KINDS_OF[KINDS[task]].head)(config)
        model.save_pretrained(folder / f"teacher-{task}")
        tokenizer_factory().save_pretrained(folder / f"teacher-{task}")
    write_tasks(folder)
    return folder


def write_tasks(
    folder: Path, name: str = "tasks.yaml", of: dict[str, dict[str, Any]] | None = None, **more: Any
) -> Path:
    tasks = [
        {"data": f"{task}.jsonl", "teacher": f"teacher-{task}", "kind": KINDS[task], **(of or {}).get(task, {})}
        for task in ROWS
    ]
    (folder / name).write_text(yaml.safe_dump({"tasks": tasks, **more}), encoding="utf-8")
    return folder / name


def run(folder: Path, output: Path, tasks: Path | None = None, **options: Any) -> Path:
    given = {**QUICK, "data": str(tasks or folder / "tasks.yaml"), "teacher": str(folder / "teacher-sure"), **options}
    return distill(output=str(output), quiet=True, **given).folder


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(folder, tmp_path_factory.mktemp("finished") / "run")


def test_a_run_of_several_tasks(folder: Path, finished: Path) -> None:
    record = read_run(finished)
    assert record.is_finished
    assert list(record.tasks) == list(ROWS)
    scores = record.scores["student"]
    first = {"sure": "accuracy", "stars": "pearson", "marks": "micro_f1", "tags": "entity_f1"}
    assert scores["mean"] == pytest.approx(np.mean([scores[f"{task}/{metric}"] for task, metric in first.items()]))
    assert record.task is not None
    assert record.task.metric == "mean"
    steps = record.log[-1].log[-1]["step"]
    assert record.steps_per_epoch is not None
    assert steps == 2 * record.steps_per_epoch  # as was said before
    assert any("eval_mean" in entry for entry in record.log[0].log)
    flows = read_flows(finished / "flows.jsonl")
    assert {name.partition("/")[0] for record in flows for name in record.flows} == set(ROWS)
    for file in ("report.html", "student/README.md", "student/model.safetensors"):
        assert (finished / file).is_file()


def test_each_head_is_scored_by_its_name(folder: Path, finished: Path) -> None:
    """The score of a head on its own held-out rows, read again from the saved folder."""
    model, tokenizer = load_tasks(finished / "student"), str(finished / "student")
    for task in ROWS:
        again = load_classifier(tokenizer, task=task)
        for name, weight in again.state_dict().items():
            assert torch.equal(weight, model.of(task).state_dict()[name])
        scores = evaluate_model(tokenizer, str(folder / f"{task}.jsonl"), head=task)
        assert all(np.isfinite(list(scores.values())))
    AutoModel.from_pretrained(finished / "student")


def test_a_head_answers_a_file(folder: Path, finished: Path, tmp_path: Path) -> None:
    words = ["predict", "--model", f"{finished}/student", "--input", f"{folder}/sure.jsonl"]
    for task in ROWS:
        assert main([*words, "--head", task, "--output", f"{tmp_path}/{task}.jsonl"]) == 0
        rows = [json.loads(line) for line in (tmp_path / f"{task}.jsonl").read_text().splitlines()]
        assert len(rows) == ROWS["sure"]
        assert "prediction" in rows[0]
    assert main([*words, "--output", f"{tmp_path}/none.jsonl"]) == 2


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(
    folder: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the second epoch; sampler, heads, projections and layer weights go on where they were."""
    from emdistill.runs import learn

    stop, stages = AtStep(read_run(finished).steps_per_epoch + 3), learn.run_stages  # type: ignore[operator]
    monkeypatch.setattr(
        learn, "run_stages", lambda *given, callbacks, **more: stages(*given, callbacks=[*callbacks, stop], **more)
    )
    with pytest.raises(Interrupted):
        run(folder, tmp_path / "run")
    assert read_record(tmp_path / "run")["status"] == "running"
    run(folder, tmp_path / "run", resume=True)
    one, other = (load_tasks(place / "student").tensors() for place in (finished, tmp_path / "run"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (finished / "flows.jsonl").read_bytes() == (tmp_path / "run" / "flows.jsonl").read_bytes()
    write_tasks(folder, "other.yaml", temper=0.5)
    with names(OutputError, "hashes.mixture"):
        run(folder, tmp_path / "run", folder / "other.yaml", resume=True)


SHARING = {
    "gate": {"gate": True},
    "orthogonality and adversary": {"private": True, "orthogonality": 0.1, "adversary": 0.1},
    "label embedding": {"label_embedding": True},
    "hierarchy": {"of": {"stars": {"layer": 1}}},
}


@pytest.mark.parametrize("sharing", SHARING)
def test_what_tasks_share(folder: Path, tmp_path: Path, sharing: str) -> None:
    """Each switch trains, and what belongs to the training alone is not in the student."""
    tasks = write_tasks(folder, "sharing.yaml", **SHARING[sharing])
    short = {**QUICK["training"], "max_steps": 4}  # type: ignore[dict-item]
    place = run(folder, tmp_path / "run", tasks, training=short, select="last", objective={"annealing": True})
    (objective,) = read_run(place).objective.values()
    assert ("task_discriminator" in objective) == ("adversary" in SHARING[sharing])
    model = load_tasks(place / "student")
    assert not any("discriminate" in name for name in model.tensors())
    assert (model.of("stars").config.num_hidden_layers == 1) == (sharing == "hierarchy")


@pytest.fixture(scope="module")
def exported(finished: Path, trace_once: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX folder of a copy of the run, hardly timed."""
    run = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(finished, run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exported_graphs, "export_onnx", trace_once)
        patch.setattr(exported_graphs, "measure_latencies", partial(exported_graphs.measure_latencies, seconds=0.0))
        assert main(["export", "--int8", str(run), "--threads", "1", "--max-drop", "100"]) == 0
    return run / "onnx"


def test_all_heads_in_one_graph(folder: Path, finished: Path, exported: Path, tmp_path: Path) -> None:
    """One encoder, an output per head; each answers as in PyTorch, by emdistill and by example.py alone."""
    graph = onnx.load(exported / "model.onnx")
    assert [output.name for output in graph.graph.output] == [f"logits_{task}" for task in ROWS]
    attention = [node for node in graph.graph.node if node.op_type == "MultiHeadAttention"]
    assert len(attention) == 2  # one encoder of two layers
    for task in ROWS:
        words = ["predict", "--input", f"{folder}/{task}.jsonl", "--text", "text", "--logits", "--head", task]
        if task == "tags":  # its rows hold tokens
            words[2] = f"{folder}/sure.jsonl"
        answers = []
        for number, model in enumerate((finished / "student", exported / "model.onnx")):
            output = tmp_path / f"{task}-{number}.jsonl"
            assert main([*words, "--model", str(model), "--output", str(output)]) == 0
            answers.append([json.loads(line) for line in output.read_text().splitlines()])
        for one, other in zip(*answers, strict=True):
            assert np.allclose(flat(one["logits"]), flat(other["logits"]), atol=1e-4)
    run = [sys.executable, str(exported / "example.py"), "marks", "it was very good"]
    printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert not [name for name in LABELS["marks"] if name not in printed]


def flat(logits: Any) -> list[float]:
    if isinstance(logits, dict):
        return [float(value) for value in logits.values()]
    return [value for part in logits for value in flat(part)] if isinstance(logits, list) else [float(logits)]


def test_the_gate_judges_each_head(exported: Path) -> None:
    gate = read_gate(exported.parent)
    assert gate is not None
    assert gate.metric == "mean"
    assert gate.verdict.go
    assert [*gate.variants] == ["student", "onnx", "int8"]
    for variant in gate.variants.values():
        assert {name.partition("/")[0] for name in variant.scores} == {"mean", *ROWS}
        assert [*variant.heads] == [*ROWS]
    int8 = gate.variants["int8"]
    drops = [head.drop for head in int8.heads.values()]
    assert int8.drop == pytest.approx(np.mean(drops))  # type: ignore[arg-type]
    card = (exported / "README.md").read_text()
    said = verdict_lines(gate)
    assert not unnamed("\n".join(said), *(f"{task}: {head.metric}" for task, head in int8.heads.items()))
    assert not [line for line in said if line not in card]
    assert "model_int8.onnx" in card


def test_int8_answers_head_by_head_near_float32(folder: Path, exported: Path, tmp_path: Path) -> None:
    sizes = [(exported / name).stat().st_size for name in ("model.onnx", "model_int8.onnx")]
    assert sizes[1] < sizes[0]
    for task in ROWS:
        words = ["predict", "--input", f"{folder}/sure.jsonl", "--text", "text", "--logits", "--head", task]
        answers = []
        for name in ("model.onnx", "model_int8.onnx"):
            output = tmp_path / f"{task}-{name}.jsonl"
            assert main([*words, "--model", str(exported / name), "--output", str(output)]) == 0
            answers.append([flat(json.loads(line)["logits"]) for line in output.read_text().splitlines()])
        one, other = map(np.concatenate, answers)
        assert 0 < np.abs(one - other).max() < 0.2


@pytest.mark.parametrize(
    ("words", "token"),
    [
        (["--onnx", "--task", "rte"], "--task"),
        (["--onnx", "--max-drop-from-teacher=1"], "--max"),
    ],
)
def test_what_several_heads_are_not_exported_with(finished: Path, capsys: Any, words: list[str], token: str) -> None:
    assert main(["export", str(finished), *words]) == 2
    assert token in capsys.readouterr().err
    assert not (finished / "onnx").exists()


def test_answers_and_baselines_of_each_task(folder: Path, finished: Path, tmp_path: Path, capsys: Any) -> None:
    """Of each what a run of it alone leaves: its answers, what TF-IDF would do, and its sections of the page."""
    for task in ROWS:
        answers = read_predictions(finished / "tasks" / task / "predictions.jsonl")["dev"]
        assert answers.teacher is not None
        assert not (finished / "tasks" / task / "baselines.json").exists()  # --baselines none
    short = {**QUICK["training"], "max_steps": 2}  # type: ignore[dict-item]
    options = {**QUICK, "training": short, "baselines": "tfidf", "select": "last", "method": "soft-targets"}
    files = {
        "data": str(folder / "tasks.yaml"),
        "teacher": str(folder / "teacher-sure"),
        "output": str(tmp_path / "run"),
    }
    place = distill(**options, **files).folder  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    scores = read_run(place).scores["student"]
    page = (place / "report.html").read_text()
    for task in ROWS:
        record = read_baselines(place / "tasks" / task)
        assert record is not None
        assert record.score(record.student) == pytest.approx(scores[f"{task}/{record.metric}"])
        assert ("tfidf" in record.computed) == (task != "tags")  # it has one answer per text
        assert not unnamed(page, f"{task}: ")
        assert f'id="answers-{task}"' in page
        assert f'id="baselines-{task}"' in page
        assert not unnamed(printed, f"{task}: ")
    assert not unnamed(printed, "TF-IDF", "micro_f1")
    with names(ConfigError, "labels", "hard-labels", "tfidf"):
        distill(**options | files | {"baselines": "tfidf,labels", "output": f"{tmp_path}/other"})  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"teacher_cache": "states"}, {"method": "bert-emd"}, {"method": "soft-targets"}])
def test_methods_and_caches(folder: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """Layer losses under each batch's own teacher; cached, each task has its own."""
    short = {**QUICK["training"], "max_steps": 3}  # type: ignore[dict-item]
    run(folder, tmp_path / "run", training=short, select="last", keep_checkpoints=True, **options)
    caches = [place for place in (tmp_path / "run" / "teacher_cache").glob("*") if place.is_dir()]
    assert len(caches) == (0 if options.get("method") == "bert-emd" else len(ROWS))


def test_cached_teachers_teach_as_live_ones(folder: Path, tmp_path: Path) -> None:
    short = {**QUICK["training"], "max_steps": 5}  # type: ignore[dict-item]
    places = [
        run(folder, tmp_path / cache, training=short, select="last", method="soft-targets", teacher_cache=cache)
        for cache in ("logits", "none")
    ]
    one, other = (load_tasks(place / "student").tensors() for place in places)
    for name, weights in one.items():  # Adam makes much of a gradient's last digits; a step is 1e-3
        torch.testing.assert_close(other[name], weights, atol=2e-4, rtol=0)


def test_one_teacher_of_several_tasks(folder: Path, finished: Path, tmp_path: Path) -> None:
    """A student of several tasks teaches them all; or one of them, by its head."""
    student = str(finished / "student")
    tasks = write_tasks(folder, "one.yaml", of={task: {"teacher": student} for task in ROWS})
    short = {**QUICK["training"], "max_steps": 2}  # type: ignore[dict-item]
    options: dict[str, Any] = {"training": short, "select": "last", "student": "1", "teacher": student}
    run(folder, tmp_path / "several", tasks, **options)
    options |= {"head": "stars", "data": str(folder / "stars.jsonl")}
    run(folder, tmp_path / "single", **options)
    assert load_classifier(tmp_path / "single" / "student").config.num_labels == 1
    with names(ModelError, "--head", "sure", "stars"):
        run(folder, tmp_path / "none", **{**options, "head": None})


def test_teachers_may_differ_in_shape(folder: Path, tmp_path: Path, tiny_encoder: Any, tokenizer_factory: Any) -> None:
    wide = tiny_encoder("bert", layers=3, width=32, labels=1, seed=7)
    wide.save_pretrained(folder / "wide")
    tokenizer_factory().save_pretrained(folder / "wide")
    tasks = write_tasks(folder, "wide.yaml", of={"stars": {"teacher": "wide"}})
    short = {**QUICK["training"], "max_steps": 4}  # type: ignore[dict-item]
    run(folder, tmp_path / "run", tasks, training=short, select="last")


def test_a_file_of_answers_may_teach_one_of_them(folder: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (folder / "sure.jsonl").read_text().splitlines()]
    answers = [{"text": row["text"], "logits": [1.0, -1.0]} for row in rows]
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    tasks = write_tasks(folder, "file.yaml", of={"sure": {"teacher": "answers.jsonl"}})
    options: dict[str, Any] = {"method": "soft-targets", "teacher": str(folder / "teacher-stars")}
    short = {**QUICK["training"], "max_steps": 4}  # type: ignore[dict-item]
    place = run(folder, tmp_path / "run", tasks, training=short, select="last", **options)
    assert read_run(place).is_finished
    with names(ConfigError, "answers.jsonl", "soft-targets"):
        run(folder, tmp_path / "none", tasks, teacher=str(folder / "teacher-stars"))


def test_batches_may_be_gathered(folder: Path, tmp_path: Path) -> None:
    """Of several tasks in one update; the steps are counted before."""
    settings = {**QUICK["training"], "num_train_epochs": 1, "gradient_accumulation_steps": 3}  # type: ignore[dict-item]
    record = read_run(run(folder, tmp_path / "run", training=settings, select="last", method="soft-targets"))
    assert record.log[-1].log[-1]["step"] == record.steps_per_epoch


def test_text_without_labels_belongs_to_a_task(
    folder: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its teacher answers it; rows of dev are left out; a stage without a teacher does without it, in as many steps."""
    texts = [f"it was {word} {number}" for word in ("good", "bad") for number in range(20)]
    labelled = json.loads((folder / "sure.jsonl").read_text().splitlines()[0])["text"]
    (folder / "more.txt").write_text("\n".join([*texts, labelled]) + "\n")
    tagged = [{"text": f"a {text}"} for text in texts]
    (folder / "more.jsonl").write_text("\n".join(map(json.dumps, tagged)))
    of = {"sure": {"unlabelled": "more.txt", "unlabelled_rows": 30}, "tags": {"unlabelled": "more.jsonl"}}
    tasks = write_tasks(folder, "text.yaml", of=of)
    seen: list[tuple[int, int]] = []
    from emdistill.training.mixture import MixtureTeacher

    answer = MixtureTeacher.__call__

    def noted(self: Any, inputs: Any, *rest: Any) -> Any:
        seen.append((int(inputs["task"][0]), int(inputs["row"].max())))
        return answer(self, inputs, *rest)

    monkeypatch.setattr(MixtureTeacher, "__call__", noted)
    objective = {"schedule": "two-phase", "intermediate_share": 0.5, "alpha": 0.0}
    place = distill(
        **QUICK | {"baselines": "none", "objective": objective, "method": "bert-emd"},
        data=str(tasks), teacher=str(folder / "teacher-sure"), output=str(tmp_path / "run"),
    ).folder  # fmt: skip
    record = read_run(place)
    assert record.unlabelled is not None
    assert record.unlabelled["kept"] == 30 + 40
    assert record.hashes.keys() >= {"sure/unlabelled more.txt", "tags/unlabelled more.jsonl"}
    printed = capsys.readouterr().out
    assert not unnamed(printed, "sure: 30 of 30", "tags: 40 of 40")
    last_rows = {task: max(row for each, row in seen if each == task) for task, _ in seen}
    assert last_rows[0] >= ROWS["sure"] * 0.7  # those after the labelled ones
    assert last_rows[3] > ROWS["tags"]
    assert [stage.log[-1]["step"] for stage in record.log] == [record.steps_per_epoch] * 2
    assert not (place / "teacher_cache").exists()
    for file in (place / "report.html", place / "student" / "README.md"):
        assert not unnamed(file.read_text(), "70 of 70")


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({"task": "rte"}, ["--task", "tasks.yaml"]),
        ({"text": "body"}, ["--text", "tasks.yaml"]),
        ({"unlabelled": "more.txt"}, ["--unlabelled", "tasks.yaml"]),
        ({"training": {"tokens_per_batch": 100}}, ["--training.tokens_per_batch"]),
    ],
)
def test_what_does_not_fit_several_tasks_is_refused(
    folder: Path, tmp_path: Path, options: dict[str, Any], tokens: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        run(folder, tmp_path / "run", **options)
    assert not [token for token in tokens if token not in str(caught.value)]
    assert not (tmp_path / "run").exists()


def test_methods_are_compared_over_all_tasks_and_each(folder: Path, tmp_path: Path, capsys: Any) -> None:
    """Paired over seeds; runs that stand are not done again; what is refused is refused before any training."""
    short = {**QUICK["training"], "num_train_epochs": 1}  # type: ignore[dict-item]
    options: dict[str, Any] = {**QUICK, "training": short, "select": "last", "teacher": str(folder / "teacher-sure")}
    options |= {"data": str(folder / "tasks.yaml"), "seeds": "2", "output": str(tmp_path / "all")}
    found = compare(methods="soft-targets,hard-labels", **options)
    assert found.metric == "mean"
    assert [metric.partition("/")[0] for metric in found.tasks] == [*ROWS]
    for metric in found.tasks:
        _, other = found.by(metric).entries
        expected = [
            read_run(tmp_path / "all" / "runs" / f"hard-labels-{seed}").scores["student"][metric]
            - read_run(tmp_path / "all" / "runs" / f"soft-targets-{seed}").scores["student"][metric]
            for seed in (0, 1)
        ]
        assert list(other.differences.values()) == pytest.approx(expected)
    written = json.loads((tmp_path / "all" / "comparison.json").read_text())
    assert {*written["tasks"]} == {*found.tasks}
    printed = capsys.readouterr().out
    for text in (
        printed,
        (tmp_path / "all" / "comparison.md").read_text(),
        (tmp_path / "all" / "report.html").read_text(),
    ):
        assert not unnamed(text, "sure", "stars", "marks", "tags", "pearson")
    compare(methods="soft-targets,hard-labels", **options)
    assert "there already" in capsys.readouterr().out
    with names(ConfigError, "bert-emd", "answers"):
        rows = [json.loads(line)["text"] for line in (folder / "sure.jsonl").read_text().splitlines()]
        lines = [json.dumps({"text": text, "logits": [1.0, -1.0]}) for text in rows]
        (folder / "answers.jsonl").write_text("\n".join(lines))
        tasks = write_tasks(folder, "answered.yaml", of={"sure": {"teacher": "answers.jsonl"}})
        options |= {"data": str(tasks), "output": str(tmp_path / "other"), "teacher": str(folder / "teacher-stars")}
        compare(methods="soft-targets,bert-emd", **options)


def test_several_processes_are_refused_before_anything_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with names(ConfigError, "tasks.yaml", 2, "torchrun"):
        run(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", ["finetune", "evaluate"])
def test_other_verbs_take_one_task(folder: Path, tmp_path: Path, capsys: Any, verb: str) -> None:
    model, output = f"{folder}/teacher-sure", ["--output", f"{tmp_path}/out"]
    words = {
        "finetune": ["--model", model, *output],
        "evaluate": ["--model", model],
    }[verb]
    assert main([verb, "--data", f"{folder}/tasks.yaml", *words]) == 2
    assert not unnamed(capsys.readouterr().err, "tasks.yaml", "distill")


def test_a_layer_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    tasks = write_tasks(folder, "deep.yaml", of={"stars": {"layer": 3}})
    with names(ModelError, 3, 2):
        run(folder, tmp_path / "run", tasks)
