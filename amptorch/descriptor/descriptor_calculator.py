"""Fingerprints of a list of images, for work outside training."""

import numpy as np
from ase.data import chemical_symbols


class DescriptorCalculator:
    """Fingerprints of `images` by one descriptor, computed once.

    images : list of ase.Atoms; descriptor : a BaseDescriptor
    automatic_calculation : compute them at once, not at the first call of `get_descriptors`
    calc_derivatives, save_fps, verbose, cores : see `BaseDescriptor.prepare_fingerprints`

    Raises ValueError that names the image which cannot be described.
    """

    def __init__(
        self,
        images,
        descriptor,
        automatic_calculation=True,
        calc_derivatives=False,
        save_fps=False,
        verbose=False,
        cores=None,
    ):
        self.images = list(images)
        self.descriptor = descriptor
        self.calc_derivatives = calc_derivatives
        self.save_fps = save_fps
        self.verbose = verbose
        self.cores = cores
        self.calculated_descriptors = None
        if automatic_calculation:
            self.prepare_descriptors()

    def prepare_descriptors(self):
        """Compute the fingerprints of all images; a list of dictionaries, one an image."""
        self.calculated_descriptors = self.descriptor.prepare_fingerprints(
            self.images,
            calc_derivatives=self.calc_derivatives,
            save_fps=self.save_fps,
            verbose=self.verbose,
            cores=self.cores,
        )
        return self.calculated_descriptors

    def get_descriptors(self, separate_atomic_numbers=False):
        """The list of dictionaries; with `separate_atomic_numbers`, {atomic number: (n, S) array}
        of the fingerprints of all atoms of an element, image after image, without the padding."""
        if self.calculated_descriptors is None:
            self.prepare_descriptors()
        if not separate_atomic_numbers:
            return self.calculated_descriptors
        numbers = np.concatenate([image["atomic_numbers"] for image in self.calculated_descriptors])
        rows = np.concatenate([image["descriptors"] for image in self.calculated_descriptors])
        lengths = self.descriptor.num_descriptors
        return {
            z: rows[numbers == z, : lengths[chemical_symbols[z]]]
            for z in np.unique(numbers).tolist()
        }
