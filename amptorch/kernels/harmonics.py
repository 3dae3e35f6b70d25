"""Real solid harmonics of any order, and the gradient of a combination of them.

With P_l^m the associated Legendre functions without the phase (−1)^m,

    c_lm = r^l P_l^m(cosθ) cos(mφ) / (l+m)!,      s_lm = r^l P_l^m(cosθ) sin(mφ) / (l+m)!

are polynomials in x, y, z with recurrences and gradients free of square roots (T. Helgaker,
P. Jørgensen, J. Olsen, Molecular Electronic-Structure Theory, Wiley 2000, sections 6.4 and 9.13).
With n_lm² = (2 − δ_m0) (l−m)! (l+m)! they satisfy the addition theorem

    Σ_m n_lm² [c_lm(a) c_lm(b) + s_lm(a) s_lm(b)] = a^l b^l P_l(cosθ_ab).

Order l has 2l+1 rows from l² on: c_l0, c_l1, s_l1, c_l2, s_l2, … (`row_of`).
"""

import numpy as np

from amptorch.kernels._jit import inlined, njit
from amptorch.kernels.gmp_structures import ATOM_R2, ATOM_X, ATOM_Y, ATOM_Z


@inlined
def row_of(order: int, m: int, sine: int) -> int:
    """Return the row of c_lm (sine 0) or s_lm (sine 1)."""
    return order * order + max(2 * m - 1 + sine, 0)


@njit
def solid_harmonics(near: np.ndarray, y: np.ndarray, order: int, n: int) -> None:
    """Compute rows 0 to (order+1)² − 1 of y for lanes 0 to n − 1.

    near: rows ATOM_X, ATOM_Y, ATOM_Z, ATOM_R2 (Å, Å²) of the lanes. Å^l.
    """
    for j in range(n):
        y[0, j] = 1.0
    for l in range(1, order + 1):  # noqa: E741
        low, high, sine = row_of(l - 1, l - 1, 0), row_of(l, l, 0), row_of(l - 1, l - 1, 1)
        factor = 1.0 / (2 * l)
        if l == 1:
            for j in range(n):
                y[2, j] = factor * near[ATOM_X, j]
                y[3, j] = factor * near[ATOM_Y, j]
        else:
            for j in range(n):
                c, s = y[low, j], y[sine, j]
                y[high, j] = factor * (near[ATOM_X, j] * c - near[ATOM_Y, j] * s)
                y[high + 1, j] = factor * (near[ATOM_Y, j] * c + near[ATOM_X, j] * s)
        for k in range(2 * l - 1):
            # Rows of one m have the same place in every order.
            m = (k + 1) // 2
            scale = 1.0 / (l * l - m * m)
            new, one, two = l * l + k, (l - 1) * (l - 1) + k, (l - 2) * (l - 2) + k
            along = (2 * l - 1) * scale
            if m < l - 1:
                for j in range(n):
                    y[new, j] = (
                        along * near[ATOM_Z, j] * y[one, j] - scale * near[ATOM_R2, j] * y[two, j]
                    )
            else:
                for j in range(n):
                    y[new, j] = along * near[ATOM_Z, j] * y[one, j]


@njit
def gradient_coefficients(b: np.ndarray, first: int, step: int, order: int, e: np.ndarray) -> None:
    """Compute the gradient of h = Σ_m b_m Y_lm as e[axis, row] in the 2l−1 harmonics of
    order l − 1.

    b_m stands at b[first + m · step] in the order of the rows; l is at least 1.
    """
    half = 0.5
    for k in range(2 * order - 1):
        m = (k + 1) // 2
        cosine, sine = 2 * m - 1, 2 * m  # places of c_lm and s_lm, for m > 0
        up_c = b[first + (cosine + 2) * step]
        up_s = b[first + (sine + 2) * step]
        down_c = down_s = 0.0
        if m >= 2:
            down_c = half * b[first + (cosine - 2) * step]
            down_s = half * b[first + (sine - 2) * step]
        elif m == 1:
            down_c = b[first]
        if k == 0 or k == cosine:
            e[0, k] = half * up_c - down_c
            e[1, k] = half * up_s + down_s
        else:
            e[0, k] = half * up_s - down_s
            e[1, k] = -half * up_c - down_c
        e[2, k] = b[first + k * step]
