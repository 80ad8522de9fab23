"""The stored weights of a model: safetensors alone, whole, and as many as its config.json describes."""

import math
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from emdistill.errors import ModelError, listing
from emdistill.files import FETCH, begins_with, is_inside, is_pointer
from emdistill.models.families import family_of
from emdistill.models.stored_config import UNQUANTISED, Source, in_short, local_folder, safely
from emdistill.values import read_values, typed

INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WEIGHTS = "model.safetensors"
# Of what a config.json says, how often some part of a model is made; and what may be made without being stored.
REPEATED = ("num_hidden_layers", "num_hidden_groups", "inner_group_num", "num_feedforward_networks")
FEW, MOST_FRESH = 100, 10_000_000
QUANTISED = ("I8", "U8", "F8", "F4")  # safetensors' names of types
# What encoders are stored with before they are fine-tuned, and no classifier reads.
OF_PRE_TRAINING = re.compile(
    r"(.+\.)?(cls|lm_head|predictions|vocab_\w+|sop_classifier|(discriminator|generator)_\w+|fit_dense\w*|pooler|embeddings)"
    r"\..+"
)

Sizes = tuple[int, ...]


class Loaded(NamedTuple):
    """A model as its weights are.

    absent       its tensors that are not stored, and are fresh
    other_sizes  those stored in another size, fresh too: (stored, made)
    unread       what is stored beside it
    """

    model: PreTrainedModel
    absent: set[str]
    other_sizes: dict[str, tuple[Sizes, Sizes]]
    unread: set[str]

    def check_encoder(self, source: Source) -> None:
        """Raise ModelError where tensors of the encoder are fresh; the pooler's alone may be."""
        below = f"{self.model.base_model_prefix}." if self.model.base_model is not self.model else ""
        fresh = {key for key in self.absent | self.other_sizes.keys() if key.startswith(below) and "pooler" not in key}
        if not fresh:
            return
        first = min(fresh)
        mend = "config.json and the weights do not belong together"
        if wrapped := [key for key in sorted(self.unread) if key.endswith(f".{first}")]:
            mend = (
                f"it stands there as {wrapped[0]}, as what is wrapped around a model names it "
                "(DistributedDataParallel, torch.compile, PEFT, Lightning): save_pretrained() the model within"
            )
        raise ModelError(
            f"{source}: {len(fresh)} of the encoder's tensors are absent or of another size than config.json says, "
            f"e.g. {first}; {mend}"
        )

    @property
    def other_head(self) -> str | None:
        """A tensor beside the model that may be of its head, under a name of somebody's own."""
        return min((key for key in self.unread if not OF_PRE_TRAINING.fullmatch(key)), default=None)


def load_weights(auto_class: Any, source: Source, config: PreTrainedConfig) -> Loaded:
    """The model in float32, with what is fresh in it; raises ModelError for weights that cannot be used."""
    folder = local_folder(source)
    model: PreTrainedModel
    try:
        if folder is not None:
            _check_sizes(folder, weight_files(folder), auto_class, config)
        with quiet_transformers():
            model, report = auto_class.from_pretrained(
                folder or str(source),
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # sizes are checked later, apart for encoder and head
                output_loading_info=True,
                **safely(folder),
            )
    except SafetensorError as error:
        raise ModelError(f"{source}: its safetensors file is damaged or cut short ({error}); copy it again") from error
    except ModelError:
        raise
    except Exception as error:  # a wrong value in config.json raises whatever the model's own code raises
        place = folder / "config.json" if folder is not None else source
        raise ModelError(f"{source}: its weights cannot be loaded as {place} says: {in_short(error)}") from error
    _check_layers_read(source, model, report["unexpected_keys"])
    other_sizes = {key: (tuple(stored), tuple(made)) for key, stored, made in report["mismatched_keys"]}
    absent = {*report["missing_keys"]} - other_sizes.keys()
    return Loaded(model, absent, other_sizes, {*report["unexpected_keys"]})


def weight_files(folder: Path) -> list[Path]:
    """The files of weights; raises ModelError where they are not there, not fetched, or stand in a pickle."""
    if files := [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else weight_parts(folder):
        check_beginnings(files)
        return files
    if pickles := sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES):
        raise ModelError(
            f"{folder} has its weights only in {pickles[0]}, a pickle, which is never loaded; convert it where you "
            "trust it: load the model with transformers and save_pretrained() it, which writes model.safetensors"
        )
    raise ModelError(f"{folder} holds no weights (model.safetensors)")


def check_beginnings(files: Iterable[Path]) -> None:
    """Raise ModelError for a file that Git LFS has not brought yet, and for one that begins with a byte-order mark."""
    for file in files:
        if is_pointer(file):
            raise ModelError(f"{file}: {FETCH}")
        if begins_with(file, BOM_UTF8):
            raise ModelError(f"{file} begins with a byte-order mark; save it as UTF-8 without one")


def weight_parts(folder: Path) -> list[Path]:
    """The files of weights that stand in several; [] of others. Raises ModelError for an index that is broken.

    Beside a whole file an index is of an earlier save, which transformers leaves there and does not read.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return []
    try:
        parts = typed(read_values(index), _Index).weight_map.values()
    except ValueError as error:
        raise ModelError(f"{index} is broken ({error}); copy the whole folder") from None
    if absent := [part for part in sorted(set(parts)) if not is_inside(part) or not (folder / part).is_file()]:
        raise ModelError(f"{index} names {listing(absent)}, which is not in its folder; copy the whole folder")
    return [folder / part for part in sorted(set(parts))]


@dataclass(frozen=True)
class _Index:
    """Which file each tensor stands in."""

    weight_map: dict[str, str]


def _check_layers_read(source: Source, model: PreTrainedModel, unread: Iterable[str]) -> None:
    """Raise ModelError where layers hold what the model has no place for: further layers, adapters, other attention."""
    below = f"{model.base_model_prefix}."
    if foreign := [key for key in unread if family_of(model).place(key.removeprefix(below))[0] is not None]:
        raise ModelError(
            f"{source}: {len(foreign)} tensors of its layers have no place in the model that config.json describes, "
            f"e.g. {min(foreign)}; config.json and the weights do not belong together: copy both again, and merge "
            "adapters into the weights"
        )


def _check_sizes(folder: Path, files: Iterable[Path], auto_class: Any, config: PreTrainedConfig) -> None:
    """Raise ModelError for a config.json whose model is much larger than its weights: making it would never end.

    And for weights in less than 16 bits, which are no numbers without their scales, and for tables without a row.
    """
    shapes: list[list[int]] = []
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                part = tensors.get_slice(name)
                shapes.append(part.get_shape())
                if part.get_dtype().startswith(QUANTISED):
                    raise ModelError(f"{file}: {name} is stored as {part.get_dtype()}: {UNQUANTISED}")
                if 0 in shapes[-1]:
                    raise ModelError(f"{file}: {name} has no numbers ({shapes[-1]}); copy the model again")
    stored = sum(map(math.prod, shapes))
    repeated = {name: getattr(config, name, 0) for name in REPEATED}
    if too_many := {name: count for name, count in repeated.items() if count > max(len(shapes), FEW)}:
        name, count = next(iter(too_many.items()))
        raise ModelError(f"{folder / 'config.json'}: {name} is {count}, but its weights are {len(shapes)} tensors")
    with torch.device("meta"):
        parameters = sum(weights.numel() for weights in auto_class.from_config(config).parameters())
    if parameters > MOST_FRESH + 2 * stored:
        raise ModelError(
            f"{folder / 'config.json'} describes {parameters:,} parameters, but its weights are {stored:,} numbers; "
            "they do not belong together: copy both again"
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, and no notice of fresh weights, for which there are errors."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
