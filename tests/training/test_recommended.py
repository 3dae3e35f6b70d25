"""The recommended defaults, and what they choose for frames of any kind."""

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

import amptorch
from amptorch.config import Config
from amptorch.descriptor.Gaussian.auto import MOST_FUNCTIONS, angular_kinds, functions_of
from amptorch.frames import Frames, elements_of
from amptorch.recommended import completed, recommended
from amptorch.training.initial import initial_config

QUIET = {"cmd": {"verbose": False}}


def labelled(atoms, energy=None, forces=None):
    """The frame with EMT's energy and forces, or these."""
    atoms = atoms.copy()
    if energy is None:
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def copper(n, seed=0):
    """n frames of copper with 1 to 8 atoms, shaken."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n):
        atoms = bulk("Cu", cubic=True) * (1 + k % 2, 1, 1)
        if k % 5 == 4:
            atoms = bulk("Cu")
        atoms.set_cell(atoms.cell * rng.uniform(0.97, 1.03), scale_atoms=True)
        atoms.rattle(0.08, seed=seed * 1000 + k)
        frames.append(labelled(atoms))
    return frames


# --- the configuration ---


def test_without_the_word_a_configuration_means_what_it_meant():
    assert completed({"optim": {"lr": 0.5}}) == {"optim": {"lr": 0.5}}
    assert Config.from_dict({}).optim.batch_size == 32
    assert Config.from_dict({"defaults": "v1.0"}).dataset.target_scaling is True
    with pytest.raises(ValueError, match="size, which needs defaults: recommended"):
        completed({"size": "small"})
    with pytest.raises(ValueError, match="defaults must be"):
        Config.from_dict({"defaults": "best"})


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_every_recommended_value_is_taken_and_can_be_set(size):
    config = Config.from_dict({"defaults": "recommended", "size": size})
    for section, values in recommended(size).items():
        for key in values:
            assert hasattr(getattr(config, section), key)
    changed = Config.from_dict(
        {"defaults": "recommended", "size": size, "optim": {"force_per_mev": 0.5}, "dataset": None}
    )
    assert changed.optim.force_per_mev == 0.5
    assert changed.dataset == config.dataset


@pytest.mark.parametrize(
    ("given", "gone"),
    [
        ({"optim": {"force_coefficient": 3.0}}, ("optim", "force_per_mev")),
        ({"optim": {"epochs": 3}}, ("optim", "total_seconds")),
        ({"model": {"num_layers": 1, "num_nodes": 4}}, ("model", "hidden_layers")),
        ({"dataset": {"val_data": "v.xyz"}}, ("dataset", "val_split")),
    ],
)
def test_what_a_given_value_replaces_stands_aside(given, gone):
    section, key = gone
    assert key not in completed({"defaults": "recommended", **given})[section]
    Config.from_dict({"defaults": "recommended", **given})


def test_the_configuration_written_out_is_the_one_that_would_be_used(tmp_path):
    frames = copper(12)
    text = initial_config("frames.xyz", frames, "small", 60.0, {"energy_key": "E"})
    assert len(text.splitlines()) < 50
    config = yaml.safe_load(text)
    assert config["dataset"]["raw_data"] == "frames.xyz"
    assert config["dataset"]["fp_params"] == {"recipe": "auto", "size": "small"}
    written, meant = (
        Config.from_dict(config),
        Config.from_dict({"defaults": "recommended", "size": "small"}),
    )
    assert written.model == meant.model
    assert written.optim.batch_size == 8
    assert written.optim.total_seconds == 60.0


def test_a_recommended_value_that_is_given_replaces_nothing():
    given = {"optim": {"optimizer": "ekf", "energy_per_atom": True}}
    assert completed({"defaults": "recommended", **given}) == recommended()


# --- functions ---


@pytest.mark.slow
def test_few_elements_have_functions_of_pairs_and_many_have_weighted_ones():
    frames = Frames.from_atoms(copper(6))
    params = functions_of({"recipe": "auto"}, frames, ["Cu"])
    assert {entry["type"] for entry in params["Cu"]} == {"G2", "G4", "G5"}

    rng = np.random.default_rng(0)
    symbols = [
        "H",
        "C",
        "N",
        "O",
        "F",
        "Al",
        "Si",
        "P",
        "S",
        "Cl",
        "Fe",
        "Cu",
        "Pd",
        "Ag",
        "Pt",
        "Au",
    ]
    alloys = []
    for _ in range(20):
        atoms = bulk("Cu", cubic=True) * (2, 2, 2)
        atoms.symbols = rng.choice(symbols, len(atoms))
        alloys.append(atoms)
    alloys = Frames.from_atoms(alloys)
    params = functions_of({"recipe": "auto"}, alloys, elements_of(alloys))
    kinds = {entry["type"] for entry in params["Fe"]}
    assert kinds <= {"G2", "G2W", "G4W", "G5W"}
    assert "G4W" in kinds
    assert max(len(params[symbol]) for symbol in symbols) <= MOST_FUNCTIONS


@pytest.mark.parametrize("size", ["small", "medium", "large"])
@pytest.mark.parametrize("n_elements", [1, 2, 3, 4, 8])
def test_what_is_compiled_is_what_a_recipe_takes(size, n_elements):
    symbols = ["Cu", "Al", "Ag", "Au", "Pd", "Pt", "Ni", "Pb"][:n_elements]
    alloys = copper(6)
    for number, atoms in enumerate(alloys):
        atoms.symbols = [symbols[(k + number) % n_elements] for k in range(len(atoms))]
    frames = Frames.from_atoms(alloys)
    params = functions_of({"recipe": "auto", "size": size}, frames, elements_of(frames))
    entries = [entry for symbol in symbols for entry in params[symbol]]
    kinds = {entry["type"].rstrip("W") for entry in entries} - {"G2"}
    assert set(angular_kinds({"recipe": "auto", "size": size}, n_elements)) == kinds


def test_a_recipe_can_be_changed_and_says_what_it_does_not_know():
    frames = Frames.from_atoms(copper(6))
    params = functions_of(
        {
            "recipe": "gastegger-shifted",
            "n_radial": 5,
            "cutoff": 4.5,
            "angular": "G5",
            "zetas": [1, 2],
        },
        frames,
        ["Cu"],
    )
    assert params["cutoff"] == 4.5
    assert {entry["type"] for entry in params["Cu"]} == {"G2", "G5"}
    assert {entry["zeta"] for entry in params["Cu"] if entry["type"] == "G5"} == {1.0, 2.0}
    with pytest.raises(ValueError, match=r"fp_params has no key 'radials'"):
        functions_of({"recipe": "auto", "radials": 3}, frames, ["Cu"])
    with pytest.raises(ValueError, match=r"fp_params.size must be"):
        functions_of({"recipe": "auto", "size": "huge"}, frames, ["Cu"])


def test_functions_need_a_distance():
    lone = labelled(Atoms("Cu"), 0.0, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="every frame is a single atom"):
        amptorch.prepare({"defaults": "recommended", **QUIET}, [lone, lone])


# --- training ---


@pytest.mark.slow
def test_frames_of_any_size_are_learnt_and_energies_grow_with_the_atoms(tmp_path):
    frames = copper(40)
    potential = amptorch.train(
        frames,
        seconds=120,
        size="small",
        folder=tmp_path,
        config={**QUIET, "optim": {"epochs": 60}},
    )
    held_out = copper(10, seed=1)
    prediction = potential.predict(held_out)
    errors = [
        (energy - atoms.get_potential_energy()) / len(atoms)
        for energy, atoms in zip(prediction["energy"], held_out, strict=True)
    ]
    assert np.sqrt(np.mean(np.square(errors))) < 0.02
    small, large = held_out[0], held_out[0] * (2, 1, 1)
    one, two = potential.predict([small, large])["energy"]
    assert two == pytest.approx(2 * one, rel=1e-10)
    again = amptorch.load(tmp_path).predict(held_out)
    assert again["energy"] == pytest.approx(prediction["energy"], rel=1e-12)


@pytest.mark.slow
def test_isolated_atoms_give_the_reference_energies(tmp_path):
    rng = np.random.default_rng(0)
    alone = {"H": -13.0, "O": -430.0}
    water = []
    for _ in range(12):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        bent = atoms.get_distance(0, 1) + atoms.get_distance(0, 2) - 1.94
        water.append(labelled(atoms, -456.0 - 10.0 + bent**2, np.zeros((3, 3))))
    single = [labelled(Atoms(s), e, np.zeros((1, 3))) for s, e in alone.items()]
    for settings, frames in (
        ({}, single + water),
        ({"dataset": {"isolated_atoms": single}}, water),
    ):
        config = {"defaults": "recommended", "size": "small", **settings, **QUIET}
        data = amptorch.prepare({**config, "optim": {"epochs": 40}}, frames)
        references = data.target_scaler.atomic.reference_energies
        assert references == {1: -13.0, 8: -430.0}
        assert float(data.target_scaler.target_mean) == 0
        assert len(data.dataset) == 14
        potential = amptorch.fit(data)
        predicted = potential.predict(single)["energy"]
        assert predicted == pytest.approx(list(alone.values()), abs=0.5)
        errors = np.subtract(
            potential.predict(water)["energy"], [atoms.get_potential_energy() for atoms in water]
        )
        assert np.abs(errors).max() < 0.5


def test_isolated_atoms_take_no_frame_of_the_training_to_validate_on():
    frames = copper(30)
    single = labelled(Atoms("Cu"), -3.0, np.zeros((1, 3)))
    given = {"val_data": frames[20:], "isolated_atoms": [single, single]}
    config = {"defaults": "recommended", "size": "small", "dataset": given, **QUIET}
    data = amptorch.prepare(config, frames[:20])
    from amptorch.training.fit import make_split_of

    trained, validated = make_split_of(data.settings)(data.dataset)
    assert (len(trained), list(validated.indices)) == (22, list(range(22, 32)))


@pytest.mark.slow
def test_frames_given_to_validate_on_do_so_and_nothing_else_does():
    frames, kept = copper(20), copper(5, seed=3)
    config = {"defaults": "recommended", "size": "small", "dataset": {"val_data": kept}, **QUIET}
    data = amptorch.prepare({**config, "optim": {"epochs": 2}}, frames)
    assert len(data.dataset) == 25
    from amptorch.training.fit import make_split_of

    trained, validated = make_split_of(data.settings)(data.dataset)
    assert list(validated.indices) == list(range(20, 25))
    assert len(trained) == 20
    potential = amptorch.fit(data)
    assert "val_forces_mae" in potential.history[-1]
    with pytest.raises(ValueError, match=r"val_data and dataset.val_split"):
        Config.from_dict({**config, "dataset": {"val_data": kept, "val_split": 0.1}})


@pytest.mark.slow
def test_a_recipe_places_the_same_functions_for_a_store(tmp_path):
    frames = copper(12)
    config = {"defaults": "recommended", "size": "small", "optim": {"epochs": 1}, **QUIET}
    stored = {**config, "dataset": {"store": str(tmp_path / "store")}}
    one = amptorch.prepare(config, frames).descriptor.descriptor_setup_hash
    assert amptorch.prepare(stored, frames).descriptor.descriptor_setup_hash == one
    # Filled now: nothing is computed again, and the frames need not be given.
    assert amptorch.prepare(stored).descriptor.descriptor_setup_hash == one
    with pytest.raises(ValueError, match=r"val_data cannot be used with dataset.store"):
        amptorch.prepare(
            {**config, "dataset": {**stored["dataset"], "val_data": frames[:2]}}, frames
        )


@pytest.mark.slow
def test_the_time_is_that_of_everything():
    frames = copper(20)
    potential = amptorch.train(frames, seconds=6, size="small", config=QUIET)
    spent = sum(epoch["dur"] for epoch in potential.history)
    assert spent < 6.5
    assert len(potential.history) >= 1


@pytest.mark.slow
def test_frames_without_any_forces_are_trained_on():
    frames = [labelled(atoms, atoms.get_potential_energy()) for atoms in copper(20)]
    for atoms in frames:
        atoms.calc.results.pop("forces", None)
    potential = amptorch.train(
        frames,
        size="small",
        config={**QUIET, "optim": {"epochs": 20}, "dataset": {"val_split": 0.2}},
    )
    energies = potential.predict(frames)["energy"]
    expected = [atoms.get_potential_energy() for atoms in frames]
    assert np.abs(np.subtract(energies, expected)).max() < 0.5
