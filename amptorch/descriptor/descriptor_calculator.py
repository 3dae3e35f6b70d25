"""Fingerprints of a list of images, for work outside training."""

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from amptorch.descriptor.base import BaseDescriptor

# Fingerprints of the atoms of each element, by atomic number; or of all atoms.
ByElement: TypeAlias = dict[int, np.ndarray] | np.ndarray

__all__ = ["BaseDescriptor", "DescriptorCalculator"]


class DescriptorCalculator:
    """Compute the fingerprints of `images` by one descriptor, once, when they are first asked for.

    images : list of ase.Atoms; descriptor : a BaseDescriptor
    calc_derivatives, save_fps, verbose, cores : see `BaseDescriptor.prepare_fingerprints`

    Attributes: `calculated_descriptors`, a list of dictionaries, one an image, or None;
    `pca_models` and `scaling_models`, what `calculate_PCA` and `calculate_scaling` have fitted.
    Nothing is written to disk but what `save_fps` keeps: v1.0 pickled its models in the working
    directory.

    Methods raise ValueError that names the image which cannot be described. With
    `separate_atomtypes` they give {atomic number: array} of the atoms of each element, image after
    image, without the padding; without it one array of all atoms, (N, S) with the padding.
    """

    def __init__(
        self,
        images: Iterable[Atoms],
        descriptor: BaseDescriptor,
        calc_derivatives: bool = True,
        save_fps: bool | str | os.PathLike[str] = True,
        verbose: bool = True,
        cores: int | None = 1,
    ) -> None:
        self.images = list(images)
        self.descriptor = descriptor
        self.calc_derivatives = calc_derivatives
        self.save_fps = save_fps
        self.verbose = verbose
        self.cores = cores
        self.calculated_descriptors: list[dict[str, Any]] | None = None
        self.pca_models = None
        self.scaling_models = None

    def prepare_descriptors(self) -> list[dict[str, Any]]:
        """Compute the fingerprints of all images; return a list of dictionaries, one an image."""
        self.calculated_descriptors = self.descriptor.prepare_fingerprints(
            self.images,
            calc_derivatives=self.calc_derivatives,
            save_fps=self.save_fps,
            verbose=self.verbose,
            cores=self.cores,
        )
        return self.calculated_descriptors

    def get_descriptors(
        self, separate_atomtypes: bool = True
    ) -> dict[int, np.ndarray] | list[dict[str, Any]]:
        """Return {atomic number: (n, S) array} of fingerprints; without `separate_atomtypes`, the
        list of dictionaries, one an image, derivatives included."""
        return self._rows() if separate_atomtypes else self._described()

    def calculate_PCA(
        self,
        separate_atomtypes: bool = True,
        save_models: bool = True,
        n_components: int = 10,
        apply_PCA: bool = True,
    ) -> ByElement | None:
        """Fit principal components of the fingerprints, scikit-learn's `PCA`.

        Returns the first `n_components` of every atom with `apply_PCA`, else None; `save_models`
        keeps the models in `pca_models`. Raises ValueError where there are fewer atoms or features
        than components.
        """
        from sklearn.decomposition import PCA

        def fit(name: str, rows: np.ndarray) -> Any:
            if n_components > min(rows.shape):
                raise ValueError(
                    f"{name}: n_components is {n_components}, at most {min(rows.shape)} can be had "
                    f"of {rows.shape[0]} atoms with {rows.shape[1]} features"
                )
            return PCA(n_components).fit(rows)

        models, result = self._fitted(fit, separate_atomtypes, apply_PCA)
        self.pca_models = models if save_models else self.pca_models
        return result

    def calculate_scaling(
        self,
        separate_atomtypes: bool = True,
        save_models: bool = True,
        scaler_min: float = -1,
        scaler_max: float = 1,
        apply_scaling: bool = True,
    ) -> ByElement | None:
        """Fit the linear maps of each fingerprint to `scaler_min` … `scaler_max`, scikit-learn's
        `MinMaxScaler`.

        Returns the scaled fingerprints with `apply_scaling`, else None; `save_models` keeps the
        models in `scaling_models`. Raises ValueError where `scaler_min` is not below `scaler_max`.
        """
        from sklearn.preprocessing import MinMaxScaler

        def fit(name: str, rows: np.ndarray) -> Any:
            return MinMaxScaler((scaler_min, scaler_max)).fit(rows)

        models, result = self._fitted(fit, separate_atomtypes, apply_scaling)
        self.scaling_models = models if save_models else self.scaling_models
        return result

    def _fitted(
        self, fit: Callable[[str, np.ndarray], Any], separate: bool, apply: bool
    ) -> tuple[Any, ByElement | None]:
        """Return (models, transformed rows or None): by atomic number, or one of each."""
        if not separate:
            every = self._all_rows()
            model = fit("all atoms", every)
            return model, model.transform(every) if apply else None
        rows = self._rows()
        models = {z: fit(f"element {chemical_symbols[z]}", some) for z, some in rows.items()}
        return models, {z: models[z].transform(rows[z]) for z in rows} if apply else None

    def _rows(self) -> dict[int, np.ndarray]:
        rows, lengths = self._all_rows(), self.descriptor.num_descriptors
        numbers = np.concatenate([image["atomic_numbers"] for image in self._described()])
        return {
            z: rows[numbers == z, : lengths[chemical_symbols[z]]]
            for z in np.unique(numbers).tolist()
        }

    def _all_rows(self) -> np.ndarray:
        return np.concatenate([image["descriptors"] for image in self._described()])

    def _described(self) -> list[dict[str, Any]]:
        if self.calculated_descriptors is None:
            return self.prepare_descriptors()
        return self.calculated_descriptors
