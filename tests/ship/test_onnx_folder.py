import json
import os
import shutil
import string
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from messages import names, unnamed
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from emdistill.commands.evaluate import evaluate_model
from emdistill.commands.predict import predict_file
from emdistill.errors import ConfigError, ModelError, TokenizerError
from emdistill.models.encoder import save_student
from emdistill.models.label_names import name_outputs
from emdistill.runs.reading import Reading, remember_reading
from emdistill.ship.onnx import OnnxClassifier, open_onnx
from emdistill.ship.onnx_folder import (
    CONFIG,
    INT8,
    MODEL,
    TOKENIZER,
    put_first,
    read_folder,
    write_onnx_folder,
)
from emdistill.ship.quantize import quantize_dynamic_int8
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

LENGTH = 24
TASK = Task("own", KINDS["classification"], ("bad", "good"), ("accuracy",), text="a", text_pair="b", label="c")
BLOCKED = """import sys
for name in ("torch", "transformers", "datasets", "pydantic", "emdistill"):
    sys.modules[name] = None
"""


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Words of the tests' vocabulary and others, of lengths that are cut and that are not."""
    drawn = np.random.default_rng(seed)
    words = ["the", "movie", "good", "bad", "was", "not", "xylophone", "3.14", "it's", *string.punctuation]
    return [" ".join(drawn.choice(words, drawn.integers(1, 40))) for _ in range(count)]


def with_token_types(tokenizer: Any, **options: Any) -> PreTrainedTokenizerFast:
    """The same tokenizer, telling the sentences of a pair apart as BERT's does."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **tokenizer.special_tokens_map,
        **options,
    )


@pytest.fixture(scope="module")
def shipped(traced_classifier: Any, tokenizer_factory: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(model, tokenizer, folder) of a classifier of pairs; leave the folder as it is."""
    model, tokenizer = deepcopy(traced_classifier[0]).eval(), with_token_types(tokenizer_factory())
    name_outputs(model.config, labels=TASK.labels, problem_type="single_label_classification")
    remember_reading(model, tokenizer, TASK, LENGTH)
    folder = tmp_path_factory.mktemp("shipped")
    shutil.copyfile(traced_classifier[1], folder / MODEL)
    quantize_dynamic_int8(folder / MODEL, folder / INT8)
    write_onnx_folder(folder, model, tokenizer)
    return model, tokenizer, folder


def dataset(*columns: list[str]) -> Dataset:
    return Dataset.from_dict(dict(zip(("text", "text_pair"), columns, strict=False)))


def pytorch_logits(model: PreTrainedModel, tokenizer: Any, *texts: list[str]) -> np.ndarray:
    """One row at a time, by transformers alone."""
    with torch.no_grad():
        rows = zip(*texts, strict=True)
        inputs = [tokenizer(*row, truncation=True, max_length=LENGTH, return_tensors="pt") for row in rows]
        return torch.cat([model(**each).logits for each in inputs]).numpy()


def test_config_says_what_is_needed_to_read_texts_and_answers(shipped: Any) -> None:
    _, _, folder = shipped
    config = json.loads((folder / CONFIG).read_text())
    assert config["labels"] == ["bad", "good"]
    assert config["reading"] == {
        "text": "a",
        "text_pair": "b",
        "label": "c",
        "max_length": LENGTH,
        "kind": TASK.kind.name,
    }
    assert set(config["files"]) == {MODEL, INT8, TOKENIZER}
    opened = open_onnx(folder, threads=1)
    assert opened.config.labels == ("bad", "good")
    assert opened.config.kind == "classification"
    assert opened.config.reading == Reading("a", "b", "c", LENGTH, "classification")
    assert opened.path.name == MODEL


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("max_length", [5, 17, LENGTH, 100])
def test_tokens_are_those_of_transformers(shipped: Any, pairs: bool, max_length: int) -> None:
    _, tokenizer, folder = shipped
    columns = [random_texts(150, seed) for seed in range(1 + pairs)]
    expected = tokenizer(*columns, truncation=True, max_length=max_length)
    encoded = open_onnx(folder, threads=1).encode(columns[0], columns[1] if pairs else None, max_length=max_length)
    assert [each.ids for each in encoded] == expected["input_ids"]
    assert [each.type_ids for each in encoded] == expected["token_type_ids"]
    assert [each.attention_mask for each in encoded] == expected["attention_mask"]


def test_names_of_special_tokens_in_a_text_are_text_where_the_tokenizer_says_so(
    shipped: Any, tokenizer_factory: Any, tmp_path: Path
) -> None:
    model, plain, folder = shipped
    tokenizer = with_token_types(tokenizer_factory(), split_special_tokens=True)
    texts = ["it was [SEP] good", "[MASK]"]
    expected = tokenizer(*texts)
    assert expected["input_ids"] != plain(*texts)["input_ids"]
    shutil.copyfile(folder / MODEL, tmp_path / MODEL)
    write_onnx_folder(tmp_path, model, tokenizer)
    (encoded,) = open_onnx(tmp_path, threads=1).encode(texts[:1], texts[1:], max_length=LENGTH)
    assert encoded.ids == expected["input_ids"]
    done = subprocess.run([sys.executable, tmp_path / "example.py", *texts], capture_output=True, text=True, check=True)
    found = [float(value) for value in done.stdout.split("\t")[1:3]]
    np.testing.assert_allclose(found, pytorch_logits(model, tokenizer, texts[:1], texts[1:])[0], atol=1e-4, rtol=0)


def test_a_padded_batch_is_that_of_transformers(shipped: Any) -> None:
    _, tokenizer, folder = shipped
    texts = random_texts(9)
    opened = open_onnx(folder, threads=1)
    batch = opened.pad(opened.encode(texts, None, max_length=LENGTH))
    expected = tokenizer(texts, truncation=True, max_length=LENGTH, padding=True, return_tensors="np")
    assert batch.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(batch[name], values)


def test_logits_of_texts_are_pytorchs_in_their_order(shipped: Any) -> None:
    model, tokenizer, folder = shipped
    columns = random_texts(50, 1), random_texts(50, 2)
    expected = pytorch_logits(model, tokenizer, *columns)
    found = open_onnx(folder / MODEL, threads=1).predict_logits(dataset(*columns), batch_size=7)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_the_example_runs_without_torch_and_says_what_pytorch_says(shipped: Any, tmp_path: Path) -> None:
    model, tokenizer, folder = shipped
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    firsts, seconds = random_texts(4, 1), random_texts(4, 2)
    words = [word for pair in zip(firsts, seconds, strict=True) for word in pair]
    done = subprocess.run(
        [sys.executable, folder / "example.py", *words],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = pytorch_logits(model, tokenizer, firsts, seconds)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [TASK.labels[best] for best in expected.argmax(-1)]
    found = np.array([[float(value) for value in line[1:3]] for line in lines])
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    assert done.stderr == ""
    refused = subprocess.run(
        [sys.executable, "-c", "import torch"], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True
    )
    assert refused.returncode != 0
    assert len((folder / "example.py").read_text().splitlines()) <= 21


def write_graph(path: Path, bias: list[float], *, first_token: int | None) -> None:
    """Logits that are `bias` whatever the text; with first_token those of every token, and 1 higher where it stands."""
    inputs = ", ".join(f"int64[B, L] {name}" for name in ("input_ids", "attention_mask", "token_type_ids"))
    if first_token is None:
        shape, column = "B, 2", "first = Gather<axis=1>(input_ids, zero) column = Equal(first, raised)"
    else:
        shape, column = "B, L, 2", "is_raised = Equal(input_ids, raised) column = Unsqueeze(is_raised, last)"
    raised = -1 if first_token is None else first_token
    text = f"""<ir_version: 9, opset_import: ["": 18]> graph ({inputs}) => (float[{shape}] logits)
        <int64[1] zero = {{0}}, int64[1] last = {{-1}}, int64 raised = {{{raised}}},
         float[2] bias = {{{bias[0]}, {bias[1]}}}>
        {{ {column} number = Cast<to=1>(column) logits = Add(number, bias) }}"""
    onnx.save(onnx.parser.parse_model(text), path)


@pytest.mark.parametrize(
    ("kind", "bias", "printed"),
    [
        ("multi-label", [-9.0, -9.0], "(no label)"),
        ("multi-label", [-9.0, 9.0], "good"),
        ("multi-label", [9.0, 9.0], "bad|good"),
        ("scores", [0.0, 0.0], "bad=0 good=0"),
        ("span-answers-or-none", [0.0, 0.0], "(no answer)"),
    ],
)
def test_the_example_of_every_kind_says_something(
    tiny_encoder: Callable[..., PreTrainedModel],
    tokenizer_factory: Any,
    tmp_path: Path,
    kind: str,
    bias: list[float],
    printed: str,
) -> None:
    """The logits are the bias alone; those of a span are high at the first token, where no answer stands."""
    asked, spans = KINDS[kind], kind.startswith("span")
    labels = ("start", "end") if spans else TASK.labels
    tokenizer = with_token_types(tokenizer_factory())
    model = tiny_encoder("bert", layers=1, head=asked.head)
    name_outputs(model.config, labels=labels, problem_type=asked.problem_type)
    pair = "b" if spans else None
    remember_reading(model, tokenizer, Task("own", asked, labels, asked.default_metrics, text_pair=pair), LENGTH)
    write_graph(tmp_path / MODEL, bias, first_token=tokenizer.cls_token_id if spans else None)
    write_onnx_folder(tmp_path, model, tokenizer)
    texts = ["who was it?", "it was good"] if spans else ["it was good"]
    done = subprocess.run([sys.executable, tmp_path / "example.py", *texts], capture_output=True, text=True, check=True)
    assert done.stdout.split("\t")[0] == printed


@pytest.mark.parametrize("texts", [[], ["a text without its partner"], ["a text", "its partner", "without one"]])
def test_the_example_says_what_it_needs(shipped: Any, texts: list[str]) -> None:
    command = [sys.executable, shipped[2] / "example.py", *texts]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert not unnamed(done.stderr, "python example.py", "its partner")


def test_a_text_without_a_token_is_refused(shipped: Any, tmp_path: Path) -> None:
    """As in PyTorch; the graph would look up a first token that is not there."""
    folder = Path(shutil.copytree(shipped[2], tmp_path / "bare"))
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    tokenizer.save(str(folder / TOKENIZER))
    bare = replace(open_onnx(shipped[2], threads=1), tokenizer=tokenizer)
    assert [len(text) for text in bare.encode(["good"], [""], max_length=8)] == [1]
    with names(TokenizerError, "empty"):
        bare.encode(["good", ""], ["", " "], max_length=8)
    done = subprocess.run([sys.executable, folder / "example.py", "", " "], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert not unnamed(done.stderr, "token")
    assert "Traceback" not in done.stderr


@pytest.fixture
def copy(shipped: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped[2], tmp_path / "copy"))


def test_the_int8_file_may_stand_for_the_folder(copy: Path) -> None:
    put_first(copy, INT8)
    assert open_onnx(copy, threads=1).path.name == INT8
    assert open_onnx(copy / MODEL, threads=1).path.name == MODEL


@pytest.mark.parametrize("name", [MODEL, TOKENIZER, CONFIG])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with names(ModelError, copy, name):
        open_onnx(copy)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.999])
@pytest.mark.parametrize("name", [MODEL, TOKENIZER])
def test_a_file_cut_short_is_named(copy: Path, name: str, share: float) -> None:
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: int(share * len(whole))])
    with names(ModelError, copy / name, f"{int(share * len(whole)):,} bytes", f"{len(whole):,}"):
        open_onnx(copy)


def test_an_altered_file_is_named(copy: Path) -> None:
    altered = bytearray((copy / MODEL).read_bytes())
    altered[len(altered) // 2] ^= 1
    (copy / MODEL).write_bytes(bytes(altered))
    with names(ModelError, copy / MODEL):
        open_onnx(copy / MODEL)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "bert"}', '{"format": "emdistill-onnx-1", "reading": {}}'])
def test_a_foreign_or_broken_config_is_named(copy: Path, text: str) -> None:
    (copy / CONFIG).write_text(text)
    with names(ModelError, copy / CONFIG):
        open_onnx(copy)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["reading", "max_length"], {"0": "a", "x": [[]]}),
        (["reading", "text"], 1),
        (["files", MODEL, "bytes"], "many"),
        (["files", MODEL], []),
        (["labels"], "good"),
        (["positions"], None),
    ],
)
def test_a_field_that_is_wrong_is_named(copy: Path, place: list[str], value: Any) -> None:
    config = inner = json.loads((copy / CONFIG).read_text())
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    (copy / CONFIG).write_text(json.dumps(config))
    with names(ModelError, copy / CONFIG, ".".join(place)) as caught:
        open_onnx(copy)
    assert "\n" not in str(caught.value)


def test_other_labels_than_logits_are_refused(copy: Path) -> None:
    config = json.loads((copy / CONFIG).read_text())
    (copy / CONFIG).write_text(json.dumps({**config, "labels": ["a", "b", "c"]}))
    with names(ModelError, copy / MODEL, 2, 3):
        open_onnx(copy)


def test_a_file_beside_the_config_but_not_in_it_is_refused(copy: Path) -> None:
    shutil.copyfile(copy / MODEL, copy / "other.onnx")
    with names(ModelError, copy / "other.onnx", copy / CONFIG):
        open_onnx(copy / "other.onnx")
    with names(ModelError, copy / "nothing.onnx"):
        open_onnx(copy / "nothing.onnx")
    with names(ModelError, copy / "nowhere"):
        read_folder(copy / "nowhere")


def test_a_folder_is_not_completed_without_a_graph_or_rules(shipped: Any, tmp_path: Path) -> None:
    model, tokenizer, _ = shipped
    with names(ModelError, tmp_path, MODEL):
        write_onnx_folder(tmp_path, model, tokenizer)
    (tmp_path / MODEL).touch()
    with names(TokenizerError, TOKENIZER):
        write_onnx_folder(tmp_path, model, object())  # type: ignore[arg-type]


def test_predict_and_evaluate_agree_with_the_pytorch_model(shipped: Any, tmp_path: Path) -> None:
    model, tokenizer, folder = shipped
    save_student(model, tokenizer, tmp_path / "student")
    rows = [
        {"a": a, "b": b, "c": TASK.labels[row % 2]}
        for row, (a, b) in enumerate(zip(random_texts(30, 1), random_texts(30, 2), strict=True))
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    outputs = {}
    for name, path in {"torch": tmp_path / "student", "file": folder / MODEL, "folder": folder}.items():
        predict_file(str(path), str(data), str(tmp_path / f"{name}.jsonl"), batch_size=4)
        outputs[name] = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
    for found in (outputs["file"], outputs["folder"]):
        assert [row["prediction"] for row in found] == [row["prediction"] for row in outputs["torch"]]
        np.testing.assert_allclose(
            *([row["probability"] for row in rows] for rows in (found, outputs["torch"])), atol=1e-4
        )
    assert evaluate_model(str(folder), str(data)) == evaluate_model(str(tmp_path / "student"), str(data))


def test_data_of_another_task_is_refused(shipped: Any, tmp_path: Path) -> None:
    folder = shipped[2]
    data = tmp_path / "data.jsonl"
    rows = [{"a": "good", "b": "bad", "c": label} for label in ("good", "awful")]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with names(ModelError, folder, "awful", "bad, good"):
        evaluate_model(str(folder), str(data))
    data.write_text("".join(json.dumps({**row, "c": 1.5 + n}) + "\n" for n, row in enumerate(rows)))
    with names(ModelError, folder, "classification", "regression"):
        evaluate_model(str(folder), str(data), kind="regression")
    with names(ConfigError, "--max-length 129", 128):
        predict_file(str(folder), str(data), str(tmp_path / "out.csv"), max_length=129)


def test_a_score_is_a_number(traced_scorer: Any, tmp_path: Path, tiny_tokenizer: Any) -> None:
    model = deepcopy(traced_scorer[0])
    remember_reading(model, tiny_tokenizer, Task("own", KINDS["regression"], (), ("pearson",)), LENGTH)
    shutil.copyfile(traced_scorer[1], tmp_path / MODEL)
    write_onnx_folder(tmp_path, model, tiny_tokenizer)
    opened: OnnxClassifier = open_onnx(tmp_path, threads=1)
    assert opened.config.kind == "regression"
    assert opened.config.labels == ()
    texts = random_texts(6)
    ids = [tiny_tokenizer(text, truncation=True, max_length=LENGTH)["input_ids"] for text in texts]
    with torch.no_grad():
        expected = torch.cat([model(input_ids=torch.tensor([row])).logits for row in ids]).numpy()
    np.testing.assert_allclose(opened.predict_logits(dataset(texts)), expected, atol=1e-4, rtol=0)
    (tmp_path / "in.txt").write_text("\n".join(texts))
    predict_file(str(tmp_path), str(tmp_path / "in.txt"), str(tmp_path / "out.jsonl"))
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row.keys() for row in found] == [{"text", "prediction"}] * 6
    np.testing.assert_allclose([row["prediction"] for row in found], expected[:, 0], atol=1e-4)


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/passwd", "a" * 70_000])
def test_the_graph_that_stands_for_a_folder_lies_in_it(shipped: Any, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(shipped[2], tmp_path / "onnx")
    shutil.copy(folder / MODEL, tmp_path / "outside.onnx")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["files"][name] = config["files"][MODEL]
    (folder / CONFIG).write_text(json.dumps(config | {"model": name}), encoding="utf-8")
    with names(ModelError, folder):
        open_onnx(folder)
