"""What the student pays: losses over states, and the objective that sums them."""

from emdistill.losses.attention_distributions import AttentionDistributionCosts
from emdistill.losses.attention_scores import AttentionScoreCosts
from emdistill.losses.balance import GradientBalance
from emdistill.losses.cosine import CosineCosts
from emdistill.losses.cross_view import CrossView
from emdistill.losses.embeddings import EmbeddingLoss
from emdistill.losses.feature_maps import FeatureMapCosts
from emdistill.losses.first_token import FirstTokenCosts
from emdistill.losses.hard_labels import HardLabels
from emdistill.losses.hidden_states import HiddenStateCosts
from emdistill.losses.layers import LayerLoss
from emdistill.losses.loss import Loss
from emdistill.losses.mixture import MixtureObjective
from emdistill.losses.neuron_selectivity import NeuronSelectivityCosts
from emdistill.losses.objective import Objective
from emdistill.losses.orthogonality import Orthogonality
from emdistill.losses.projection import Projection
from emdistill.losses.relations import RelationCosts
from emdistill.losses.sentence_vectors import SentenceVectors
from emdistill.losses.soft_targets import SoftTargets
from emdistill.losses.solution_flow import SolutionFlowCosts
from emdistill.losses.standardised_logits import StandardisedLogits
from emdistill.losses.task_discriminator import TaskDiscriminator

__all__ = [
    "AttentionDistributionCosts",
    "AttentionScoreCosts",
    "CosineCosts",
    "CrossView",
    "EmbeddingLoss",
    "FeatureMapCosts",
    "FirstTokenCosts",
    "GradientBalance",
    "HardLabels",
    "HiddenStateCosts",
    "LayerLoss",
    "Loss",
    "MixtureObjective",
    "NeuronSelectivityCosts",
    "Objective",
    "Orthogonality",
    "Projection",
    "RelationCosts",
    "SentenceVectors",
    "SoftTargets",
    "SolutionFlowCosts",
    "StandardisedLogits",
    "TaskDiscriminator",
]
