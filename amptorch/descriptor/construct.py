"""Make a descriptor from its configuration; this is the one place that does."""

from collections.abc import Sequence
from typing import Any


def construct_descriptor(descriptor_setup: Sequence[Any]) -> Any:
    """Return the descriptor of `(fp_scheme, fp_params, cutoff_params, elements)`.

    fp_scheme: a key of DESCRIPTORS, in any case; fp_params: what that descriptor takes;
    cutoff_params: such as {"cutoff_func": "Cosine"}, for "gaussian" alone, the others look at
    nothing of it (v1.0's users write "NA"); elements: chemical symbols in a list or an array, whose
    order numbers the networks and orders the features.

    Raises ValueError where the scheme is not known, and what the descriptor raises.
    """
    if len(descriptor_setup) != 4:
        raise ValueError(
            "descriptor_setup must be (fp_scheme, fp_params, cutoff_params, elements), "
            f"got {len(descriptor_setup)} of them"
        )
    fp_scheme, fp_params, cutoff_params, elements = descriptor_setup
    scheme = str(fp_scheme).lower()
    if scheme not in DESCRIPTORS:
        raise ValueError(f"fp_scheme {fp_scheme!r} is not known; it is one of {list(DESCRIPTORS)}")
    return DESCRIPTORS[scheme](fp_params, cutoff_params, elements)


def _gaussian(fp_params, cutoff_params, elements):
    from amptorch.descriptor.Gaussian import Gaussian

    return Gaussian(fp_params, elements, cutoff_params)


def _gmp(fp_params, cutoff_params, elements):
    from amptorch.descriptor.GMP import GMP

    return GMP(fp_params, elements)


def _gmp_order_norm(fp_params, cutoff_params, elements):
    from amptorch.descriptor.GMPOrderNorm import GMPOrderNorm

    return GMPOrderNorm(fp_params, elements)


DESCRIPTORS = {"gaussian": _gaussian, "gmp": _gmp, "gmpordernorm": _gmp_order_norm}
