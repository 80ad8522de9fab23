"""What a budget says, keeps, and would need."""

import pytest
from messages import names

from emdistill.errors import ConfigError
from emdistill.search.budget import Budget, Cost, read_budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("5ms, 30MB", Budget(5.0, 30.0)),
        ("30 mb", Budget(None, 30.0)),
        ("0.05 s", Budget(50.0, None)),
        ("500kB,2ms", Budget(2.0, 0.5)),
        ("1GB", Budget(None, 1000.0)),
    ],
)
def test_milliseconds_and_megabytes_in_any_order_and_unit(text: str, budget: Budget) -> None:
    assert read_budget(text) == budget


@pytest.mark.parametrize("text", ["", "5", "5ms, ", "5 minutes", "fast", "1.2.3ms", "0ms", "-1ms", "5ms, 6ms"])
def test_what_is_no_budget_is_refused_with_a_form_or_the_fault(text: str) -> None:
    with names(ConfigError, "--budget"):
        read_budget(text)


def test_a_cost_keeps_the_budget_where_every_limit_is_kept() -> None:
    budget = Budget(5.0, 30.0)
    assert budget.keeps(Cost(5.0, 30.0))
    assert not budget.keeps(Cost(5.1, 1.0))
    assert not budget.keeps(Cost(1.0, 31.0))
    assert Budget(None, 30.0).keeps(Cost(1e9, 30.0))
    assert budget.overshoot(Cost(10.0, 45.0)) == 2.0


def test_the_budget_that_a_cost_needs_is_rounded_up_and_no_wider_than_it_has_to_be() -> None:
    needed = Budget(5.0, 30.0).reached_by(Cost(7.31, 12.0))
    assert needed == Budget(7.4, 30.0)
    assert needed.keeps(Cost(7.31, 12.0))
    assert read_budget(str(needed)) == needed


@pytest.mark.parametrize("text", ["1000s, 2000000GB", "0.01kB", "1.23456789ms", "300kB"])
def test_what_a_budget_says_of_itself_is_the_same_budget(text: str) -> None:
    budget = read_budget(text)
    assert read_budget(str(budget)) == budget
