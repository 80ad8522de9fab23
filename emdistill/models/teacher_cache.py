"""The teacher's outputs, computed once: written at their first use, memory-mapped from then on."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from rich.progress import Progress
from torch import Tensor

from emdistill.console import Terminal
from emdistill.errors import CacheError
from emdistill.models.arithmetic import fast_float32
from emdistill.models.cache_files import FORMAT, CacheFiles, Layout, Part, parts_of, within
from emdistill.models.cache_shards import ShardWriter
from emdistill.models.capture import OF_LAYERS, field_of
from emdistill.models.teacher import Teacher
from emdistill.processes import is_first_process
from emdistill.states import ANSWERS, ENDS, EncoderStates, teacher_part

Collate = Callable[[list[dict[str, Any]]], Mapping[str, Tensor]]

READ = ("input_ids", "attention_mask", "token_type_ids", ANSWERS, ENDS)
# What in a config does not decide the outputs; the precision is in the key by itself.
NAMES = {"_name_or_path", "_commit_hash", "architectures", "transformers_version", "dtype", "torch_dtype"}
LABELS = {"id2label", "label2id", "problem_type"}


class TeacherCache:
    """A teacher whose states of the cached examples are read from disk."""

    reads_rows = True

    def __init__(self, files: CacheFiles, parts: Collection[Part]) -> None:
        self.layout = files.layout
        self.shape = files.layout.shape
        self._numbers = {part: files.open(part) for part in parts}

    def __call__(
        self, inputs: Mapping[str, Tensor], needs: Collection[str] = (), layers: Collection[int] | None = None
    ) -> EncoderStates:
        """The states of one batch on the device of its mask, zero at padding: logits float32, all others float16.

        inputs         row [B], the example of each row of the batch; attention_mask [B, L], the places of its tokens
        needs, layers  as for a Teacher; other layers are None
        Raises CacheError for states that were not cached, and for other tokens than the cached example's.
        """
        inputs = teacher_part(inputs)
        if absent := {"row", "attention_mask"} - set(inputs):
            raise CacheError(f"a batch for the teacher cache lacks {', '.join(sorted(absent))}; its examples need both")
        parts = parts_of(self.layout.shape, needs, layers)
        if lacking := [str(part) for part in parts if part not in self._numbers]:
            raise CacheError(f"the teacher cache was opened without {', '.join(lacking)}; open it with these states")
        mask, rows = inputs["attention_mask"], inputs["row"].cpu().numpy()
        spans = self.layout.token_spans(rows, mask)
        states = {part: self._read(part, rows, spans, mask.shape[1]).to(mask.device) for part in parts}

        def by_layer(kind: str) -> tuple[Tensor | None, ...]:
            every = range(self.layout.shape.layers) if kind in needs else ()
            return tuple(states.get(Part(kind, layer)) for layer in every)

        return EncoderStates(
            logits=states[Part("logits")],
            mask=mask,
            embeddings=states.get(Part("embeddings")),
            **{field_of(kind): by_layer(kind) for kind in OF_LAYERS},
        )

    def _read(self, part: Part, rows: np.ndarray, spans: list[slice], length: int) -> Tensor:
        numbers = self._numbers[part]
        starts, sizes = self.layout.starts(part.kind)[rows], self.layout.values(part.kind, rows)
        if part.kind == "logits":
            of_rows = [numbers[start : start + size] for start, size in zip(starts, sizes, strict=True)]
            return torch.from_numpy(np.concatenate(of_rows).reshape(-1, self.layout.outputs))
        padded = np.zeros((len(rows), *self.layout.state_shape(part.kind, length)), part.dtype)
        for place, (start, size, span) in enumerate(zip(starts, sizes, spans, strict=True)):
            shape = self.layout.state_shape(part.kind, span.stop - span.start)
            padded[place][within(part.kind, span)] = numbers[start : start + size].reshape(shape)
        return torch.from_numpy(padded)


def open_teacher_cache(
    teacher: Teacher,
    examples: Dataset,
    folder: Path,
    *,
    needs: Collection[str] = (),
    layers: Collection[int] | None = None,
    collate: Collate,
    tokens_per_batch: int = 8192,
    description: str = "",
) -> TeacherCache:
    """The logits of all examples and the states `needs` of `layers` (None: all), cached; what is lacking is written.

    examples          tokenised, unpadded: input_ids, attention_mask, perhaps token_type_ids and the answers' places;
                      other columns are ignored
    folder            holds a folder per teacher, precision and sequence of examples
    collate           pads a list of rows to a batch
    tokens_per_batch  rows × longest, at most, while writing
    description       of the progress bar on stderr; '': no bar
    Several processes, of one run or of several, compute what is lacking together, and what a crash leaves is gone on
    with. Damage is found by checksum and written anew.
    Raises CacheError where the outputs do not fit on the disk or in half precision, or the folder cannot be written to.
    """
    encoded = examples.select_columns([name for name in READ if name in examples.column_names]).with_format(None)
    if not len(encoded):
        raise CacheError("there are no examples whose teacher outputs could be cached")
    with_mask = "attention_mask" in encoded.column_names
    counts = map(sum, encoded["attention_mask"]) if with_mask else map(len, encoded["input_ids"])
    lengths = np.fromiter(counts, dtype=np.int32, count=len(encoded))
    answers = [len(places) for places in encoded[ANSWERS]] if ANSWERS in encoded.column_names else None
    layout = Layout(teacher.shape, teacher.outputs, lengths, answers)
    parts = parts_of(teacher.shape, needs, layers)
    key = _key(teacher, encoded)
    files = CacheFiles(folder / key[:16], key, layout)
    try:
        if files.lacking(parts):
            writer = ShardWriter(files, parts, tokens_per_batch)
            with _bar(description) as report, fast_float32():
                writer.write(partial(_states, teacher, encoded, collate), report)
        return TeacherCache(files, parts)
    except OSError as error:
        raise CacheError(
            f"the teacher's outputs cannot be kept in {folder}: {error}; "
            "name another folder: --teacher-cache-folder, or cache less: --teacher-cache logits or none"
        ) from error


def _states(
    teacher: Teacher, encoded: Dataset, collate: Collate, rows: np.ndarray, parts: Sequence[Part]
) -> EncoderStates:
    """The teacher's states of one batch, those that the parts hold."""
    inputs = collate([encoded[row] for row in rows.tolist()])
    inputs = {name: tensor.to(teacher.model.device) for name, tensor in inputs.items()}
    needs = {part.kind for part in parts} - {"logits"}
    return teacher(inputs, needs, {part.layer for part in parts if part.layer is not None})


@contextmanager
def _bar(description: str) -> Iterator[Callable[[float], object]]:
    """A bar on stderr, of the first process; what it gives is told the share that is done."""
    is_shown = bool(description) and is_first_process()
    with Progress(console=Terminal(stderr=True), transient=True, disable=not is_shown) as bar:
        task = bar.add_task(description, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _key(teacher: Teacher, encoded: Dataset) -> str:
    """SHA-256 of all that decides the outputs: weights, config, precision, token ids in their order."""
    config = {name: value for name, value in teacher.model.config.to_dict().items() if name not in NAMES | LABELS}
    of_teacher = [FORMAT, teacher.fingerprint, str(teacher.dtype), config]
    digest = hashlib.sha256(json.dumps(of_teacher, sort_keys=True, default=str).encode())
    for name in encoded.column_names:
        digest.update(name.encode())
        for ids in encoded[name]:
            digest.update(np.asarray([len(ids), *ids], dtype=np.int64).tobytes())
    return digest.hexdigest()
