"""Stages of the work through v1.0's interface alone, so that any `amptorch` can be measured.

Each takes a list of ase.Atoms with energies and forces and returns a function that does the stage
once, and the number of frames that it treats. What is not to be measured has been done before.
"""

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


def epoch(images, number=36, batch_size=8, **changes):
    """An epoch of training on energies and forces, fingerprints and derivatives made before."""
    trainer = new_trainer(images, number, batch_size, **changes)
    trainer.train()
    return lambda: trainer.net.partial_fit(trainer.train_dataset, None, epochs=1), len(images)


def prediction(images, number=36):
    """Energies and forces of frames, from their positions on."""
    trainer = new_trainer(images, number)
    trainer.train()
    return lambda: trainer.predict(images, disable_tqdm=True), len(images)


def calculator_step(images, number=36):
    """Energy and forces of a frame that moves as in dynamics, through the ASE calculator."""
    from amptorch import AmpTorch

    trainer = new_trainer(images, number)
    trainer.train()
    return moving(images[0], AmpTorch(trainer)), 1
