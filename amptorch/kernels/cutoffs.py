"""Cutoff functions fc(r) and their derivatives, for r < cutoff.

Cosine: Behler, J. Chem. Phys. 134, 074106 (2011), eq. 4. Polynomial: Khorshidi and Peterson,
Comput. Phys. Commun. 207, 310 (2016), eq. 6 (Amp).
"""

import math
from typing import NamedTuple

from amptorch.kernels._jit import njit

COSINE = 0
POLYNOMIAL = 1


class Cutoff(NamedTuple):
    """Describe a cutoff function: which kind, its γ (polynomial alone) and the cutoff Rc in Å."""

    kind: int
    gamma: float
    radius: float


@njit
def cutoff_function(cutoff: Cutoff, r: float) -> tuple[float, float]:
    """Return fc(r) and dfc/dr."""
    if cutoff.kind == COSINE:
        x = math.pi / cutoff.radius
        return 0.5 * (1.0 + math.cos(x * r)), -0.5 * x * math.sin(x * r)
    gamma = cutoff.gamma
    x = r / cutoff.radius
    power = x ** (gamma - 1.0)
    value = 1.0 + gamma * power * x * x - (gamma + 1.0) * power * x
    return value, gamma * (gamma + 1.0) * power * (x - 1.0) / cutoff.radius
