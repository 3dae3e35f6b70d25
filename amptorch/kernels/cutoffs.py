"""Cutoff functions fc(r) and their derivatives, for r < cutoff.

Cosine: Behler, J. Chem. Phys. 134, 074106 (2011), eq. 4. Polynomial: Khorshidi and Peterson,
Comput. Phys. Commun. 207, 310 (2016), eq. 6 (Amp). The others are those of n2p2: A. Singraber,
J. Behler, C. Dellago, J. Chem. Theory Comput. 15, 1827 (2019).
"""

import math
from typing import NamedTuple

from amptorch.kernels._jit import inner, njit

COSINE, POLYNOMIAL, HARD, TANH, TANH_SCALED, EXP, POLY1, POLY2, POLY3, POLY4 = range(10)


class Cutoff(NamedTuple):
    """Describe a cutoff function: which kind, its γ (POLYNOMIAL alone), the radius in Å up to which
    it is 1, and the cutoff Rc in Å."""

    kind: int
    gamma: float
    inner: float
    radius: float


@njit
def cutoff_function(cutoff: Cutoff, r: float) -> tuple[float, float]:
    """Return fc(r) and dfc/dr."""
    if r < cutoff.inner:
        return 1.0, 0.0
    width = cutoff.radius - cutoff.inner
    if cutoff.kind == COSINE:
        x = math.pi / width
        angle = x * (r - cutoff.inner)
        return 0.5 * (1.0 + math.cos(angle)), -0.5 * x * math.sin(angle)
    if cutoff.kind == POLYNOMIAL:
        gamma = cutoff.gamma
        x = r / cutoff.radius
        power = x ** (gamma - 1.0)
        value = 1.0 + gamma * power * x * x - (gamma + 1.0) * power * x
        return value, gamma * (gamma + 1.0) * power * (x - 1.0) / cutoff.radius
    value, slope = _other(cutoff.kind, (r - cutoff.inner) / width)
    return value, slope / width


@inner
def _other(kind: int, x: float) -> tuple[float, float]:
    """Return f(x) and df/dx of the other kinds, with x from 0 at the inner radius to 1 at Rc."""
    if kind == HARD:
        return 1.0, 0.0
    y = 1.0 - x
    if kind in (TANH, TANH_SCALED):
        scale = 1.0 / math.tanh(1.0) ** 3 if kind == TANH_SCALED else 1.0
        t = math.tanh(y)
        return scale * t * t * t, -3.0 * scale * t * t * (1.0 - t * t)
    if kind == EXP:
        q = y * (1.0 + x)
        # exp(−1000) is zero.
        if q < 1e-3:
            return 0.0, 0.0
        value = math.exp(1.0 - 1.0 / q)
        return value, -2.0 * x * value / (q * q)
    # The polynomials of the lowest degree with 1, 2, 3 and 4 derivatives that are 0 at both ends.
    xy = x * y
    if kind == POLY1:
        return (2.0 * x - 3.0) * x * x + 1.0, -6.0 * xy
    if kind == POLY2:
        return ((15.0 - 6.0 * x) * x - 10.0) * x**3 + 1.0, -30.0 * xy**2
    if kind == POLY3:
        value = (x * (x * (20.0 * x - 70.0) + 84.0) - 35.0) * x**4 + 1.0
        return value, -140.0 * xy**3
    value = (x * (x * ((315.0 - 70.0 * x) * x - 540.0) + 420.0) - 126.0) * x**5 + 1.0
    return value, -630.0 * xy**4
