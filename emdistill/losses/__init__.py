"""What the student pays: losses over states, and the objective that sums them."""

from emdistill.losses.attention_distributions import AttentionDistributionCosts as AttentionDistributionCosts
from emdistill.losses.attention_scores import AttentionScoreCosts as AttentionScoreCosts
from emdistill.losses.balance import GradientBalance as GradientBalance
from emdistill.losses.cosine import CosineCosts as CosineCosts
from emdistill.losses.cross_view import CrossView as CrossView
from emdistill.losses.embeddings import EmbeddingLoss as EmbeddingLoss
from emdistill.losses.feature_maps import FeatureMapCosts as FeatureMapCosts
from emdistill.losses.first_token import FirstTokenCosts as FirstTokenCosts
from emdistill.losses.hard_labels import HardLabels as HardLabels
from emdistill.losses.hidden_states import HiddenStateCosts as HiddenStateCosts
from emdistill.losses.layers import LayerLoss as LayerLoss
from emdistill.losses.loss import Loss as Loss
from emdistill.losses.mixture import MixtureObjective as MixtureObjective
from emdistill.losses.neuron_selectivity import NeuronSelectivityCosts as NeuronSelectivityCosts
from emdistill.losses.objective import Objective as Objective
from emdistill.losses.orthogonality import Orthogonality as Orthogonality
from emdistill.losses.projection import Projection as Projection
from emdistill.losses.relations import RelationCosts as RelationCosts
from emdistill.losses.sentence_vectors import SentenceVectors as SentenceVectors
from emdistill.losses.soft_targets import SoftTargets as SoftTargets
from emdistill.losses.solution_flow import SolutionFlowCosts as SolutionFlowCosts
from emdistill.losses.standardised_logits import StandardisedLogits as StandardisedLogits
from emdistill.losses.task_discriminator import TaskDiscriminator as TaskDiscriminator
