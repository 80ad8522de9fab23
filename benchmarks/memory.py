"""Peak memory of distilling does not grow with the text: a tiny run per number of texts, each in its own process.

    python benchmarks/memory.py --output memory --rows 10000,100000,1000000

The teacher is tiny, so that what is measured is what reading, tokens, the teacher's answers and batches
take. `labelled` is a CSV file of so many labelled rows instead. Prints two peaks of each, also to OUTPUT/memory.md: of
the process's own memory, and of all that is resident, pages of mapped files included, which the system takes back
where it needs them. Both are read from /proc fifty times a second (Linux).
"""

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

from jsonargparse import auto_cli
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from emdistill import finetune
from emdistill.console import Table, markdown
from emdistill.options import load_finetune_config

SPECIAL = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
}  # fmt: skip
WORDS = ("bobo", "dada")
STATUS = re.compile(r"(RssAnon|VmRSS):\s+(\d+) kB")
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]


def main(
    output: str, rows: str = "10000,100000,1000000", kinds: str = "unlabelled,text,labelled", words: int = 12
) -> None:
    """Measure, and write the table.

    Args:
        output: folder of texts and runs.
        rows: numbers of texts, comma separated.
        kinds: unlabelled (beside 200 labelled rows), text (raw text), labelled; comma separated.
        words: per text.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    few = write_csv(folder / "few.csv", 1000, words)
    teacher = tiny_teacher(folder, few)
    lines = []
    for kind in kinds.split(","):
        first = None
        for count in map(int, rows.split(",")):
            texts = write_csv(folder / f"{count}.csv", count, words)
            if kind == "text":
                options = ["--task", "text", "--data", str(write_text(folder / f"{count}.txt", count, words))]
            else:
                read = {
                    "labelled": ["--data", str(texts)],
                    "unlabelled": ["--data", str(few), "--unlabelled", str(texts)],
                }
                options = [*read[kind], "--method", "soft-targets"]
            own, resident, seconds = measured(teacher, options, folder / f"run-{kind}-{count}")
            first = first or own
            size = texts.stat().st_size / 1e6
            peaks = (f"{own:.0f}", f"{own / first - 1:+.0%}", f"{resident:.0f}")
            lines.append([kind, f"{count:,}", f"{size:.0f}", *peaks, f"{seconds:.0f}"])
    headings = ["kind", "texts", "MB of text", "own memory, MB", "to the first", "with mapped files, MB", "seconds"]
    table = markdown(Table(headings, lines))
    (folder / "memory.md").write_text(table + "\n", encoding="utf-8")
    print(table)


def measured(teacher: Path, options: list[str], run: Path) -> tuple[float, float, float]:
    """Peak megabytes of a short distillation, its own and all that is resident; and its seconds."""
    words = ["distill", "--teacher", str(teacher), *options, "--student", "1", "--output", str(run), "--overwrite"]
    words += ["--training.max_steps", "20", "--baselines", "none", "--training.disable_tqdm", "true"]
    words += ["--max_length", "64"] + (["--select", "last"] if "--task" not in options else [])
    started = time.perf_counter()
    own = resident = 0
    command = [sys.executable, "-m", "emdistill", *words]
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        while process.poll() is None:
            pages = dict(STATUS.findall(Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")))
            own = max(own, int(pages.get("RssAnon", 0)))  # none at its very end
            resident = max(resident, int(pages.get("VmRSS", 0)))
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(process.returncode)
    return own / 1024, resident / 1024, time.perf_counter() - started


def tiny_teacher(folder: Path, labelled: Path) -> Path:
    """A BERT of two narrow layers with a WordPiece tokenizer of syllables, fine-tuned on the labelled texts."""
    encoder, teacher = folder / "encoder", folder / "teacher"
    if (teacher / "config.json").exists():
        return teacher
    pieces = [*SPECIAL.values(), *SYLLABLES, *(f"##{one}" for one in SYLLABLES)]
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **SPECIAL).save_pretrained(encoder)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(encoder)
    training = {"num_train_epochs": 8, "learning_rate": 5e-3, "disable_tqdm": True}
    options = {"data": str(labelled), "max_length": 64, "select": "last", "training": training}
    finetune(load_finetune_config(model=str(encoder), output=str(teacher), overwrite=True, **options))
    return teacher


def texts_of(count: int, words: int) -> list[str]:
    """Random texts, always the same; nearly all different."""
    draw = random.Random(0)
    return [" ".join("".join(draw.choices(SYLLABLES, k=2)) for _ in range(words)) for _ in range(count)]


def write_csv(file: Path, count: int, words: int) -> Path:
    """A CSV file of texts with labels, which the first word tells."""
    if not file.exists():
        lines = (f"{WORDS[row % 2]} {text},{WORDS[row % 2]}\n" for row, text in enumerate(texts_of(count, words)))
        file.write_text("text,label\n" + "".join(lines), encoding="utf-8")
    return file


def write_text(file: Path, count: int, words: int) -> Path:
    """Paragraphs, eight texts each, a blank line between."""
    if not file.exists():
        texts = texts_of(count, words)
        file.write_text("\n\n".join(" ".join(texts[row : row + 8]) for row in range(0, count, 8)), encoding="utf-8")
    return file


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
