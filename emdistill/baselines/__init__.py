"""What a user could take instead of a student: linear models over features that cost little."""

from emdistill.baselines.linear import Fitted
from emdistill.baselines.tfidf import tfidf
from emdistill.baselines.vectors import encoder_means, over_vectors, static_vectors

__all__ = ["Fitted", "encoder_means", "over_vectors", "static_vectors", "tfidf"]
