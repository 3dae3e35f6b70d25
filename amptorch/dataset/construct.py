"""The one place where a descriptor is made from its configuration."""

LATER = ("gmp", "gmpordernorm")


def construct_descriptor(descriptor_setup):
    """The descriptor of `(fp_scheme, fp_params, cutoff_params, elements)`.

    fp_scheme: a key of DESCRIPTORS, in any case; fp_params: what that descriptor takes;
    cutoff_params: such as {"cutoff_func": "Cosine"}; elements: chemical symbols, whose order
    numbers the networks and orders the features.

    Raises ValueError where the scheme is not known, and what the descriptor raises.
    """
    fp_scheme, fp_params, cutoff_params, elements = descriptor_setup
    scheme = str(fp_scheme).lower()
    if scheme in LATER:
        raise ValueError(
            f"fp_scheme {fp_scheme!r} arrives with a later release; use 'gaussian' until then"
        )
    if scheme not in DESCRIPTORS:
        raise ValueError(f"fp_scheme {fp_scheme!r} is not known; it is one of {list(DESCRIPTORS)}")
    return DESCRIPTORS[scheme](fp_params, cutoff_params, elements)


def _gaussian(fp_params, cutoff_params, elements):
    from amptorch.descriptor.Gaussian import Gaussian

    return Gaussian(fp_params, elements, cutoff_params)


DESCRIPTORS = {"gaussian": _gaussian}
