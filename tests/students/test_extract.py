"""Students cut from their teacher: identity at equal size, dropped units that do not matter, stock models, refusals."""

from dataclasses import replace

import pytest
import torch
from cut_students import extract_student
from messages import names
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, BertModel

from emdistill.errors import ConfigError, ModelError
from emdistill.models import encoder_layers, fingerprint
from emdistill.models.families import FAMILIES as KNOWN
from emdistill.students.extract import ExtractionPlan, cut_out, parameter_place, plan_extraction
from emdistill.students.importance import Importance, random_importance
from emdistill.students.keep_layers import keep_layers
from emdistill.students.shape import StudentShape, complete_shape, shape_of

# One model type of each family that can be cut.
FAMILIES = list({family.name: name for name, family in reversed(KNOWN.items()) if "cut" not in family.without}.values())
AUTO = {"classifier": AutoModelForSequenceClassification, "masked-lm": AutoModelForMaskedLM, "bare": AutoModel}
BATCH = {
    "input_ids": torch.tensor([[2, 40, 41, 42, 43, 3], [2, 50, 51, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]),
}


def random_model(tiny_encoder, family: str, kind: str = "classifier", seed: int = 0, **options):
    """A tiny model whose LayerNorms and biases are random, too."""
    config = tiny_encoder(family, **options).config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AUTO[kind].from_config(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1:
                    parameter.copy_(torch.randn_like(parameter) * 0.3 + (1 if "weight" in name else 0))
    return model


@torch.no_grad()
def outputs(model: nn.Module, batch=BATCH) -> torch.Tensor:
    return model.eval()(**batch)[0]


@pytest.mark.parametrize("kind", AUTO)
@pytest.mark.parametrize("family", FAMILIES)
def test_at_equal_size_the_student_is_the_teacher_bit_for_bit(tiny_encoder, family, kind):
    teacher = random_model(tiny_encoder, family, kind, layers=3)
    before = fingerprint(teacher)
    for sample in ((), [BATCH]):
        student = extract_student(teacher, 3, 32, 4, 64, sample=sample, seed=1)
        assert type(student) is type(teacher)
        assert all(torch.equal(value, student.state_dict()[name]) for name, value in teacher.state_dict().items())
        assert torch.equal(outputs(student), outputs(teacher))
        assert all(parameter.requires_grad for parameter in student.parameters())
        assert not {id(part) for part in student.parameters()} & {id(part) for part in teacher.parameters()}
    assert fingerprint(teacher) == before


@pytest.mark.parametrize("kind", AUTO)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_student_is_a_stock_model(tiny_encoder, tmp_path, family, kind):
    teacher = random_model(tiny_encoder, family, kind, layers=4)
    student = extract_student(teacher, 2, 24, 4, 40, sample=[BATCH], seed=1)
    assert shape_of(student.config) == StudentShape(2, 24, 4, 40)
    student.save_pretrained(tmp_path)
    loaded, report = AUTO[kind].from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] | report["unexpected_keys"] | report["mismatched_keys"]
    assert fingerprint(loaded) == fingerprint(student)
    assert torch.equal(outputs(loaded), outputs(student))
    assert shape_of(teacher.config) == StudentShape(4, 32, 4, 64)
    decoder = student.get_output_embeddings() if kind == "masked-lm" else None
    assert decoder is None or decoder.weight is student.get_input_embeddings().weight


# A teacher that is a smaller model in disguise: its further units copy or do nothing.


def asks(name: str) -> bool:
    """Whether the parameter makes queries, of states or of positions."""
    return name.rpartition(".")[0].endswith(("query", "q_lin", ".q", "query_proj"))


def head_factor(large, small) -> float:
    """softmax(q·k / sqrt(head size)): by so much queries grow where the heads do."""
    return (shape_of(large).head_size / shape_of(small).head_size) ** 0.5


def grown(small: nn.Module, config, plan: ExtractionPlan) -> nn.Module:
    """A wider, deeper model that says what `small` says, whose units of `plan` are those of `small`.

    Every residual unit of `small` is there equally often, so that LayerNorms see the same statistics; the copies are
    read by nobody. Further query and key neurons give 0, and nobody reads further values and feed-forward neurons.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        large = type(small)(config).eval()
        copies = config.hidden_size // small.config.hidden_size
        source = torch.empty(config.hidden_size, dtype=torch.long)
        source[list(plan.residual)] = torch.arange(small.config.hidden_size)
        dropped = [unit for unit in range(config.hidden_size) if unit not in plan.residual]
        source[dropped] = torch.arange(small.config.hidden_size).repeat(copies - 1)
        state = {name: torch.randn_like(value) for name, value in large.state_dict().items()}
        factor = head_factor(config, small.config)
        for name, value in state.items():
            place = parameter_place(large, name)
            if place.layer is not None and place.layer not in plan.layers:
                continue
            row = 0 if place.layer is None else plan.layers.index(place.layer)
            own = small.state_dict()[name.replace(f"layer.{place.layer}.", f"layer.{row}.")]
            if asks(name):
                own = own * factor
            kept = {"residual": plan.residual, "query_key": plan.query_key, "value": plan.value}
            kept |= {"feed_forward": plan.feed_forward, "head": plan.heads}
            for axis, kind in enumerate(place.axes):
                if kind not in kept:
                    continue
                units = kept[kind] if kind == "residual" else kept[kind][row]
                shape = [*own.shape]
                shape[axis] = value.shape[axis]
                if kind == "residual" and (axis == 0 or "_embeddings." in name):  # what is written, not read
                    own = own.index_select(axis, source)
                    continue
                junk = torch.randn(shape) if axis == 0 and kind != "query_key" else torch.zeros(shape)
                own = junk.index_copy(axis, torch.tensor(units), own)
            state[name] = own
        large.load_state_dict(state)
    return large


@pytest.mark.parametrize(
    ("kind", "heads", "small_heads"),
    # Heads are of the encoder, whatever stands on it.
    [*((kind, 4, 2) for kind in AUTO), ("classifier", 4, 4), ("classifier", 6, 4)],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_units_that_do_not_matter_are_cut_off(tiny_encoder, family, kind, heads, small_heads):
    width = 48 if heads == 6 else 32
    options = {"tie_word_embeddings": False} | ({"embedding_size": 10} if family == "electra" else {})
    small = random_model(tiny_encoder, family, kind, layers=2, width=16, heads=small_heads, **options)
    config = tiny_encoder(family, layers=3, width=width, heads=heads, **options).config
    blank = AUTO["bare"].from_config(config)
    plan = plan_extraction(blank, shape_of(small.config), random_importance(blank, seed=3))
    large = grown(small, config, plan)
    said = outputs(keep_layers(large, plan.layers))
    said = said[..., list(plan.residual)] if kind == "bare" else said
    torch.testing.assert_close(said, outputs(small), atol=2e-5, rtol=1e-5)

    student = cut_out(large, plan)
    factor = head_factor(config, small.config)
    for name, value in small.state_dict().items():
        assert torch.equal(student.state_dict()[name], value * factor if asks(name) else value)


@pytest.mark.parametrize("kind", AUTO)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_its_axes(tiny_encoder, family, kind):
    for narrow in (True, False) if family == "electra" else (True,):
        options = {} if narrow else {"embedding_size": 32}
        model = random_model(tiny_encoder, family, kind, layers=2, **options)
        for name, tensor in model.state_dict().items():
            place = parameter_place(model, name)
            assert len(place.axes) == tensor.ndim
            sizes = {"residual": 32, "query_key": 32, "value": 32, "head": 4, "feed_forward": 64, "embedding": 16}
            for axis, kind_of_unit in enumerate(place.axes):
                assert kind_of_unit is None or tensor.shape[axis] == sizes[kind_of_unit]


def test_an_unknown_parameter_is_refused(tiny_encoder):
    teacher = tiny_encoder()
    teacher.bert.encoder.layer[1].adapter = nn.Linear(32, 32)
    with names(ModelError, "bert.encoder.layer.1.adapter.weight", "BertForSequenceClassification"):
        extract_student(teacher, 2, 24)
    teacher = tiny_encoder()
    teacher.gate = nn.Linear(32, 2)
    with names(ModelError, "gate.weight", "--student-birth fresh"):
        extract_student(teacher, 2, 24)


def test_the_units_of_the_highest_scores_are_kept(tiny_encoder):
    teacher = tiny_encoder(layers=3, width=12, heads=3)
    neurons = torch.tensor([9.0, 0, 8, 7, 0, 0, 0, 0, 0, 1, 2, 3])
    scores = Importance(
        residual=torch.arange(12.0).flip(0),
        heads=(torch.tensor([0.0, 1, 2]), torch.tensor([9.0, 9, 9]), torch.tensor([5.0, 1, 2])),
        query_key=(neurons,) * 3,
        value=(neurons.flip(0),) * 3,
        feed_forward=tuple(torch.roll(torch.arange(24.0), layer) for layer in range(3)),
    )
    plan = plan_extraction(teacher, StudentShape(2, 6, 2, 3), scores)
    assert plan == ExtractionPlan(
        residual=(0, 1, 2, 3, 4, 5),
        layers=(0, 2),
        heads=((1, 2), (0, 2)),
        query_key=((4, 5, 6, 9, 10, 11), (0, 2, 3, 9, 10, 11)),
        value=((4, 5, 6, 8, 9, 11), (0, 1, 2, 8, 9, 11)),
        feed_forward=((21, 22, 23), (0, 1, 23)),
    )
    student = cut_out(teacher, plan)
    query = encoder_layers(teacher)[2].attention.self.query
    assert torch.equal(
        encoder_layers(student)[1].attention.self.query.weight, query.weight[[0, 2, 3, 9, 10, 11]][:, :6]
    )


def test_units_drawn_at_random_follow_the_seed(tiny_encoder):
    teacher = tiny_encoder(layers=3)
    random_state = torch.get_rng_state()
    first, again, other = (extract_student(teacher, 2, 16, 4, 20, seed=seed) for seed in (1, 1, 2))
    assert fingerprint(first) == fingerprint(again) != fingerprint(other)
    assert torch.equal(torch.get_rng_state(), random_state)
    plan = plan_extraction(teacher, StudentShape(2, 16, 2, 20), random_importance(teacher, 1))
    units = [plan.residual, plan.layers, *plan.heads, *plan.query_key, *plan.value, *plan.feed_forward]
    assert all(list(kept) == sorted(set(kept)) for kept in units)
    assert [len(kept) for kept in units] == [16, 2, 2, 2, 16, 16, 16, 16, 20, 20]
    assert all({unit // 8 for unit in kept} == {*heads} for kept, heads in zip(plan.value, plan.heads, strict=True))
    counts = torch.zeros(32)
    for seed in range(400):
        counts[list(plan_extraction(teacher, StudentShape(1, 8, 1, 8), random_importance(teacher, seed)).residual)] += 1
    assert counts.min() > 60
    assert counts.max() < 140


@pytest.mark.parametrize("family", FAMILIES)
def test_the_students_states_get_the_teachers_means(tiny_encoder, family):
    teacher = random_model(tiny_encoder, family, layers=4)
    sample = [BATCH, {"input_ids": torch.tensor([[2, 60, 61, 3]]), "labels": torch.tensor([1])}]
    shape = complete_shape(teacher.config, 2, 24, 4, 40)
    plan = plan_extraction(teacher, shape, random_importance(teacher, 0))
    before, random_state = fingerprint(teacher), torch.get_rng_state()
    plain, student = cut_out(teacher, plan), cut_out(teacher, plan, sample)
    assert fingerprint(teacher) == before
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module._forward_hooks for model in (teacher, student) for module in model.modules())
    assert student.training == plain.training
    changed = {name for name, value in plain.state_dict().items() if not torch.equal(student.state_dict()[name], value)}
    assert all("norm" in name.lower() and name.endswith(".bias") for name in changed)
    assert len(changed) == (4 if family == "electra" else 5)  # ELECTRA's narrow embeddings are kept whole

    def means(model: nn.Module) -> list[torch.Tensor]:
        every = []
        for batch in sample:
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            with torch.no_grad():
                states = model.eval()(**inputs, output_hidden_states=True).hidden_states
            mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
            every.append([state[mask] for state in states])
        return [torch.cat(states).mean(dim=0) for states in zip(*every, strict=True)]

    for number, state in enumerate(means(student)[1:]):
        expected = means(teacher)[plan.layers[number] + 1][list(plan.residual)]
        torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)


def test_a_bare_encoder_without_pooler_stays_without(tiny_encoder, tmp_path):
    teacher = BertModel(tiny_encoder(layers=2).config, add_pooling_layer=False).eval()
    student = extract_student(teacher, 1, 16, sample=[BATCH])
    assert student.pooler is None
    assert outputs(student).shape == (2, 6, 16)


def test_a_teacher_with_convolutions_in_groups_is_refused(tiny_encoder):
    teacher = tiny_encoder("deberta-v2", conv_kernel_size=3, conv_groups=4)
    with names(ModelError, "deberta.encoder.conv.conv.weight", 8, 32, "--student-birth fresh"):
        extract_student(teacher, 1, 16)


def test_what_is_no_part_of_the_teacher_is_refused(tiny_encoder):
    teacher = tiny_encoder(layers=2)
    for shape in ((3, 16, 4, 64), (2, 64, 4, 64), (2, 16, 4, 65)):
        with names(ConfigError, "x".join(map(str, shape)), "2x32x4x64", "--student-birth fresh"):
            extract_student(teacher, *shape)
    with names(ConfigError, "2x16x8x64", "8 heads of 2", "4 heads of 8"):
        extract_student(teacher, 2, 16, 8, 64)
    with names(ConfigError, "2x16x1x64", "1 heads of 16"):
        extract_student(teacher, 2, 16, 1, 64)
    with names(ConfigError, "2x16x4x64", 16):
        extract_student(tiny_encoder("electra"), 2, 16, 4, 64)
    wide = tiny_encoder("electra", embedding_size=32)
    assert extract_student(wide, 2, 16, 4, 64).config.embedding_size == 16
    assert replace(shape_of(wide.config), layers=1) == StudentShape(1, 32, 4, 64)
