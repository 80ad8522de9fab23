"""The student's README.md: what it is, how it was made, what it scores, how it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from emdistill.config import folder_name, plain, source_name
from emdistill.console import ReportRow, markdown, markdown_table


@dataclass(frozen=True)
class DataFacts:
    """One set of examples that the run read: its file's name, its rows, and the SHA-256 of its bytes, if it has any."""

    name: str
    rows: int
    sha256: str | None = None


@dataclass(frozen=True)
class CardFacts:
    """All that a model card tells. Paths may be given whole; only their last part is written.

    name            the run's or the student's name, the card's title
    task            the task's name, and `description` what it asks, in a sentence
    kind, labels    "classification" with its label names, or "regression" without
    pairs           the task reads pairs of sentences
    student         the student's make, e.g. "3 layers × 384, from teacher layers 1, 3, 5"
    teacher         the teacher's folder or hub id
    method          the method's name; `equation` the objective, as it prints itself
    seed, settings  what a rerun needs: learning rate, epochs, batch size ...; values print as themselves
    data            the sets that were read; `held_out` says how a development set was cut out of train, if it was
    scores          {set: {metric: value}}, of teacher and student; the first set is the one that counts
    checkpoint      how the checkpoint was chosen, e.g. "the best of 12 evaluations by accuracy on dev"
    parameters, size   of teacher and student: a count, bytes
    max_length      tokens beyond which an input is cut off
    versions        {library: version}
    command         the command that made it (command.py)
    """

    name: str
    task: str
    kind: Literal["classification", "regression"]
    labels: Sequence[str]
    pairs: bool
    student: str
    teacher: str
    method: str
    equation: str
    seed: int
    teacher_scores: Mapping[str, Mapping[str, float]]
    student_scores: Mapping[str, Mapping[str, float]]
    checkpoint: str
    description: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    data: Sequence[DataFacts] = ()
    held_out: str | None = None
    teacher_parameters: int | None = None
    student_parameters: int | None = None
    teacher_size: int | None = None
    student_size: int | None = None
    max_length: int = 128
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


def model_card(facts: CardFacts) -> str:
    """The card as Markdown with the Hugging Face YAML front matter."""
    parts = (_front_matter, _summary, _intended_use, _use, _making, _scores, _cost, _limits)
    return "\n".join(section for part in parts if (section := part(facts)))


def _front_matter(facts: CardFacts) -> str:
    metrics = list({metric: None for scores in facts.student_scores.values() for metric in scores})
    fields: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": list(dict.fromkeys(["emdistill", "knowledge-distillation", facts.method])),
    }
    if metrics:
        fields["metrics"] = metrics
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---\n"


def _summary(facts: CardFacts) -> str:
    asks = f" ({facts.description.rstrip('.')})" if facts.description else ""
    reads = "a pair of sentences" if facts.pairs else "a sentence"
    answers = f"one of {len(facts.labels)} labels: {_label_names(facts.labels)}" if facts.labels else "a score"
    return (
        f"# {folder_name(facts.name)}\n\n"
        f"A small student for the task `{facts.task}`{asks}. It reads {reads} and answers with {answers}.\n"
        f"It was distilled from the teacher `{source_name(facts.teacher)}` with emdistill's method `{facts.method}`.\n"
    )


def _intended_use(facts: CardFacts) -> str:
    what = "pairs of sentences" if facts.pairs else "sentences"
    does = "scores" if facts.kind == "regression" else "labels"
    return (
        "## Intended use\n\n"
        f"It {does} {what} of the kind it was trained on, where its teacher is too slow or too large.\n"
        "Score it on labelled text of your own before you rely on it:\n\n"
        "```sh\nemdistill evaluate --model student --data yours.csv\n```\n\n"
        "It is not meant for other tasks or languages than its training data's, nor to decide about people without a\n"
        "person who checks.\n"
    )


def _making(facts: CardFacts) -> str:
    lines = [
        f"- Student: {_plain(facts.student)}",
        f"- Teacher: `{source_name(facts.teacher)}`; frozen while it taught",
        f"- Method: `{facts.method}`",
        f"- Seed: {facts.seed}",
        *(f"- {_words(name).capitalize()}: {_plain(value)}" for name, value in facts.settings.items()),
    ]
    if facts.versions:
        lines.append("- Versions: " + ", ".join(f"{name} {version}" for name, version in facts.versions.items()))
    return (
        "## How it was made\n\n" + "\n".join(lines) + "\n\n"
        f"The objective it minimised:\n\n```text\n{facts.equation.strip()}\n```\n{_command(facts)}{_data(facts)}"
    )


def _command(facts: CardFacts) -> str:
    if not facts.command:
        return ""
    return f"\nThe command that made it, paths cut to their last part:\n\n```sh\n{facts.command}\n```\n"


def _data(facts: CardFacts) -> str:
    if not facts.data:
        return ""
    rows = [
        [f"`{source_name(item.name)}`", f"{item.rows:,}", f"`{item.sha256}`" if item.sha256 else "–"]
        for item in facts.data
    ]
    held_out = f"\nHeld out: {facts.held_out}\n" if facts.held_out else ""
    return "\n" + _table(["data", "rows", "SHA-256"], rows) + held_out


def _scores(facts: CardFacts) -> str:
    rows = []
    for name in dict.fromkeys([*facts.student_scores, *facts.teacher_scores]):
        teacher, student = facts.teacher_scores.get(name, {}), facts.student_scores.get(name, {})
        for metric in dict.fromkeys([*student, *teacher]):
            rows.append([name, metric, _score(teacher.get(metric)), _score(student.get(metric))])
    table = _table(["measured on", "metric", "teacher", "student"], rows)
    counts = next(((name, next(iter(scores))) for name, scores in facts.student_scores.items() if scores), None)
    metric = "" if counts is None else f"The metric that counts is {_words(counts[1])} on {counts[0]}.\n"
    return f"## Scores\n\n{table}\n{metric}The checkpoint: {facts.checkpoint}\n"


def _cost(facts: CardFacts) -> str:
    teacher = ReportRow("teacher", {}, facts.teacher_parameters, facts.teacher_size)
    student = ReportRow("student", {}, facts.student_parameters, facts.student_size)
    if student.parameters is None and student.size is None:
        return ""
    return f"## Size\n\n{markdown_table([teacher, student])}"


def _use(facts: CardFacts) -> str:
    inputs = (
        '{"text": "A sentence.", "text_pair": "Its counterpart."}' if facts.pairs else '"A sentence.", "Another one."'
    )
    # On a single output the pipeline would by default put a sigmoid.
    options = ', function_to_apply="none"' if facts.kind == "regression" else ""
    answer = "is the score" if facts.kind == "regression" else "is the probability that the model gives to `label`"
    return (
        "## How to use it\n\n"
        "It is a plain transformers model; emdistill is not needed.\n\n"
        "```python\n"
        "from transformers import pipeline\n\n"
        'answer = pipeline("text-classification", model="student")  # the path of this folder\n'
        f"inputs = [{inputs}]\n"
        f"for result in answer(inputs, truncation=True, max_length={facts.max_length}{options}):\n"
        '    print(result["label"], result["score"])\n'
        "```\n\n"
        f"`score` {answer}.\n"
    )


def _limits(facts: CardFacts) -> str:
    limits = [
        "Away from the kind of text it was trained on, neither its answers nor its confidence mean much.",
        "It learned from its teacher and inherits the teacher's errors and biases.",
        f"What follows the first {facts.max_length} tokens of an input is not read.",
        "The scores are those of one seed; on small sets a point or two lies within chance.",
    ]
    return "## Limits\n\n" + "".join(f"- {limit}\n" for limit in limits)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown([headings, ["---"] * len(headings), *rows])


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _label_names(labels: Sequence[str]) -> str:
    shown = ", ".join(f"`{label}`" for label in labels[:12])
    return shown if len(labels) <= 12 else f"{shown} and {len(labels) - 12} more"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _plain(value: Any) -> str:
    """A value as text, absolute paths cut to their last part."""
    cut = plain(value)
    if isinstance(cut, dict):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in cut.items())
    return ", ".join(map(_plain, cut)) if isinstance(cut, list) else str(cut)
