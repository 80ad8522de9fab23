"""Vectors of texts with a linear head: means of a frozen encoder's states, or of static word vectors made from it."""

import copy
import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from emdistill.baselines.linear import Features, Fitted, capped, choose_and_fit, columns, head_note
from emdistill.errors import ConfigError
from emdistill.models.size import model_size
from emdistill.tasks.task import Task

Vectors = NDArray[np.float32]

STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # of standardised features
PACKAGES = ("model2vec", "skeletoken")
BATCH = 64


@dataclass(frozen=True)
class VectorFeatures:
    """The vector of a text; of a pair [a, b, |a − b|, a ∘ b, cos(a, b)].

    embed         vectors [rows, W] of texts
    bytes, note   of what makes them, and where they come from
    save          writes a folder
    """

    embed: Callable[[list[str]], Vectors]
    bytes: int = 0
    note: str = ""
    save: Callable[[Path], object] | None = None

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None) -> Features:
        a = self.embed(list(texts))
        if pairs is None:
            return a
        b = self.embed(list(pairs))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosine = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
        return np.concatenate([a, b, np.abs(a - b), a * b, cosine[:, None]], axis=1)


def over_vectors(train: Dataset, task: Task, featurise: VectorFeatures) -> Fitted:
    """Learn a head over the vectors."""
    train, rows = capped(train, task)
    labels = np.asarray(train["label"][:])
    head, strength = choose_and_fit(featurise(*columns(train)), labels, task, STRENGTHS)
    note = f"{featurise.note}; {rows}, {head_note(task, strength)}"
    return Fitted(featurise, head, featurise.bytes + head.bytes, note)


def encoder_means(encoder: Any, tokenizer: Any, *, max_length: int, note: str) -> VectorFeatures:
    """The mean of the last layer's states over a text's tokens; the encoder, without a head, is left as it is."""

    def embed(texts: list[str]) -> Vectors:
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))  # like lengths share a batch
        vectors = np.zeros((len(texts), int(encoder.config.hidden_size)), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            options = {"padding": True, "truncation": True, "max_length": max_length, "return_tensors": "pt"}
            batch = tokenizer([texts[row] for row in rows], **options).to(encoder.device)
            with torch.inference_mode():
                states = encoder(**batch).last_hidden_state
                mask = batch["attention_mask"][..., None].to(states.dtype)
                means = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
            vectors[rows] = means.float().cpu().numpy()
        return vectors

    return VectorFeatures(embed, model_size(encoder), note)


def static_vectors(encoder: Any, tokenizer: Any, *, note: str) -> VectorFeatures:
    """A vector per token, distilled from the encoder by model2vec (Tulkens and van Dongen, 2024); a text is their mean.

    Raises ConfigError where the packages are not installed.
    """
    if any(find_spec(package) is None for package in PACKAGES):
        raise ConfigError('static word vectors need further packages: pip install "emdistill[baselines]"')
    from model2vec.distill import distill_from_model

    encoder = copy.deepcopy(encoder)  # model2vec changes its table of tokens
    encoder.name_or_path = os.curdir  # or it asks the hub for the model's language
    with redirect_stderr(StringIO()):  # its bars and notes
        model = distill_from_model(encoder, tokenizer, device="cpu")

    def save(folder: Path) -> None:
        model.save_pretrained(folder / "vectors")

    return VectorFeatures(word_means(model), int(model.embedding.nbytes), note, save)


def word_means(model: Any) -> Callable[[list[str]], Vectors]:
    """What model2vec gives for texts."""
    return lambda texts: np.asarray(model.encode(texts, use_multiprocessing=False), dtype=np.float32)


def open_vectors(folder: Path) -> VectorFeatures:
    """The features over static vectors that were saved there."""
    from model2vec import StaticModel

    return VectorFeatures(word_means(StaticModel.from_pretrained(folder / "vectors")))
