"""The built-in task `docstrings`: which library does this sentence of documentation come from?

It needs no download: the sentences are those of the docstrings of seven installed libraries, whose source files are
parsed, never imported. From source to rows:

1. Files are read in the order of their paths' hashes, without tests and very large files, until a library has given
   SENTENCES_READ sentences.
2. A docstring gives the paragraphs at its margin: parameter lists, code, mathematics and examples are indented or
   begin with a mark. Paragraphs are cut into sentences; those that do not read as prose go.
3. Names of libraries become MASK_WORD.
4. A sentence stays once (case, digits and punctuation apart), and not at all where two libraries have it.
5. The first files of a library give dev, the others train; then train loses every sentence that shares a third of its
   three-word runs with one sentence of dev.
6. Every class has equally many rows.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import random
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import Dataset, Features, Value

from emdistill.errors import ConfigError, DataError
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task, TaskData

# The name that users install, which is also the label, and the name that Python imports.
LIBRARIES = {
    "torch": "torch",
    "transformers": "transformers",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "sympy": "sympy",
    "networkx": "networkx",
    "numpy": "numpy",
}

DOCSTRINGS = Task(
    name="docstrings",
    kind=KINDS["classification"],
    labels=tuple(LIBRARIES),
    metrics=("accuracy", "macro_f1"),
    description="Which library does this sentence of documentation come from?",
)

MASK_WORD = "library"
SENTENCES_READ = 4_500
DEV_ROWS = 300
DEV_FILE_SENTENCES = 30
LARGEST_FILE = 450_000
SKIPPED_FOLDERS = {"tests", "test", "testing", "_internal", "_vendor", "externals", "_external"}
WORDS = range(6, 41)


@dataclass(frozen=True)
class Sentence:
    """A masked sentence, its library and its file."""

    text: str
    library: str
    file: str


def read_docstrings(*, train_size: int | None = None, seed: int = 42) -> TaskData:
    """The task's train and dev, balanced, from the libraries as installed.

    train_size   rows of train, an equal share per class; None: all
    seed         of the rows of a smaller train, and of the order of both; dev always has the same rows
    Raises DataError where a library is not installed, ConfigError where train cannot have that many rows.
    """
    installed = {library: _installed(library, package) for library, package in LIBRARIES.items()}
    versions = ", ".join(f"{library} {version}" for library, (_, version) in installed.items())
    sentences = [sentence for library, (root, _) in installed.items() for sentence in read_sentences(library, root)]
    train, dev = split_sentences(sentences, dev_rows=DEV_ROWS)
    return TaskData(
        task=replace(DOCSTRINGS, description=f"{DOCSTRINGS.description} Built from {versions}."),
        train=_dataset(balanced(train, rows=train_size, rng=random.Random(seed))),
        evaluation={"dev": _dataset(balanced(dev, rows=None, rng=random.Random(seed)))},
    )


def read_sentences(library: str, root: Path) -> list[Sentence]:
    """The first SENTENCES_READ sentences, to the end of a file, of the source files under `root`, or all of them."""
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    sentences: list[Sentence] = []
    for name in sorted(files, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if len(sentences) >= SENTENCES_READ:
            break
        if SKIPPED_FOLDERS.isdisjoint(name.split("/")) and files[name].stat().st_size <= LARGEST_FILE:
            texts = (text for docstring in docstrings(files[name].read_bytes()) for text in prose_sentences(docstring))
            sentences.extend(Sentence(text, library, name) for text in texts)
    return sentences


def split_sentences(sentences: Iterable[Sentence], *, dev_rows: int) -> tuple[list[Sentence], list[Sentence]]:
    """(train, dev): no file and no sentence, or nearly the same one, is in both; dev has `dev_rows` per library.

    The first files of each library give dev; a file of more than DEV_FILE_SENTENCES sentences goes to train, so that
    no one file decides the score.
    """
    dev, others = list[Sentence](), list[Sentence]()
    files: defaultdict[tuple[str, str], list[Sentence]] = defaultdict(list)
    for sentence in unique(sentences):
        files[sentence.library, sentence.file].append(sentence)
    rows: Counter[str] = Counter()
    for (library, _), in_file in files.items():
        missing = dev_rows - rows[library]
        if missing and len(in_file) <= DEV_FILE_SENTENCES:
            dev.extend(in_file[:missing])
            rows[library] += len(in_file[:missing])
        else:
            others.extend(in_file)
    return without_near_copies(others, of=dev), dev


def unique(sentences: Iterable[Sentence]) -> list[Sentence]:
    """Each sentence once (case, digits and punctuation apart), at its first place, but none that two libraries have."""
    first: dict[str, Sentence] = {}
    shared: set[str] = set()
    for sentence in sentences:
        key = " ".join(_words(sentence.text))
        if first.setdefault(key, sentence).library != sentence.library:
            shared.add(key)
    return [sentence for key, sentence in first.items() if key not in shared]


def without_near_copies(sentences: Iterable[Sentence], *, of: Iterable[Sentence]) -> list[Sentence]:
    """Drop each sentence that has a third or more of its three-word runs in common with a single one of `of`."""
    places: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, other in enumerate(of):
        for run in _runs(other.text):
            places[run].append(place)

    def is_near_copy(text: str) -> bool:
        runs = _runs(text)
        common = Counter(place for run in runs for place in places.get(run, ()))
        return 3 * max(common.values(), default=0) >= len(runs)

    return [sentence for sentence in sentences if not is_near_copy(sentence.text)]


def balanced(sentences: Iterable[Sentence], *, rows: int | None, rng: random.Random) -> list[Sentence]:
    """Equally many sentences per library, shuffled: `rows` of them or a few less; None: as many as there are.

    Raises ConfigError where the smallest class cannot give its share, DataError where it is empty.
    """
    by_library: dict[str, list[Sentence]] = {library: [] for library in LIBRARIES}
    for sentence in sentences:
        by_library[sentence.library].append(sentence)
    smallest = min(by_library, key=lambda library: len(by_library[library]))
    available = len(by_library[smallest])
    if not available:
        raise DataError(
            f"task docstrings found too few sentences in the .py files of {smallest}; "
            f"install it with its source: pip install --force-reinstall {smallest}"
        )
    share = available if rows is None else rows // len(LIBRARIES)
    if not 1 <= share <= available:
        raise ConfigError(
            f"task docstrings cannot have {rows} training rows; ask for {len(LIBRARIES)} to "
            f"{available * len(LIBRARIES)}, or leave the size out to have them all"
        )
    chosen = [sentence for some in by_library.values() for sentence in rng.sample(some, share)]
    rng.shuffle(chosen)
    return chosen


def prose_sentences(docstring: str) -> Iterator[str]:
    """The sentences of a docstring's running text, without markup, library names masked.

    Running text is a paragraph whose lines all stand at the margin, none of which begins with a mark (`>>>`, `..`,
    `-`, `@`, ...) or is a heading such as `Args:`. A sentence begins with a capital, ends with `.`, `!` or `?`, and
    has 6 to 40 words, four in five of them plain, and no sign of code, formulas or links.
    """
    fenced = False
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        fences = paragraph.count("```") + paragraph.count("~~~~") + paragraph.count("$$")
        if fences or fenced:
            fenced ^= fences % 2 == 1
            continue
        lines = paragraph.split("\n")
        if any(re.match(r"\s|>>>|\.\. |[-*+#@:|<!=\[]|\d+[.)]|\w+:$", line) for line in lines):
            continue
        for sentence in _cut_sentences(_plain(" ".join(lines))):
            if _reads_as_prose(sentence):
                yield mask_library_names(sentence)


def mask_library_names(text: str) -> str:
    """Replace library names, in any case and inside longer names (`torch.nn`, `is_scipy_usable`), by MASK_WORD.

    Abbreviations (`np`, `nx`, ...) go in lower case only, besides HF: NP is also a class of problems.
    """
    return _ABBREVIATIONS.sub(MASK_WORD, _NAMES.sub(MASK_WORD, text))


_NAMES = re.compile(
    r"pytorch|torch|hugging\s?face|(?<![a-z])transformers(?![a-z])|scikit[-\s]?learn|sklearn|scikits?|scipy|sympy|networkx|numpy",
    re.IGNORECASE,
)
_ABBREVIATIONS = re.compile(r"\b(?:np|nx|sp|hf|HF)\b")

_MARKUP = (  # pattern, replacement
    (re.compile(r"\s*\[[\w*#]+\]_"), ""),  # [1]_, a footnote
    (re.compile(r":(?:[\w+-]+:)*math:`"), "$"),  # a formula; its $ drops the sentence
    (re.compile(r":[\w:+-]+:`~?(?:[^`<]*\s)?<?([^`<>]*)>?`"), r"\1"),  # :class:`~x.y`, :ref:`words <target>`
    (re.compile(r"`+\s*([^`<>]+?)\s*<[^`]*>`+_*"), r"\1"),  # `words <https://...>`_
    (re.compile(r"\[`?([^\]`]+)`?\]\([^)]*\)"), r"\1"),  # [words](https://...)
    (re.compile(r"\[?`+~?([^`]*)`+\]?_*"), r"\1"),  # ``x``, `x`_, [`x`]
    (re.compile(r"(?<!\w)\*{1,2}(\w[^*]*?)\*{1,2}(?!\w)"), r"\1"),  # *x*, **x**
)
_CODE_SIGNS = re.compile(r"[=<>{}\[\]|\\$@#^`~*%]|https?:|www\.|\b\w+:\w|:\w+:|::|\s:\s|\.\.|__|--|\w\(|\(c\)|©")
_ABBREVIATED = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|cf|vs|resp|al|[Ff]igs?|[Ee]qs?|[Ss]ec|[Cc]h|[Rr]ef|pp?|[Nn]o|approx|[A-Z])\.)$"
)
_PLAIN_WORD = re.compile(r"[\"'(]*[A-Za-z]+(?:['’-][A-Za-z]+)*[\"')]*[,.:;!?]?[\"')]*")


def _plain(text: str) -> str:
    """The text on one line, without the marks of reStructuredText and Markdown."""
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


def _cut_sentences(text: str) -> Iterator[str]:
    start = 0
    for end in re.finditer(r"(?<=[.!?])[\"')]*\s+(?=[A-Z(\"'])", text):
        sentence = text[start : end.end()].strip()
        if not _ABBREVIATED.search(sentence):
            yield sentence
            start = end.end()
    yield text[start:]


def _reads_as_prose(sentence: str) -> bool:
    words = sentence.split()
    plain = sum(1 for word in words if _PLAIN_WORD.fullmatch(word))
    lower = sum(1 for word in words if word.islower())
    return (
        len(words) in WORDS
        and re.match(r"[A-Z]", sentence) is not None
        and re.search(r"[.!?][\"')]*$", sentence) is not None
        and _CODE_SIGNS.search(sentence) is None
        and plain >= 0.8 * len(words)
        and lower >= 0.5 * len(words)
    )


def docstrings(source: bytes) -> Iterator[str]:
    """The docstrings of a module, its classes and functions, in source order; none where the source does not parse.

    They include those that `add_newdoc` and `add_docstr` give to objects written in C.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            module = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in (module, *_statements(module)):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if (text := ast.get_docstring(node, clean=False)) is not None:
                    yield text
            case ast.Expr(ast.Call(function) as call) | ast.Assign(value=ast.Call(function) as call):
                if ast.unparse(function).endswith(("add_newdoc", "add_docstr")):
                    constants = (part.value for part in ast.walk(call) if isinstance(part, ast.Constant))
                    yield from (text for text in constants if isinstance(text, str))


def _statements(parent: ast.AST) -> Iterator[ast.stmt]:
    # Not ast.walk: most nodes of a file are expressions, which hold no docstring.
    for child in ast.iter_child_nodes(parent):
        if isinstance(child, ast.stmt):
            yield child
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _statements(child)


def _installed(library: str, package: str) -> tuple[Path, str]:
    """The folder and the version of a library, which is not imported."""
    try:
        version = importlib.metadata.version(library)
        spec = importlib.util.find_spec(package)
    except importlib.metadata.PackageNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"task docstrings reads the docstrings of {library}, which is not installed; "
            'install it with: pip install "emdistill[demo]"'
        )
    return Path(spec.submodule_search_locations[0]), version


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.casefold())


def _runs(text: str) -> set[tuple[str, ...]]:
    """Runs of three words."""
    words = _words(text)
    return {tuple(words[place : place + 3]) for place in range(max(1, len(words) - 2))}


def _dataset(sentences: Iterable[Sentence]) -> Dataset:
    rows = [{"text": row.text, "label": DOCSTRINGS.labels.index(row.library)} for row in sentences]
    return Dataset.from_list(rows, features=Features({"text": Value("string"), "label": Value("int64")}))
