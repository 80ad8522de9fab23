"""A baseline as a folder that answers without emdistill and PyTorch, for where no student keeps a budget.

model/
├── head.npz               weights [F, C] and bias [C] of the linear head
├── tfidf.npz or vectors/  terms and how rare they are; or a folder of model2vec
├── config.json            what the logits mean
└── example.py             answers sentences, by the code that is emdistill's own
"""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from emdistill.baselines import Fitted
from emdistill.baselines.linear import LinearHead
from emdistill.baselines.tfidf import TfidfFeatures, cosine, open_tfidf, shared_words, vectorizers
from emdistill.baselines.vectors import VectorFeatures, open_vectors, word_means
from emdistill.ship.onnx_folder import CONFIG, EXAMPLE, GIVEN
from emdistill.tasks.task import Task

HEAD = "head.npz"
WEIGHTS = (".npz", ".safetensors")
TFIDF = """from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
"""
# By the class of the features: packages, imports, the code, and what of it opens the folder.
FEATURES: dict[type, tuple[str, str, tuple[Callable[..., Any], ...]]] = {
    TfidfFeatures: ("scipy, scikit-learn", TFIDF, (TfidfFeatures, cosine, shared_words, vectorizers, open_tfidf)),
    VectorFeatures: ("model2vec", "", (VectorFeatures, word_means, open_vectors)),
}


def write_baseline(folder: Path, fitted: Fitted, task: Task) -> None:
    """Write all that answers; `folder` is there and empty."""
    features: Any = fitted.featurise
    features.save(folder)
    np.savez(folder / HEAD, weights=fitted.head.weights, bias=fitted.head.bias)
    names = list(task.kind.names_of(task.labels))
    (folder / CONFIG).write_text(json.dumps({"kind": task.kind.name, "labels": names}, indent=2), encoding="utf-8")
    (folder / EXAMPLE).write_text(_example(type(features), task), encoding="utf-8")


def weight_bytes(folder: Path) -> int:
    """Of the files that hold what was learned."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in WEIGHTS)


def _example(features: type, task: Task) -> str:
    packages, imports, parts = FEATURES[features]
    code = "\n\n".join(inspect.getsource(part) for part in (LinearHead, *parts))
    usage, texts = ('"a sentence" "another" …', "sys.argv[1:], None")
    if task.text_pair is not None:
        usage, texts = '"a sentence" "and its partner" …', "sys.argv[1::2], sys.argv[2::2]"
    return f'''"""python example.py {usage}: prints the logits of each; needs numpy, {packages}."""
from __future__ import annotations
import json, sys
from dataclasses import dataclass
from pathlib import Path
import numpy as np
{imports}
{code}

folder = Path(__file__).resolve().parent
config = json.loads((folder / "{CONFIG}").read_text(encoding="utf-8"))
head = LinearHead(**np.load(folder / "{HEAD}"))
{GIVEN[task.text_pair is not None]}
texts, pairs = {texts}
for text, logits in zip(texts, head({parts[-1].__name__}(folder)(texts, pairs))):
    print(*(f"{{name}}={{value:.4f}}" for name, value in zip(config["labels"] or ["score"], logits)), text, sep="\\t")
'''
