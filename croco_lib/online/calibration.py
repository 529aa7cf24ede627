"""Whether predicted clicks are as many as there are: reliability by domain, Platt's scaling, distortions. [ours]"""

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from torch import nn

from ..evaluation import predict
from ..schema import Split


def reliability(label: np.ndarray, p: np.ndarray, domain: np.ndarray, domains: tuple[str, ...]) -> pd.DataFrame:
    """Mean prediction and click rate in ten equally full bins, by domain: domain, predicted, observed, ece.

    ece, the expected calibration error: the mean gap between the two, each bin counting alike (ties make some fuller).
    """
    frames = []
    for s, name in enumerate(domains):
        observed, mean = calibration_curve(label[domain == s], p[domain == s], n_bins=10, strategy="quantile")
        frames.append(
            pd.DataFrame(dict(domain=name, predicted=mean, observed=observed, ece=np.abs(observed - mean).mean()))
        )
    return pd.concat(frames, ignore_index=True)


def platt(model: nn.Module, split: Split) -> np.ndarray:
    """Slope and shift [S, 2] that calibrate the model's logits in each domain (Platt 1999), fitted on this split."""
    z = predict(model, split)
    fits = [
        LogisticRegression(C=1e6).fit(z[split.domain == s, None], split.label[split.domain == s])
        for s in range(len(split.domains))
    ]
    return np.array([(f.coef_[0, 0], f.intercept_[0]) for f in fits])


def distort(p: np.ndarray, slope=1.0, shift=0.0) -> np.ndarray:
    """σ(slope · logit p + shift): slope 2 is too sure of itself, ½ too timid; the order of predictions stays."""
    return expit(slope * logit(np.clip(p, 1e-6, 1 - 1e-6)) + shift)
