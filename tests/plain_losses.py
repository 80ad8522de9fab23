"""The equations of all losses, one text and token at a time, in float64: nothing here is shared with the library.

Each takes states of one layer of student and teacher, [B, L, d] (scores: [B, h, L, L]), and the mask [B, L]; what has a
gradient gives a Tensor.
"""

import math

import torch
from torch import Tensor


def tokens_of(mask: Tensor, text: int) -> list[int]:
    """The places of its unpadded tokens."""
    return [place for place, value in enumerate(mask[text].tolist()) if value]


def all_tokens(mask: Tensor) -> list[tuple[int, int]]:
    """(text, place) of every unpadded token."""
    return [(text, place) for text in range(len(mask)) for place in tokens_of(mask, text)]


def mean_square(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean of (s - t)² over unpadded tokens and the width, or over pairs of tokens of a text and the heads."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for text, place in all_tokens(mask):
        if student.ndim == 3:
            total = total + ((student[text, place] - teacher[text, place]).double() ** 2).sum()
            count += student.shape[-1]
            continue
        for key in tokens_of(mask, text):
            total = total + ((student[text, :, place, key] - teacher[text, :, place, key]).double() ** 2).sum()
            count += student.shape[1]
    return total / count


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · mean over examples of -Σ softmax(t / T) log softmax(s / T); logits [B, C]."""
    total = torch.zeros((), dtype=torch.float64)
    for row, targets in zip(student, teacher, strict=True):
        target = torch.exp(targets / temperature) / torch.exp(targets / temperature).sum()
        for index in range(len(row)):
            log_probability = row[index] / temperature - torch.log(torch.exp(row / temperature).sum())
            total = total - target[index] * log_probability
    return temperature**2 * total / len(student)


def hard_cross_entropy(student: Tensor, labels: Tensor) -> Tensor:
    """Mean over examples of -log softmax(s)[label]."""
    losses = [torch.log(torch.exp(row).sum()) - row[label] for row, label in zip(student, labels.tolist(), strict=True)]
    return torch.stack(losses).sum() / len(losses)


def vectors(student: Tensor, teacher: Tensor, place: tuple[int, int]) -> tuple[list[float], list[float], list[float]]:
    """Both states of a token, and their lengths."""
    one, two = student[place].tolist(), teacher[place].tolist()
    return one, two, [math.sqrt(sum(a * a for a in vector)) for vector in (one, two)]


def cosine_distance(student: Tensor, teacher: Tensor, mask: Tensor) -> float:
    """Mean of 1 - cos(s, t) over unpadded tokens."""
    distances = []
    for place in all_tokens(mask):
        one, two, lengths = vectors(student, teacher, place)
        distances.append(1 - sum(a * b for a, b in zip(one, two, strict=True)) / (lengths[0] * lengths[1]))
    return sum(distances) / len(distances)


def first_token_distance(student: Tensor, teacher: Tensor, mask: Tensor) -> float:
    """Equation 7 of Patient KD: mean over texts of ‖s / ‖s‖ - t / ‖t‖‖² at the first token."""
    texts = [text for text in range(len(mask)) if tokens_of(mask, text)]
    total = 0.0
    for text in texts:
        one, two, lengths = vectors(student, teacher, (text, tokens_of(mask, text)[0]))
        total += sum((a / lengths[0] - b / lengths[1]) ** 2 for a, b in zip(one, two, strict=True))
    return total / len(texts)


def relation_divergence(student: Tensor, teacher: Tensor, mask: Tensor, heads: int) -> float:
    """MiniLMv2: 1/(A_r |x|) Σ_heads Σ_tokens KL(teacher ‖ student) of one relation, mean over texts."""
    texts = [text for text in range(len(mask)) if tokens_of(mask, text)]
    total = 0.0
    for text in texts:
        places = tokens_of(mask, text)
        for head in range(heads):
            sides = []
            for states in (student, teacher):
                size = states.shape[-1] // heads
                sides.append(states[text, places, head * size : (head + 1) * size].tolist())
            for query in range(len(places)):
                own, other = (_relation(side, query) for side in sides)
                divergence = sum(t * math.log(t / s) for s, t in zip(own, other, strict=True))
                total += divergence / (heads * len(places))
    return total / len(texts)


def _relation(states: list[list[float]], query: int) -> list[float]:
    """softmax of one row of a aᵀ / sqrt(d_r)."""
    row = [sum(a * b for a, b in zip(states[query], key, strict=True)) / math.sqrt(len(key)) for key in states]
    exponentials = [math.exp(score) for score in row]
    return [value / sum(exponentials) for value in exponentials]
