"""A classifier as an ONNX graph: written from PyTorch, opened without it.

The graph takes `input_ids`, `attention_mask` and, only where the model reads them, `token_type_ids`, all int64 [B, L],
and gives `logits`, float32 [B, C], or [B, L, C] where tokens are answered; B and L are free. Its nodes are named after
the modules they come from, e.g. `layer.0.attention.self.query`, so that what is said about them can be read.
"""

import ast
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from emdistill.data.batches import check_tokens, note_cut, windowed
from emdistill.errors import ConfigError, ModelError, tell
from emdistill.models.encoder import head_logits
from emdistill.models.families import family_of, require
from emdistill.models.inputs import longest_text, token_types
from emdistill.models.multi_task import MultiTaskModel, chosen_task
from emdistill.models.stored_weights import WEIGHTS
from emdistill.ship.onnx_folder import CONFIG, INT8, MODEL, FolderConfig, open_tokenizer, read_folder
from emdistill.ship.onnx_graph import attention_as_one_node, shorten
from emdistill.states import ANSWERS, ENDS, NO_ANSWER, answers_per_feature
from emdistill.tasks import KINDS, TaskKind
from emdistill.tasks.features import reader_of
from emdistill.training.evaluate import evaluating

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "logits"
HEAD_OF_SEVERAL = re.compile(r"^tasks\.[\w-]+\.")
LARGEST_BATCH = 2**16
LARGEST_FILE = 2**31 - 1  # of protobuf


def check_onnx_packages() -> None:
    """Raise ConfigError where a package that ONNX needs is not installed."""
    if any(find_spec(package) is None for package in PACKAGES):
        raise ConfigError('ONNX needs further packages: pip install "emdistill[onnx]"')


def reads_token_types(model: PreTrainedModel) -> bool:
    """Whether the model tells the first sentence of a pair from the second by `token_type_ids`."""
    return token_types(model.config) > 1


def export_onnx(model: PreTrainedModel, path: Path, *, token_types: bool | None = None) -> None:
    """Write the classifier as an ONNX graph in float32, fused for ONNX Runtime.

    token_types  whether the graph reads `token_type_ids`; None: where the model does. Without them all are 0.
    Raises ModelError: the model or its family cannot be exported, or it takes more than the 2 GB of one ONNX file;
    ConfigError: a package is not installed.
    """
    require(model, "export")
    check_onnx_packages()
    names = INPUTS if (reads_token_types(model) if token_types is None else token_types) else INPUTS[:2]
    try:
        with evaluating(model), quiet():
            program = _trace(model, names)
            shorten(program.model)
            proto = program.model_proto
            _name_nodes(proto, model)
            _open_lengths(proto)
            _forget_the_machine(proto)
            graph = bytes(proto.SerializeToString())
    except Exception as error:  # the exporter raises whatever its many passes raise
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"this {model.config.model_type!r} model cannot be exported to ONNX: {type(error).__name__}: {reason}"
        ) from error
    if len(graph) > LARGEST_FILE:
        raise ModelError(f"the model takes {len(graph) / 1e9:.1f} GB; one ONNX file holds 2: export a smaller student")
    path.write_bytes(graph)


class _Logits(nn.Module):
    """A classifier that takes and gives plain tensors, as the exporter wants it; of several tasks all heads' logits."""

    def __init__(self, model: PreTrainedModel, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        given = dict(zip(self.names, inputs, strict=True))
        if isinstance(self.model, MultiTaskModel):
            return tuple(head_logits(answers) for answers in self.model.answers(given).values())
        return head_logits(self.model(**given))


def output_names(model: PreTrainedModel) -> list[str]:
    """`logits`; of several tasks `logits_TASK` each."""
    return [head_output(task) for task in model.outputs] if isinstance(model, MultiTaskModel) else [OUTPUT]


def head_output(task: str) -> str:
    """The output of one of several heads."""
    return f"{OUTPUT}_{task}"


def _trace(model: PreTrainedModel, names: Sequence[str]) -> Any:
    """The exporter's program, batch and length left open."""
    # Tensors of their own: one given twice would be exported as one input. Neither axis may be 1 here, or it stays so.
    example = tuple(torch.ones(2, 8, dtype=torch.long, device=model.device) for _ in names)
    axes = {
        0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH),
        1: torch.export.Dim("length", min=1, max=longest_text(model)),
    }
    # The exporter registers an LSTM of open length for as long as it traces, but the operator keeps the kernel that it
    # has looked up before: the second export of a process would be of length 8.
    torch.ops.aten.lstm.input._dispatch_cache.clear()
    with attention_as_one_node(model):
        return torch.onnx.export(
            _Logits(model, names).eval(),
            example,
            input_names=list(names),
            output_names=output_names(model),
            dynamic_shapes=((axes,) * len(names),),
            dynamo=True,
            verbose=False,
        )


def _open_lengths(proto: Any) -> None:
    """Logits of tokens, [B, L, C], are as many as the tokens: of an LSTM the exporter notes the example's length."""
    for output in proto.graph.output:
        axes = output.type.tensor_type.shape.dim
        if len(axes) == 3 and not axes[1].dim_param:
            axes[1].dim_param = "length"


def _name_nodes(graph: Any, model: PreTrainedModel) -> None:
    """Name nodes after the modules they come from: `layer.0.attention.self.query`, `pooler.dense`."""
    family, base = family_of(model), model.body if isinstance(model, MultiTaskModel) else model
    taken: set[str] = set()
    for node in graph.graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}.get("pkg.torch.onnx.name_scopes", "[]")
        # The last scope is the operation, those before it are the modules around it, the innermost last.
        module = next((scope for scope in reversed(ast.literal_eval(scopes)[:-1]) if scope.startswith("model.")), "")
        inner = HEAD_OF_SEVERAL.sub("", module.removeprefix("model."))
        inner = inner.removeprefix(f"{base.base_model_prefix}.")
        layer, inner = family.place(inner)
        if layer is not None:
            inner = re.sub(rf"^{family.attention_block}\b", "attention", inner)
            inner = f"layer.{layer}.{inner}".rstrip(".")
        elif inner.startswith("encoder."):  # tables and matrices that all layers read
            inner = f"embeddings.{inner.removeprefix('encoder.')}"
        name = inner or node.op_type
        node.name = name if name not in taken else f"{name}/{len(taken)}"
        taken.add(node.name)


def _forget_the_machine(graph: Any) -> None:
    """Leave out stack traces, which name the exporting machine's files, and shapes that nothing needs."""
    del graph.graph.value_info[:]
    for part in (graph, graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output):
        del part.metadata_props[:]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's notes about things that are not used here."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def open_session(path: Path, *, threads: int | None = None, outputs_of: Sequence[str] = (OUTPUT,)) -> Any:
    """An onnxruntime.InferenceSession on the CPU; raises ModelError for a file that is no classifier's graph.

    threads     that compute one call; None: as many as there are cores
    outputs_of  the graph
    """
    check_onnx_packages()
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Threads that go on waiting busily after a call take the cores from whatever comes next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes are those of the compiled library, derived from Exception alone
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{path} is no ONNX graph that can be run, or was cut short ({reason}); copy it again, or write it anew: "
            "emdistill export"
        ) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    names = {item.name for item in inputs}
    fits = set(INPUTS[:2]) <= names <= set(INPUTS) and [item.name for item in outputs] == [*outputs_of]
    if not fits or any(len(i.shape) != 2 for i in inputs) or any(len(o.shape) not in (2, 3) for o in outputs):
        raise ModelError(
            f"{path} is no classifier of emdistill: it reads {', '.join(sorted(names)) or 'nothing'} and gives "
            f"{', '.join(item.name for item in outputs)}, not input_ids, attention_mask and {OUTPUT}; name a file that "
            "emdistill export wrote"
        )
    return session


def session_logits(session: Any, inputs: Mapping[str, NDArray[Any]], output: str = OUTPUT) -> NDArray[np.float32]:
    """What the graph gives for one padded batch; inputs that it does not read are passed over."""
    return session_outputs(session, inputs, [output])[0]


def session_outputs(
    session: Any, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
) -> list[NDArray[np.float32]]:
    """The same of several heads at once."""
    fed = {item.name: np.asarray(inputs[item.name], dtype=np.int64) for item in session.get_inputs()}
    logits: list[NDArray[np.float32]] = session.run([*outputs], fed)
    return logits


def session_answers(
    session: Any, batch: Mapping[str, NDArray[Any]], kind: TaskKind, output: str = OUTPUT
) -> NDArray[np.float32]:
    """The logits [A, C] of a batch's answers (TaskKind.pick)."""
    of_head = torch.from_numpy(session_logits(session, batch, output))
    logits: NDArray[np.float32] = kind.pick(
        of_head, {name: torch.from_numpy(rows) for name, rows in batch.items()}
    ).numpy()
    return logits


@dataclass(frozen=True)
class OnnxClassifier:
    """A shipped classifier: its graph, its tokenizer, how it reads texts, and the output that answers."""

    path: Path
    session: Any
    tokenizer: Tokenizer
    config: FolderConfig
    output: str = OUTPUT

    def logits(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """What the graph gives for a batch: `input_ids`, `attention_mask` and `token_type_ids`, integers [B, L]."""
        return session_logits(self.session, inputs, self.output)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None, *, max_length: int) -> list[Encoding]:
        """Tokens of every text or pair, unpadded, the longer of a pair cut first; raises as check_tokens."""
        cut = {"strategy": "longest_first", "direction": (self.tokenizer.truncation or {}).get("direction", "right")}
        self.tokenizer.enable_truncation(max_length, **cut)
        rows = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        padding = self.tokenizer.padding
        self.tokenizer.no_padding()
        try:
            encoded = list(self.tokenizer.encode_batch(rows))
        finally:
            if padding:
                self.tokenizer.enable_padding(**padding)
        check_tokens(text.ids for text in encoded)
        return encoded

    def predict_logits(
        self, examples: Dataset, *, max_length: int | None = None, batch_size: int = 1, tell_cut: bool = False
    ) -> NDArray[np.float32]:
        """The logits of rows in the order of `examples`, as training's predict_logits gives them.

        examples     columns `text`, perhaps `text_pair`, and those of the kind
        max_length   as trained by default
        tell_cut     say on stderr how many texts are longer
        """
        kind, length = KINDS[self.config.kind], max_length or self.config.reading.max_length
        if not kind.one_answer:
            return self._predict_windows(kind, examples, length, batch_size)
        pairs = list(examples["text_pair"]) if "text_pair" in examples.column_names else None
        encoded = self.encode(list(examples["text"]), pairs, max_length=length)
        if tell_cut and (cut := sum(bool(text.overflowing) for text in encoded)):
            tell(note_cut(cut, len(encoded), length, self.config.positions))
        order = sorted(range(len(encoded)), key=lambda row: -len(encoded[row]))
        logits = np.zeros((len(encoded), len(self.config.labels) or 1), dtype=np.float32)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            logits[rows] = self.logits(self.pad([encoded[row] for row in rows]))
        return logits

    def _predict_windows(self, kind: TaskKind, examples: Dataset, max_length: int, batch_size: int) -> NDArray[Any]:
        """The same where rows have several answers, and are read in windows."""
        own = open_tokenizer(self.path.parent, self.config)
        features = kind.features(examples.to_dict(), [reader_of(own, INPUTS)], max_length)
        rows = [feature.sides[0].inputs for feature in features]
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place]["input_ids"]))
        logits: list[NDArray[Any]] = [np.empty(0)] * len(rows)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = self._padded([rows[place] for place in places])
            answers = session_answers(self.session, batch, kind, self.output)
            counts = answers_per_feature({name: torch.from_numpy(values) for name, values in batch.items()})
            for place, of_feature in zip(places, np.split(answers, np.cumsum(counts)[:-1]), strict=True):
                logits[place] = of_feature
        return kind.of_rows(logits, examples, windowed(features, labelled=False))

    def _padded(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, NDArray[np.int64]]:
        fills = {"input_ids": self.config.pad_token_id, ANSWERS: NO_ANSWER, ENDS: NO_ANSWER}
        return {
            name: np.array([[*row[name], *[fills.get(name, 0)] * (longest - len(row[name]))] for row in rows], np.int64)
            for name in rows[0]
            for longest in [max(len(row[name]) for row in rows)]
        }

    def pad(self, encoded: Sequence[Encoding]) -> dict[str, NDArray[np.int64]]:
        """A batch, padded to its longest text as the tokenizer says."""
        longest, padding = max(map(len, encoded)), self.tokenizer.padding or {}
        rules = {name: padding.get(name) for name in ("direction", "pad_id", "pad_type_id", "pad_token")}
        for text in encoded:
            text.pad(longest, **rules)
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        return {name: np.array([getattr(text, of) for text in encoded], dtype=np.int64) for name, of in columns.items()}


def is_onnx(path: Path) -> bool:
    """Whether a model's name means an ONNX graph: an .onnx file, or a folder that export wrote.

    A folder of transformers may hold somebody's graph beside its weights, which are then what counts.
    """
    if (path / WEIGHTS).is_file():
        return False
    return path.suffix == ".onnx" or (path / MODEL).is_file() or (path / INT8).is_file()


def open_onnx(path: Path, *, threads: int | None = None, head: str | None = None) -> OnnxClassifier:
    """Open a file of an exported folder, or the folder itself: then the file that its config.json puts first.

    head   of several, which one answers
    Raises ModelError for a file or folder that is foreign, incomplete, cut short or altered;
    ConfigError: a package is not installed.
    """
    check_onnx_packages()
    config, file = read_folder(path)
    tokenizer = open_tokenizer(file.parent, config)
    output = OUTPUT
    if config.heads or head is not None:
        name = chosen_task([*config.heads], head, path)
        config, output = config.of_head(name), head_output(name)
    session = open_session(file, threads=threads, outputs_of=[head_output(name) for name in config.heads] or [OUTPUT])
    width = next(item.shape[-1] for item in session.get_outputs() if item.name == output)
    if width != (len(config.labels) or 1):
        raise ModelError(
            f"{file} gives {width} logits, but {file.parent / CONFIG} names {len(config.labels) or 'no'} labels; "
            "they do not belong together: export again"
        )
    return OnnxClassifier(file, session, tokenizer, config, output)
