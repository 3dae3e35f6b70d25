"""Optimizers beyond torch's."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.linalg import blas

from amptorch.threads import blas_threads, num_threads

logger = logging.getLogger(__name__)
GB = 1e9
# H P Hᵀ may be as far below 0 as this share of the variances, before P is repaired.
TOLERATED = 0.1
# Least variance of any direction once P had to be repaired, in rounding errors of its largest one.
# With 30 and less, filters of 60 weights diverged where variances were 1e-10 of the square of H.
FLOOR = 100
ATTEMPTS = 5
# Observations, for each weight, from one look at P to the next: it takes 1 to 2 % of the time.
BETWEEN = 4
NOT_FINITE = "the Kalman filter has diverged: predictions are not finite; lower its p0 or lr"
BYTES = {"float64": 8, "float32": 4}


class EKF(torch.optim.Optimizer):
    """Train by the extended Kalman filter with fading memory, made for Behler-Parrinello networks.

    Weights w with covariance P are corrected by a batch of m observations at once. With their
    errors e, the Jacobian H (m, n) of the predictions with respect to w, and their variances R:

        A = λ R + H P Hᵀ        w ← w + lr P Hᵀ A⁻¹ e        P ← (P − P Hᵀ A⁻¹ H P) / λ + q

    and λ ← ν λ + 1 − ν: old observations are forgotten, at first fast. T. B. Blank and S. D. Brown,
    J. Chemometrics 8, 391 (1994); A. Singraber et al., J. Chem. Theory Comput. 15, 3075 (2019).
    P is symmetric, and only its lower triangle is kept up to date, which takes half of the work.
    Every group of parameters has a P of its own, as in the decoupled filter of G. V. Puskorius and
    L. A. Feldkamp, IEEE Trans. Neural Netw. 5, 279 (1994): one group makes the global filter.

    params : parameters or groups of them
    lr : factor on each correction; 1 is the filter
    p0 : first P, times the unit matrix
    forgetting, forgetting_rate : first λ, and ν
    process_noise : q, added to the diagonal of P in every step
    force_observations : number of force observations made of each frame (`trainer.kalman`)
    memory : GB that P may take
    precision : "float64" or "float32", of P; from the first repair on (`_repair`) "float64", if
        `memory` allows it

    `default_lr` and `by_observations` tell the configuration what it has to know.

    `step(closure)` takes what gives (Jacobian as {parameter: (m, *its shape)}, errors (m,),
    variances (m,)). Raises ValueError for a value out of range, and where P would take more than
    `memory`, and `Diverged` where what it is given is not finite.
    """

    default_lr = 1.0
    by_observations = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        p0: float = 1.0,
        forgetting: float = 0.998,
        forgetting_rate: float = 0.999,
        process_noise: float = 0.0,
        force_observations: int = 1,
        memory: float = 1.0,
        precision: str = "float64",
    ) -> None:
        for name, value in {"forgetting": forgetting, "forgetting_rate": forgetting_rate}.items():
            if not 0 < value <= 1:
                raise ValueError(f"{name} of the Kalman filter must be in (0, 1], got {value}")
        for name, value in {"lr": lr, "p0": p0, "memory": memory}.items():
            if not value > 0:
                raise ValueError(f"{name} of the Kalman filter must be above 0, got {value}")
        if process_noise < 0:
            raise ValueError(f"process_noise must be at least 0, got {process_noise}")
        if force_observations < 1 or force_observations != int(force_observations):
            raise ValueError(f"force_observations must be at least 1, got {force_observations}")
        if precision not in BYTES:
            raise ValueError(f"precision must be 'float64' or 'float32', got {precision!r}")
        defaults = {
            "lr": lr,
            "p0": p0,
            "forgetting": forgetting,
            "forgetting_rate": forgetting_rate,
            "process_noise": process_noise,
            "force_observations": int(force_observations),
            "memory": memory,
            "precision": precision,
        }
        super().__init__(params, defaults)
        self.repaired = False
        sizes = [sum(p.numel() for p in _trained(group)) for group in self.param_groups]
        sizes = [n for n in sizes if n]
        size = BYTES[precision]
        needed = sum(size * n**2 for n in sizes) / GB
        self.room_for_double = needed * BYTES["float64"] / size <= memory
        if needed > memory:
            fits = math.isqrt(int(memory * GB / size / len(sizes)))
            raise ValueError(
                f"the Kalman filter's covariance of {' + '.join(map(str, sizes))} parameters takes "
                f"{needed:.1f} GB, more than its memory of {memory} GB: give it more, "
                f"or take smaller networks (at most {fits} parameters in each group)"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> None:  # type: ignore[override]
        """Make one correction; see the class."""
        jacobian, errors, variances = closure()
        errors, variances = errors.double(), variances.double()
        groups = [(group, _trained(group)) for group in self.param_groups]
        groups = [(group, parameters) for group, parameters in groups if parameters]
        states = [self._state_of(*group) for group in groups]
        forgetting = groups[0][0]["lambda"]
        rows = [
            torch.cat([jacobian[p].reshape(len(errors), -1) for p in parameters], dim=1)
            for _, parameters in groups
        ]
        products, lower = self._factorise(rows, states, forgetting * variances)
        if not torch.isfinite(errors).all():
            raise Diverged(NOT_FINITE)
        errors = torch.linalg.solve_triangular(lower, errors[:, None], upper=False)[:, 0]
        for (group, parameters), state, product in zip(groups, states, products, strict=True):
            x = torch.linalg.solve_triangular(lower, product, upper=False)
            change = group["lr"] * (x.T @ errors)
            pieces = change.split([p.numel() for p in parameters])
            for parameter, piece in zip(parameters, pieces, strict=True):
                parameter.add_(piece.view_as(parameter))
            # In place: of the largest P there is no room for a second.
            covariance = state["covariance"]
            _subtract_square(covariance, x.to(covariance.dtype), 1 / forgetting)
            covariance.diagonal().add_(group["process_noise"])
            rate = group["forgetting_rate"]
            group["lambda"] = rate * group["lambda"] + 1 - rate
            state["unchecked"] = state.get("unchecked", 0) + len(errors)
            if state["unchecked"] >= BETWEEN * len(covariance):
                state["unchecked"] = 0
                if not _is_positive(covariance):
                    self._repair(state)

    def _factorise(
        self, rows: list[torch.Tensor], states: list[dict[str, Any]], noise: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return H P of each group, and the Cholesky factor of A = `noise` + H P Hᵀ.

        Rounding makes P negative in directions that are known well. It would become more so with
        each step, and the corrections wrong long before A has no factor; so P is looked at now and
        then, and H P Hᵀ always. Where that is negative P is repaired, and from then on kept above
        its `floor`, beneath which all is rounding.
        """
        least = torch.diag((1 - TOLERATED) * noise)
        for _ in range(ATTEMPTS):
            factor, products, raised = torch.diag(noise), [], torch.zeros_like(least)
            for h, state in zip(rows, states, strict=True):
                covariance = state["covariance"]
                products.append(_times_symmetric(h.to(covariance.dtype), covariance).double())
                factor += products[-1] @ h.double().T
                if "floor" in state:
                    raised += state["floor"] * (h @ h.T)
            if not torch.isfinite(factor).all():
                raise Diverged(NOT_FINITE)
            if _is_positive(factor - least - raised):
                return products, torch.linalg.cholesky(factor)
            if raised.any():
                for h, state, product in zip(rows, states, products, strict=True):
                    state["covariance"].diagonal().add_(state["floor"])
                    product += state["floor"] * h
                factor += raised
                if _is_positive(factor - least):
                    return products, torch.linalg.cholesky(factor)
            for state in states:
                size = self._repair(state)
                state["floor"] = 10 * state["floor"] if "floor" in state else FLOOR * size
        raise Diverged(
            "the variances of what the Kalman filter observes must be above 0, and they are not, "
            "though its covariance was repaired; frames whose energies or forces are far larger "
            "than those of the others do this: leave them out"
        )

    def _repair(self, state: dict[str, Any]) -> float:
        """Raise the diagonal of P until it is positive; return the rounding error of what it is
        from now on, which is double precision if `memory` allows it.

        Where that would take a tenth of the diagonal, begin anew with at most `p0`. It takes a
        second P for the moment.
        """
        p, p0 = state["covariance"], self.param_groups[0]["p0"]
        to_double = self.room_for_double and p.dtype is not torch.float64
        if to_double:
            logger.debug(
                "the Kalman filter goes on in double precision, since rounding in single precision "
                "has made its covariance negative; it has been repaired"
            )
        elif not self.repaired:
            logger.warning(
                "the Kalman filter's covariance was no longer positive, by rounding; it has been "
                "repaired, and will be whenever it has to be"
            )
        self.repaired = True
        largest = float(p.diagonal().abs().max()) or p0
        rounding = raised = torch.finfo(p.dtype).eps * largest
        if to_double:
            state["covariance"] = p = p.double()
            rounding = torch.finfo(p.dtype).eps * largest
        while not _is_positive(p):
            p.diagonal().add_(raised)
            raised *= 10
            if raised > 0.1 * largest:
                # Nothing in it has a meaning any more.
                p.zero_().diagonal().fill_(min(largest, p0))
        return rounding

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state as torch does, and P in its own precision, which torch would round to that
        of the parameters."""
        super().load_state_dict(state_dict)
        packed = state_dict["state"]
        indices = [group["params"] for group in state_dict["param_groups"]]
        for group, numbers in zip(self.param_groups, indices, strict=True):
            for parameter, number in zip(group["params"], numbers, strict=True):
                if number in packed:
                    p = packed[number]["covariance"]
                    self.state[parameter]["covariance"] = p.to(parameter.device, copy=True)

    def _state_of(self, group: dict[str, Any], parameters: list[torch.Tensor]) -> dict[str, Any]:
        state = self.state[parameters[0]]
        if "covariance" not in state:
            n = sum(parameter.numel() for parameter in parameters)
            p = torch.zeros(
                n, n, device=parameters[0].device, dtype=getattr(torch, group["precision"])
            )
            p.diagonal().fill_(group["p0"])
            state["covariance"] = p
            group["lambda"] = group["forgetting"]
        return state


class Diverged(ValueError):
    """Report that a training has left the range of numbers, and how to change its settings."""


def _times_symmetric(h: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Return h (m, n) times a symmetric matrix (n, n) of which the lower triangle is given."""
    if p.device.type != "cpu":
        return h @ p.tril() + h @ p.tril(-1).T
    multiply = blas.dsymm if p.dtype is torch.float64 else blas.ssymm
    # For BLAS rows are columns, and the lower triangle the upper one. With the symmetric matrix on
    # the right it takes two thirds of the time that it takes on the left.
    with blas_threads(num_threads()):
        product = multiply(1.0, p.numpy().T, h.numpy(), side=1)
    return torch.from_numpy(product)


def _subtract_square(p: torch.Tensor, x: torch.Tensor, factor: float) -> None:
    """Make p, of which the lower triangle counts, factor · (p − xᵀx), for x (m, n), in place."""
    if p.device.type != "cpu":
        p.addmm_(x.T, x, beta=factor, alpha=-factor)
        return
    update = blas.dsyrk if p.dtype is torch.float64 else blas.ssyrk
    c = p.numpy().T
    with blas_threads(num_threads()):
        result = update(-factor, x.numpy().T, beta=factor, c=c, overwrite_c=True)
    assert np.shares_memory(result, c)


def _is_positive(matrix: torch.Tensor) -> bool:
    """Return whether a symmetric matrix, of which the lower triangle is read, has a Cholesky
    factor."""
    return not torch.linalg.cholesky_ex(matrix)[1]


def _trained(group: Mapping[str, Any]) -> list[torch.Tensor]:
    return [parameter for parameter in group["params"] if parameter.requires_grad]
