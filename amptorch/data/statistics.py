"""Ranges and moments of features, gathered chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Statistics:
    """Hold, of `n` rows, feature by feature: lowest, highest and mean value, and `squares`, the sum
    of the squared deviations from the mean; each (n_features,), float64."""

    n: int
    lowest: torch.Tensor
    highest: torch.Tensor
    mean: torch.Tensor
    squares: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor) -> Statistics:
        """Return those of rows (n, n_features), at least one."""
        rows = rows.double()
        mean = rows.mean(dim=0)
        squares = (rows - mean).square().sum(dim=0)
        return cls(len(rows), rows.amin(dim=0), rows.amax(dim=0), mean, squares)

    def merged(self, other: Statistics) -> Statistics:
        """Return those of both sets of rows.

        T. F. Chan, G. H. Golub, R. J. LeVeque, Am. Stat. 37, 242 (1983): no difference of large
        sums is taken, so nothing is lost where the mean is large against the deviation.
        """
        n = self.n + other.n
        shift = other.mean - self.mean
        return Statistics(
            n=n,
            lowest=torch.minimum(self.lowest, other.lowest),
            highest=torch.maximum(self.highest, other.highest),
            mean=self.mean + shift * (other.n / n),
            squares=self.squares + other.squares + shift.square() * (self.n * other.n / n),
        )

    @property
    def deviation(self) -> torch.Tensor:
        """Return the population standard deviation."""
        return (self.squares / self.n).sqrt()


@dataclass(frozen=True)
class Covariance:
    """Hold, of `n` rows: `mean` (n_features,), and `products` (n_features, n_features), the sum of
    the products of the deviations from it; float64."""

    n: int
    mean: torch.Tensor
    products: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor) -> Covariance:
        """Return those of rows (n, n_features), at least one."""
        rows = rows.double()
        mean = rows.mean(dim=0)
        return cls(len(rows), mean, (rows - mean).T @ (rows - mean))

    def merged(self, other: Covariance) -> Covariance:
        """Return those of both sets of rows; see `Statistics.merged`."""
        n = self.n + other.n
        shift = other.mean - self.mean
        between = torch.outer(shift, shift) * (self.n * other.n / n)
        return Covariance(
            n=n,
            mean=self.mean + shift * (other.n / n),
            products=self.products + other.products + between,
        )
