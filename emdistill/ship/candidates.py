"""The students that a compression may try: proposed, priced on this machine, and held against the budget."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from emdistill.config import RunConfig
from emdistill.console import say
from emdistill.data.batches import tokenise
from emdistill.data.unlabelled import every_nth_text
from emdistill.errors import ConfigError
from emdistill.files import folder_written_whole
from emdistill.models import bag, bilstm
from emdistill.models.encoder import encoder_shape, load_tokenizer, save_student
from emdistill.models.families import family_of
from emdistill.models.inputs import first_position
from emdistill.models.vocabulary import kept_tokens, load_with_tokenizer, prune, used_tokens
from emdistill.runs.compression import TEACHER, CandidateRow, CompressionRecord, FormRow
from emdistill.runs.search_record import Form
from emdistill.search.budget import Budget, Cost
from emdistill.search.shapes import RANK, Proposal, ladder, orders, propose
from emdistill.ship.operator_table import FEW, MANY, GraphCost, along_layers, measure_graphs
from emdistill.students import make_student, student_kind
from emdistill.students.bag import DEFAULT_WIDTH
from emdistill.students.bilstm import embedding_table
from emdistill.students.chain import check_gives_operators
from emdistill.students.extract import check_part
from emdistill.students.factorise import check_factorisable
from emdistill.students.fresh import fresh_student
from emdistill.students.pretrained import pretrained_student
from emdistill.students.shape import StudentShape, complete_shape, shape_of
from emdistill.tasks.task import TaskData
from emdistill.teachers.opened import OpenTeacher

OWN_VOCABULARY = "own_vocabulary"  # folder of the encoder over the tokens of the texts
WITHOUT_LAYERS: Mapping[str, Collection[str]] = {"bilstm": bilstm.HEADS, "bag": bag.HEADS}
ANSWERS_ALONE = "soft-targets"
FLOAT_BYTES, SCALE_BYTES = 4, 4  # of a number, and of an int8 row's scale
NARROWER_BAGS = (64, 32, 16)
PIECE_BYTES = 12  # of a word piece's weight and its number in hashes
SOME_TEXTS = 200

Costs = dict[Form, GraphCost]


@dataclass(frozen=True)
class Nursery:
    """Where students of a compression are born: what is read, and the encoder that gives its layers.

    config   of a whole training, of any student
    chains   by the student's word, the folders of those that search-chain found
    """

    config: RunConfig
    data: TaskData
    teacher: OpenTeacher
    budget: Budget
    folder: Path
    threads: int
    chains: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def encoder(self) -> Any:
        """The teacher, or the source with a head for the task."""
        if (source := self.config.student_source) is not None:
            return pretrained_student(source, **self.data.task.asks)[0]
        assert self.teacher.born_from is not None  # a file of answers is refused
        return self.teacher.born_from.model

    @cached_property
    def tokenizer(self) -> Any:
        """The encoder's."""
        return load_tokenizer(self.config.student_source or self.config.teacher)

    @property
    def factorises(self) -> bool:
        """Whether the tables of tokens can be factorised."""
        try:
            check_factorisable(self.encoder, 2)
        except ConfigError:
            return False
        return True

    def texts(self) -> Iterator[str]:
        """All texts that are learned from."""
        for name in ("text", "text_pair"):
            if name in self.data.train.column_names:
                yield from self.data.train[name]
        for texts in self.without_labels():
            yield from texts

    def without_labels(self) -> Iterable[tuple[str, ...]]:
        """The texts without labels that are not scored on."""
        text = self.teacher.unlabelled(self.config, self.data.task)
        return () if text is None else every_nth_text(text, 1, self.data.evaluation.values())

    @cached_property
    def used_tokens(self) -> int:
        """How many tokens the vocabulary of the texts has."""
        used = used_tokens(self.tokenizer, self.texts())
        return len(kept_tokens(self.tokenizer, [*used], fixed=first_position(self.encoder)))

    @cached_property
    def typical_length(self) -> int:
        """The median of the tokens that a training text has."""
        some = self.data.train.select(range(min(SOME_TEXTS, len(self.data.train))))
        return int(np.median(tokenise(some, self.tokenizer, self.config.max_length)["length"]))

    def own_vocabulary(self) -> str:
        """The folder of the encoder over the tokens of the texts, written at its first use."""
        place = self.folder / OWN_VOCABULARY
        if not place.is_dir():
            given = self.config.student_source
            source = load_with_tokenizer(given or self.config.teacher, None if given else self.config.head)
            pruned, _ = prune(source, used_tokens(source.tokenizer, self.texts()))
            with folder_written_whole(place) as part:
                save_student(pruned.model, pruned.tokenizer, part)
        return str(place)


def check_students(nursery: Nursery, students: Sequence[str]) -> None:
    """Raise ConfigError, ModelError or LayerCountError for what is no student of this teacher."""
    teacher, source = nursery.teacher.born_from, nursery.config.student_source
    assert teacher is not None  # a file of answers is refused
    for student in students:
        make_student(student, teacher.model, teacher.tokenizer, source=source, birth="fresh", **nursery.data.task.asks)
        if student_kind(student) == "chain":
            check_gives_operators(nursery.encoder)
        if student_kind(student) == "shape":
            check_part(teacher.model, complete_shape(teacher.model.config, *map(int, student.split("x"))))


def price(nursery: Nursery, students: Sequence[str] | None, methods: Sequence[str]) -> dict[str, CandidateRow]:
    """Every candidate by name, with what it will cost: those asked for, or those worth trying, and the chains found.

    Of a student that is too large, the same with a smaller table of tokens is priced too.
    """
    own = [shape_of(nursery.encoder.config)] if nursery.config.student_source is None else []
    measured = Measured(nursery, worth_trying(nursery) if students is None else students, *own)
    rows: dict[str, CandidateRow] = {}
    for shape in own:
        rows[TEACHER] = measured.row(Proposal(TEACHER, ""), measured.of_shape(shape), shape.width)
    rows |= measured.rows(methods)
    others = _other_orders(nursery, rows) if students is None else []
    if chains := [*dict.fromkeys([*nursery.chains, *others])]:
        rows |= Measured(nursery, chains).rows(methods)
    return rows


def worth_trying(nursery: Nursery) -> list[str]:
    """The students that are tried where none are named."""
    encoder, head = nursery.encoder, nursery.data.task.predictions.head
    without = family_of(encoder).without
    cuts = nursery.config.student_source is None and "cut" not in without
    proposed = propose(encoder_shape(encoder), cuts=cuts)
    students = [student for student in proposed if "keep" not in without or "x" in student]
    students += [student for student, heads in WITHOUT_LAYERS.items() if head in heads]
    return students + (_narrower_bag(nursery) if "bag" in students else [])


def _narrower_bag(nursery: Nursery) -> list[str]:
    """The widest that the budget has room for, or the narrowest; none where the usual one has room."""
    room, tokens = nursery.budget.mb, nursery.encoder.config.vocab_size
    table = int(embedding_table(nursery.encoder).shape[1])
    usual, *narrower = [width for width in (min(DEFAULT_WIDTH, table), *NARROWER_BAGS) if width <= table]

    def fits(width: int) -> bool:
        size = _table_bytes("int8", tokens + bag.BagConfig.ngram_buckets, width) + PIECE_BYTES * tokens
        return room is None or size < 1e6 * room

    if fits(usual) or not narrower:
        return []
    return [f"bag:{next((width for width in narrower if fits(width)), narrower[-1])}"]


def _other_orders(nursery: Nursery, rows: Mapping[str, CandidateRow]) -> list[str]:
    """Chains as large as the student of several layers that makes the most of the budget."""
    layered = [
        (row.uses, shape)
        for row in rows.values()
        if row.fits and row.method and (shape := _shape(nursery, row.student)) and shape.layers > 1
    ]
    if not layered or not family_of(nursery.encoder).gives_operators:
        return []
    _, largest = max(layered, key=lambda pair: pair[0])
    width = "" if largest.width == shape_of(nursery.encoder.config).width else f"x{largest.width}"
    return [f"chain:{word}{width}" for word in orders(largest.layers)]


def against(budget: Budget, cost: GraphCost, *, measured: bool, score: float | None = None) -> FormRow:
    """The costs of a form, and whether they keep the budget; to be sure of it, where they are predicted."""
    row = FormRow(**asdict(cost), keeps=False, score=score)
    return replace(row, keeps=budget.keeps(row.cost if measured else row.cost.to_be_sure))


def _with_smaller_table(nursery: Nursery, candidate: Proposal, form: Form, cost: GraphCost, width: int) -> GraphCost:
    """The cost without the bytes of what the table of tokens loses; looking tokens up takes no time to speak of."""
    if not candidate.pruned:
        return cost
    before, tokens, rank = nursery.encoder.config.vocab_size, nursery.used_tokens, candidate.embedding_rank
    table = _table_bytes(form, tokens, rank or width)
    if rank:
        table += rank * width * (FLOAT_BYTES if form == "onnx" else 1)
    return replace(cost, bytes=cost.bytes - _table_bytes(form, before, width) + table)


def _table_bytes(form: Form, tokens: int, width: int) -> int:
    return tokens * (FLOAT_BYTES * width if form == "onnx" else width + SCALE_BYTES)


def _shape(nursery: Nursery, student: str) -> StudentShape | None:
    """Of a student with the encoder's layers; None of another kind."""
    kind, config = student_kind(student), nursery.encoder.config
    if kind == "shape":
        return complete_shape(config, *map(int, student.split("x")))
    if kind in ("layer-count", "layer-list"):
        layers = int(student) if kind == "layer-count" else len([part for part in student.split(",") if part])
        own = shape_of(config)
        return StudentShape(layers, own.width, own.heads, own.feed_forward)
    return None


class Measured:
    """What graphs cost here: of the students' widths, and `more`, at FEW and MANY layers; of other students whole."""

    def __init__(self, nursery: Nursery, students: Sequence[str], *more: StudentShape) -> None:
        self._nursery = nursery
        shapes = {student: _shape(nursery, student) for student in students}
        every = [shape for shape in (*more, *shapes.values()) if shape is not None]
        ends = dict.fromkeys(replace(shape, layers=layers) for shape in every for layers in (FEW, MANY))
        models = {str(shape): self._fresh(shape) for shape in ends}
        source, asked = (nursery.encoder, nursery.tokenizer), nursery.data.task.asks
        whole = [student for student, shape in shapes.items() if shape is None]
        others = {student: make_student(student, *source, birth="fresh", **asked)[0] for student in whole}
        say(f"measuring {len(models) + len(others)} graphs of random weights on this machine")
        self._costs = measure_graphs({**models, **others}, threads=nursery.threads, typical=nursery.typical_length)
        self._shapes = shapes
        self._widths = {student: int(embedding_table(model).shape[1]) for student, model in others.items()}

    def of_student(self, student: str) -> Costs:
        """By form."""
        shape = self._shapes[student]
        return self._costs[student] if shape is None else self.of_shape(shape)

    def of_shape(self, shape: StudentShape) -> Costs:
        """By form, at the shape's number of layers."""
        few, many = (self._costs[str(replace(shape, layers=layers))] for layers in (FEW, MANY))
        return {form: along_layers(few[form], many[form], shape.layers) for form in few}

    def table_width(self, student: str) -> int:
        """Of the student's table of tokens."""
        shape = self._shapes[student]
        return self._widths[student] if shape is None else shape.width

    def ladder(self, candidate: Proposal) -> list[Proposal]:
        """The candidate and, where its table of tokens is the encoder's, the same with smaller ones."""
        if student_kind(candidate.student) == "pretrained":
            return [candidate]
        cut = self._shapes[candidate.student] is not None and self.table_width(candidate.student) > RANK
        return ladder(candidate, factorises=cut and self._nursery.factorises)

    def rows(self, methods: Sequence[str]) -> dict[str, CandidateRow]:
        """Every student with every method that can teach it; of a student that is too large, smaller tables too."""
        nursery, rows = self._nursery, dict[str, CandidateRow]()
        for student in self._shapes:
            for method in [ANSWERS_ALONE] if student_kind(student) in WITHOUT_LAYERS else methods:
                for candidate in self.ladder(Proposal(student, method, searched=student in nursery.chains)):
                    row = self.row(candidate, self.of_student(student), self.table_width(student))
                    if row.fits or not candidate.pruned:
                        rows[candidate.name] = row
                    if row.fits or nursery.budget.mb is None:
                        break
        return rows

    def row(self, candidate: Proposal, costs: Costs, width: int) -> CandidateRow:
        """width: of the student's table of tokens."""
        nursery = self._nursery
        predicted = {
            form: against(nursery.budget, _with_smaller_table(nursery, candidate, form, cost, width), measured=False)
            for form, cost in costs.items()
        }
        return CandidateRow(**asdict(candidate), predicted=predicted)

    def _fresh(self, shape: StudentShape) -> Any:
        nursery = self._nursery
        return fresh_student(
            nursery.encoder, shape.layers, shape.width, shape.heads, shape.feed_forward, **nursery.data.task.asks
        )


def measured_ratios(record: CompressionRecord) -> dict[tuple[str, Form], Cost]:
    """By kind of student and form, how many times what was predicted has been measured at most."""
    ratios: dict[tuple[str, Form], Cost] = {}
    for final in record.finals:
        candidate = record.candidates[final.candidate]
        for form, row in final.forms.items():
            predicted, place = candidate.predicted[form].cost, (_kind(candidate.student), form)
            seen = ratios.get(place, Cost(0.0, 0.0))
            ratios[place] = Cost(max(seen.ms, row.cost.ms / predicted.ms), max(seen.mb, row.cost.mb / predicted.mb))
    return ratios


def still_fits(row: CandidateRow, ratios: Mapping[tuple[str, Form], Cost], budget: Budget) -> bool:
    """Whether a form that will keep the budget does so too where it costs as many times its price as others did."""
    for form, predicted in row.predicted.items():
        ratio = ratios.get((_kind(row.student), form), Cost(1.0, 1.0))
        if predicted.keeps and budget.keeps(Cost(predicted.cost.ms * ratio.ms, predicted.cost.mb * ratio.mb)):
            return True
    return False


def _kind(student: str) -> str:
    """What is priced alike."""
    return next((kind for kind in ("chain", *WITHOUT_LAYERS) if student.startswith(kind)), "layers")


def nearest_miss(models: Mapping[str, Mapping[Form, FormRow]], budget: Budget) -> tuple[str, Form, Cost]:
    """The model and form that miss the budget least, and what they cost."""
    costs = {(name, form): row.cost for name, forms in models.items() for form, row in forms.items()}
    (name, form), cost = min(costs.items(), key=lambda item: budget.overshoot(item[1]))
    return name, form, cost
