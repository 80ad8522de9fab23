"""The Hugging Face hub: whether it can be asked at all, and what stands here under a name like one it does not know."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, get_session

from emdistill.errors import nearest


def can_be_asked() -> bool:
    """Whether the hub, or the mirror that HF_ENDPOINT names, answers; never with HF_HUB_OFFLINE.

    It is asked once: where it does not answer, its libraries would try for half a minute per file.
    """
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # of an HTTP library that it changes from version to version
        return False
    return True


@contextmanager
def asked_once() -> Iterator[None]:
    """Within, where the hub does not answer, its libraries take what is in their cache, and do not wait for it."""
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline or not can_be_asked()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def nearest_here(name: str) -> str:
    """' Did you mean …?' with the most similar name in the folder where `name` would stand, or ''."""
    place = Path(name).expanduser()
    return nearest(place.name, (entry.name for entry in place.parent.iterdir())) if place.parent.is_dir() else ""
