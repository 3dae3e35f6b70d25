"""Stages of the work through v1.0's interface alone, so that any `amptorch` can be measured.

Each takes a list of ase.Atoms with energies and forces and returns a function that does the stage
once, and the number of frames that it treats. What is not to be measured has been done before.
"""

import atexit
import shutil
import tempfile

from setups import elements_of, functions, moving, new_trainer


def values(images, number=36, calc_derivatives=False):
    """Fingerprints, neighbour search included."""
    from amptorch.dataset import construct_descriptor

    setup = ("gaussian", functions(number), {"cutoff_func": "Cosine"}, elements_of(images))
    descriptor = construct_descriptor(setup)

    def call():
        return descriptor.prepare_fingerprints(
            images,
            calc_derivatives=calc_derivatives,
            save_fps=False,
            verbose=False,
            cores=1,
            log=None,
        )

    return call, len(images)


def values_and_derivatives(images, number=36):
    """Fingerprints and the sparse matrix of their derivatives, neighbour search included."""
    return values(images, number, calc_derivatives=True)


def trained(images, number, **options):
    """A trainer after an epoch, with a folder of its own; see `workload` for `debug`."""
    folder = tempfile.mkdtemp(prefix="amptorch-benchmark-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    trainer = new_trainer(images, number, cmd__debug=False, cmd__run_dir=folder, **options)
    trainer.train()
    return trainer


def epoch(images, number=36, batch_size=8, **changes):
    """An epoch of training on energies and forces, fingerprints and derivatives made before.

    Without its checkpoint, which takes the same for any number of frames.
    """
    trainer = trained(images, number, batch_size=batch_size, **changes)
    net, dataset = trainer.net, trainer.train_dataset
    net.callbacks_ = [
        (name, callback)
        for name, callback in net.callbacks_
        if not type(callback).__name__.endswith("Checkpoint")
    ]
    return lambda: net.fit_loop(dataset, None, epochs=1), len(images)


def prediction(images, number=36):
    """Energies and forces of frames, from their positions on."""
    trainer = trained(images, number)
    return lambda: trainer.predict(images, disable_tqdm=True), len(images)


def calculator_step(images, number=36):
    """Energy and forces of a frame that moves as in dynamics, through the ASE calculator."""
    from amptorch import AmpTorch

    trainer = trained(images, number)
    return moving(images[0], AmpTorch(trainer)), 1
