"""A search for chains as it stands in a folder, resumed round by round.

SEARCH/
├── search.json      the record: costs, rounds, survivors, and the chains found for each limit
├── supernet-N.pt    after N rounds, the last ones: weights, optimizer, survivors
├── students/WORD/   the chains found, with the supernet's weights
├── runs/WORD/       their distillations, where --method was given
└── report.html      the page
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import FiniteFloat

from emdistill.errors import tell
from emdistill.files import sha256, written_whole
from emdistill.runs.search_record import SearchRecord, write_search
from emdistill.search.chains import BlockCandidate, Chain, ChainCost

STATES, STUDENTS, DISTILLED = "supernet-*.pt", "students", "runs"
OUTSIDE, TEACHER = "outside", "teacher"  # in costs: what is not in the operators; in measured


@dataclass(frozen=True, kw_only=True)
class RoundRow:
    """A part of the training: its steps, the mean loss of each block, and how many of its candidates were left.

    sha256   of the state it left; earlier versions wrote none
    """

    steps: int
    losses: tuple[FiniteFloat, ...]
    survivors: tuple[int, ...]
    sha256: str = ""


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
        if not record.rounds:
            return
        path = self._state_file()
        if path.is_file() and sha256(path) == record.rounds[-1].sha256:
            self._state = torch.load(path, weights_only=True, map_location="cpu")
            self.survivors = [[tuple(name) for name in block] for block in self._state["survivors"]]
        else:
            tell(f"{path} is missing, or its checksum differs: the supernet learns from its beginning")
            record.rounds.clear()

    def restore(self, **parts: Any) -> None:
        """Give modules, optimizers and schedules the state of the last finished round, where there is one."""
        for name, part in parts.items():
            if name in self._state:
                part.load_state_dict(self._state[name])

    def end_round(self, done: RoundRow, **parts: Any) -> None:
        """Write the state with the states of these parts, then the record that vouches for it; the one before goes."""
        self.record.rounds.append(done)
        path = self._state_file()
        with written_whole(path) as file:
            states = {name: part.state_dict() for name, part in parts.items()}
            torch.save({"survivors": self.survivors} | states, file)
        self.record.rounds[-1] = replace(done, sha256=sha256(path))
        write_search(self.folder, self.record)
        for other in self.folder.glob(STATES):
            if other != path:
                other.unlink()

    def _state_file(self) -> Path:
        """The state after all rounds of the record."""
        return self.folder / STATES.replace("*", str(len(self.record.rounds)))
