"""A search for chains as it stands in a folder, resumed round by round.

SEARCH/
├── search.json      the record: costs, rounds, survivors, and the chains found for each limit
├── supernet.pt      the last finished round: weights, optimizer, survivors
├── students/WORD/   the chains found, with the supernet's weights
├── runs/WORD/       their distillations, where --method was given
└── report.html      the page
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import FiniteFloat

from emdistill.files import written_whole
from emdistill.runs.search_record import SearchRecord, write_search
from emdistill.search.chains import BlockCandidate, Chain, ChainCost

STATE, STUDENTS, DISTILLED = "supernet.pt", "students", "runs"
OUTSIDE, TEACHER = "outside", "teacher"  # in costs: what is not in the operators; in measured


@dataclass(frozen=True, kw_only=True)
class RoundRow:
    """A part of the training: its steps, the mean loss of each block, and how many of its candidates were left."""

    steps: int
    losses: tuple[FiniteFloat, ...]
    survivors: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ChainRow(Chain):
    """A chain that was run whole: its last states' error.

    found, distilled   its score on dev with the supernet's weights, and after it was distilled
    """

    end_error: FiniteFloat
    found: FiniteFloat | None = None
    distilled: FiniteFloat | None = None

    @property
    def score(self) -> float | None:
        """The one of the longer training."""
        return self.found if self.distilled is None else self.distilled


@dataclass(kw_only=True)
class ChainSearch(SearchRecord):
    """Everything that search.json holds beside what all searches record.

    costs      of each operator, and of what is OUTSIDE them
    losses     of each block's survivors, by word
    chains     by word, those that were run whole
    returned   limit -> the word of the chain found for it
    measured   what the chains returned, and the TEACHER, take
    """

    FILE = "search.json"

    costs: dict[str, ChainCost] = field(default_factory=dict)
    rounds: list[RoundRow] = field(default_factory=list)
    losses: list[dict[str, FiniteFloat]] = field(default_factory=list)
    chains: dict[str, ChainRow] = field(default_factory=dict)
    returned: dict[str, str] = field(default_factory=dict)
    measured: dict[str, ChainCost] = field(default_factory=dict)

    @property
    def students(self) -> dict[str, ChainRow]:
        """The chains returned, by word."""
        return {word: self.chains[word] for word in self.returned.values()}


class ChainStudy:
    """The record of a search, the survivors of each block, and the supernet as it was after the last round."""

    def __init__(self, folder: Path, record: ChainSearch) -> None:
        self.folder = folder
        self.record = record
        self.survivors: list[list[BlockCandidate]] = []
        self._state: dict[str, Any] = {}
        if (folder / STATE).is_file():
            self._state = torch.load(folder / STATE, weights_only=True, map_location="cpu")
            self.survivors = [[tuple(name) for name in block] for block in self._state["survivors"]]
        del record.rounds[self._state.get("round", 0) :]  # one that was stopped before its state was written

    def restore(self, **parts: Any) -> None:
        """Give modules, optimizers and schedules the state of the last finished round, where there is one."""
        for name, part in parts.items():
            if name in self._state:
                part.load_state_dict(self._state[name])

    def end_round(self, done: RoundRow, **parts: Any) -> None:
        """Write the record, then the state with the states of these parts."""
        self.record.rounds.append(done)
        write_search(self.folder, self.record)
        state = {"round": len(self.record.rounds), "survivors": self.survivors}
        with written_whole(self.folder / STATE) as file:
            torch.save(state | {name: part.state_dict() for name, part in parts.items()}, file)
