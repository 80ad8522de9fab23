"""A spaCy CNN tagger: what a user would take without any of this. cross_view.py has a Python that has spaCy run it.

Its order, on stdin as JSON: train and test, lists of [words, tags]; entities, whether tags are B-X, I-X and O; seed,
epochs. It prints one line of JSON: the tags of the test's words, parameters, seconds of training, and milliseconds per
sentence.
"""

import json
import random
import sys
import time
from statistics import median
from typing import Any


def main() -> None:
    """Read an order, train, answer it."""
    import spacy
    from spacy.tokens import Doc
    from spacy.training import Example
    from spacy.util import fix_random_seed, minibatch

    order = json.load(sys.stdin)
    fix_random_seed(order["seed"])
    random.seed(order["seed"])
    nlp = spacy.blank("en")
    nlp.add_pipe("ner" if order["entities"] else "tagger")
    gold = [{"entities": bilou(tags)} if order["entities"] else {"tags": tags} for _, tags in order["train"]]
    texts = [Doc(nlp.vocab, words=words) for words, _ in order["train"]]
    examples = [Example.from_dict(*pair) for pair in zip(texts, gold, strict=True)]
    began = time.perf_counter()
    optimizer = nlp.initialize(lambda: examples)
    for _ in range(order["epochs"]):
        random.shuffle(examples)
        for batch in minibatch(examples, 32):
            nlp.update(batch, sgd=optimizer, drop=0.2)
    seconds = time.perf_counter() - began
    answers, times = [], []
    for words, _ in order["test"]:
        began = time.perf_counter()
        answered = nlp(Doc(nlp.vocab, words=words))
        times.append(time.perf_counter() - began)
        answers.append([bio(token) if order["entities"] else token.tag_ for token in answered])
    (pipe,) = (pipe for _, pipe in nlp.pipeline)
    parts = [(node, name) for node in pipe.model.walk() for name in node.param_names if node.has_param(name)]
    parameters = sum(int(node.get_param(name).size) for node, name in parts)
    figures = {"parameters": parameters, "seconds": seconds, "milliseconds": 1e3 * median(times)}
    print(json.dumps({"answers": answers, **figures}))


def bilou(tags: list[str]) -> list[str]:
    """B-X I-X O as spaCy reads entities: U-X alone, L-X at the end."""
    ends = [not after.startswith("I-") for after in (*tags[1:], "O")]
    last = {"B-": "U-", "I-": "L-"}
    return [tag if tag == "O" or not end else last[tag[:2]] + tag[2:] for tag, end in zip(tags, ends, strict=True)]


def bio(token: Any) -> str:
    """The tag of a token of entities."""
    return f"{token.ent_iob_}-{token.ent_type_}" if token.ent_type_ else "O"
