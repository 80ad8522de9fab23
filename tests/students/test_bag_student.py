"""How a bag is born: its sizes, its table of tokens, and what it is not."""

import pytest
import torch
from messages import names

from emdistill.config import RunConfig, as_command, config_dict
from emdistill.errors import ConfigError
from emdistill.methods import METHODS, compose_stages
from emdistill.options import load_config
from emdistill.states import CLASSES, NOTHING, WORDS, EncoderShape, Predictions
from emdistill.students import make_student
from emdistill.students.bag import bag_student

LABELS = ("bad", "good")
OF_WORDS = Predictions("softmax", CLASSES.problem_type, "TokenClassification")
OF_ANSWERS = {"soft-targets", "hard-labels"}
PLACES = {"teacher": "teacher", "data": "data", "output": "run"}


def test_its_tokens_stand_to_each_other_as_the_teachers(tiny_encoder, tiny_tokenizer) -> None:
    teacher = tiny_encoder(width=32)
    rows = teacher.get_input_embeddings().weight.detach()
    born, fresh = (
        make_student("bag:32", teacher, tiny_tokenizer, labels=LABELS, birth=birth)[0]
        for birth in ("importance", "fresh")
    )
    own, centred = born.get_input_embeddings().weight.detach(), (rows - rows.mean(dim=0)) / (rows - rows.mean(0)).std()
    torch.testing.assert_close(own @ own.T, centred @ centred.T, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(fresh.get_input_embeddings().weight, own)
    assert not born.get_parameter("bag.ngram_embeddings.weight").any()


@pytest.mark.parametrize("predictions", [WORDS, NOTHING, OF_WORDS])
def test_what_it_cannot_answer_is_refused(tiny_encoder, predictions: Predictions) -> None:
    with names(ConfigError, "--student bag", "--student 3"):
        bag_student(tiny_encoder(), 3, 8, labels=LABELS, predictions=predictions)


@pytest.mark.parametrize("width", [0, 33])
def test_a_width_that_cannot_be_is_refused(tiny_encoder, width: int) -> None:
    with names(ConfigError, f"--student bag:{width}", "bag:32"):
        bag_student(tiny_encoder(width=32), 3, width, labels=LABELS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("teacher", [EncoderShape(6, 384, 12), EncoderShape(0, 128, 0)], ids=["a model", "answers"])
def test_a_method_that_reads_layers_is_refused_by_name(method: str, teacher: EncoderShape) -> None:
    student, config = EncoderShape(0, 128, 0), RunConfig(**PLACES, student="bag", method=method)
    if method in OF_ANSWERS:
        assert compose_stages(config, student, teacher, CLASSES)
    else:
        with names(ConfigError, "soft-targets" if method != "cross-view" else "--student bilstm"):
            compose_stages(config, student, teacher, CLASSES)


def test_it_brings_its_method_and_numbers() -> None:
    config = load_config(**PLACES, student="bag:64")
    other = load_config(**PLACES, student="bag", method="hard-labels", training={"learning_rate": 5e-3})
    plain = load_config(**PLACES, student="3", method="soft-targets")
    assert (config.method, other.method) == ("soft-targets", "hard-labels")
    assert config.training["learning_rate"] > 5 * plain.training["learning_rate"]
    assert other.training == config.training | {"learning_rate": 5e-3}
    assert "--training" not in as_command("distill", config_dict(config))
    assert "--training.learning_rate 0.005" in as_command("distill", config_dict(other))
