"""One contract for all of FAMILIES: what a value says that its family carries is proven, the rest refused by name."""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cut_students import extract_student
from messages import names
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from emdistill.errors import ConfigError, ModelError
from emdistill.models import capture, encoder_layers, encoder_shape, fingerprint
from emdistill.models.capture import check_capture
from emdistill.models.chain import ChainConfig
from emdistill.models.encoder import load_classifier, save_student
from emdistill.models.families import CAPABILITIES, FAMILIES, family_of, require
from emdistill.models.inputs import first_position, longest_text
from emdistill.models.vocabulary import Encoder, prune
from emdistill.students import fresh_student, keep_layers, make_student
from emdistill.students.importance import taylor_importance

pytestmark = pytest.mark.usefixtures("onnx_operators_are_listed_once")

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("bad", "so-so", "good")
LENGTHS = torch.tensor([21, 13, 5])
OF_ATTENTION = ("attention", "queries", "keys", "values")
# Every model type of the table, and what its config's options make of it.
VARIANTS = {name: (name, {}) for name in FAMILIES} | {
    "deberta-v2 with a convolution": (
        "deberta-v2",
        {
            "position_buckets": -1,
            "share_att_key": False,
            "position_biased_input": True,
            "type_vocab_size": 2,
            "conv_kernel_size": 3,
            "conv_act": "gelu",
        },
    ),
    "deberta-v2 of content alone": ("deberta-v2", {"relative_attention": False, "position_biased_input": True}),
    "albert in groups": ("albert", {"num_hidden_groups": 3}),
    "mobilebert of teachers": (
        "mobilebert",
        {
            "use_bottleneck_attention": True,
            "key_query_shared_bottleneck": False,
            "intra_bottleneck_size": 64,
            "num_feedforward_networks": 1,
            "normalization_type": "layer_norm",
            "hidden_act": "gelu",
        },
    ),
    "chain with convolutions": ("chain", {"operators": ["d5", "c3", "a"]}),
    "modernbert of means": ("modernbert", {"classifier_pooling": "mean", "local_attention": 4, "norm_bias": True}),
}
DISTINCT = [name for name in VARIANTS if name not in ("xlm-roberta", "camembert")]  # these are RoBERTas
EXPORTED = {
    *FAMILIES,
    "chain with convolutions",
    "mobilebert of teachers",
    "deberta-v2 with a convolution",
    "modernbert of means",
}  # an export takes seconds


@pytest.fixture
def model(request, tiny_encoder) -> PreTrainedModel:
    """The variant that the test is run for, of three layers, none of whose parameters is at its beginning."""
    family, options = VARIANTS[request.getfixturevalue("variant")]
    made: PreTrainedModel = tiny_encoder(family, layers=3, labels=3, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    family_of(made).put_right(made)  # as it is where it is loaded
    return made


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Three texts, padded to the longest."""
    ids = torch.randint(5, 90, (3, 21), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(21)[None] < LENGTHS[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


@torch.no_grad()
def reference(model: PreTrainedModel, batch: dict[str, Tensor]):
    """What transformers itself says, with all its states, by its plainest attention."""
    plain = copy.deepcopy(model).eval()
    plain.set_attn_implementation("eager")
    return plain(**batch, output_hidden_states=True, output_attentions=True)


def assert_close(found: Tensor, expected: Tensor, mask: Tensor | None = None) -> None:
    where = slice(None) if mask is None else mask.bool()
    torch.testing.assert_close(found[where], expected[where], rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------- what is carried


def teaches_by_hidden_states(model: PreTrainedModel, batch: dict[str, Tensor], folder: Path) -> None:
    check_capture(model, ("hidden", "embeddings"))
    expected, entered = reference(model, batch), []
    handle = encoder_layers(model)[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    states = capture(model, batch, ("hidden", "embeddings"))
    handle.remove()
    assert_close(states.logits, expected.logits)
    for ours, theirs in zip((states.embeddings, *states.hidden), expected.hidden_states, strict=True):
        assert_close(ours, theirs, batch["attention_mask"])
    assert len(states.hidden) == encoder_shape(model).layers == 3
    if family_of(model).name != "ALBERT":  # a matrix stands between its embeddings and its layers
        assert torch.equal(states.embeddings, entered[0])


def teaches_by_attention(model: PreTrainedModel, batch: dict[str, Tensor], folder: Path) -> None:
    check_capture(model, OF_ATTENTION)
    expected, real = reference(model, batch), batch["attention_mask"].bool()
    implementations = {part.config._attn_implementation for part in model.modules() if hasattr(part, "config")}
    states = capture(model, batch, OF_ATTENTION)
    assert_close(states.logits, expected.logits)
    assert encoder_shape(model).biased == (model.config.model_type in {"mpnet", "deberta-v2"})
    attending = encoder_shape(model).attending_layers
    assert all((state is not None) == (layer in attending) for layer, state in enumerate(states.attention_scores))
    recorded = [state for state in states.attention_scores if state is not None]
    for scores, probabilities in zip(recorded, expected.attentions, strict=True):
        assert torch.isfinite(scores).all()
        ours = scores.masked_fill(probabilities == 0, -torch.inf).softmax(dim=-1)  # the model's own mask
        assert_close(ours.transpose(1, 2), probabilities.transpose(1, 2), real)
    vectors = [state for state in (*states.queries, *states.keys, *states.values) if state is not None]
    width = getattr(model.config, "true_hidden_size", 32)  # within MobileBERT's bottlenecks
    assert all(state.shape == (3, 21, width) for state in vectors)
    assert len(vectors) == 3 * len(attending)
    assert len(states.queries) == len(states.keys) == len(states.values) == 3
    recorded[-1].square().sum().backward()
    assert sum(float(part.grad.abs().sum()) for part in encoder_layers(model)[0].parameters() if part.grad is not None)
    assert {part.config._attn_implementation for part in model.modules() if hasattr(part, "config")} == implementations
    assert not any("forward" in vars(module) for module in model.modules())


def gives_its_layers(model: PreTrainedModel, batch: dict[str, Tensor], folder: Path) -> None:
    for kept in ((0, 1), (0, 2)):
        student = keep_layers(model, kept).eval()
        expected = reference(truncated(model, kept), batch)
        found = student(**batch, output_hidden_states=True)
        assert_close(found.logits, expected.logits)
        for ours, theirs in zip(found.hidden_states, expected.hidden_states, strict=True):
            assert_close(ours, theirs, batch["attention_mask"])
    assert torch.equal(keep_layers(model, (0, 1, 2)).eval()(**batch).logits, model(**batch).logits)
    assert_stock(make_student("2", model, None, labels=LABELS)[0], batch, folder)  # type: ignore[arg-type]


def truncated(model: PreTrainedModel, kept: tuple[int, ...]) -> PreTrainedModel:
    """The model itself, its other layers taken out."""
    shorter = copy.deepcopy(model)
    path, _, _ = family_of(model).layers.partition(".*")
    parent, _, name = path.rpartition(".")
    stored = shorter.base_model.get_submodule(path)
    if len(stored) == 3:
        setattr(shorter.base_model.get_submodule(parent), name, nn.ModuleList(stored[layer] for layer in kept))
        shorter.config.num_hidden_groups = len(kept)
    shorter.config.num_hidden_layers = len(kept)
    return shorter


def is_cut(model: PreTrainedModel, batch: dict[str, Tensor], folder: Path) -> None:
    sample = [{**batch, "labels": torch.tensor([0, 2, 1])}]
    importance = taylor_importance(model, sample)
    assert all(len(scores) == 3 and torch.stack(scores).any() for scores in (importance.heads, importance.feed_forward))
    same = extract_student(model, 3, 32, 4, 64, importance=importance, sample=sample)
    assert fingerprint(same) == fingerprint(model)
    student = extract_student(model, 2, 24, 3, 40, importance=importance, sample=sample)
    assert encoder_shape(student) == replace(encoder_shape(model), layers=2, width=24, heads=3)
    assert_stock(student, batch, folder)


def is_born_fresh(model: PreTrainedModel, batch: dict[str, Tensor], folder: Path) -> None:
    student, again = (fresh_student(model, 2, 24, 3, 40, labels=LABELS, seed=1) for _ in range(2))
    assert fingerprint(student) == fingerprint(again) != fingerprint(fresh_student(model, 2, 24, 3, 40, labels=LABELS))
    assert encoder_shape(student) == replace(encoder_shape(model), layers=2, width=24, heads=3)
    assert_stock(student, batch, folder)


def assert_stock(student: PreTrainedModel, batch: dict[str, Tensor], folder: Path) -> None:
    """Whole where emdistill is not installed, and open to a method that reads whatever its family carries."""
    student.save_pretrained(folder)
    loaded, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] | report["unexpected_keys"] | report["mismatched_keys"]
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**batch).logits, student.eval()(**batch).logits)
    check_capture(student.train(), {"hidden", "attention"} - {*family_of(student).without})


def is_exported(model: PreTrainedModel, batch: dict[str, Tensor], folder: Path) -> None:
    onnx = pytest.importorskip("emdistill.ship.onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    carries_layers = "keep" not in family_of(model).without
    model = (keep_layers(model, (0, 1)) if carries_layers else model).eval()
    onnx.export_onnx(model, folder / "model.onnx")
    session = onnx.open_session(folder / "model.onnx", threads=1)
    generator, said = torch.Generator().manual_seed(2), []
    for rows, length in ((1, 1), (3, 2), (3, 21), (2, 70), (3, longest_text(model))):
        mask = (torch.arange(length)[None] < torch.tensor([[length], [max(1, length // 3)], [1]])[:rows]).long()
        inputs = {"input_ids": torch.randint(5, 90, (rows, length), generator=generator) * mask, "attention_mask": mask}
        with torch.no_grad():
            expected = model(**inputs).logits.numpy()
        fed = {name: values.numpy() for name, values in inputs.items()} | {"token_type_ids": 0 * mask.numpy()}
        np.testing.assert_allclose(onnx.session_logits(session, fed), expected, atol=1e-4, rtol=0)
        said.append(expected)
    assert np.ptp(np.concatenate(said), axis=0).max() > 0.01  # texts differ by more than is tolerated
    assert not any("forward" in vars(module) for module in model.modules())
    from emdistill.ship.quantize import groups

    stored = range(len(encoder_layers(model)) if carries_layers else 0)
    parts = [f"layer.{layer}.{part}" for layer in stored for part in ("attention", "feed_forward")]
    if isinstance(model.config, ChainConfig):
        names = {"a": "attention", "f": "feed_forward", "c": "convolution", "d": "convolution"}
        parts = [f"layer.{layer}.{names[name[0]]}" for layer, name in enumerate(model.config.operators)]
    in_int8 = [] if "attention" in family_of(model).without else parts  # an LSTM stays in float32
    assert set(groups(folder / "model.onnx")) >= {"embeddings", *in_int8}


PROOFS: dict[str, Callable[[PreTrainedModel, dict[str, Tensor], Path], None]] = {
    "hidden": teaches_by_hidden_states,
    "attention": teaches_by_attention,
    "keep": gives_its_layers,
    "cut": is_cut,
    "fresh": is_born_fresh,
    "export": is_exported,
}


def test_every_capability_has_its_proof() -> None:
    assert list(PROOFS) == list(CAPABILITIES)
    assert all(set(family.without) <= set(CAPABILITIES) for family in FAMILIES.values())


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("variant", DISTINCT)
def test_a_family_carries_what_it_says(model, batch, tmp_path, variant, capability) -> None:
    if capability in family_of(model).without:
        assert_refused(model, batch, tmp_path, capability)
    elif capability != "export" or variant in EXPORTED:
        PROOFS[capability](model, batch, tmp_path)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_of_an_unknown_family_hidden_states_alone_are_read(tiny_encoder, batch, tmp_path, capability) -> None:
    model = tiny_encoder("ernie", layers=3, labels=3)
    if capability == "hidden":
        capture(model, batch, ("hidden", "embeddings"))
    else:
        assert_refused(model, batch, tmp_path, capability)


def assert_refused(model: PreTrainedModel, batch: dict[str, Tensor], folder: Path, capability: str) -> None:
    """By name, with the reason and the mend, whoever asks for it."""
    onnx = pytest.importorskip("emdistill.ship.onnx")
    asks: dict[str, list[Callable[[], object]]] = {
        "hidden": [lambda: capture(model, batch, {"hidden"})],
        "attention": [lambda name=name: capture(model, batch, {name}) for name in OF_ATTENTION],  # type: ignore[misc]
        "keep": [lambda: keep_layers(model, (0, 1)), lambda: make_student("2", model, None, labels=LABELS)],  # type: ignore[arg-type]
        "cut": [
            lambda: extract_student(model, 2, 24),
            lambda: taylor_importance(model, [batch]),
            lambda: make_student("2x24", model, None, labels=LABELS, sample=pytest.fail),  # type: ignore[arg-type]
        ],
        "fresh": [lambda: fresh_student(model, 2, 24)],
        "export": [lambda: onnx.export_onnx(model, folder / "model.onnx")],
    }
    for ask in asks[capability]:
        with pytest.raises(CAPABILITIES[capability].error) as error:
            ask()
        for part in (
            f"'{model.config.model_type}'",
            family_of(model).without[capability],
            CAPABILITIES[capability].mend,
        ):
            assert part in str(error.value)


def test_what_a_toy_family_denies_is_refused(tiny_encoder, batch, tmp_path, monkeypatch) -> None:
    """A file and a table line make a family; here BERT's value with everything denied."""
    toy = replace(FAMILIES["bert"], name="Toy", without=dict.fromkeys(CAPABILITIES, "it is a toy"))
    monkeypatch.setitem(FAMILIES, "ernie", toy)
    for capability in CAPABILITIES:
        assert_refused(tiny_encoder("ernie", layers=3, labels=3), batch, tmp_path, capability)


@pytest.mark.parametrize("capability", [name for name in CAPABILITIES if name != "export"])
def test_one_value_is_all_that_a_toy_family_takes(tiny_encoder, batch, tmp_path, monkeypatch, capability) -> None:
    monkeypatch.setitem(FAMILIES, "ernie", replace(FAMILIES["bert"], name="Toy"))
    options = {"use_task_id": False}
    PROOFS[capability](tiny_encoder("ernie", layers=3, labels=3, **options), batch, tmp_path)


# --------------------------------------------------------------------------------------------------- what all have


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_text_has_the_same_states_in_a_padded_batch_as_alone(model, batch, variant) -> None:
    with torch.no_grad():
        needs = {"hidden"} - {*family_of(model).without}
        together = capture(model, batch, needs)
        for row, length in enumerate(LENGTHS.tolist()):
            alone = capture(model, {name: values[row : row + 1, :length] for name, values in batch.items()}, needs)
            assert_close(alone.logits[0], together.logits[row])
            for one, other in zip(alone.hidden, together.hidden, strict=True):
                assert_close(one[0], other[row, :length])


def test_a_mobilebert_is_put_right_where_it_is_loaded(tiny_encoder, tiny_tokenizer, tmp_path) -> None:
    """Trigrams read the row of padding, which a masked-LM head that is tied to the table has moved."""
    stored = tiny_encoder("mobilebert")
    with torch.no_grad():
        stored.get_input_embeddings().weight[0] = 1.0
    save_student(stored, tiny_tokenizer, tmp_path)
    loaded = load_classifier(tmp_path)
    texts = tiny_tokenizer(["a good movie", "bad"], padding=True, return_tensors="pt")
    alone = tiny_tokenizer("bad", return_tensors="pt")
    with torch.no_grad():
        assert_close(loaded(**texts).logits[1], stored(**alone).logits[0])
        assert not torch.allclose(stored(**texts).logits[1], stored(**alone).logits[0], atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_longest_text_is_read_and_a_longer_one_has_no_positions(model, variant) -> None:
    longest = longest_text(model)
    assert longest == model.config.max_position_embeddings - first_position(model)

    def read(length: int) -> Tensor:
        ids = torch.full((1, length), 7)
        with torch.no_grad():
            return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits

    assert torch.isfinite(read(longest)).all()
    if any(name.endswith("position_embeddings") for name, _ in model.named_modules()):
        with pytest.raises((IndexError, RuntimeError)):
            read(longest + 1)


@pytest.mark.parametrize("variant", DISTINCT)
def test_a_smaller_vocabulary_gives_the_same_answers(model, tiny_tokenizer, variant) -> None:
    used = Counter(tiny_tokenizer("it was a good movie, not very bad")["input_ids"])
    pruned, kept = prune(Encoder(model, tiny_tokenizer), used)
    assert len(kept) < len(tiny_tokenizer)
    texts = ["a good movie", "not very bad, was it xyz"]
    with torch.no_grad():
        before, after = (
            each.model(**each.tokenizer(texts, padding=True, return_tensors="pt")).logits
            for each in (Encoder(model, tiny_tokenizer), pruned)
        )
    assert torch.equal(before, after)


def test_every_model_type_of_the_table_is_one_of_transformers() -> None:
    for name in FAMILIES:
        assert AutoConfig.for_model(name).model_type == name
    with names(ModelError, "'ernie'"):
        require(AutoConfig.for_model("ernie"), "keep")


def test_layers_of_groups_and_first_layers_that_cannot_be_kept(tiny_encoder) -> None:
    grouped = tiny_encoder("albert", layers=4, num_hidden_groups=2)
    assert keep_layers(grouped, (1, 3)).config.num_hidden_groups == 2
    assert keep_layers(grouped, (2, 3)).config.num_hidden_groups == 1
    with names(ModelError, "0, 2, 3", "'albert'", 2):
        keep_layers(grouped, (0, 2, 3))
    with names(ModelError, "'albert'", 1, 2):
        keep_layers(tiny_encoder("albert", layers=4, inner_group_num=2), (0, 1))
    modern = tiny_encoder("modernbert", layers=4)
    with names(ModelError, "'modernbert'", "--student 0,1,3"):
        keep_layers(modern, (1, 3))
    assert keep_layers(modern, (0, 3)).config.layer_types == ["full_attention", "full_attention"]
    student, _ = make_student("3", modern, None, labels=("a", "b"))  # type: ignore[arg-type]
    kept = encoder_layers(student)
    assert [fingerprint(layer) for layer in kept] == [
        fingerprint(encoder_layers(modern)[number]) for number in (0, 1, 3)
    ]
    with names(ConfigError, "--student 2x12x4x48", "'modernbert'"):
        fresh_student(modern, 2, 12, 4)


# ----------------------------------------------------------------------------------------------- the documentation


def test_the_documentation_has_the_table() -> None:
    rows: dict[str, list[str]] = {}
    for name, family in FAMILIES.items():
        marks = ["yes" if capability not in family.without else "no" for capability in CAPABILITIES]
        types = [*(rows[family.name][1].split(", ") if family.name in rows else ()), f"`{name}`"]
        rows[family.name] = [family.name, ", ".join(types), *marks]
    text = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    assert [row for row in found if row[0] in rows] == list(rows.values())
