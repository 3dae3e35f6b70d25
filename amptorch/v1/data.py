"""Hold the data object of one frame, as v1.0 hands it out."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch


class Data:
    """Attributes of one frame; what is not there is simply missing.

    Usual ones: `fingerprint` (n_atoms, n_features), `atomic_numbers` (n_atoms,), `num_nodes`,
    `image_idx`, `energy` (eV), `forces` (n_atoms, 3), `fprimes`, a sparse (n_atoms·n_features,
    3·n_atoms) matrix of d fingerprint / d position.

    Works as a mapping too: `data["energy"]`, `"energy" in data`, `dict(data)`; pickles.
    """

    def __init__(self, **attributes: Any):
        self.__dict__.update(attributes)

    if TYPE_CHECKING:
        # Attributes are those that it was given.
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def keys(self) -> list[str]:
        return list(self.__dict__)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.__dict__)

    def __contains__(self, key: str) -> bool:
        return key in self.__dict__

    def __getitem__(self, key: str) -> Any:
        return self.__dict__[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.__dict__[key] = value

    def to(self, device: torch.device | str) -> "Data":
        """Return the same with every tensor on `device`."""
        moved = {
            key: value.to(device) if isinstance(value, torch.Tensor) else value
            for key, value in self.__dict__.items()
        }
        return Data(**moved)

    def __repr__(self) -> str:
        parts = [
            f"{key}={list(value.shape) if isinstance(value, torch.Tensor) else value!r}"
            for key, value in self.__dict__.items()
        ]
        return f"Data({', '.join(parts)})"
