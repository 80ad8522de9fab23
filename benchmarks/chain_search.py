"""Whether a search's estimate of a chain, the sum of its blocks' losses, orders chains as their distillation does.

    python benchmarks/chain_search.py --search search --teacher runs/stsb/teacher --task stsb \\
        --data ../shared/data/glue/STS-B --output chain-search

SEARCH is the folder of a finished `emdistill search-chain` of this teacher. Chains are drawn from its survivors, a
random candidate per block, so that they differ in size and in loss; each is born from the teacher, not from the
supernet, and distilled alike. The table has each chain's estimate and score, and Spearman's rank correlation between
them: near 1 where a small loss means a high score. That of parameters and score stands beside it: a search has to know
more than sizes. What is finished is not done again.
"""

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from scipy.stats import spearmanr

from emdistill import distill
from emdistill.options import load_config
from emdistill.runs.chain_search import ChainSearch
from emdistill.runs.record import RUN_FILE, read_run
from emdistill.runs.search_record import read_search


@dataclass(frozen=True)
class Row:
    """A chain: its estimate, its parameters, and its score."""

    operators: str
    loss: float
    parameters: int
    score: float


def main(
    search: str,
    teacher: str,
    task: str,
    data: str,
    output: str,
    chains: int = 12,
    rows: int | None = 1500,
    method: str = "balanced",
    objective: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    seed: int = 0,
) -> None:
    """Distil what is missing, and write the table.

    Args:
        search: folder of the search.
        teacher: folder of its teacher.
        task: a task's name.
        data: its folder or file.
        output: folder of all runs.
        chains: so many.
        rows: of the training set, drawn once.
        method: that every chain is distilled by.
        objective: settings of the method: {"attention_scores": 0} where chains without attention may be drawn.
        training: settings of the training beside 3 epochs at a learning rate of 2e-4.
        seed: of the draw and the runs.
    """
    found = []
    for word, loss in drawn(Path(search), chains, seed):
        run = Path(output) / word
        begun = (run / RUN_FILE).exists()
        if not begun or not read_run(run).is_finished:
            options: dict[str, Any] = {
                "teacher": teacher, "task": task, "data": data, "student": f"chain:{word}", "method": method,
                "rows": rows, "select": "last", "baselines": "none", "seed": seed, "output": str(run), "resume": begun,
                "objective": objective or {},
                "teacher_cache": "states", "teacher_cache_folder": str(Path(output) / "cache"),
                "training": {"num_train_epochs": 3, "learning_rate": 2e-4, "disable_tqdm": True, **(training or {})},
            }  # fmt: skip
            distill(load_config(**options), quiet=True)
        record = read_run(run)
        assert record.task is not None
        assert record.student is not None
        found.append(Row(word, loss, record.student.parameters, record.scores["student"][record.task.metric]))
        print(found[-1], flush=True)
    lines = ["| operators | loss of blocks | million parameters | score |", "| --- | ---: | ---: | ---: |"]
    for row in sorted(found, key=lambda row: row.loss):
        lines.append(f"| {row.operators} | {row.loss:.3f} | {row.parameters / 1e6:.2f} | {row.score:.3f} |")
    scores = [row.score for row in found]
    by_loss = spearmanr([-row.loss for row in found], scores).statistic
    by_size = spearmanr([row.parameters for row in found], scores).statistic
    lines.append(
        f"\nrank correlation with the score: loss {by_loss:.2f}, parameters {by_size:.2f}, {len(found)} chains"
    )
    (Path(output) / "chain_search.json").write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")
    (Path(output) / "chain_search.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(*lines, sep="\n")


def drawn(search: Path, count: int, seed: int) -> list[tuple[str, float]]:
    """So many chains of random survivors, and the sums of their blocks' losses as the search ended with them."""
    record = read_search(search, ChainSearch)
    assert record is not None
    generator = random.Random(seed)
    found: dict[str, float] = {}
    while len(found) < count:
        blocks = [generator.choice(sorted(block)) for block in record.losses]
        found["".join(blocks)] = sum(block[word] for block, word in zip(record.losses, blocks, strict=True))
    return list(found.items())


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
