"""Balanced in a whole training: the trainer measures and tells progress, and a resume changes no bit."""

from typing import Any

import pytest
import torch
from training_runs import STEPS_AN_EPOCH, AtStep, assert_same_outcome

from emdistill.training.run_stages import Interrupted

LAYERS = ("attention_scores", "hidden_states", "embeddings")
FADE = {"schedule": "fade", "norm_steps": 2, "standardised_logits": 0.5, "weighting": "each-norm"}
REMEMBER = {"mapping": "emd", "cost_attention": "inverse", "smoothing": 0.5, "cost_memory": 0.7, "norm_steps": 1}


@pytest.mark.parametrize("step", [3, STEPS_AN_EPOCH + 4])
@pytest.mark.parametrize("objective", [FADE, REMEMBER], ids=["fade", "remembered costs"])
def test_a_balanced_run_is_resumed_as_if_uninterrupted(
    new_run, finished_run, objective: dict[str, Any], step: int
) -> None:
    options = {"method": "balanced", "objective": objective}
    with pytest.raises(Interrupted):
        new_run(**options).go(AtStep(step))
    resumed = new_run(**options)
    resumed.go(resume=True)
    whole = finished_run(**options)
    assert_same_outcome(whole, resumed)
    assert whole.stages[0].objective.balance.measurements > 10
    logs = [[entry for entry in run.log[0]["log"] if "terms/hidden_states" in entry] for run in (whole, resumed)]
    assert [entry["terms/hidden_states"] for entry in logs[0]] == [entry["terms/hidden_states"] for entry in logs[1]]


def test_logged_terms_and_norms_are_those_that_train(finished_run) -> None:
    """The layer terms' logged norms are their share of the prediction's, times 1 − p."""
    objective = {**FADE, "norm_steps": 1, "norm_smoothing": 0.0, "layer_ratio": 1.5, "standardised_logits": 0.0}
    run = finished_run(method="balanced", objective=objective, gradient_norm_steps=1)
    steps = 2 * STEPS_AN_EPOCH
    entries = [entry for entry in run.log[0]["log"] if "gradient_norms/soft_targets" in entry]
    assert len(entries) == steps
    for step, entry in enumerate(entries):
        assert sum(entry[name] for name in entry if name.startswith("terms/")) == pytest.approx(entry["loss"], rel=1e-3)
        reference = entry["gradient_norms/soft_targets"]
        for name in LAYERS:
            wanted = 0.5 * (1 - step / steps) * reference
            assert entry[f"gradient_norms/{name}"] == pytest.approx(wanted, rel=1e-3), (step, name)


def test_an_accelerators_order_changes_nothing(new_run, finished_run, asynchronous) -> None:
    options = {"method": "balanced", "objective": FADE}
    whole = finished_run(**options)
    asynchronous()
    other = new_run(**options)
    other.go()
    assert_same_outcome(whole, other)


def test_two_batches_of_one_update_are_measured_once(new_run) -> None:
    run = new_run(method="balanced", objective={"norm_steps": 1}, gradient_accumulation_steps=2)
    run.go()
    assert run.stages[0].objective.balance.measurements == torch.tensor(float(STEPS_AN_EPOCH))
