"""The configuration that a training without one would use, to be written to a file and changed."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import yaml
from ase import Atoms

from amptorch.config import SECTIONS
from amptorch.data.inspection import inspect_frames
from amptorch.recommended import recommended
from amptorch.training.prepare import batch_size_for

WIDTH = 58


def initial_config(
    data: str, images: Sequence[Atoms], size: str, seconds: float, dataset: Mapping[str, Any]
) -> str:
    """Return the text of a YAML file: every recommended value, and what it means.

    data, images : path of the frames, and the frames in it; size : of functions and networks
    seconds : of the whole training; dataset : more keys of that section

    Raises ValueError for another size.
    """
    sections = recommended(size)
    sections["optim"] |= {"total_seconds": seconds, "batch_size": batch_size_for(len(images))}
    sections["dataset"] = {"raw_data": data, **dataset, **sections["dataset"]}
    sections["cmd"] = {"run_dir": "./", "seed": 0}
    lines = [f"# {len(images)} frames of {data}. `amptorch train THIS_FILE` trains on them."]
    lines += [f"# {message}" for message in inspect_frames(images)]
    lines += [
        "defaults: recommended  # what is not given here is not v1.0's default",
        f"size: {size}",
    ]
    for name, values in sections.items():
        meanings = {key.name: key.metadata["meaning"] for key in fields(SECTIONS[name])}
        lines += ["", f"{name}:"]
        for key, value in values.items():
            text = yaml.safe_dump(
                {key: value}, default_flow_style=True, width=1000, allow_unicode=True
            )
            lines.append(f"  {text.strip()[1:-1]:<{WIDTH}}  # {meanings[key]}")
    return "\n".join(lines) + "\n"
