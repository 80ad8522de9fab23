"""A training step beside other programs: threads that spin while they wait, against threads that sleep.

    python benchmarks/busy.py --neighbours 2 --seconds 15 --rounds 3

Every process trains 3 layers of width 384 on batches of 32 × 32 tokens with all cores' threads. The neighbours spin, as
any PyTorch program does by default; the policies take turns beside them. `emdistill` sets OMP_WAIT_POLICY=passive.
"""

import os
import statistics
import subprocess
import sys
import time

import torch
from measure import arguments, print_table, save
from transformers import BertConfig, BertForSequenceClassification

POLICIES = ("active", "passive")


def train(seconds: float) -> None:
    """Print the seconds of every step."""
    torch.manual_seed(0)
    config = BertConfig(hidden_size=384, num_hidden_layers=3, num_attention_heads=12, intermediate_size=1536)
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    ids, labels = torch.randint(1000, 20000, (32, 32)), torch.randint(0, 2, (32,))
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(time.perf_counter() - start, flush=True)


def steps_of(policy: str, seconds: float) -> list[float]:
    """The seconds of the steps of a process with this policy."""
    printed = subprocess.run(command(seconds), env=environment(policy), capture_output=True, text=True, check=True)
    return [float(line) for line in printed.stdout.split()]


def command(seconds: float) -> list[str]:
    """This script, as a process that trains."""
    return [sys.executable, __file__, "--train", str(seconds)]


def environment(policy: str) -> dict[str, str]:
    """`active` is what OpenMP does where nothing is set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    return kept | ({"OMP_WAIT_POLICY": "passive"} if policy == "passive" else {})


def main() -> None:
    """Time both policies in turns beside the neighbours."""
    parser = arguments(
        __doc__ or "",
        neighbours={"type": int, "default": 2, "help": "processes that train at the same time"},
        seconds={"type": float, "default": 15.0, "help": "of each turn"},
        train={"type": float, "help": "seconds to train, in a process of its own"},
    )
    options = parser.parse_args()
    if options.train:
        train(options.train)
        return
    rounds, seconds = options.rounds or 3, 3.0 if options.short else options.seconds
    neighbours = [
        subprocess.Popen(command(1e6), env=environment("active"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(options.neighbours)
    ]
    try:
        steps: dict[str, list[float]] = {policy: [] for policy in POLICIES}
        for _ in range(rounds):
            for policy in POLICIES:
                steps[policy] += steps_of(policy, seconds)
    finally:
        for neighbour in neighbours:
            neighbour.kill()
    figures = {
        policy: {"steps": len(times), "median_ms": 1000 * statistics.median(times), "most_ms": 1000 * max(times)}
        for policy, times in steps.items()
    }
    rows = [(policy, *(f"{number:.0f}" for number in row.values())) for policy, row in figures.items()]
    print_table(f"a step beside {options.neighbours} neighbours", ("policy", "steps", "median ms", "most ms"), rows)
    save(options.output, {"neighbours": options.neighbours, "policies": figures})


if __name__ == "__main__":
    main()
