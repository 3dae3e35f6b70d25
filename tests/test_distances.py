"""Cutoffs and structures in other units than Å are named, with distances and units."""

import re
import warnings
from contextlib import suppress

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.io import write

from amptorch import AmpTorch
from amptorch.cli import main
from amptorch.datasets import iron_water
from amptorch.distances import check_cutoff, check_distances
from amptorch.frames import Frames
from amptorch.kernels.neighbors import expected_pairs
from amptorch.memory import available_memory
from amptorch.neighbors import VerletList, _bases, neighbor_list
from amptorch.store import FrameStore
from amptorch.trainer import AtomsTrainer
from amptorch.uncertainty import Ensemble
from tests.small_frames import config, labelled


def cells(n=4, scale=1.0):
    """Copper cells; `scale` 0.1 is what a reader of nm as Å sees."""
    frames = []
    for seed in range(n):
        atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
        atoms.rattle(0.1, seed=seed)
        atoms = labelled(atoms)
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.set_cell(scale * atoms.cell, scale_atoms=True)
        frames.append(labelled(atoms, energy, forces))
    return frames


def functions(cutoff):
    return {"default": {"cutoff": cutoff, "G2": {"etas": [1.0, 4.0], "rs_s": [0.0]}}}


def settings(frames, folder, cutoff, **changes):
    return config(frames, folder, dataset__fp_params=functions(cutoff), **changes)


# --- lists that do not fit ---


@pytest.mark.parametrize("cutoff", [650.0, 1e6, 1e9])
@pytest.mark.parametrize("derivatives", ["auto", "stored", "recompute"])
def test_a_cutoff_in_another_unit_is_refused(tmp_path, cutoff, derivatives):
    options = settings(cells(), tmp_path, cutoff, dataset__derivatives=derivatives)
    with pytest.raises(
        ValueError, match=rf"cutoff of {re.escape(f'{cutoff:g}')} Å.*GB.*is the cutoff in Å"
    ):
        AtomsTrainer(options).train()


def test_so_it_is_in_a_store_and_in_dynamics(tmp_path):
    options = settings(cells(), tmp_path, 650.0, dataset__store=str(tmp_path / "store"))
    with pytest.raises(ValueError, match="cutoff of 650 Å"):
        AtomsTrainer(options).train()
    with pytest.raises(ValueError, match="cutoff of 650 Å"):
        VerletList(649.7, 0.3).update(Frames.from_atoms(cells(1)))


@pytest.mark.parametrize(
    "atoms",
    [
        bulk("Cu", "fcc", a=3.7),
        bulk("NaCl", "rocksalt", a=5.6) * (3, 2, 2),
        fcc111("Cu", (4, 4, 4), vacuum=8.0),
        fcc111("Cu", (6, 6, 1), vacuum=8.0),
        Atoms("C40", [[0, 0, 1.3 * k] for k in range(40)], cell=[0, 0, 52], pbc=[0, 0, 1]),
        molecule("C60"),
        iron_water(1)[0],
    ],
    ids=lambda atoms: str(atoms.symbols),
)
@pytest.mark.parametrize("cutoff", [3.0, 6.5, 20.0])
def test_the_number_of_pairs_is_expected(atoms, cutoff):
    """Within a third where there are many, and never less than half of it."""
    frames = Frames.from_atoms([atoms])
    bases, inverses = _bases(frames)
    found = neighbor_list(frames, cutoff).n_pairs
    arguments = frames.positions, bases[0], inverses[0], frames.pbc[0], cutoff
    expected = expected_pairs(*arguments)
    assert expected > 0.5 * found
    if atoms.pbc.all():
        assert expected < 1.4 * found + 20 * len(atoms)


def test_a_limit_of_the_address_space_counts(monkeypatch):
    class Process:
        def rlimit(self, what):
            return 3 * 10**9, -1

        def memory_info(self):
            return type("Memory", (), {"vms": 10**9})

    monkeypatch.setattr("amptorch.memory.psutil.RLIMIT_AS", 9, raising=False)
    monkeypatch.setattr("amptorch.memory.psutil.Process", Process)
    assert available_memory() <= 2 * 10**9


# --- cutoffs below all distances ---


@pytest.mark.parametrize("store", [None, "store"])
def test_a_cutoff_below_all_distances_is_refused(tmp_path, monkeypatch, store):
    monkeypatch.chdir(tmp_path)
    options = settings(cells(), tmp_path, 0.6, dataset__store=store)
    with pytest.raises(ValueError, match=r"cutoff of 0\.6 Å.*nearest is at 2\.\d+ Å.*in Å\?"):
        AtomsTrainer(options).train()


def test_a_store_that_was_made_with_such_a_cutoff(tmp_path):
    write(tmp_path / "a.traj", cells())
    (tmp_path / "c.yaml").write_text(
        "dataset: {fp_scheme: gaussian, fp_params: {default: {cutoff: 0.6, G2: {etas: [1]}}}}"
    )
    options = ["--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "s")]
    with suppress(SystemExit):
        main(["preprocess", str(tmp_path / "a.traj"), *options])
    assert FrameStore(tmp_path / "s").n_pairs == 0
    options = settings(None, tmp_path, 0.6, dataset__store=str(tmp_path / "s"))
    options["dataset"]["fp_params"]["default"]["G2"] = {"etas": [1], "rs_s": [0.0]}
    with pytest.raises(ValueError, match=r"cutoff of 0\.6 Å"):
        AtomsTrainer(options).train()


@pytest.mark.parametrize("forces", [True, False])
def test_a_store_that_was_made_with_a_longer_cutoff(tmp_path, forces):
    store = {"dataset__store": str(tmp_path / "s"), "model__get_forces": forces}
    AtomsTrainer(settings(cells(), tmp_path, 4.5, optim__epochs=1, **store)).train()
    assert FrameStore(tmp_path / "s").n_pairs > 0
    options = settings(None, tmp_path, 0.6, **store)
    with pytest.raises(ValueError, match=r"cutoff of 0\.6 Å.*nearest is at 2\.\d+ Å"):
        AtomsTrainer(options).train()


def test_lone_atoms_and_distant_ones_among_others_are_taken():
    far = Atoms("Cu2", [[0, 0, 0], [0, 0, 9.0]])
    check_cutoff(Frames.from_atoms([Atoms("Cu"), far, cells(1)[0]]), 4.5)
    check_cutoff(Frames.from_atoms([Atoms("Cu"), Atoms("O")]), 4.5)
    with pytest.raises(ValueError, match=r"nearest is at 9 Å"):
        check_cutoff(Frames.from_atoms([Atoms("Cu"), far]), 4.5)
    with pytest.raises(ValueError, match=r"nearest is at 2\.62 Å"):
        check_cutoff(Frames.from_atoms([bulk("Cu", "fcc", a=3.7)]), 2.0)


def test_atoms_beyond_the_cutoff_are_warned_of_where_they_are_predicted(tmp_path):
    trainer = AtomsTrainer(settings(cells(), tmp_path, 4.5, optim__epochs=1))
    trainer.train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.predict(cells())
    far = cells(1)[0]
    far.set_cell(far.cell * 3, scale_atoms=True)
    again = AtomsTrainer()
    again.load_pretrained(trainer.cp_dir)
    message = r"frame \d: no atom has another within the cutoff of 4\.5 Å, the nearest is at 6\."
    for predict in (trainer.predict, Ensemble([trainer, again]).predict):
        with pytest.warns(UserWarning, match=message) as caught:
            predict([*cells(2), far, far])
        assert len(caught) == 1
    far.calc = AmpTorch(trainer, extrapolation="ignore")
    with pytest.warns(UserWarning, match=message):
        far.get_forces()
    # Once, not in every step.
    far.rattle(0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        far.get_forces()


@pytest.mark.parametrize("distance", [4.8, 9.0], ids=["within the skin", "beyond it"])
def test_atoms_that_drift_apart_in_dynamics_are_warned_of(tmp_path, distance):
    trainer = AtomsTrainer(settings(cells(), tmp_path, 4.5, optim__epochs=1))
    trainer.train()
    atoms = Atoms("Cu4", cells(1)[0].positions)
    atoms.calc = AmpTorch(trainer, extrapolation="ignore")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.get_forces()
    atoms.positions *= distance / np.min(atoms.get_all_distances()[np.triu_indices(4, 1)])
    with pytest.warns(UserWarning, match=r"within the cutoff of 4\.5 Å, the nearest is at"):
        atoms.get_forces()


# --- structures in nm ---


def test_structures_in_nm_are_refused(tmp_path):
    for changes in ({}, {"dataset__store": str(tmp_path / "s")}, {"model__get_forces": False}):
        options = settings(cells(scale=0.1), tmp_path, 4.5, **changes)
        with pytest.raises(ValueError, match=r"typical distance .* is 0\.2\d Å.*not nm"):
            AtomsTrainer(options).train()
    with pytest.warns(UserWarning, match="not nm"):
        check_distances(Frames.from_atoms(cells(scale=0.1)), training=False)


def test_what_chemistry_has_is_taken():
    frames = [molecule("H2"), molecule("H2O"), molecule("CH4"), *iron_water(2), Atoms("H")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_distances(Frames.from_atoms(frames))
    # One frame among others whose atoms have been pushed together.
    squeezed = Atoms("H2", [[0, 0, 0], [0, 0, 0.3]])
    check_distances(Frames.from_atoms([squeezed, *frames]))


def test_many_neighbours_are_warned_of():
    frames = Frames.from_atoms([bulk("Cu", "fcc", a=3.7)])
    with pytest.warns(UserWarning, match=r"neighbours within the cutoff of 30 Å.*in Å"):
        check_cutoff(frames, 30.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_cutoff(frames, 12.0)
    assert np.isfinite(neighbor_list(frames, 12.0).vectors).all()
