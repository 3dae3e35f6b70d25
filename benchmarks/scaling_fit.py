"""The exponent of a power law."""

import numpy as np


def exponent(x, y):
    """Slope of the straight line through log y against log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
