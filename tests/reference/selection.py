"""CUR and farthest-point sampling of columns as the paper describes them, step by step.

G. Imbalzano et al., J. Chem. Phys. 148, 241730 (2018).
"""

import numpy as np


def standardized(X):
    centered = X - X.mean(axis=0)
    return centered / centered.std(axis=0)


def cur(X, k):
    X = standardized(X)
    chosen = []
    for _ in range(k):
        _, _, vh = np.linalg.svd(X, full_matrices=False)
        scores = vh[0] ** 2
        scores[chosen] = -1
        chosen.append(int(np.argmax(scores)))
        column = X[:, chosen[-1]].copy()
        for c in range(X.shape[1]):
            X[:, c] -= column * (column @ X[:, c]) / (column @ column)
    return chosen


def farthest_points(X, k, metric):
    X = standardized(X)
    n = X.shape[1]

    def distance(a, b):
        if metric == "euclidean":
            return np.linalg.norm(X[:, a] - X[:, b])
        return np.sqrt(1 - np.corrcoef(X[:, a], X[:, b])[0, 1] ** 2)

    common = [sum(np.corrcoef(X[:, a], X[:, b])[0, 1] ** 2 for b in range(n)) for a in range(n)]
    chosen = [int(np.argmax(common))]
    while len(chosen) < k:
        left = [c for c in range(n) if c not in chosen]
        chosen.append(max(left, key=lambda c: min(distance(c, other) for other in chosen)))
    return chosen


def reconstruction_error(X, columns):
    X = standardized(X)
    some = X[:, columns]
    return np.linalg.norm(X - some @ np.linalg.pinv(some) @ X) / np.linalg.norm(X)
