"""The extended Kalman filter of one covariance in plain matrices, term by term."""

import numpy as np


def corrections(weights, steps, p0, forgetting, forgetting_rate, process_noise=0.0):
    """(weights, P, λ) after the steps, each (H (m, n), errors (m,), variances (m,)); formulas as in
    `amptorch.optimizers.EKF`, with inverses instead of factors."""
    weights = np.array(weights, dtype=np.float64)
    p = p0 * np.eye(len(weights))
    for h, errors, variances in steps:
        gain = p @ h.T @ np.linalg.inv(forgetting * np.diag(variances) + h @ p @ h.T)
        weights += gain @ errors
        p = (p - gain @ h @ p) / forgetting + process_noise * np.eye(len(weights))
        forgetting = forgetting_rate * forgetting + 1 - forgetting_rate
    return weights, p, forgetting
