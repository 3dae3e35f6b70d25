"""Cutoff functions fc(r) and their derivatives, for r < cutoff.

Cosine: Behler, J. Chem. Phys. 134, 074106 (2011), eq. 4. Polynomial: Khorshidi and Peterson,
Comput. Phys. Commun. 207, 310 (2016), eq. 6 (Amp).
"""

import math

from amptorch.kernels._jit import njit

COSINE = 0
POLYNOMIAL = 1


@njit
def cutoff_function(kind, gamma, r, cutoff):
    """fc(r) and dfc/dr."""
    if kind == COSINE:
        x = math.pi / cutoff
        return 0.5 * (1.0 + math.cos(x * r)), -0.5 * x * math.sin(x * r)
    x = r / cutoff
    power = x ** (gamma - 1.0)
    value = 1.0 + gamma * power * x * x - (gamma + 1.0) * power * x
    return value, gamma * (gamma + 1.0) * power * (x - 1.0) / cutoff
