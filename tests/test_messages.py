"""The helper by which all other tests match messages must itself be able to fail."""

import re
import warnings

import pytest
from messages import names, unnamed


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (3, "--student asks for 3 of them"),
        (3, "layers 3, 4 and (5)"),
        (3, "there are 3."),
        (5, "teacher layers 0..5"),
        (-1, "must be 0 or more, not -1"),
        (0.5, "has the weight 0.5; it must be"),
        ("--student", "give --student, or --student_source"),
        ("train.tsv:4", "data/MRPC/train.tsv:4: label 'x' is unknown"),
        ("MRPC", "MRPC/train.tsv"),
        ("[2, 12]", "pairs[2], [2, 12], names"),
        ("'mprc'", "no task 'mprc'"),
        (re.compile("none|nothing"), "it holds nothing"),
    ],
)
def test_a_token_that_stands_there_is_found(token: object, text: str) -> None:
    assert not unnamed(text, token)


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (3, "13 layers, 31 heads, 3.5, 0.3, -3, x3, 3x4"),
        (-1, "at checkpoint-1"),
        (1, "at least -1"),
        ("--student", "--student_birth, --student.kind, --student-kind"),
        ("beta", "--objective.beta, --beta"),
        ("train", "train.tsv, trains, retrain"),
        ("good", "Good"),
        ("a.b", "a,b"),
        ("a (b)", "a b"),
    ],
)
def test_a_token_within_another_word_is_not(token: object, text: str) -> None:
    assert unnamed(text, token) == [token]


def test_all_tokens_must_stand_in_the_message_of_the_error() -> None:
    with names(ValueError, "--beta", -1, "--theta") as caught:
        raise ValueError("--beta -1, --theta: no")
    assert "no" in str(caught.value)
    with pytest.raises(AssertionError, match=r"not named: \[4\]; the message is: 3 layers"), names(ValueError, 3, 4):
        raise ValueError("3 layers")
    with pytest.raises(pytest.fail.Exception), names(ValueError, 3):
        pass
    with pytest.raises(KeyError), names(ValueError, 3):
        raise KeyError(3)


def test_of_several_warnings_one_must_name_all() -> None:
    def warn(*messages: str) -> None:
        for message in messages:
            warnings.warn(message, stacklevel=1)

    with names(UserWarning, 3, 4):
        warn("1", "3 and 4")
    with pytest.raises(AssertionError, match="not named"), names(UserWarning, 3, 4):
        warn("3", "4")
