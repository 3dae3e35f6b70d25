"""Gaussian multipole features as integrals of Cartesian components; derivatives by complex steps.

A component x^a y^b z^c of order l of the Maxwell-Cartesian harmonics is the polynomial

    Σ_k (−1)^K (2l − 2K − 1)!! n!/(2^K k! (n − 2k)!) x^{n−2k} r^{2K},     K = k1 + k2 + k3,

with r^{2K} replaced by 1 for surface harmonics. Its integral with the probe A exp(−αr²) and the
density B exp(−β|r − R|²) is that of a polynomial with a Gaussian: moments of a normal distribution,
coordinate by coordinate. The norm of all components of an order weighs each with l!/(a! b! c!).
"""

import itertools
import math

import numpy as np

from tests.reference.neighbors import neighbors

STEP = 1e-30


def double_factorial(n):
    return math.prod(range(n, 0, -2))


def tensor(order):
    """Exponents of all components of an order."""
    return [(a, b, order - a - b) for a in range(order + 1) for b in range(order - a + 1)]


def group(order, number):
    """Exponents of the components of the group `number`, counted from 1."""
    patterns = sorted({tuple(sorted(n, reverse=True)) for n in tensor(order)}, reverse=True)
    return [n for n in tensor(order) if tuple(sorted(n, reverse=True)) == patterns[number - 1]]


def polynomial(exponents, solid):
    """[(coefficient, exponents)] of one component."""
    order = sum(exponents)
    terms = []
    for k in itertools.product(*(range(n // 2 + 1) for n in exponents)):
        coefficient = (-1) ** sum(k) * double_factorial(2 * order - 2 * sum(k) - 1)
        for n, traced in zip(exponents, k, strict=True):
            coefficient *= math.factorial(n) / (
                2**traced * math.factorial(traced) * math.factorial(n - 2 * traced)
            )
        rest = tuple(n - 2 * traced for n, traced in zip(exponents, k, strict=True))
        if not solid:
            terms.append((coefficient, rest))
            continue
        # (x² + y² + z²)^K
        for split in tensor(sum(k)):
            count = math.factorial(sum(k)) / math.prod(math.factorial(n) for n in split)
            added = tuple(n + 2 * m for n, m in zip(rest, split, strict=True))
            terms.append((coefficient * count, added))
    return terms


def normal_moment(power, mean, variance):
    """⟨x^power⟩ of a normal distribution."""
    return sum(
        math.comb(power, 2 * q)
        * double_factorial(2 * q - 1)
        * variance**q
        * mean ** (power - 2 * q)
        for q in range(power // 2 + 1)
    )


def integral(exponents, sigma, amplitude, gaussians, vector, solid):
    """One component of the probe with the density of an atom at `vector` (complex numbers)."""
    alpha = 1 / (2 * sigma**2)
    r2 = sum(x * x for x in vector)
    total = 0.0
    for b, beta in gaussians:
        both = alpha + beta
        mean = [beta / both * x for x in vector]
        scale = amplitude * b * (math.pi / both) ** 1.5 * np.exp(-alpha * beta / both * r2)
        for coefficient, powers in polynomial(exponents, solid):
            factors = (normal_moment(n, x, 0.5 / both) for n, x in zip(powers, mean, strict=True))
            total += scale * coefficient * math.prod(factors)
    return total


def fingerprints(atoms, features, densities, cutoff):
    """Fingerprints (n, S), their derivatives (n, S, n, 3) and strain derivatives (n, S, 3, 3).

    features: dicts with `exponents` and `weights` of the components T, `sigma`, `amplitude`,
    `solid`, and `form`: "square" Σ w T², "root" of it, or "signed" T. The derivatives of a root are
    0 where it is 0 within rounding.
    """
    n = len(atoms)
    pairs = neighbors(atoms, cutoff)
    values = np.zeros((n, len(features)))
    jacobian = np.zeros((n, len(features), n, 3))
    strain = np.zeros((n, len(features), 3, 3))
    for i in range(n):
        near = [(i, np.zeros(3)), *((j, vector) for center, j, _, vector in pairs if center == i)]
        for s, feature in enumerate(features):
            fixed = (feature["sigma"], feature["amplitude"])
            gradient = np.zeros((len(near), 3))
            total = without_cancellation = 0.0
            for exponents, weight in zip(feature["exponents"], feature["weights"], strict=True):
                terms, slopes = [], np.zeros((len(near), 3))
                for k, (j, vector) in enumerate(near):
                    density = densities[atoms.symbols[j]]
                    solid = feature["solid"]
                    terms.append(integral(exponents, *fixed, density, vector, solid))
                    for axis in range(3 if k else 0):
                        moved = vector.astype(complex)
                        moved[axis] += 1j * STEP
                        step = integral(exponents, *fixed, density, moved, solid)
                        slopes[k, axis] = step.imag / STEP
                component = sum(terms)
                if feature["form"] == "signed":
                    total, gradient = component, slopes
                else:
                    total += weight * component**2
                    without_cancellation += weight * sum(term**2 for term in terms)
                    gradient += 2 * weight * component * slopes
            if feature["form"] == "root":
                if total > 1e-24 * without_cancellation:
                    gradient /= 2 * math.sqrt(total)
                else:
                    gradient[:] = 0
                total = math.sqrt(total)
            values[i, s] = total
            for (j, vector), slope in zip(near, gradient, strict=True):
                jacobian[i, s, j] += slope
                jacobian[i, s, i] -= slope
                strain[i, s] += np.outer(slope, vector)
    return values, jacobian, strain
