"""Smaller still: what pruned vocabularies and factorised embedding tables cost a 4×312 student, on development sets.

    python benchmarks/smaller.py --data ../shared/data/glue --teachers runs \\
        --corpus ../shared/data/corpus/wiki.txt.xz --output smaller --tasks mrpc,stsb,sst2 --seeds 0,1,2

RUNS/TASK/teacher are the teachers (benchmarks/glue_students.py makes them). For every task and seed one student is
distilled with BERT-EMD's recipe from ROWS training rows, the last checkpoint kept; it is then scored

    as it is; with its vocabulary pruned to all of train; and to train and the tokens that occur ten times in the first
    PARAGRAPHS paragraphs of the corpus;
    with tables 128, 64 and 32 wide, not trained again: with words weighed by how often the sample has them, and not;

and students born with tables of 128 and 64 are distilled likewise. Scores are on the development set, which nothing is
pruned to. Finished runs are not done again. Writes OUTPUT/smaller.json.
"""

import json
import statistics
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from births import done
from datasets import Dataset
from glue_students import begun
from jsonargparse import auto_cli

from emdistill import distill
from emdistill.data.glue import GLUE
from emdistill.data.paragraphs import read_corpus
from emdistill.data.read import read_task_data
from emdistill.models.arithmetic import has_bfloat16
from emdistill.models.encoder import load_classifier, load_tokenizer
from emdistill.models.size import model_size
from emdistill.models.vocabulary import Encoder, prune, same_words, used_tokens
from emdistill.options import load_config
from emdistill.students.factorise import factorise_embeddings
from emdistill.tasks.task import TaskData
from emdistill.training import predict_logits
from emdistill.training.splits import sample_batches

FREQUENT = 10
DISTILLED_WIDTHS = (None, 128, 64)
WIDTHS = (128, 64, 32)
MAX_LENGTH = 128


def main(
    data: str,
    teachers: str,
    corpus: str,
    output: str,
    tasks: str = "mrpc,stsb,sst2",
    seeds: str = "0,1,2",
    rows: int = 1500,
    paragraphs: int = 40_000,
) -> None:
    """Run what is missing, print a line a variant and write OUTPUT/smaller.json.

    Args:
        data: the folder that holds the GLUE folders.
        teachers: the folder that holds TASK/teacher for every task.
        corpus: a raw text.
        output: folder of all runs.
        tasks: GLUE tasks, comma separated.
        seeds: seeds of the students, comma separated.
        rows: training rows of every task, drawn once.
        paragraphs: of the corpus, whose frequent tokens are kept.
    """
    folder = Path(output)
    results: dict[str, Any] = {}
    further: Counter[int] | None = None
    for task in tasks.split(","):
        place = Path(data) / GLUE[task].folder
        found = read_task_data(str(place), task=task)
        variants: dict[str, list[dict[str, float]]] = {}
        for seed in map(int, seeds.split(",")):
            for width in DISTILLED_WIDTHS:
                run = folder / f"{task}-{width or 'whole'}-{seed}"
                config = load_config(
                    teacher=str(Path(teachers) / task / "teacher"), task=task, data=str(place), student="4x312",
                    embedding_rank=width, rows=rows, seed=seed, select="last", output=str(run), resume=begun(run),
                    check_teacher=False,
                    training={"bf16": has_bfloat16(), "disable_tqdm": True, "gradient_norm_steps": 0},
                )  # fmt: skip
                if not done(run):
                    distill(config)
                student = Encoder(load_classifier(run / "student"), load_tokenizer(run / "student"))
                variants.setdefault(f"distilled, tables of {width or 312}", []).append(facts(student, found))
                if width is not None:
                    continue
                if further is None:
                    texts = (paragraph.text for paragraph in islice(read_corpus(corpus), paragraphs))
                    used = used_tokens(student.tokenizer, texts)
                    further = Counter({token: count for token, count in used.items() if count >= FREQUENT})
                for name, smaller in variants_of(student, found, further, rows).items():
                    variants.setdefault(name, []).append(facts(smaller, found, before=student))
        results[task] = variants
        metric = found.task.metrics[0]
        for name, seeds_of in variants.items():
            scores = " ".join(f"{each[metric]:.4f}" for each in seeds_of)
            mean = statistics.mean(each[metric] for each in seeds_of)
            print(f"{task:5s} {name:52s} {mean:.4f}  ({scores})  {seeds_of[0]['MB']:.1f} MB", flush=True)
        (folder / "smaller.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def variants_of(student: Encoder, data: TaskData, further: Counter[int], rows: int) -> dict[str, Encoder]:
    """The student made smaller without any training."""
    train = used_tokens(student.tokenizer, texts_of(data.train))
    sample = sample_batches(data, student.tokenizer, select="last", max_length=MAX_LENGTH, rows=rows)
    made = {
        "pruned to train": prune(student, train)[0],
        "pruned to train and frequent words of the corpus": prune(student, train + further)[0],
    }
    for width in WIDTHS:
        for how, read in (("words weighed", sample), ("all words alike", ())):
            tables = factorise_embeddings(student.model, width, read)
            made[f"tables of {width}, {how}"] = Encoder(tables, student.tokenizer)
    return made


def facts(encoder: Encoder, data: TaskData, before: Encoder | None = None) -> dict[str, float]:
    """Scores on the development set, MB, tokens, and the share of its words that are split as before."""
    dev = next(iter(data.evaluation.values()))
    logits = predict_logits(encoder.model, encoder.tokenizer, dev.remove_columns("label"), max_length=MAX_LENGTH)
    found = data.task.score(logits, np.asarray(dev["label"]))
    found |= {"MB": model_size(encoder.model) / 1e6, "tokens": len(encoder.tokenizer)}
    if before is not None and len(before.tokenizer) > len(encoder.tokenizer):
        same, words = same_words(before.tokenizer, encoder.tokenizer, texts_of(dev))
        found["words split as before"] = same / words
    return found


def texts_of(rows: Dataset) -> list[str]:
    return [text for name in ("text", "text_pair") if name in rows.column_names for text in rows[name]]


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
