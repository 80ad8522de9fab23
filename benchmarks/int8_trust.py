"""Whether int8 answers depend on their neighbours, what 7-bit weights cost, and whether the gate refuses what drops.

    python benchmarks/int8_trust.py --runs 'runs/*/minilm-3x384/runs/*-[0-4]' --output int8

Each run's student is exported and quantised as a whole, dynamic and static, and as ONNX Runtime's own dynamic quantiser
does it. Its development set is answered one text at a time and in batches of 8 and 32, in the order of its rows, so
that short texts are padded: the table has the score, the largest difference of a logit, and the answers that change.

The gate is asked about each dynamic graph with a limit on the drop of 0, of half the drop and of twice the drop, where
the drop is computed here anew from the answers: it has to refuse whatever is above its limit, and that alone. As few
students lose anything, each is also damaged without changing its float32 answers: of some value units the projection
grows a thousandfold and what reads them shrinks as much, so that int8 has no room for the other units.
"""

import json
from collections.abc import Mapping
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from numpy.typing import NDArray

from emdistill.console import Table, markdown
from emdistill.runs.gate_record import Machine, TimedCase, VariantRecord
from emdistill.ship.gate import Limits, judge
from emdistill.ship.int8_choice import SOME, training_sample
from emdistill.ship.onnx import export_onnx, open_onnx
from emdistill.ship.onnx_folder import INT8, MODEL, write_onnx_folder
from emdistill.ship.quantize import quantize_dynamic_int8, quantize_static_int8
from emdistill.ship.subject import Subject, read_subject
from emdistill.tasks.task import Task

BATCHES = (1, 8, 32)
UNITS, FACTOR = 3, 1000.0
CASE = TimedCase(1, 128, 1.0, 1.0, 1.0, 1000.0, 1)  # the gate is asked about scores alone


def main(runs: str, output: str = "int8", rows: int = 1000) -> None:
    """Measure every run, write the tables to OUTPUT/int8.md and the numbers to OUTPUT/int8.json.

    Args:
        runs: a pattern that the folders of finished runs match.
        output: folder of the graphs and of the results.
        rows: of the development set, the first ones.
    """
    folders = [
        Path(name)
        for name in sorted(glob(runs))  # noqa: PTH207 - the pattern may be absolute
        if (Path(name) / "student").is_dir()
    ]
    found: list[dict[str, Any]] = []
    for folder in folders:
        subject = read_subject(str(folder))
        place = Path(output) / "-".join(folder.parts[-4:])
        found.append({"run": "-".join(folder.parts[-4:]), **measure(subject, place, rows)})
        print(found[-1]["run"], found[-1]["gate"], flush=True)
    Path(output, "int8.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    Path(output, "int8.md").write_text(tables(found), encoding="utf-8")
    print(tables(found))


def measure(subject: Subject, place: Path, rows: int) -> dict[str, Any]:
    """A student's graphs: how far answers move, their scores, and the gate's answers."""
    place.mkdir(parents=True, exist_ok=True)
    write_graph(subject, place)
    calibration = training_sample(subject.data, subject.student.tokenizer, subject.max_length).batches[:SOME]
    ways = {
        "ONNX Runtime's dynamic": own_quantiser,
        "dynamic": quantize_dynamic_int8,
        "dynamic, 7 bits": lambda fp32, path: quantize_dynamic_int8(fp32, path, bits=7),
        "static": lambda fp32, path: quantize_static_int8(fp32, path, calibration=calibration),
    }
    reference, task, labels = answers(place / MODEL, subject, rows)
    graphs: dict[str, Any] = {"float32": {"score": task.score(reference[1], labels)[task.metrics[0]]}}
    gate = {"asked": 0, "refused rightly": 0, "passed rightly": 0, "wrong": 0}
    for name, quantise in ways.items():
        quantise(place / MODEL, place / INT8)
        by_batch, _, _ = answers(place / INT8, subject, rows)
        graphs[name] = moved(task, by_batch) | {"score": task.score(by_batch[1], labels)[task.metrics[0]]}
        if name == "dynamic":
            ask(gate, task, labels, reference[1], by_batch[1])
    damage(subject, seed=0)
    write_graph(subject, place)
    quantize_dynamic_int8(place / MODEL, place / INT8)
    whole, _, _ = answers(place / MODEL, subject, rows, (1,))
    damaged, _, _ = answers(place / INT8, subject, rows, (1,))
    graphs["damaged"] = {
        "score": task.score(damaged[1], labels)[task.metrics[0]],
        "float32 moved": float(np.abs(whole[1] - reference[1]).max()),
    }
    ask(gate, task, labels, whole[1], damaged[1])
    return {"rows": len(labels), "graphs": graphs, "gate": gate}


def write_graph(subject: Subject, place: Path) -> None:
    """The student in float32."""
    model, tokenizer = subject.student.model, subject.student.tokenizer
    export_onnx(model, place / MODEL, token_types="token_type_ids" in tokenizer.model_input_names)


def own_quantiser(fp32: Path, path: Path) -> None:
    """ONNX Runtime's quantize_dynamic: one range of the activations for all of a batch."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options = {"MatMulConstBOnly": True, "DefaultTensorType": 1}  # float32, where its shape inference finds no type
    quantize_dynamic(fp32, path, weight_type=QuantType.QInt8, per_channel=True, extra_options=options)


def answers(
    path: Path, subject: Subject, rows: int, batches: tuple[int, ...] = BATCHES
) -> tuple[dict[int, NDArray[Any]], Task, NDArray[Any]]:
    """Batch size -> logits of the development set, in the order of its rows, so that short texts are padded."""
    write_onnx_folder(path.parent, subject.student.model, subject.student.tokenizer)
    examples = next(iter(subject.data.evaluation.values()))
    examples = examples.select(range(min(rows, len(examples))))
    classifier = open_onnx(path, threads=1)
    pairs = list(examples["text_pair"]) if "text_pair" in examples.column_names else None
    found = {}
    for size in batches:
        encoded = classifier.encode(list(examples["text"]), pairs, max_length=subject.max_length)
        parts = [encoded[start : start + size] for start in range(0, len(encoded), size)]
        found[size] = np.concatenate([classifier.logits(classifier.pad(part)) for part in parts])
    task = subject.data.task
    return found, task, task.kind.gold(examples)


def moved(task: Task, by_batch: Mapping[int, NDArray[Any]]) -> dict[str, float]:
    """The largest difference of a logit to the one of a text alone, and the share of answers that change."""
    alone = by_batch[1]
    others = [logits for size, logits in by_batch.items() if size != 1]
    changed = [(logits.argmax(-1) != alone.argmax(-1)).mean() for logits in others] if alone.shape[1] > 1 else [0.0]
    return {"moved": float(max(np.abs(logits - alone).max() for logits in others)), "changed": float(max(changed))}


def ask(gate: dict[str, int], task: Task, labels: NDArray[Any], reference: NDArray[Any], logits: NDArray[Any]) -> None:
    """Ask the gate about one int8 graph under several limits, and count where it is right."""
    metric = task.metrics[0]
    scores = [task.score(values, labels) for values in (reference, logits)]
    drop = 100 * (scores[0][metric] - scores[1][metric])
    for limit in (0.0, max(drop / 2, 0.0), max(2 * drop, 0.1)):
        records = {
            name: VariantRecord("ONNX Runtime", name, 1, of_it, (CASE,))
            for name, of_it in zip(("student", "int8"), scores, strict=True)
        }
        here = Machine("-", 1, 1)
        verdict = judge(records, Limits(max_drop=limit), metric=metric, dev_rows=len(labels), versions={}, machine=here)
        over = drop > limit + 1e-9
        right = ("refused rightly" if over else "passed rightly") if verdict.verdict.go != over else "wrong"
        gate["asked"] += 1
        gate[right] += 1


def damage(subject: Subject, seed: int) -> None:
    """In place: float32 answers stay, but a few value units of every layer take all the room that int8 has."""
    modules = dict(subject.student.model.named_modules())
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in modules.items():
            if not name.endswith("attention.self.value"):
                continue
            output = modules[name.replace("self.value", "output.dense")]
            units = rng.choice(value.out_features, UNITS, replace=False)
            value.weight[units] *= FACTOR
            value.bias[units] *= FACTOR
            output.weight[:, units] /= FACTOR


def tables(found: list[dict[str, Any]]) -> str:
    """Per way of quantising the mean over runs, and what the gate said."""
    ways = list(found[0]["graphs"])
    lines = []
    for way in ways:
        graphs = [one["graphs"][way] for one in found]
        drops = [100 * (one["graphs"]["float32"]["score"] - one["graphs"][way]["score"]) for one in found]
        numbers = [f"{np.mean(drops):.2f}", f"{max(drops):.2f}"]
        numbers += (
            [f"{max(g['moved'] for g in graphs):.2g}", f"{100 * max(g['changed'] for g in graphs):.2f}"]
            if "moved" in graphs[0]
            else ["", ""]
        )
        lines.append([way, *numbers])
    headings = ["graph", "drop, mean", "largest", "logit moved by", "answers changed, %"]
    sums = {name: sum(one["gate"][name] for one in found) for name in found[0]["gate"]}
    gate = Table(list(sums), [[str(value) for value in sums.values()]])
    return f"{len(found)} students\n\n{markdown(Table(headings, lines))}\n{markdown(gate)}"


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
