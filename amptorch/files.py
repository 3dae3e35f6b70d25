"""Files: configurations, structures, JSON, and what is written beside and renamed when complete."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

from amptorch.frames import Frames
from amptorch.plain import to_json
from amptorch.writing import replacing, write_atomically

# Formats of ASE with a place for energies and forces of any frame.
FORMATS_WITH_ENERGIES = ("traj", "extxyz", "json", "db")

# What frames are predicted to have; "virial" is another name of a stress.
PREDICTED = ("energy", "forces", "stress", "virial", "energy_uncertainty", "forces_uncertainty")
# Columns of how far atoms are from those of the training.
EXTRAPOLATION = ("extrapolation", "functions_outside", "range_excess")


class _Loader(yaml.SafeLoader):
    """Load YAML safely and as in YAML 1.2: `1e-3` is a number, `no` is a word, and a key that is
    there twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value!r} is there twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:bool"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_config(path: Path) -> dict[str, Any]:
    """Return the dictionary in a YAML or JSON file.

    Raises FileNotFoundError where there is no such file, and ValueError that names it where it
    holds none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no configuration file {str(path)!r}")
    try:
        text = path.read_text(encoding="utf8")
        config = json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)
    except (UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(
            f"{path}: expected a configuration, with sections (model, optim, dataset, cmd), got "
            f"{config!r:.60}; files of frames are given by --data, once for each"
        )
    return config


def check_output(path: Path, overwrite: bool) -> None:
    """Raise an OSError where `path` cannot be written, or would replace a file without
    `overwrite`."""
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{str(path)!r} exists already; give --overwrite to replace it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r} for {path.name!r}")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"cannot write to the folder {str(path.parent)!r}")


def output_format(path: Path, n_images: int) -> str:
    """Return ASE's name of the format that `path` asks for; ValueError unless it takes n_images
    frames and their energies."""
    try:
        form = get_ioformat(filetype(str(path), read=False))
    except UnknownFileTypeError as error:
        raise ValueError(f"ASE has no format for {path.name!r}; try .traj or .xyz") from error
    if not form.can_write:
        raise ValueError(f"ASE reads {form.name!r} but does not write it; try .traj or .xyz")
    if form.single and n_images > 1:
        raise ValueError(f"a {form.name!r} file holds one frame, not {n_images}; try .traj or .xyz")
    if form.name not in FORMATS_WITH_ENERGIES:
        raise ValueError(f"a {form.name!r} file has no place for energies; try .traj or .xyz")
    return form.name


def images_of(frames: Frames) -> list[Atoms]:
    """Return `Frames` as a list of ase.Atoms, without energies and forces."""
    return [
        Atoms(frame.numbers, frame.positions, cell=frame.cells[0], pbc=frame.pbc[0])
        for frame in (frames[k] for k in range(len(frames)))
    ]


def labelled(images: Sequence[Atoms], prediction: Mapping[str, Any]) -> list[Atoms]:
    """Return copies of `images` whose calculators hold the predicted energy and forces, and the
    stress where there is one.

    Uncertainties of an ensemble are put into `info` (energy) and `arrays` (forces), and how far
    atoms are from those of the training into `arrays`, for the formats that have a place for them,
    such as extended XYZ.
    """
    copies = [atoms.copy() for atoms in images]
    none = [np.full(6, np.nan)] * len(copies)
    for atoms, energy, forces, stress in zip(
        copies,
        prediction["energy"],
        prediction["forces"],
        prediction.get("stress", none),
        strict=True,
    ):
        results = {"energy": energy} | ({"forces": forces} if len(forces) else {})
        if np.isfinite(stress).all():
            results["stress"] = stress
        # What a frame calls by these names, such as what another potential gave, is not what is
        # predicted, and has no place beside it.
        for name in (*PREDICTED, *EXTRAPOLATION):
            atoms.info.pop(name, None)
            atoms.arrays.pop(name, None)
        atoms.calc = SinglePointCalculator(atoms, **results)
    for atoms, energy in zip(copies, prediction.get("energy_uncertainty", ()), strict=False):
        atoms.info["energy_uncertainty"] = energy
    for atoms, forces in zip(copies, prediction.get("forces_uncertainty", ()), strict=False):
        if len(forces):
            atoms.arrays["forces_uncertainty"] = forces
    for name in EXTRAPOLATION:
        for atoms, column in zip(copies, prediction.get(name, ()), strict=False):
            if not np.isnan(column).any():
                atoms.arrays[name] = column
    return copies


def write_images(path: Path, images: Sequence[Atoms], form: str) -> None:
    """Write `images` in ASE's format `form` and put them at `path` when the file is complete.

    Raises OSError that names `path` where it cannot be written, as on a full disk; what was there
    before is left as it is.
    """
    try:
        with replacing(path) as unfinished:
            write(unfinished, images, format=form)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, f"cannot write the frames ({reason})", str(path)) from error


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write a JSON file, and its folder where needed; wait until it is on the disk."""
    text = json.dumps(to_json(content), indent=1)
    with write_atomically(path) as file:
        file.write(text.encode("utf8"))


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the content of a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf8"))
