"""Linear heads against independent solutions in float64, and TF-IDF on tasks that words alone decide."""

from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from messages import names
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from emdistill.baselines import encoder_means, linear, over_vectors, static_vectors, tfidf, vectors
from emdistill.baselines.linear import Fitted, choose_and_fit, columns, fit_head
from emdistill.errors import ConfigError, DataError
from emdistill.tasks import KINDS
from emdistill.tasks.task import Task

CLASSES = Task("classes", KINDS["classification"], ("a", "b", "c"), ("accuracy",))
TWO = Task("two", KINDS["classification"], ("bad", "good"), ("accuracy",))
SCORES = Task("scores", KINDS["regression"], (), ("pearson",))
SETS = Task("sets", KINDS["multi-label"], ("x", "y", "z"), ("micro_f1",))
WORDS = ("movie", "book", "it", "very", "not", "and", "of", "the")


def drawn(rows: int = 60, width: int = 5, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits of three classes, which they decide but for noise."""
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(rows, width))
    return features, features @ draw.normal(size=(width, 3)) + draw.normal(size=(rows, 3))


def sentences(rows: int = 90, *, seed: int = 0) -> list[list[str]]:
    draw = np.random.default_rng(seed)
    return [[str(word) for word in draw.choice(WORDS, size=5)] for _ in range(rows)]


def score(fitted: Fitted, task: Task, examples: Dataset) -> float:
    return task.score(fitted.logits(*columns(examples)), np.asarray(examples["label"][:]))[task.metrics[0]]


def reviews(rows: int = 90, *, seed: int = 0) -> Dataset:
    texts = sentences(rows, seed=seed)
    return Dataset.from_dict(
        {
            "text": [" ".join([*words, ("bad", "good")[row % 2]]) for row, words in enumerate(texts)],
            "label": [row % 2 for row in range(rows)],
        }
    )


def test_ridge_is_the_closed_form() -> None:
    features, logits = drawn()
    target = logits[:, 0] + 3
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    solution = np.linalg.solve(scaled.T @ scaled + np.eye(5) / 0.5, scaled.T @ (target - target.mean()))
    found = fit_head(features, target, SCORES, 0.5)(features)
    np.testing.assert_allclose(found[:, 0], scaled @ solution + target.mean(), rtol=1e-5)


@pytest.mark.parametrize("sparse", [False, True])
def test_logistic_regression_is_the_minimum_of_its_loss(sparse: bool) -> None:
    features, logits = drawn()
    labels = logits.argmax(axis=1)
    scaled = features if sparse else (features - features.mean(axis=0)) / features.std(axis=0)

    def loss(values: np.ndarray) -> float:
        weights, bias = values[:15].reshape(5, 3), values[15:]
        answers = torch.log_softmax(torch.from_numpy(scaled @ weights + bias), dim=1).numpy()
        return -answers[np.arange(60), labels].sum() + (weights**2).sum() / (2 * 0.7)

    best = minimize(loss, np.zeros(18), method="BFGS", options={"gtol": 1e-6}).x
    expected = torch.softmax(torch.from_numpy(scaled @ best[:15].reshape(5, 3) + best[15:]), dim=1).numpy()
    given = csr_matrix(features) if sparse else features
    found = fit_head(given, labels, CLASSES, 0.7)(given)
    np.testing.assert_allclose(torch.softmax(torch.from_numpy(found), dim=1).numpy(), expected, atol=2e-3)


def test_a_class_or_label_that_no_row_has_is_not_answered() -> None:
    features, logits = drawn()
    labels = np.where(logits[:, 0] > 0, 0, 2)
    found = fit_head(features, labels, CLASSES, 1.0)(features)
    assert set(found.argmax(axis=1)) == {0, 2}
    assert (found.argmax(axis=1) == labels).mean() > 0.8
    assert (fit_head(features, np.ones(60, dtype=int), CLASSES, 1.0)(features).argmax(axis=1) == 1).all()
    sets = np.stack([logits[:, 0] > 0, np.ones(60), np.zeros(60)], axis=1).astype(float)
    answers = fit_head(features, sets, SETS, 1.0)(features) > 0
    assert answers[:, 1].all()
    assert not answers[:, 2].any()
    assert (answers[:, 0] == sets[:, 0]).mean() > 0.8


def test_a_constant_feature_changes_nothing() -> None:
    features, logits = drawn()
    labels, more = logits.argmax(axis=1), np.concatenate([features, np.full((60, 1), 7.0)], axis=1)
    np.testing.assert_allclose(
        fit_head(more, labels, CLASSES, 1.0)(more), fit_head(features, labels, CLASSES, 1.0)(features), atol=1e-4
    )


def test_the_strength_is_chosen_by_rows_that_were_not_learned_from() -> None:
    features, logits = drawn()
    labels = (logits[:, 0] > 1).astype(int)  # with no strength the answer is the more frequent class
    _, chosen = choose_and_fit(csr_matrix(features), labels, TWO, (1e-9, 1.0))
    assert chosen == 1.0
    _, chosen = choose_and_fit(csr_matrix(features), labels, TWO, (1.0, 1.0 + 1e-9))
    assert chosen == 1.0
    with names(DataError, "row"):
        choose_and_fit(features[:0], labels[:0], TWO, (1.0,))


def test_words_decide_classes_scores_and_sets() -> None:
    assert score(tfidf(reviews(), TWO), TWO, reviews(40, seed=1)) == 1.0
    texts = sentences(200)
    train = {"text": [" ".join(words) for words in texts]}
    counts = Dataset.from_dict(train | {"label": [float("good" in words or words.count("not")) for words in texts]})
    assert score(tfidf(counts, SCORES), SCORES, counts) > 0.9
    sets = [[float(word in words) for word in ("movie", "book", "never")] for words in texts]
    labelled = Dataset.from_dict(train | {"label": sets})
    assert score(tfidf(labelled, SETS), SETS, labelled) > 0.9


def test_pairs_are_told_by_what_they_share() -> None:
    def pairs(seed: int) -> Dataset:
        texts, others = sentences(120, seed=seed), sentences(120, seed=seed + 100)
        seconds = [texts[row][::-1] if row % 2 else others[row] for row in range(120)]
        return Dataset.from_dict(
            {
                "text": [" ".join(words) for words in texts],
                "text_pair": [" ".join(words) for words in seconds],
                "label": [row % 2 for row in range(120)],
            }
        )

    assert score(tfidf(pairs(1), TWO), TWO, pairs(2)) > 0.9


def test_work_on_many_rows_is_capped_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "90 rows, logistic regression" in tfidf(reviews(), TWO).note
    monkeypatch.setattr(linear, "MOST_ROWS", 30)
    assert "30 of 90" in tfidf(reviews(), TWO).note


def test_texts_without_words_are_refused() -> None:
    with names(DataError, "words"):
        tfidf(Dataset.from_dict({"text": ["?", "!"], "label": [0, 1]}), TWO)


def test_the_frozen_encoder_gives_the_mean_over_a_text_alone_and_stays_as_it_is(tiny_encoder, tiny_tokenizer) -> None:
    model, tokenizer = tiny_encoder(layers=1), tiny_tokenizer
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    embedding = encoder_means(model.base_model, tokenizer, max_length=32, note="an encoder")
    texts = ["the movie was good", "it", "a bad book of it"]
    with torch.inference_mode():
        states = [model.base_model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in texts]
    expected = np.stack([state.double().mean(dim=0).numpy() for state in states])
    np.testing.assert_allclose(embedding.embed(texts), expected, atol=1e-5)
    fitted = over_vectors(reviews(), TWO, embedding)
    assert score(fitted, TWO, reviews(40, seed=1)) > 0.8
    assert fitted.bytes == embedding.bytes + fitted.head.bytes
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_static_vectors_name_the_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "find_spec", lambda package: None)
    with names(ConfigError, "emdistill[baselines]"):
        static_vectors(None, None, note="")


def test_static_vectors_leave_the_encoder_as_it_is(tiny_encoder, tiny_tokenizer) -> None:
    pytest.importorskip("skeletoken")
    pytest.importorskip("model2vec")
    model, tokenizer = tiny_encoder(layers=1), tiny_tokenizer
    before: dict[str, Any] = {name: weight.clone() for name, weight in model.state_dict().items()}
    embedding = static_vectors(model.base_model, tokenizer, note="an encoder")
    assert score(over_vectors(reviews(), TWO, embedding), TWO, reviews(40, seed=1)) > 0.8
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
