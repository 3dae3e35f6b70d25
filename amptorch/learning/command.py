"""The commands `amptorch select` and `amptorch learn`. Heavy imports stand inside."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path, typer.Argument(help="Folder of a training run, or of an ensemble.")]


def select(
    model: Model,
    pool: Annotated[str, typer.Argument(help="File of structures, as ase.io.read takes it.")],
    number: Annotated[int, typer.Option(min=1, help="Frames to choose.")] = 50,
    out: Annotated[Path, typer.Option(help="File for the chosen frames: .traj or .xyz.")] = Path(
        "selected.traj"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
) -> None:
    """Choose from a pool the frames that are worth labelling.

    They differ most from the training frames and from each other.
    """
    from amptorch.files import check_output, output_format, write_images
    from amptorch.frames import read_images
    from amptorch.loading import load
    from amptorch.novelty import select as chosen_of

    check_output(out, overwrite)
    images = read_images(pool)
    form = output_format(out, number)
    indices, novelties = chosen_of(load(model), images, number, quiet=False)
    chosen = []
    for index, novelty in zip(indices.tolist(), novelties.tolist(), strict=True):
        images[index].info.update(pool_index=index, novelty=round(novelty, 4))
        chosen.append(images[index])
    write_images(out, chosen, form)
    typer.echo(
        f"{len(chosen)} of {len(images)} frames: {out}\n"
        f"their farthest atoms are at {novelties[-1]:.3g} to {novelties[0]:.3g} from the training "
        "atoms and from each other, where 1 is as far as the farthest 1 % of the training atoms"
    )


def learn(
    start: Annotated[str, typer.Option(help="Frames with energies and forces to begin with.")],
    label: Annotated[
        str,
        typer.Option(
            help="What labels frames: a calculator of ASE's, module:Class, or a command with "
            "{input} and {output}."
        ),
    ],
    dynamics: Annotated[Path, typer.Option(help="YAML or JSON file: temperature, silent, …")],
    out: Annotated[Path, typer.Option(help="Folder; gone on with if it is there.")] = Path("learn"),
    model: Annotated[
        Path | None, typer.Option(help="Folder of a potential; none: one is trained first.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="At most so many.")] = 10,
) -> None:
    """Learn on the fly: run dynamics, label the frames where the potential cannot be trusted, train
    on, and again, until dynamics stay where the potential has learned.

    A call that was stopped goes on where it was.
    """
    from amptorch.files import read_config
    from amptorch.learning import LearningConfig, make_labeller
    from amptorch.learning import learn as learned

    settings = LearningConfig.from_dict(read_config(dynamics))
    labeller = make_labeller(label, settings.label)
    found = learned(start, labeller, out, settings, rounds, model)
    end = (
        f"dynamics were silent for {settings.silent:g} ps"
        if found.silent
        else f"trust was lost until the last of {found.rounds} rounds: give more --rounds"
    )
    typer.echo(f"{found.labelled} frames were labelled; {end}\npotential: {found.folder}")
