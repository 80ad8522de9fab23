"""Models as other programs have stored them: what says how they were run there, and tensors under other names."""

import json
from pathlib import Path

import pytest
import torch
from messages import names, unnamed
from safetensors.torch import load_file, save_file

from emdistill.errors import HeadError, ModelError, TokenizerError
from emdistill.models import load_classifier, load_tokenizer, save_student
from emdistill.models.encoder import load_encoder
from emdistill.students import make_student
from emdistill.students.pretrained import pretrained_student


def say(folder: Path, **entries: object) -> None:
    """Write entries into the folder's config.json; an Ellipsis takes one out."""
    path = folder / "config.json"
    said = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({name: value for name, value in said.items() if value is not ...}))


def rename(folder: Path, old: str, new: str) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({name.replace(old, new): tensor for name, tensor in weights.items()}, folder / "model.safetensors")


AS_IT_WAS_RUN = {
    "output_attentions": True,
    "output_hidden_states": True,
    "return_dict": False,
    "torchscript": True,
    "chunk_size_feed_forward": 4,
    "_attn_implementation": "flash_attention_2",
}


@pytest.mark.parametrize("family", ["bert", "albert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet"])
def test_how_a_model_was_run_is_not_what_it_is(tiny_encoder, tiny_tokenizer, tmp_path, family):
    """A teacher that was fine-tuned to show its attention: the student could not be saved, after all its training."""
    save_student(tiny_encoder(family), tiny_tokenizer, tmp_path / "teacher")
    inputs = tiny_tokenizer("the movie was good", return_tensors="pt")
    plain = load_classifier(tmp_path / "teacher")(**inputs).logits
    say(tmp_path / "teacher", **AS_IT_WAS_RUN)

    teacher, tokenizer = load_classifier(tmp_path / "teacher"), load_tokenizer(tmp_path / "teacher")
    outputs = teacher(**inputs)
    torch.testing.assert_close(outputs.logits, plain)
    assert not {"attentions", "hidden_states"} & {*outputs}

    save_student(*make_student("1", teacher, tokenizer, labels=["bad", "good"]), tmp_path / "student")
    written = json.loads((tmp_path / "student" / "config.json").read_text())
    assert not {"torchscript", "output_attentions", "output_hidden_states"} & {
        name for name in written if written[name]
    }


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model."])
def test_the_wrapper_of_a_model_is_named(tiny_encoder, tmp_path, prefix):
    tiny_encoder().save_pretrained(tmp_path)
    rename(tmp_path, "bert.", f"{prefix}bert.")
    for load in (load_classifier, load_encoder):
        with names(ModelError, tmp_path, f"{prefix}bert.embeddings.LayerNorm.bias", "save_pretrained"):
            load(tmp_path)


def test_a_head_under_a_name_of_its_own_is_named(tiny_encoder, tmp_path):
    tiny_encoder().save_pretrained(tmp_path)
    rename(tmp_path, "classifier.", "my_head.")
    with names(HeadError, "classifier.bias", "my_head.bias", "emdistill finetune"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_what_pre_training_leaves_is_no_head(tiny_encoder, tmp_path, family):
    tiny_encoder(family, head="MaskedLM").save_pretrained(tmp_path)
    with pytest.raises(HeadError, match="emdistill finetune") as caught:
        load_classifier(tmp_path)
    assert "merge_and_unload" not in str(caught.value)


def test_a_config_without_a_type_is_refused_with_the_mend(tiny_encoder, tmp_path):
    """As TinyBERT's published ones are."""
    tiny_encoder().save_pretrained(tmp_path)
    say(tmp_path, model_type=...)
    with names(ModelError, tmp_path / "config.json", "model_type", "bert"):
        load_classifier(tmp_path)


def test_the_folder_of_the_hubs_cache_names_its_snapshot(tiny_encoder, tmp_path):
    tiny_encoder().save_pretrained(tmp_path / "snapshots" / "86b5e09")
    with names(ModelError, tmp_path, "snapshots/86b5e09"):
        load_classifier(tmp_path)


def test_a_folder_of_sentence_transformers_names_the_encoder_in_it(tiny_encoder, tiny_tokenizer, tmp_path):
    save_student(tiny_encoder(layers=1), tiny_tokenizer, tmp_path / "0_Transformer")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 32}')
    for load in (load_classifier, load_encoder, pretrained_student):
        with names(ModelError, tmp_path, "0_Transformer") as caught:
            load(tmp_path)
        assert "1_Pooling" not in str(caught.value)


ENTRIES = [
    {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
    {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"},
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_score_that_a_sigmoid_is_taken_of_is_said_to_be_the_logit(tiny_encoder, tmp_path, capsys, entry):
    """A CrossEncoder's, that was learned from scores from 0 to 1: once, however often it is loaded."""
    tiny_encoder(labels=1).save_pretrained(tmp_path)
    say(tmp_path, **entry)
    for _ in range(2):
        assert {*entry} <= {*load_classifier(tmp_path).config.to_dict()}  # CrossEncoder goes on as before
    told = capsys.readouterr().err
    assert not unnamed(told, str(tmp_path), *entry, "sigmoid", "0 to 1")
    assert told.count(str(tmp_path)) == 1
    tuned = load_classifier(tmp_path, problem_type="regression")  # it is trained for scores from here on
    assert not {*entry} & {*tuned.config.to_dict()}


def test_a_score_as_it_is_of_a_cross_encoder_is_taken(tiny_encoder, tmp_path):
    tiny_encoder(labels=1).save_pretrained(tmp_path)
    say(tmp_path, sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"})
    assert "sentence_transformers" in load_classifier(tmp_path).config.to_dict()


@pytest.mark.parametrize("config", [None, {"model_max_length": 512}])
def test_a_cased_vocabulary_alone_is_not_lower_cased_in_silence(tiny_encoder, tiny_tokenizer, tmp_path, config):
    """As BioBERT and SciBERT were published: every word lost its capitals, with no word about it."""
    tiny_encoder().save_pretrained(tmp_path)
    vocabulary = sorted(tiny_tokenizer.get_vocab(), key=tiny_tokenizer.get_vocab().get)
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    written = tmp_path / "tokenizer_config.json"
    if config is not None:
        written.write_text(json.dumps(config))
    assert load_tokenizer(tmp_path).tokenize("Good") == ["good"]  # no word of the vocabulary has capitals

    cased = [word.capitalize() if len(word) > 2 and word.isalpha() else word for word in vocabulary]
    (tmp_path / "vocab.txt").write_text("\n".join(cased))
    with names(TokenizerError, tmp_path / "vocab.txt", "do_lower_case", "tokenizer_config.json"):
        load_tokenizer(tmp_path)
    for lower in (True, False):
        written.write_text(json.dumps({"do_lower_case": lower}))
        assert (load_tokenizer(tmp_path).tokenize("Good") == ["Good"]) is not lower
