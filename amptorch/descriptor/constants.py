"""Atomic numbers by chemical symbol, and back, for hydrogen to oganesson."""

from ase.data import chemical_symbols

ATOM_INDEX_TO_SYMBOL_DICT = {number: chemical_symbols[number] for number in range(1, 119)}
ATOM_SYMBOL_TO_INDEX_DICT = {symbol: number for number, symbol in ATOM_INDEX_TO_SYMBOL_DICT.items()}
