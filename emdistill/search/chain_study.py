"""A search for chains as it stands in a folder, resumed round by round.

STUDY/
├── search.jsonl   what happened, a line per event; written anew with every state
└── supernet.pt    the last finished round: weights, optimizer, survivors, and the events
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from emdistill.errors import OutputError
from emdistill.files import write_whole, written_whole
from emdistill.search.chains import BlockCandidate, ChainCost

LOG, STATE = "search.jsonl", "supernet.pt"


class ChainStudy:
    """The rounds done, the survivors of each block, the costs of operators, and all events.

    settings   what makes a search: one that was begun with others is refused with OutputError
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.round = 0
        self.survivors: list[list[BlockCandidate]] = []
        self.events: list[dict[str, Any]] = [{"event": "settings", **json.loads(json.dumps(dict(settings)))}]
        self._loaded: dict[str, Any] = {}
        if (folder / STATE).is_file():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.folder / STATE, weights_only=True, map_location="cpu")
        events = json.loads(state["events"])
        if events[0] != self.events[0]:
            differing = [name for name, value in self.events[0].items() if events[0].get(name) != value]
            raise OutputError(
                f"{self.folder} holds a search of other settings ({', '.join(differing)}); go on with it as it was "
                "started, replace it by --overwrite, or choose another --output"
            )
        self.events, self.round = events, state["round"]
        self.survivors = [[tuple(name) for name in block] for block in state["survivors"]]
        self._loaded = state

    @property
    def costs(self) -> tuple[dict[str, ChainCost], ChainCost] | None:
        """The cost of each operator and of what is outside them, once they have been measured."""
        for event in self.events:
            if event["event"] == "costs":
                return {name: ChainCost(*cost) for name, cost in event["operators"].items()}, ChainCost(
                    *event["outside"]
                )
        return None

    def note(self, event: str, **values: Any) -> None:
        """One more event."""
        self.events.append({"event": event, **values})

    def restore(self, **parts: Any) -> None:
        """Give modules, optimizers and schedules the state of the last finished round, where there is one."""
        for name, part in parts.items():
            if name in self._loaded:
                part.load_state_dict(self._loaded[name])

    def save(self, **parts: Any) -> None:
        """Write the state whole, with the states of these parts; then the log."""
        state = {"round": self.round, "survivors": self.survivors, "events": json.dumps(self.events)}
        with written_whole(self.folder / STATE) as file:
            torch.save(state | {name: part.state_dict() for name, part in parts.items()}, file)
        self.write_log()

    def write_log(self) -> None:
        """Write the events anew."""
        lines = [json.dumps(event, ensure_ascii=False) for event in self.events]
        write_whole(self.folder / LOG, "\n".join(lines) + "\n")
