"""What every method can be told under --objective: how soft targets are compared, and which weights grow or fade."""

from collections.abc import Sequence

from emdistill.config import SharedSettings
from emdistill.errors import ConfigError, nearest
from emdistill.losses import SoftTargets
from emdistill.losses.temperatures import TemperatureSpread
from emdistill.states import Predictions
from emdistill.training.stage import Stage

DEFAULT = SharedSettings()
OF_SOFT_TARGETS = ("soft_loss", "temperature_schedule", "temperature_beta", "temperature_gamma", "unmasked_share")


def with_shared_settings(stages: Sequence[Stage], settings: SharedSettings, predictions: Predictions) -> None:
    """Give a method's stages, just composed, the settings that all methods share.

    Raises ConfigError, naming the option, where nothing would read it, and for a term that is not there or not twice.
    """
    given = {name: getattr(settings, name) for name in OF_SOFT_TARGETS}
    changed = [f"--objective.{name} {value}" for name, value in given.items() if value != getattr(DEFAULT, name)]
    if settings.unmasked_share and (predictions.of_task or predictions.link is None):
        raise ConfigError(
            f"--objective.unmasked_share {settings.unmasked_share:g} is for raw text (--task text) under a teacher "
            "with a masked-LM head, which answers for every token; leave it out"
        )
    places = [
        (stage.objective.losses, place, loss)
        for stage in stages
        for place, loss in enumerate(stage.objective.losses)
        if isinstance(loss, SoftTargets)
    ]
    if changed and not places:
        raise ConfigError(f"{', '.join(changed)}: this method has no soft targets here; leave it out")
    if settings.temperature_schedule == "constant" and any("temperature_" in option for option in changed):
        raise ConfigError(f"{', '.join(changed)}: name what reads them, --objective.temperature_schedule flsw or cwsm")
    for losses, place, loss in places if changed else ():
        losses[place] = SoftTargets(
            temperature=loss.temperature,
            link=loss.link,
            loss=settings.soft_loss,
            spread=_spread(settings),
            unmasked_share=settings.unmasked_share,
        )
    for schedule in ("grow", "fade"):
        for term in filter(None, map(str.strip, (getattr(settings, schedule) or "").split(","))):
            _set_schedule(stages, term, schedule)


def _spread(settings: SharedSettings) -> TemperatureSpread | None:
    if settings.temperature_schedule == "constant":
        return None
    return TemperatureSpread(settings.temperature_schedule, settings.temperature_beta, settings.temperature_gamma)


def _set_schedule(stages: Sequence[Stage], term: str, schedule: str) -> None:
    terms = {name for stage in stages for name in stage.objective.weights}
    if term not in terms:
        raise ConfigError(
            f"--objective.{schedule} {term}: this method has no such term; its terms are "
            f"{', '.join(sorted(terms))}.{nearest(term, terms)}"
        )
    for objective in (stage.objective for stage in stages if term in stage.objective.weights):
        if term in objective.schedules:
            raise ConfigError(
                f"--objective.{schedule} {term}: the weight of {term} follows {objective.schedules[term]} already; "
                "name it once, and leave --objective.schedule fade out where you name terms yourself"
            )
        objective.schedules[term] = schedule
