"""Names and checks of single images, as AMPTorch v1.0 has them."""

import hashlib
from collections.abc import Iterable

import numpy as np
from ase import Atoms

from amptorch.descriptor.constants import ATOM_INDEX_TO_SYMBOL_DICT, ATOM_SYMBOL_TO_INDEX_DICT
from amptorch.frames import Frames


def get_hash(image: Atoms) -> str:
    """Return the 32 hexadecimal digits that name an ase.Atoms: periodicity, cell, elements and
    wrapped positions, the numbers with 15 decimals (Å). Two images with one name have one
    fingerprint."""
    numbers = (
        *(f"{value:.15f}" for value in image.cell.array.flat),
        *(f"{number:3d}" for number in image.numbers),
        *(f"{value:.15f}" for value in image.get_positions(wrap=True).flat),
    )
    return hashlib.md5("".join((str(image.pbc), *numbers)).encode()).hexdigest()


def validate_image(image: Atoms) -> None:
    """Raise ValueError where fingerprints of `image` would have no meaning; see `Frames`."""
    Frames.from_atoms([image])


def list_symbols_to_indices(list_of_symbols: Iterable[str]) -> np.ndarray:
    """Return the atomic numbers (n,) of n chemical symbols; ValueError names one that is
    unknown."""
    for symbol in list_of_symbols:
        if symbol not in ATOM_SYMBOL_TO_INDEX_DICT:
            raise ValueError(f"{symbol!r} is not a chemical symbol (such as 'Cu')")
    numbers = [ATOM_SYMBOL_TO_INDEX_DICT[symbol] for symbol in list_of_symbols]
    return np.array(numbers, dtype=np.intc)


def list_indices_to_symbols(list_of_indices: Iterable[int]) -> np.ndarray:
    """Return the chemical symbols (n,) of n atomic numbers; ValueError names one that is
    unknown."""
    for number in list_of_indices:
        if number not in ATOM_INDEX_TO_SYMBOL_DICT:
            raise ValueError(f"{number!r} is not an atomic number (1 to 118)")
    return np.array([ATOM_INDEX_TO_SYMBOL_DICT[number] for number in list_of_indices])


def symbol_list(elements: Iterable[str]) -> list[str]:
    """Return the chemical symbols of a list, a tuple or an array of strings as a list of str."""
    return [str(symbol) if isinstance(symbol, str) else symbol for symbol in elements]
