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


def feature_map_distance(student: Tensor, teacher: Tensor, mask: Tensor) -> float:
    """MobileBERT: mean over unpadded tokens and the width of (LN(s) - LN(t))², LN without weights."""
    squares = []
    for place in all_tokens(mask):
        one, two = (standardised(states[place].tolist()) for states in (student, teacher))
        squares += [(a - b) ** 2 for a, b in zip(one, two, strict=True)]
    return sum(squares) / len(squares)


def feature_mean_distance(student: Tensor, teacher: Tensor, mask: Tensor) -> float:
    """Mean over unpadded tokens of the squared difference of the states' means over the width."""
    moments = [
        [mean_and_variance(states[place].tolist()) for states in (student, teacher)] for place in all_tokens(mask)
    ]
    return sum((one[0] - two[0]) ** 2 for one, two in moments) / len(moments)


def feature_variance_distance(student: Tensor, teacher: Tensor, mask: Tensor) -> float:
    """Mean over unpadded tokens of the absolute difference of the states' variances over the width."""
    moments = [
        [mean_and_variance(states[place].tolist()) for states in (student, teacher)] for place in all_tokens(mask)
    ]
    return sum(abs(one[1] - two[1]) for one, two in moments) / len(moments)


def mean_and_variance(numbers: list[float]) -> tuple[float, float]:
    mean = sum(numbers) / len(numbers)
    return mean, sum((number - mean) ** 2 for number in numbers) / len(numbers)


def standardised(numbers: list[float]) -> list[float]:
    """Of mean 0 and variance 1, as a LayerNorm without weights gives them."""
    mean, variance = mean_and_variance(numbers)
    return [(number - mean) / math.sqrt(variance + 1e-12) for number in numbers]


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


def attention_divergence(
    student: Tensor, teacher: Tensor, mask: Tensor, *, cross_entropy: bool = False, mean_heads: bool = False
) -> float:
    """MiniLM: 1/(h |x|) Σ_heads Σ_tokens KL(teacher ‖ student) of softmax(scores) over tokens, mean over texts."""
    texts = [text for text in range(len(mask)) if tokens_of(mask, text)]
    total = 0.0
    for text in texts:
        places = tokens_of(mask, text)
        sides = [
            scores[text].mean(dim=0, keepdim=True) if mean_heads else scores[text] for scores in (student, teacher)
        ]
        heads = len(sides[0])
        for head in range(heads):
            for query in places:
                own, other = (_softmax([side[head, query, key].item() for key in places]) for side in sides)
                terms = [
                    -t * math.log(s) + (0 if cross_entropy else t * math.log(t))
                    for s, t in zip(own, other, strict=True)
                ]
                total += sum(terms) / (heads * len(places))
    return total / len(texts)


def unit_discrepancy(student: Tensor, teacher: Tensor, mask: Tensor) -> float:
    """NST: MMD² with the kernel (fᵀ f')² over all pairs of units, whose patterns have length 1; mean over texts."""
    texts = [text for text in range(len(mask)) if tokens_of(mask, text)]
    total = 0.0
    for text in texts:
        sides = []
        for states in (student, teacher):
            units = states[text, tokens_of(mask, text)].T.tolist()
            sides.append([[a / math.sqrt(sum(b * b for b in unit)) for a in unit] for unit in units])
        own, other = sides
        total += _mean_kernel(own, own) + _mean_kernel(other, other) - 2 * _mean_kernel(own, other)
    return total / len(texts)


def _mean_kernel(ones: list[list[float]], twos: list[list[float]]) -> float:
    """Mean of (fᵀ f')² over pairs of units."""
    kernels = [sum(a * b for a, b in zip(one, two, strict=True)) ** 2 for one in ones for two in twos]
    return sum(kernels) / len(kernels)


def flow_difference(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], mask: Tensor) -> float:
    """FSP: mean over texts and entries of (G^s - G^t)², G_ab = mean over tokens of embedding_a · state_b."""
    texts = [text for text in range(len(mask)) if tokens_of(mask, text)]
    total = 0.0
    for text in texts:
        flows = []
        for start, end in (student, teacher):
            places = tokens_of(mask, text)
            flows.append(sum(torch.outer(start[text, place], end[text, place]) for place in places) / len(places))
        total += sum(entry**2 for entry in (flows[0] - flows[1]).flatten().tolist()) / flows[0].numel()
    return total / len(texts)


def _softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(score) for score in row]
    return [value / sum(exponentials) for value in exponentials]


def _relation(states: list[list[float]], query: int) -> list[float]:
    """softmax of one row of a aᵀ / sqrt(d_r)."""
    return _softmax(
        [sum(a * b for a, b in zip(states[query], key, strict=True)) / math.sqrt(len(key)) for key in states]
    )
