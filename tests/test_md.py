"""The guard of dynamics and optimisers, and the choice of frames that are worth labelling."""

import copy
import logging
import warnings

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.npt import NPT
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS

import amptorch
from amptorch.cli import main
from amptorch.md import ALIKE, Guard, draw_momenta
from amptorch.novelty import places_of, select
from tests.small_frames import config, labelled


def copper(n_frames, scale=0.05, stretch=1.0, seed=0):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n_frames):
        atoms = bulk("Cu", "fcc", a=3.6 * stretch, cubic=True) * (2, 1, 1)
        atoms.positions += rng.normal(scale=scale, size=atoms.positions.shape)
        frames.append(labelled(atoms))
    return frames


@pytest.fixture(scope="module")
def potential(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    settings = config(copper(30), run, optim__epochs=10, dataset__atomic_correction=True)
    return amptorch.fit(amptorch.prepare(settings))


@pytest.fixture(autouse=True)
def no_warnings_of_the_calculator():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*farthest from the training atoms")
        yield


def dynamics(potential, temperature=3000.0, **options):
    atoms = copper(1, seed=1)[0].copy()
    atoms.calc = potential.get_calc(**options)
    draw_momenta(atoms, temperature, np.random.default_rng(0))
    return VelocityVerlet(atoms, 2 * units.fs)


@pytest.mark.slow
def test_it_stops_and_writes_the_frame(potential, tmp_path):
    moving = dynamics(potential)
    guard = Guard(moving, tmp_path / "lost.xyz")
    moving.attach(guard, interval=1)
    moving.run(500)
    assert guard.stopped
    assert 1 <= moving.nsteps < 500
    assert (guard.lost, guard.silent, guard.looks) == (1, 0, moving.nsteps + 1)
    (frame,) = read(tmp_path / "lost.xyz", ":")
    np.testing.assert_allclose(frame.positions, moving.atoms.positions, atol=1e-7)
    assert frame.info["step"] == moving.nsteps
    assert frame.info["extrapolation"] > 2
    assert "farthest from the training atoms" in frame.info["reason"]
    assert frame.calc is None or "energy" not in frame.calc.results
    # It can be run again.
    moving.run(3)
    assert guard.lost == 2


def test_it_is_silent_where_the_potential_has_learned(potential):
    moving = dynamics(potential, temperature=1.0)
    guard = Guard(moving)
    moving.attach(guard, interval=2)
    moving.run(4)
    assert (guard.looks, guard.silent, guard.lost) == (3, 3, 0)
    assert not guard.stopped
    assert not guard.frames


@pytest.mark.slow
def test_it_goes_on_and_keeps_frames_that_differ(potential, tmp_path):
    moving = dynamics(potential)
    guard = Guard(moving, tmp_path / "lost.traj", action="go on", most=3)
    moving.attach(guard, interval=1)
    moving.run(60)
    assert moving.nsteps == 60
    assert guard.lost > len(guard.frames)
    assert 1 <= len(guard.frames) <= 3
    assert len(read(tmp_path / "lost.traj", ":")) == len(guard.frames)
    places = places_of(potential, guard.frames)
    for k in range(1, len(places)):
        assert places[k].novelty(places[:k]) >= ALIKE


def test_it_goes_back_with_other_velocities(potential):
    moving = dynamics(potential)
    guard = Guard(moving, action="back", returns=2)
    seen = []

    def look():
        guard()
        seen.append((moving.atoms.copy(), guard.lost))

    moving.attach(look, interval=1)
    moving.run(200)
    # After two returns it stops.
    assert guard.stopped
    assert guard.returned == 2
    places = [k for k in range(1, len(seen)) if seen[k][1] > seen[k - 1][1]]
    assert len(places) == 3
    before, after = seen[places[0] - 1][0], seen[places[0]][0]
    np.testing.assert_array_equal(after.positions, before.positions)
    assert after.get_kinetic_energy() == pytest.approx(before.get_kinetic_energy())
    assert np.abs(after.get_momenta() - before.get_momenta()).max() > 1e-3


@pytest.mark.parametrize("action", ["stop", "back"])
def test_it_stops_a_relaxation_of_a_cell(potential, action):
    atoms = copper(1, stretch=1.25)[0].copy()
    atoms.calc = potential.get_calc()
    relaxation = BFGS(FrechetCellFilter(atoms), logfile=None)
    guard = Guard(relaxation, action=action)
    relaxation.attach(guard)
    relaxation.run(fmax=1e-6, steps=20)
    assert guard.stopped
    assert relaxation.nsteps == 0


def test_atoms_nearer_than_any_in_the_training_are_reported(potential, caplog):
    moving = dynamics(potential, temperature=1.0)
    smallest = potential.domain.pairs[29, 29]
    atoms = moving.atoms
    vector = atoms.get_distance(0, 1, mic=True, vector=True)
    direction = vector / np.linalg.norm(vector)
    guard = Guard(moving, margin=1e6, action="go on")
    with caplog.at_level(logging.WARNING):
        for share, reports, lost in [(0.95, 1, 0), (0.94, 1, 0), (0.87, 1, 1), (0.7, 2, 2)]:
            atoms.positions[1] = atoms.positions[0] + share * smallest * direction
            guard()
            assert caplog.text.count("nearer than any in the training") == reports
            assert guard.lost == lost
    assert f"Cu-Cu at {0.95 * smallest:.3f} Å" in caplog.text
    assert "Cu-Cu" in guard.frames[0].info["reason"]


@pytest.mark.parametrize("known", [True, False])
def test_the_spread_of_an_ensemble(potential, known):
    one, other = copy.deepcopy(potential), copy.deepcopy(potential)
    other.std *= 1.2
    ensemble = amptorch.Ensemble([one, other])
    if not known:
        for member in ensemble.members:
            member.domain = None
    atoms = copper(1, seed=1)[0].copy()
    atoms.calc = ensemble.get_calc()
    moving = VelocityVerlet(atoms, units.fs)
    quiet, strict = (Guard(moving, spread=limit, action="go on") for limit in (1e6, 1e-9))
    quiet()
    strict()
    assert (quiet.lost, strict.lost) == (0, 1)
    assert "eV/Å" in strict.frames[0].info["reason"]


def test_a_spread_that_the_calculator_does_not_give(potential):
    with pytest.raises(ValueError, match=r"spread is 0\.1, but the calculator gives no spread"):
        Guard(dynamics(potential), spread=0.1)
    moving = dynamics(potential)
    moving.atoms.calc = amptorch.Ensemble([potential, potential]).get_calc(uncertainty=False)
    with pytest.raises(ValueError, match="take that of an ensemble"):
        Guard(moving, spread=0.1)


def test_a_model_that_does_not_know_its_training_atoms(potential, tmp_path, caplog):
    potential.save(tmp_path)
    old = amptorch.load(tmp_path)
    old.domain = None
    moving = dynamics(old)
    with caplog.at_level(logging.WARNING):
        guard = Guard(moving)
        moving.attach(guard, interval=1)
        moving.run(2)
    assert guard.silent == 3
    assert caplog.text.count("does not know where its training atoms were") <= 2
    with pytest.raises(ValueError, match="does not know where its training atoms were"):
        select(old, copper(2), 1)


@pytest.mark.parametrize("kind", ["ignore", "raise"])
def test_calculators_that_a_guard_cannot_use(potential, kind):
    with pytest.raises(ValueError, match=f"'{kind}'; a guard needs 'warn'"):
        Guard(dynamics(potential, extrapolation=kind))
    moving = dynamics(potential)
    moving.atoms.calc = EMT()
    with pytest.raises(ValueError, match="AmpTorch calculator"):
        Guard(moving)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": "pause"}, "action must be 'stop' or 'go on' or 'back'"),
        ({"margin": -1}, "margin must be"),
        ({"most": 0}, "most must be"),
    ],
)
def test_options_of_no_meaning(potential, options, message):
    with pytest.raises(ValueError, match=message):
        Guard(dynamics(potential), **options)


def test_dynamics_with_positions_of_their_own_are_not_taken_back(potential):
    atoms = dynamics(potential).atoms
    moving = NPT(atoms, units.fs, temperature_K=300, externalstress=0.0, ttime=20.0, pfactor=None)
    with pytest.raises(ValueError, match="NPT keeps positions of its own and cannot be taken back"):
        Guard(moving, action="back")
    Guard(moving, action="stop")
    chains = pytest.importorskip("ase.md.nose_hoover_chain")
    moving = chains.NoseHooverChainNVT(atoms, units.fs, temperature_K=300, tdamp=20.0)
    with pytest.raises(ValueError, match="NoseHooverChainNVT keeps positions of its own"):
        Guard(moving, action="back")


def test_a_file_that_could_not_be_written_is_refused_before_the_run(potential, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder '.*missing' for 'lost.xyz'"):
        Guard(dynamics(potential), tmp_path / "missing" / "lost.xyz")
    with pytest.raises(ValueError, match=r"'lost.db' must end in .traj or .xyz"):
        Guard(dynamics(potential), "lost.db")


def test_a_band_of_images_has_no_guard(potential):
    images = [dynamics(potential).atoms for _ in range(3)]
    with pytest.raises(ValueError, match="AmpTorch calculator, got None"):
        Guard(BFGS(NEB(images, method="improvedtangent"), logfile=None))


def pool():
    near = copper(2, seed=3)
    far = [copper(1, stretch=factor, seed=4)[0] for factor in (0.85, 0.9)]
    return [near[0], far[1], far[0], far[0].copy(), near[1]]


def test_select_takes_what_is_far_and_no_two_alike(potential):
    images = pool()
    indices, novelties = select(potential, images, 4)
    assert indices[:2].tolist() == [2, 1]
    assert 3 not in indices
    assert sorted(indices.tolist()) == [0, 1, 2, 4]
    assert (np.diff(novelties) <= 0).all()
    # A copy of a frame that was chosen adds nothing.
    assert len(select(potential, images, 5)[0]) == 4
    distances = potential.predict([images[2]], extrapolation=True)["extrapolation"][0]
    assert novelties[0] == pytest.approx(distances.max())


def test_the_command_select(potential, tmp_path, capsys):
    potential.save(tmp_path / "model")
    images = pool()
    write(tmp_path / "pool.traj", images)
    command = ["select", str(tmp_path / "model"), f"{tmp_path}/pool.traj", "--number", "2"]

    def run(*more):
        with pytest.raises(SystemExit) as exit_info:
            main([*command, *more])
        return exit_info.value.code or 0

    assert run("--out", f"{tmp_path}/chosen.xyz") == 0
    assert "2 of 5 frames" in capsys.readouterr().out
    found = read(tmp_path / "chosen.xyz", ":")
    assert [atoms.info["pool_index"] for atoms in found] == [2, 1]
    assert found[0].get_potential_energy() == pytest.approx(images[2].get_potential_energy())
    assert run("--out", f"{tmp_path}/chosen.xyz") == 1
    assert "--overwrite" in capsys.readouterr().err
    images[1].symbols[0] = "Au"
    images[2].symbols[1] = "Pt"
    write(tmp_path / "pool.traj", images)
    assert run("--out", f"{tmp_path}/other.xyz") == 1
    assert "Au, Pt, which the model does not know (it knows Cu)" in capsys.readouterr().err
