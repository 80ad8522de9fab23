"""Loading and saving encoders, and what is refused."""

import codecs
import json
import logging
import re

import pytest
import torch
from messages import names
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertForPreTraining,
    BertModel,
    ElectraForPreTraining,
    GPT2Config,
)
from transformers.utils import logging as transformers_logging

from emdistill.errors import ModelError, TokenizerError
from emdistill.models import (
    encoder_layers,
    encoder_shape,
    fingerprint,
    load_classifier,
    load_tokenizer,
    same_tokens,
    save_student,
)
from emdistill.models.encoder import load_encoder
from emdistill.models.masked_lm import has_masked_lm_head
from emdistill.states import EncoderShape

FAMILIES = ("bert", "roberta", "distilbert", "electra")


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded_unchanged(tiny_encoder, tiny_tokenizer, tmp_path, family):
    model = tiny_encoder(family, labels=3)
    save_student(model, tiny_tokenizer, tmp_path)
    loaded = load_classifier(tmp_path)
    assert not loaded.training
    assert fingerprint(loaded) == fingerprint(model)
    assert (tmp_path / "model.safetensors").is_file()
    assert not list(tmp_path.glob("*.bin"))
    same_tokens(tiny_tokenizer, load_tokenizer(str(tmp_path)))


def test_half_precision_weights_are_loaded_in_float32(tiny_encoder, tmp_path):
    tiny_encoder().half().save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in load_classifier(tmp_path).parameters()} == {torch.float32}


def test_an_encoder_without_a_head_gets_a_fresh_one_only_for_training(tiny_encoder, tmp_path, capfd):
    model = tiny_encoder()
    encoder = BertModel(model.config)
    encoder.load_state_dict(model.base_model.state_dict())
    encoder.save_pretrained(tmp_path)
    with names(ModelError, tmp_path, "classifier.bias", "emdistill finetune"):
        load_classifier(tmp_path)

    capfd.readouterr()
    verbosity = transformers_logging.get_verbosity()
    torch.manual_seed(3)
    loaded = load_classifier(tmp_path, labels=["bad", "so-so", "good"], problem_type="single_label_classification")
    assert capfd.readouterr() == ("", "")
    assert transformers_logging.get_verbosity() == verbosity
    assert logging.getLogger("transformers").level == verbosity
    assert fingerprint(loaded.base_model) == fingerprint(encoder)
    assert loaded.config.id2label == {0: "bad", 1: "so-so", 2: "good"}
    assert loaded.config.label2id == {"bad": 0, "so-so": 1, "good": 2}
    assert loaded.config.problem_type == "single_label_classification"
    assert loaded.classifier.out_features == 3
    assert loaded.classifier.weight.std() > 0
    torch.manual_seed(3)
    assert fingerprint(
        load_classifier(tmp_path, labels=["bad", "so-so", "good"], problem_type="single_label_classification")
    ) == fingerprint(loaded)


@pytest.mark.parametrize("count", [2, 5])
def test_a_head_and_a_config_that_count_logits_differently_are_refused(tiny_encoder, tmp_path, count):
    tiny_encoder(labels=3).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {str(place): f"class {place}" for place in range(count)}
    config["label2id"] = {name: int(place) for place, name in config["id2label"].items()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with names(ModelError, tmp_path, re.compile("classifier"), 3, count, "id2label"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("count", [0, -1, 2.0, "2", None, True])
def test_a_number_of_labels_that_is_none_is_named(tiny_encoder, tmp_path, count):
    tiny_encoder(layers=1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_labels": count}))
    with names(ModelError, tmp_path / "config.json", "num_labels", repr(count)):
        load_classifier(tmp_path)


def test_a_head_of_another_size_is_replaced_and_one_that_fits_is_kept(tiny_encoder, tmp_path):
    model = tiny_encoder()
    model.save_pretrained(tmp_path)
    score = load_classifier(tmp_path, problem_type="regression")
    assert (score.config.num_labels, score.config.problem_type, score.classifier.out_features) == (1, "regression", 1)
    assert fingerprint(score.base_model) == fingerprint(model.base_model)
    kept = load_classifier(tmp_path, labels=["no", "yes"], problem_type="single_label_classification")
    assert fingerprint(kept) == fingerprint(model)
    assert kept.config.id2label == {0: "no", 1: "yes"}


def test_folders_that_are_no_encoder(tmp_path):
    with names(ModelError, tmp_path / "absent"):
        load_classifier(tmp_path / "absent")
    with names(ModelError, "./absent/"):
        load_classifier("./absent/")
    with names(ModelError, tmp_path, "config.json"):
        load_classifier(tmp_path)
    config = tmp_path / "config.json"
    config.write_text("{ not json")
    with names(ModelError, config):
        load_classifier(tmp_path)
    with names(ModelError, config):
        load_classifier(str(config))
    config.write_text(json.dumps({"model_type": "nothing-known"}))
    with names(ModelError, config):
        load_classifier(tmp_path)
    config.write_text(json.dumps({"model_type": "bert-of-mine", "auto_map": {"AutoConfig": "mine.Config"}}))
    (tmp_path / "mine.py").write_text("raise SystemExit('remote code was run')")
    with names(ModelError, config):
        load_classifier(tmp_path)
    for adapter in ("adapter_config.json", "adapter_model.safetensors"):  # beside an encoder's files or instead of them
        (tmp_path / adapter).write_text("{}")
        with names(ModelError, adapter, "merge_and_unload()"):
            load_classifier(tmp_path)
        (tmp_path / adapter).unlink()
    for decoder in (GPT2Config(), {"model_type": "t5"}, {"model_type": "bart"}):
        config.write_text(json.dumps(decoder if isinstance(decoder, dict) else decoder.to_dict()))
        with names(ModelError, tmp_path, "bert, roberta, xlm-roberta", "--teacher answers.jsonl"):
            load_classifier(tmp_path)


def test_weights_that_cannot_be_used(tiny_encoder, tmp_path):
    model = tiny_encoder(layers=2)
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with names(ModelError, tmp_path, "safetensors"):
        load_classifier(tmp_path)
    weights.write_bytes(b"")
    with names(ModelError, tmp_path, "safetensors"):
        load_classifier(tmp_path)
    weights.unlink()
    with names(ModelError, tmp_path, "model.safetensors"):
        load_classifier(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with names(ModelError, "pytorch_model.bin", "save_pretrained()"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("change", [{"num_hidden_layers": 3}, {"vocab_size": 7}, {"hidden_size": 16}])
def test_weights_that_are_not_the_configs(tiny_encoder, tmp_path, change):
    tiny_encoder(layers=2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with names(ModelError, tmp_path, "config.json"):
        load_classifier(tmp_path, labels=["a", "b"])


@pytest.mark.parametrize(
    "id2label",
    [
        ["bad", "good"],
        {"bad": 0, "good": 1},
        {"0": "bad", "2": "good"},
        {"1": "bad", "2": "good"},
        {"0": "x", "1": "x"},
        {"0": None, "1": "x"},
        {"0": "", "1": "x"},
    ],
)
def test_names_that_do_not_name_each_logit_are_refused(tiny_encoder, tmp_path, id2label):
    tiny_encoder(layers=1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": id2label}))
    with names(ModelError, "config.json", "id2label"):
        load_classifier(tmp_path)


def test_labels_that_are_numbered_in_two_ways_are_refused(tiny_encoder, tmp_path):
    tiny_encoder(layers=1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"id2label": {"0": "bad", "1": "good"}}
    for label2id in (
        {"bad": 0, "good": 1},
        {"bad": "0", "good": "1"},
        {"LABEL_0": 1, "LABEL_1": 0},
        None,
        ["bad", "good"],
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | {"label2id": label2id}))
        assert load_classifier(tmp_path).config.id2label == {0: "bad", 1: "good"}
    for label2id in ({"bad": 1, "good": 0}, {"Bad": 1, "Good": 0}, {"bad": "1", "good": "0"}):
        (tmp_path / "config.json").write_text(json.dumps(config | {"label2id": label2id}))
        with names(ModelError, "config.json", "id2label", "label2id"):
            load_classifier(tmp_path)
    config = config | {"id2label": {"0": "a", "1": "A"}, "label2id": {"a": 0, "A": 1}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_classifier(tmp_path).config.id2label == {0: "a", 1: "A"}


@pytest.mark.parametrize("id2label", [{}, {"id2label": None}, {"id2label": {"1": "LABEL_1", "0": "LABEL_0"}}])
@pytest.mark.parametrize("numbers", [(0, 1), ("0", "1"), (0.0, 1.0)])
def test_labels_that_label2id_alone_names_are_the_models(tiny_encoder, tmp_path, id2label, numbers):
    """transformers would number them LABEL_0, LABEL_1, and count two words of the data as the alphabet does."""
    tiny_encoder(layers=1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config = {name: value for name, value in config.items() if name not in ("id2label", "num_labels")}
    numbered = dict(zip(("good", "bad"), numbers, strict=True))
    (tmp_path / "config.json").write_text(json.dumps(config | id2label | {"label2id": numbered}))
    loaded = load_classifier(tmp_path).config
    assert (loaded.id2label, loaded.label2id) == ({0: "good", 1: "bad"}, {"good": 0, "bad": 1})


@pytest.mark.parametrize(
    "label2id", [{"good": 0, "bad": 0}, {"good": 0, "bad": True}, {"good": 1, "bad": 2}, ["good", "bad"]]
)
def test_labels_that_label2id_does_not_number_are_unnamed(tiny_encoder, tmp_path, label2id):
    tiny_encoder(layers=1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"label2id": label2id}))
    assert load_classifier(tmp_path).config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


@pytest.mark.parametrize("problem_type", ["multi_label", "binary", "", 1])
def test_a_problem_type_that_nobody_knows_is_refused(tiny_encoder, tmp_path, problem_type):
    """It would be taken for classes, whose logits are weighed against each other."""
    tiny_encoder(layers=1, problem_type=None).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"problem_type": problem_type}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with names(ModelError, "config.json", "problem_type", repr(problem_type), "multi_label_classification"):
        load_classifier(tmp_path)
    load_classifier(tmp_path, labels=("no", "yes"), problem_type="single_label_classification")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(tiny_encoder, tmp_path, dtype):
    """Without their scales they are read as other numbers."""
    tiny_encoder(layers=1).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["classifier.weight"] = weights["classifier.weight"].to(dtype)
    save_file(weights, tmp_path / "model.safetensors")
    with names(ModelError, "model.safetensors", "classifier.weight"):
        load_classifier(tmp_path)


def test_a_table_without_a_row_is_refused(tiny_encoder, tmp_path):
    """config.json and weights agree, and every look into the table fails."""
    tiny_encoder(layers=1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"type_vocab_size": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    table = "bert.embeddings.token_type_embeddings.weight"
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {table: weights[table][:0].contiguous()}, tmp_path / "model.safetensors")
    with names(ModelError, tmp_path / "model.safetensors", table):
        load_classifier(tmp_path)


def test_a_quantised_checkpoint_is_refused_by_its_config(tiny_encoder, tmp_path):
    tiny_encoder(layers=1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with names(ModelError, "quantization_config"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_no_file(tiny_encoder, tiny_tokenizer, tmp_path, name):
    save_student(tiny_encoder(layers=1), tiny_tokenizer, tmp_path)
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1f\nsize 9\n")
    with names(ModelError, tmp_path / name, "git lfs pull"):
        load_tokenizer(tmp_path) if name == "tokenizer.json" else load_classifier(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_byte_order_mark_is_named_where_it_stands(tiny_encoder, tiny_tokenizer, tmp_path, name):
    """As some editors write it; transformers fails at it, and in vocab.txt takes it for a part of the first token."""
    save_student(tiny_encoder(layers=1), tiny_tokenizer, tmp_path)
    (tmp_path / name).write_bytes(codecs.BOM_UTF8 + (tmp_path / name).read_bytes())
    with names(ModelError, tmp_path / name, "byte-order", "UTF-8"):
        load_tokenizer(tmp_path)


def test_layers_that_hold_more_than_the_config_describes_are_refused(tiny_encoder, tmp_path):
    """Silently passing over them would give other answers: further layers, and adapters that stand in the file."""
    tiny_encoder(layers=2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with names(ModelError, tmp_path, 16, re.compile("bert.encoder.layer.1.")):
        load_classifier(tmp_path)
    with names(ModelError, tmp_path, 16):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = load_file(tmp_path / "model.safetensors")
    adapter = "bert.encoder.layer.0.output.adapters.task.adapter_down.weight"
    save_file(weights | {adapter: torch.ones(2, 2), "cls.bias": torch.ones(2)}, tmp_path / "model.safetensors")
    with names(ModelError, tmp_path, adapter):
        load_classifier(tmp_path)


def test_a_decoder_is_no_encoder_though_its_family_is_known(tiny_encoder, tmp_path):
    tiny_encoder(is_decoder=True).save_pretrained(tmp_path)
    with names(ModelError, tmp_path, "is_decoder", "config.json"):
        load_classifier(tmp_path)


def test_a_folder_around_the_model_names_the_model(tiny_encoder, tmp_path):
    tiny_encoder(layers=1).save_pretrained(tmp_path / "0_Transformer")
    with names(ModelError, tmp_path, "0_Transformer"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("change", [{"hidden_size": 10**30}, {"vocab_size": "many"}, {"hidden_act": ["gelu"]}])
def test_a_config_of_wrong_values_is_named(tiny_encoder, tmp_path, change):
    tiny_encoder(layers=1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with names(ModelError, tmp_path / "config.json") as error:
        load_classifier(tmp_path)
    assert "\n" not in str(error.value)


def test_a_part_of_sharded_weights_is_missing(tiny_encoder, tmp_path):
    model = tiny_encoder(layers=3)
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    parts = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(parts) > 1
    assert fingerprint(load_classifier(tmp_path)) == fingerprint(model)
    parts[-1].unlink()
    with names(ModelError, parts[-1].name):
        load_classifier(tmp_path)


def test_an_index_of_an_earlier_save_is_passed_over(tiny_encoder, tmp_path):
    """transformers leaves it where a model is saved as one file over one of several, and does not read it."""
    tiny_encoder(layers=3).save_pretrained(tmp_path, max_shard_size="30KB")
    model = tiny_encoder(layers=2, seed=1)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert fingerprint(load_classifier(tmp_path)) == fingerprint(model)


def test_a_graph_and_a_head_of_setfit_are_named(tiny_encoder, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "config.json").write_text('{"format": "emdistill-onnx-1"}')
    with names(ModelError, tmp_path, "model.onnx", "--teacher"):
        load_classifier(tmp_path)
    tiny_encoder().base_model.save_pretrained(tmp_path)
    with names(ModelError, tmp_path, "emdistill finetune"):
        load_classifier(tmp_path)
    (tmp_path / "model_head.pkl").write_bytes(b"pickle")
    with names(ModelError, tmp_path, "model_head.pkl", "--teacher"):
        load_classifier(tmp_path)


def test_a_hub_id_that_cannot_be_had(monkeypatch):
    def offline(*_arguments, **_options):
        raise OSError("no connection")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", offline)
    with names(ModelError, "someone/model", "no connection"):
        load_classifier("someone/model")


def test_tokenizers_that_are_not_there(tmp_path):
    with names(ModelError, tmp_path, "tokenizer.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "spm.model").write_bytes(b"pieces")
    (tmp_path / "config.json").write_text('{"model_type": "deberta-v2"}')
    with names(ModelError, tmp_path, "spm.model", "sentencepiece", "tokenizer.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with names(ModelError, tmp_path):
        load_tokenizer(tmp_path)


def test_same_tokens(tiny_tokenizer, tokenizer_factory):
    same_tokens(tiny_tokenizer, tokenizer_factory())
    vocabulary = tuple(sorted(tiny_tokenizer.get_vocab(), key=tiny_tokenizer.get_vocab().get))
    count = len(vocabulary)
    with names(TokenizerError, count, count + 1, "'extra': None"):
        same_tokens(tiny_tokenizer, tokenizer_factory((*vocabulary, "extra")))
    with names(TokenizerError, 2, repr(vocabulary[-1])):
        same_tokens(tiny_tokenizer, tokenizer_factory((*vocabulary[:-2], vocabulary[-1], vocabulary[-2])))
    other_mask = tokenizer_factory()
    other_mask.mask_token = "[UNK]"
    with names(TokenizerError, "'[MASK]'", "'[UNK]'"):
        same_tokens(tiny_tokenizer, other_mask)
    cased = tokenizer_factory()
    cased.backend_tokenizer.normalizer = None
    with names(TokenizerError, "'The quick brown fox"):
        same_tokens(tiny_tokenizer, cased)


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_shape_and_layers(tiny_encoder, family):
    model = tiny_encoder(family, layers=3, width=24, heads=2)
    assert encoder_shape(model) == encoder_shape(model.config) == EncoderShape(layers=3, width=24, heads=2)
    assert len(encoder_layers(model)) == 3


def test_fingerprint_sees_every_bit(tiny_encoder):
    model = tiny_encoder()
    before = fingerprint(model)
    assert before == fingerprint(tiny_encoder())
    assert len(before) == 64
    assert before != fingerprint(tiny_encoder(seed=1))
    with torch.no_grad():
        model.classifier.bias[0] = -0.0  # equal to 0.0, another bit
    assert fingerprint(model) != before


def test_auto_classes_load_what_was_saved(tiny_encoder, tiny_tokenizer, tmp_path):
    save_student(tiny_encoder(), tiny_tokenizer, tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert fingerprint(plain) == fingerprint(load_classifier(tmp_path))


# --------------------------------------------------------------------------------------- encoders without a task


@pytest.mark.parametrize("family", FAMILIES)
def test_a_masked_lm_is_loaded_with_its_head(tiny_encoder, tmp_path, capfd, family):
    model = AutoModelForMaskedLM.from_config(tiny_encoder(family).config)
    model.half().save_pretrained(tmp_path)
    capfd.readouterr()
    random_state = torch.get_rng_state()
    loaded = load_encoder(str(tmp_path))
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), random_state)
    assert type(loaded) is type(model)
    assert has_masked_lm_head(loaded)
    assert not loaded.training
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert fingerprint(loaded) == fingerprint(model.float())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_gives_its_bare_encoder_and_nothing_fresh(tiny_encoder, tiny_tokenizer, tmp_path, capfd, family):
    model = tiny_encoder(family)
    model.save_pretrained(tmp_path / "classifier")
    capfd.readouterr()
    random_state = torch.get_rng_state()
    loaded = load_encoder(tmp_path / "classifier")
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), random_state)
    assert type(loaded) is type(model.base_model)
    assert not has_masked_lm_head(loaded)
    assert fingerprint(loaded) == fingerprint(model.base_model)

    save_student(loaded, tiny_tokenizer, tmp_path / "student")
    plain = AutoModel.from_pretrained(tmp_path / "student")
    stored, found = loaded.state_dict(), plain.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in stored.items())
    assert all("pooler" in name for name in found.keys() - stored.keys())
    assert fingerprint(load_encoder(tmp_path / "student")) == fingerprint(loaded)
    classifier = load_classifier(tmp_path / "student", labels=["a", "b"], problem_type="single_label_classification")
    assert fingerprint(classifier.base_model) == fingerprint(loaded)


def test_a_pooler_is_loaded_where_it_is_stored_and_left_out_where_it_is_not(tiny_encoder, tmp_path):
    config = tiny_encoder().config
    with_pooler, without = BertModel(config), BertModel(config, add_pooling_layer=False)
    with_pooler.save_pretrained(tmp_path / "with")
    without.save_pretrained(tmp_path / "without")
    assert fingerprint(load_encoder(tmp_path / "with")) == fingerprint(with_pooler)
    loaded = load_encoder(tmp_path / "without").eval()
    assert fingerprint(loaded) == fingerprint(without)
    ids = torch.tensor([[2, 9, 11, 3]])
    outputs = loaded(ids)
    assert outputs.pooler_output is None
    assert torch.equal(outputs.last_hidden_state, without.eval()(ids).last_hidden_state)


def test_pre_training_checkpoints(tiny_encoder, tmp_path):
    """BERT's holds a masked-LM head beside another; ELECTRA's discriminator holds none."""
    bert = BertForPreTraining(tiny_encoder().config)
    bert.save_pretrained(tmp_path / "bert")
    loaded = load_encoder(tmp_path / "bert")
    assert has_masked_lm_head(loaded)
    assert torch.equal(loaded.cls.predictions.transform.dense.weight, bert.cls.predictions.transform.dense.weight)
    discriminator = ElectraForPreTraining(tiny_encoder("electra").config)
    discriminator.save_pretrained(tmp_path / "electra")
    assert fingerprint(load_encoder(tmp_path / "electra")) == fingerprint(discriminator.electra)


def test_half_a_masked_lm_head_is_none(tiny_encoder, tmp_path):
    model = AutoModelForMaskedLM.from_config(tiny_encoder().config)
    kept = {name: tensor for name, tensor in model.state_dict().items() if "cls.predictions.transform" not in name}
    model.save_pretrained(tmp_path, state_dict=kept)
    assert fingerprint(load_encoder(tmp_path)) == fingerprint(model.bert)


@pytest.mark.parametrize("change", [{"num_hidden_layers": 3}, {"vocab_size": 7}, {"hidden_size": 16}])
@pytest.mark.parametrize("kind", [AutoModel, AutoModelForMaskedLM])
def test_encoder_weights_that_are_not_the_configs(tiny_encoder, tmp_path, kind, change):
    kind.from_config(tiny_encoder(layers=2).config).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with names(ModelError, tmp_path, "config.json"):
        load_encoder(tmp_path)


def test_encoders_that_cannot_be_loaded(tiny_encoder, tmp_path):
    with names(ModelError, tmp_path / "absent"):
        load_encoder(tmp_path / "absent")
    model = AutoModelForMaskedLM.from_config(tiny_encoder().config)
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with names(ModelError, tmp_path, "safetensors"):
        load_encoder(tmp_path)
    weights.unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with names(ModelError, "pytorch_model.bin"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(GPT2Config().to_dict()))
    with names(ModelError, tmp_path, "bert, roberta, xlm-roberta"):
        load_encoder(tmp_path)


def test_pickles_of_any_name_are_refused_with_the_mend(tiny_encoder, tmp_path):
    tiny_encoder(layers=1).config.save_pretrained(tmp_path)
    for name in ("model.pt", "weights.pth"):
        (tmp_path / name).write_bytes(b"\x80\x04.")
        with names(ModelError, name, "save_pretrained()"):
            load_classifier(tmp_path)
        (tmp_path / name).unlink()


def test_code_of_its_own_is_refused_though_the_family_is_known(tiny_encoder, tiny_tokenizer, tmp_path):
    tiny_encoder(layers=1).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    plain = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(plain | {"auto_map": {"AutoModel": "mine.Model"}}))
    with names(ModelError, tmp_path / "config.json", "auto_map"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("part", ["../outside.safetensors", "/etc/passwd", 3])
def test_parts_of_weights_lie_in_their_folder(tiny_encoder, tmp_path, part):
    tiny_encoder(layers=1).save_pretrained(tmp_path / "model", max_shard_size="4KB")
    (tmp_path / "outside.safetensors").write_bytes(b"")
    index = tmp_path / "model" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": part}}))
    with names(ModelError, index):
        load_classifier(tmp_path / "model")


@pytest.mark.parametrize("change", [{"vocab_size": 10**8}, {"num_hidden_layers": 10**7}, {"num_labels": 10**8}])
def test_a_config_that_describes_far_more_than_is_stored_is_refused_at_once(tiny_encoder, tmp_path, change):
    tiny_encoder(layers=1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with names(ModelError, tmp_path / "config.json"):
        load_classifier(tmp_path)
