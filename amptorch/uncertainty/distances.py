"""Distances to the training points."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.neighbors import NearestNeighbors

# Training points whose own distances give the typical one.
SAMPLE = 500
# Of the typical distance between training points: the least that any distance counts as.
LEAST = 0.1


def calc_dist(train_X: ArrayLike, calib_X: ArrayLike, nearest_neighbors: int = 10) -> np.ndarray:
    """Return the mean Euclidean distance (n,) of each row of calib_X (n, width) to its nearest rows
    of train_X (m, width), `nearest_neighbors` of them, or all where there are fewer."""
    return NearestTraining(train_X, nearest_neighbors).distances(calib_X)


class NearestTraining:
    """Measure distances to points (m, width): the mean over the k nearest of them.

    No distance counts as less than a tenth of the median that the points themselves have to their
    nearest: a frame that was trained on has an error too.

    points : (m, width)
    """

    def __init__(self, points: ArrayLike, k: int = 10) -> None:
        if k < 1:
            raise ValueError(f"{k} nearest neighbours; expected one or more")
        self.points = _rows(points)
        if not len(self.points):
            raise ValueError("there are no training points")
        self.k = min(k, len(self.points))
        self._search = NearestNeighbors().fit(self.points)
        self.least = self._least()

    def _least(self):
        if len(self.points) == 1:
            return 1.0
        # The nearest to a training point is the point itself.
        chosen = self.points[:: max(1, len(self.points) // SAMPLE)]
        found = np.sort(self._nearest(chosen, min(self.k + 1, len(self.points))), axis=1)
        # All in one place: then any distance will do.
        return LEAST * float(np.median(found[:, 1:].mean(axis=1))) or 1.0

    def _nearest(self, rows, k):
        """Return the distances (n, k) to the k nearest points."""
        which = self._search.kneighbors(rows, k, return_distance=False)
        # The search may go by x² − 2xy + y², which is quick and leaves 1e-8 between equal points.
        return np.linalg.norm(self.points[which] - rows[:, None], axis=2)

    def distances(self, rows: ArrayLike) -> np.ndarray:
        """Return the mean distance (n,) of each of the rows (n, width) to its k nearest points."""
        places = _rows(rows)
        if not len(places):
            return np.zeros(0)
        return self._nearest(places, self.k).mean(axis=1)

    def __call__(self, rows: ArrayLike) -> np.ndarray:
        """Return `distances`, none of them below the least."""
        return np.maximum(self.distances(rows), self.least)


def _rows(points: ArrayLike) -> np.ndarray:
    rows = np.asarray(points, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"points have the shape {rows.shape}; expected (n, width)")
    return rows
