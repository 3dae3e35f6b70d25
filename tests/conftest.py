"""Settings that all tests share."""

from hypothesis import settings

# The first example pays for compilation, so there is no deadline; the same examples every run.
settings.register_profile("amptorch", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("amptorch")
