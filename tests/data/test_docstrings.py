import importlib.metadata
import importlib.util
import random
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from messages import names

from emdistill.data import docstrings as module
from emdistill.data.docstrings import (
    DOCSTRINGS,
    LIBRARIES,
    Sentence,
    balanced,
    docstrings,
    mask_library_names,
    prose_sentences,
    read_docstrings,
    read_sentences,
    split_sentences,
    unique,
)
from emdistill.errors import ConfigError, DataError

NAMES = re.compile(
    r"torch|hugging ?face|\btransformers\b|scikit|sklearn|scipy|sympy|networkx|numpy|\bnp\.|\bnx\.", re.I
)
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


def invented_sentence(rng: random.Random, words: int = 9) -> str:
    """A sentence of invented words, so that two of them hardly share a run of three."""
    return " ".join("".join(rng.choices(SYLLABLES, k=3)) for _ in range(words)).capitalize() + "."


def words_of(text: str) -> list[str]:
    return re.findall("[a-z]+", text.lower())


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seven fake libraries, some larger than others, that cannot be imported; every library has COMMON in each file."""
    monkeypatch.setattr(module, "LIBRARIES", {library: f"pretend_{name}" for library, name in LIBRARIES.items()})
    monkeypatch.setattr(module, "DEV_ROWS", 10)
    monkeypatch.setattr(importlib.metadata, "version", lambda library: f"1.0+{library}")
    monkeypatch.syspath_prepend(str(tmp_path))
    rng = random.Random(1)
    for number, name in enumerate(LIBRARIES.values()):
        package = tmp_path / f"pretend_{name}"
        (package / "tests").mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
        (package / "broken.py").write_text('"""This file has a docstring but does not parse."""\n def (\n')
        (package / "tests" / "test_it.py").write_text('"""A sentence of the tests that nobody should see here."""\n')
        for file in range(12 + number):
            body = "\n".join(f'def f{i}():\n    """{invented_sentence(rng)}"""' for i in range(4))
            (package / f"part{file}.py").write_text(
                f'"""Every library repeats this sentence in {file} files."""\n{body}\n'
            )
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("PyTorch and torch.nn.Linear, or libtorch.", "library and library.nn.Linear, or liblibrary."),
        ("Hugging Face transformers, the HF models.", "library library, the library models."),
        ("Scikit-learn, sklearn.svm and SCIPY.", "library, library.svm and library."),
        ("A NetworkX graph from nx.Graph and np.array.", "A library graph from library.Graph and library.array."),
        ("is_transformers_available in sympy and NumPy", "is_library_available in library and library"),
        ("An NP-hard input of a Transformer.", "An NP-hard input of a Transformer."),
    ],
)
def test_library_names_are_masked(text: str, masked: str) -> None:
    assert mask_library_names(text) == masked


@pytest.mark.parametrize(
    ("docstring", "sentences"),
    [
        ("Return the sum of all\n    elements of the array.", ["Return the sum of all elements of the array."]),
        (
            "First one is a good sentence. Second one, e.g. This one, is too.",
            ["First one is a good sentence.", "Second one, e.g. This one, is too."],
        ),
        (
            "Use the :class:`~a.b.Estimator` or ``n_jobs`` as is said `there <https://x.org>`_ by us.",
            ["Use the a.b.Estimator or n_jobs as is said there by us."],
        ),
        (
            "Loads the [`Config`] of *every* model from [the hub](https://x.org/y) **again**.",
            ["Loads the Config of every model from the hub again."],
        ),
        ("The method is the one described by Knuth [1]_.", ["The method is the one described by Knuth."]),
        ("It is like np.sum but for the whole array.", ["It is like library.sum but for the whole array."]),
        ("Too short a sentence.", []),
        ("This paragraph has no end and so it is a heading", []),
        (" ".join(["Long"] + ["word"] * 40) + ".", []),
        ("The value of :math:`x^2` is taken from the input here.", []),
        ("The value of x = 2 is taken from the input here.", []),
        ("See http://example.org for more of the details on this.", []),
        ("Parameters\n----------\nx : array\n    The array that is to be summed over all axes.", []),
        ("Args:\n    x: The array that is to be summed over all of its axes.", []),
        (">>> print(1)\nThe output of this example is a number of one digit.", []),
        (".. note:: The output of this example is a number of one digit.", []),
        ("- The output of this example is a number of one digit.", []),
        ("```python\nx = 1\n\nThe output of this example is a number of one digit.\n```", []),
        ("A_b C_d E_f G_h I_j K_l M_n is not prose.", []),
    ],
)
def test_only_prose_is_taken_from_a_docstring(docstring: str, sentences: list[str]) -> None:
    assert list(prose_sentences(docstring)) == sentences


def test_docstrings_of_modules_classes_functions_and_c_objects() -> None:
    source = b'''"""module"""
class A:
    """class"""
    async def f(self):
        """method"""
        x = "no docstring"
        for i in x:
            def g():
                r"""inner \\l"""
try:
    pass
except ValueError:
    def h():
        """handler"""
add_newdoc("place", "name", ("attribute", """added"""))
f = _C._add_docstr(_C.f, "bound")
print("printed")
'''
    expected = ["module", "class", "method", r"inner \l", "handler", "place", "name", "attribute", "added", "bound"]
    assert list(docstrings(source)) == expected
    assert list(docstrings(b"def (")) == []
    assert list(docstrings(b'"""\\l is no escape."""')) == [r"\l is no escape."]  # and no warning


def test_a_sentence_is_kept_once_and_never_for_two_libraries() -> None:
    rows = [
        Sentence("Return the 2 largest values.", "numpy", "a.py"),
        Sentence("return the 3 Largest values!", "numpy", "b.py"),
        Sentence("Fit the model to the data.", "torch", "a.py"),
        Sentence("Fit the model to the data.", "sympy", "c.py"),
        Sentence("Fit the model to the data.", "torch", "d.py"),
    ]
    assert unique(rows) == rows[:1]


def test_dev_and_train_share_no_file_and_no_near_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEV_FILE_SENTENCES", 3)
    rng = random.Random(0)
    first = [Sentence(invented_sentence(rng), "torch", "first.py") for _ in range(3)]
    large = [Sentence(invented_sentence(rng), "torch", "large.py") for _ in range(4)]
    second = [Sentence(invented_sentence(rng), "torch", "second.py") for _ in range(3)]
    later = [Sentence(invented_sentence(rng), "torch", "later.py") for _ in range(3)]
    words = first[0].text.rstrip(".").split()
    near = [
        Sentence(" ".join(["Also", *words[:6], "here"]) + ".", "torch", "near.py"),
        Sentence(" ".join([*words[:4], *words[6:], "extra"]) + ".", "numpy", "near.py"),
    ]
    far = Sentence(" ".join([*words[:3], *invented_sentence(rng).split()]), "torch", "far.py")
    train, dev = split_sentences([*first, *large, *second, *near, far, *later], dev_rows=5)
    assert dev[:3] == first
    assert [row.file for row in dev if row.library == "torch"] == ["first.py"] * 3 + ["second.py"] * 2
    assert train == [*large, far, *later]


def test_balanced_gives_each_class_the_same_and_says_what_is_possible() -> None:
    rng = random.Random(0)
    rows = [
        Sentence(invented_sentence(rng), library, "a.py") for i, library in enumerate(LIBRARIES) for _ in range(5 + i)
    ]
    assert set(Counter(row.library for row in balanced(rows, rows=None, rng=rng)).values()) == {5}
    assert set(Counter(row.library for row in balanced(rows, rows=20, rng=rng)).values()) == {2}
    for size in (-1, 0, 6, 42):
        with names(ConfigError, size, 7, 35):
            balanced(rows, rows=size, rng=rng)
    with names(DataError, "torch"):
        balanced([row for row in rows if row.library != "torch"], rows=None, rng=rng)


@pytest.mark.usefixtures("installed")
def test_reading_is_balanced_disjoint_masked_and_imports_nothing() -> None:
    data = read_docstrings()
    dev = data.evaluation["dev"]
    assert data.task.labels == DOCSTRINGS.labels
    assert "numpy 1.0+numpy" in data.task.description
    assert Counter(dev["label"]) == dict.fromkeys(range(7), 10)
    assert len(set(Counter(data.train["label"]).values())) == 1
    assert len(data.train) >= 7 * 30
    texts = [*data.train["text"], *dev["text"]]
    assert len({" ".join(words_of(text)) for text in texts}) == len(texts)
    assert not [text for text in texts if "repeats" in text or "nobody" in text or "parse" in text]
    assert not [name for name in sys.modules if name.startswith("pretend_")]


@pytest.mark.usefixtures("installed")
def test_same_seed_same_rows_other_seed_other_train_same_dev() -> None:
    one, same, other = (read_docstrings(train_size=70, seed=seed) for seed in (1, 1, 2))
    assert one.train[:] == same.train[:]
    assert one.evaluation["dev"][:] == same.evaluation["dev"][:]
    assert len(one.train) == 70
    assert set(one.train["text"]) != set(other.train["text"])
    assert set(one.evaluation["dev"]["text"]) == set(other.evaluation["dev"]["text"])
    assert one.evaluation["dev"][:] != other.evaluation["dev"][:]


def test_labels_belong_to_the_library_the_sentence_stands_in(installed: Path) -> None:
    data = read_docstrings()
    for library, package in module.LIBRARIES.items():
        source = "".join(path.read_text() for path in sorted((installed / package).glob("part*.py")))
        label = DOCSTRINGS.labels.index(library)
        for split in (data.train, data.evaluation["dev"]):
            assert all((row["text"] in source) == (row["label"] == label) for row in split)


def test_order_of_files_depends_on_their_names_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {f"part{i}.py": f'"""{invented_sentence(random.Random(i))}"""' for i in range(9)}
    for folder, files in (("a", sorted(texts)), ("b", sorted(texts, reverse=True))):
        (tmp_path / folder).mkdir()
        for name in files:
            (tmp_path / folder / name).write_text(texts[name])
    everything = read_sentences("torch", tmp_path / "a")
    assert len(everything) == 9
    assert read_sentences("torch", tmp_path / "b") == everything
    monkeypatch.setattr(module, "SENTENCES_READ", 4)
    assert read_sentences("torch", tmp_path / "a") == everything[:4]


@pytest.mark.usefixtures("installed")
def test_a_missing_library_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(library: str) -> str:
        if library == "networkx":
            raise importlib.metadata.PackageNotFoundError(library)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    with names(DataError, "networkx", 'pip install "emdistill[demo]"'):
        read_docstrings()


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in ("sympy", "networkx")), reason="needs the demo extra"
)
def test_installed_libraries_give_a_sound_task() -> None:
    data = read_docstrings()
    dev = data.evaluation["dev"]
    assert Counter(dev["label"]) == dict.fromkeys(range(7), 300)
    assert len(data.train) >= 7 * 2000
    assert not [text for text in [*data.train["text"], *dev["text"]] if NAMES.search(text)]
    known = {" ".join(words_of(text)) for text in data.train["text"]}
    assert not [text for text in dev["text"] if " ".join(words_of(text)) in known]

    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    baseline = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10, max_iter=300))
    accuracy = baseline.fit(data.train["text"][:], data.train["label"][:]).score(dev["text"][:], dev["label"][:])
    assert 0.5 < accuracy < 0.75  # chance is 1/7: neither guessing nor given away
