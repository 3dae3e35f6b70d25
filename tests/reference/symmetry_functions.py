"""G1 to G5 and weighted ones as the formulas stand, pair by pair; derivatives by complex steps.

J. Behler, J. Chem. Phys. 134, 074106 (2011); M. Gastegger et al., J. Chem. Phys. 148, 241709
(2018).
"""

import cmath
import math

import numpy as np

from tests.reference.neighbors import neighbors

# d f / d x = Im f(x + ih) / h has no cancellation, so h can be so small that h² is nothing.
STEP = 1e-30


def cutoff_value(r, rc, name, parameter):
    if r.real >= rc:
        return 0.0
    if name == "polynomial":
        gamma = parameter
        return 1 + gamma * (r / rc) ** (gamma + 1) - (gamma + 1) * (r / rc) ** gamma
    inner = parameter * rc
    if r.real < inner:
        return 1.0
    return SHAPES[name]((r - inner) / (rc - inner))


# f(x) of the other cutoff functions, from x = 0 at the inner radius to x = 1 at Rc.
SHAPES = {
    "cosine": lambda x: 0.5 * (1 + cmath.cos(math.pi * x)),
    "hard": lambda x: 1.0,
    "tanh": lambda x: cmath.tanh(1 - x) ** 3,
    "tanh_scaled": lambda x: (cmath.tanh(1 - x) / math.tanh(1)) ** 3,
    "exp": lambda x: cmath.exp(1 - 1 / (1 - x**2)),
    "poly1": lambda x: 1 - 3 * x**2 + 2 * x**3,
    "poly2": lambda x: 1 - 10 * x**3 + 15 * x**4 - 6 * x**5,
    "poly3": lambda x: 1 - 35 * x**4 + 84 * x**5 - 70 * x**6 + 20 * x**7,
    "poly4": lambda x: 1 - 126 * x**5 + 420 * x**6 - 540 * x**7 + 315 * x**8 - 70 * x**9,
}


def norm(v):
    return cmath.sqrt(sum(x * x for x in v))


def radial_term(row, cutoff, v):
    kind, _, _, rc, p, rs = row[:6]
    r = norm(v)
    fc = cutoff_value(r, rc, *cutoff)
    if kind == 1:
        return fc
    if kind in (2, 12):
        return cmath.exp(-p * (r - rs) ** 2) * fc
    return cmath.cos(p * r) * fc


def angular_term(row, cutoff, v, w):
    kind, _, _, rc, eta, zeta, gamma, *shift = row
    rs = shift[0] if shift else 0.0
    between = [b - a for a, b in zip(v, w, strict=True)]
    if norm(between).real < 1e-4:
        return 0.0
    r1, r2, r3 = norm(v), norm(w), norm(between)
    cosine = sum(a * b for a, b in zip(v, w, strict=True)) / (r1 * r2)
    base = 1 + gamma * cosine
    # cos θ = ±1 within rounding; the power of a base that is a little below 0 is not real.
    angular = 2 ** (1 - zeta) * (base**zeta if abs(base) > 1e-14 else 0.0)
    weights = cutoff_value(r1, rc, *cutoff) * cutoff_value(r2, rc, *cutoff)
    near = (r1 - rs) ** 2 + (r2 - rs) ** 2
    if kind in (5, 15):
        return angular * cmath.exp(-eta * near) * weights
    weights *= cutoff_value(r3, rc, *cutoff)
    return angular * cmath.exp(-eta * (near + (r3 - rs) ** 2)) * weights


def gradient(term, *vectors):
    """Derivatives of term(*vectors) with respect to each vector, (n, 3)."""
    result = np.zeros((len(vectors), 3))
    for which in range(len(vectors)):
        for axis in range(3):
            moved = [[complex(x) for x in v] for v in vectors]
            moved[which][axis] += 1j * STEP
            result[which, axis] = complex(term(*moved)).imag / STEP
    return result


def weight(row, *numbers):
    """The weight of neighbours with these atomic numbers, one or two, in a function."""
    if row[0] in ((12,) if len(numbers) == 1 else (14, 15)):
        return math.prod(numbers)
    taken = (1, 2, 3) if len(numbers) == 1 else (4, 5)
    return row[0] in taken and sorted(row[1 : 1 + len(numbers)]) == sorted(numbers)


def terms(atoms, setup, cutoff):
    """Every term of every sum: (i, feature, term, [(j, vector), ...])."""
    largest = max(row[3] for rows in setup.values() for row in rows)
    pairs = neighbors(atoms, largest)
    for i in range(len(atoms)):
        own = [(j, vector) for center, j, _, vector in pairs if center == i]
        for s, row in enumerate(setup[atoms.symbols[i]].tolist()):
            near = [(j, v) for j, v in own if np.linalg.norm(v) < row[3]]
            for a, (j, v) in enumerate(near):
                if factor := weight(row, atoms.numbers[j]):
                    yield (
                        i,
                        s,
                        lambda *x, row=row, z=factor: z * radial_term(row, cutoff, *x),
                        [(j, v)],
                    )
                for k, w in near[:a]:
                    if factor := weight(row, atoms.numbers[j], atoms.numbers[k]):
                        yield (
                            i,
                            s,
                            lambda *x, row=row, z=factor: z * angular_term(row, cutoff, *x),
                            [(j, v), (k, w)],
                        )


def values(atoms, setup, cutoff):
    """Fingerprints (n_atoms, n_features), rows padded with zeros.

    `setup`: {symbol: table}; `cutoff`: (name, parameter).
    """
    result = np.zeros((len(atoms), max(map(len, setup.values()))))
    for i, s, term, near in terms(atoms, setup, cutoff):
        result[i, s] += complex(term(*(v for _, v in near))).real
    return result


def derivatives(atoms, setup, cutoff):
    """d fingerprint / d position (n, S, n, 3) and d fingerprint / d strain (n, S, 3, 3).

    Under a strain ε every vector v becomes v + ε v.
    """
    n, features = len(atoms), max(map(len, setup.values()))
    jacobian = np.zeros((n, features, n, 3))
    strain = np.zeros((n, features, 3, 3))
    for i, s, term, near in terms(atoms, setup, cutoff):
        for (j, v), g in zip(near, gradient(term, *(v for _, v in near)), strict=True):
            jacobian[i, s, j] += g
            jacobian[i, s, i] -= g
            strain[i, s] += np.outer(g, v)
    return jacobian, strain
