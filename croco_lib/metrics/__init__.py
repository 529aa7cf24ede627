"""Measures of ranking (AUC, gAUC, log loss) and of disentanglement (covariance, correlation, IA, DI, recovery)."""

from .disentanglement import (
    correlation_matrix,
    covariance_matrix,
    cross_blocks,
    cross_correlation,
    diversity_index,
    gate_entropy,
    information_abundance,
    information_abundance_at,
    recovery,
    singular_values,
    user_pairs,
)
from .ranking import MIN_USERS, domain_mean, evaluate_scores, grouped_auc, log_loss, log_losses, pair_shares
