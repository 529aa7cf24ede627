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
from .ranking import (
    MIN_USERS,
    auc_of_weights,
    domain_mean,
    evaluate_scores,
    grouped_auc,
    log_loss,
    log_losses,
    pair_shares,
)

__all__ = [
    "MIN_USERS",
    "auc_of_weights",
    "correlation_matrix",
    "covariance_matrix",
    "cross_blocks",
    "cross_correlation",
    "diversity_index",
    "domain_mean",
    "evaluate_scores",
    "gate_entropy",
    "grouped_auc",
    "information_abundance",
    "information_abundance_at",
    "log_loss",
    "log_losses",
    "pair_shares",
    "recovery",
    "singular_values",
    "user_pairs",
]
