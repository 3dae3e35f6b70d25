"""How far atoms are from those of the training, and what is done about it."""

import logging
import pickle
import warnings

import numpy as np
import pytest
import torch
from ase.io import read, write

import amptorch
from amptorch.cli import main
from amptorch.data.domain import REACH, Domain, smallest_distances
from amptorch.extrapolation import Extrapolation, ExtrapolationError, Watch
from amptorch.frames import Frames
from tests.small_frames import FP_PARAMS, config, mixed_frames


def trained(frames, tmp_path, **changes):
    settings = config(frames, tmp_path, optim__epochs=1, **changes)
    return amptorch.fit(amptorch.prepare(settings))


@pytest.fixture(scope="module")
def frames():
    return mixed_frames(24)


@pytest.fixture(scope="module")
def potential(frames, tmp_path_factory):
    return trained(frames, tmp_path_factory.mktemp("run"))


def squeezed(atoms, factor=0.8):
    copy = atoms.copy()
    copy.set_cell(factor * copy.cell.array, scale_atoms=False)
    copy.positions *= factor
    return copy


def test_the_distance_is_that_of_mahalanobis_and_one_where_99_percent_are_nearer():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4000, 5)) @ rng.normal(size=(5, 5)) + 3
    numbers = np.full(len(values), 29)
    domain = Domain.fitted(
        lambda: [(values[:1000], numbers[:1000]), (values[1000:], numbers[1000:])]
    )
    inverse = np.linalg.inv(np.cov(values.T) + 1e-3 * np.diag(values.var(axis=0)))
    from_mean = values - values.mean(axis=0)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", from_mean, inverse, from_mean))
    found = domain.measure(values, numbers)
    ratio = found.distance / expected
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    assert np.mean(found.distance < 1) == pytest.approx(0.99, abs=0.002)
    assert not found.outside.any()


def test_what_is_outside_of_a_range_and_by_how_much():
    values = np.array([[0.0, 1.0, 5.0], [2.0, 1.5, 5.0]])
    domain = Domain.fitted(lambda: [(values, np.array([8, 8]))])
    asked = np.array([[1.0, 1.2, 5.0], [2.5, 0.5, 5.0], [0.0, 0.0, 0.0]])
    found = domain.measure(asked, np.array([8, 8, 1]))
    np.testing.assert_array_equal(found.outside, [0, 2, 0])
    np.testing.assert_allclose(found.excess, [0, 1.0, 0])
    assert found.function[1] == 1
    # An element without training atoms is infinitely far.
    assert np.isfinite(found.distance[:2]).all()
    assert np.isinf(found.distance[2])


def test_training_atoms_that_are_all_alike():
    values = np.tile([1.0, 2.0], (3, 1))
    domain = Domain.fitted(lambda: [(values, np.full(3, 29))])
    found = domain.measure(np.array([[1.0, 2.0], [1.1, 2.0]]), np.full(2, 29))
    assert found.distance[0] == 0
    assert found.distance[1] > 100


def test_the_smallest_distance_of_each_pair(frames):
    some = Frames.from_atoms(frames)
    found = smallest_distances([some], [8, 29])
    lengths = dict.fromkeys(found, REACH)
    for atoms in frames:
        for i, j, d in zip(*_pairs(atoms, REACH), strict=True):
            pair = tuple(sorted((int(atoms.numbers[i]), int(atoms.numbers[j]))))
            lengths[pair] = min(lengths[pair], d)
    assert found == pytest.approx(lengths)
    assert found[8, 8] < 1.5


def _pairs(atoms, cutoff):
    from ase.neighborlist import neighbor_list

    return neighbor_list("ijd", atoms, cutoff)


def test_predict_and_calculator_agree(potential, frames):
    asked = [frames[0], squeezed(frames[0])]
    found = potential.predict(asked, extrapolation=True)
    assert set(found) == {
        *("energy", "forces", "extrapolation", "functions_outside", "range_excess")
    }
    assert found["extrapolation"][0].max() < 2 < found["extrapolation"][1].min()
    assert found["functions_outside"][1].max() > 0
    atoms = asked[1].copy()
    atoms.calc = potential.get_calc()
    said = r"4 of 4 atoms are far from the training \(limit 2\).*G4 with Cu-Cu \(eta"
    with pytest.warns(UserWarning, match=said):
        atoms.get_forces()
    np.testing.assert_allclose(atoms.calc.extrapolation.distance, found["extrapolation"][1])
    np.testing.assert_array_equal(atoms.calc.extrapolation.outside, found["functions_outside"][1])


def test_with_principal_components(frames, tmp_path):
    pca = {"num_pc": 3, "elementwise": False}
    potential = trained(frames, tmp_path, dataset__pca=pca)
    found = potential.predict([frames[0], squeezed(frames[0])], extrapolation=True)
    assert found["extrapolation"][0].max() < 2 < found["extrapolation"][1].min()


def test_raise_and_ignore(potential, frames):
    atoms = squeezed(frames[0])
    atoms.calc = potential.get_calc(extrapolation="raise")
    with pytest.raises(ExtrapolationError, match="4 of 4 atoms"):
        atoms.get_potential_energy()
    atoms.calc = potential.get_calc(extrapolation="raise", extrapolation_margin=1e6)
    assert np.isfinite(atoms.get_potential_energy())
    atoms.calc = potential.get_calc(extrapolation="ignore")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.get_potential_energy()
    assert atoms.calc.extrapolation is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extrapolation": "stop"}, "extrapolation must be 'warn' or 'raise' or 'ignore'"),
        ({"extrapolation_margin": -1}, "extrapolation_margin must be"),
    ],
)
def test_options_of_no_meaning(potential, options, message):
    with pytest.raises(ValueError, match=message):
        potential.get_calc(**options)


def test_a_warning_is_not_repeated_until_it_has_grown():
    def found(*distances):
        distance = np.array(distances)
        none = np.zeros(len(distance))
        return Extrapolation(distance, none.astype(int), none, "")

    watch = Watch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        counts = []
        for step in [(1.9, 0), (2.5, 0), (3.0, 0), (4.0, 0), (5.1, 0), (3.0, 3.0), (9.0, 0)]:
            watch(found(*step))
            counts.append(len(caught))
    assert counts == [0, 1, 1, 1, 2, 3, 3]
    assert (watch.steps, watch.lost) == (7, 6)
    assert "in 5 of 6 steps so far" in str(caught[-1].message)


def test_saved_loaded_and_pickled(potential, frames, tmp_path):
    potential.save(tmp_path)
    asked = [squeezed(frames[1])]
    expected = potential.predict(asked, extrapolation=True)
    for other in (amptorch.load(tmp_path), pickle.loads(pickle.dumps(potential))):
        found = other.predict(asked, extrapolation=True)
        for name in ("extrapolation", "functions_outside", "range_excess"):
            np.testing.assert_array_equal(found[name][0], expected[name][0])
        assert other.domain.pairs == potential.domain.pairs
    (tmp_path / "domain.pt").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"domain\.pt is damaged"):
        amptorch.load(tmp_path)


def test_a_checkpoint_that_knows_ranges_alone(potential, frames, tmp_path, caplog):
    potential.save(tmp_path)
    (tmp_path / "domain.pt").unlink()
    old = amptorch.load(tmp_path)
    asked = [frames[0], squeezed(frames[0])]
    found = old.predict(asked, extrapolation=True)
    expected = potential.predict(asked, extrapolation=True)
    assert np.isnan(found["extrapolation"][1]).all()
    np.testing.assert_allclose(found["range_excess"][1], expected["range_excess"][1])
    atoms = asked[1].copy()
    atoms.calc = old.get_calc(extrapolation_margin=0.0)
    with pytest.warns(UserWarning, match=r"far from the training \(limit 1\)"):
        atoms.get_forces()
    # Nor ranges: said once.
    old.domain = None
    atoms.calc = old.get_calc()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            atoms.rattle(0.01)
            atoms.get_forces()
    assert caplog.text.count("does not know where its training atoms were") == 1
    with pytest.warns(UserWarning, match="does not know where"):
        assert "extrapolation" not in old.predict(asked, extrapolation=True)


def test_training_that_goes_on_has_the_domain_of_its_own_frames(potential, frames, tmp_path):
    more = [*frames, *map(labelled_again, [squeezed(frames[0])] * 3)]
    settings = config(more, tmp_path, optim__epochs=1)
    data = amptorch.prepare(settings, trained=potential)
    again = amptorch.fit(data, start=potential)
    asked = [squeezed(frames[0])]
    before = potential.predict(asked, extrapolation=True)["extrapolation"][0].max()
    after = again.predict(asked, extrapolation=True)["extrapolation"][0].max()
    assert after < 0.5 * before
    assert potential.predict(asked, extrapolation=True)["extrapolation"][0].max() == before
    # The parameters mean nothing with another scaling.
    for number in again.feature_scaler.unique:
        for name, part in again.feature_scaler.scales[number].items():
            assert torch.equal(part, potential.feature_scaler.scales[number][name])


def labelled_again(atoms):
    from tests.small_frames import labelled

    return labelled(atoms)


def test_the_same_from_a_store(potential, frames, tmp_path):
    stored = trained(frames, tmp_path, dataset__store=str(tmp_path / "store"))
    assert stored.domain.pairs == pytest.approx(potential.domain.pairs)
    asked = [squeezed(frames[1])]
    np.testing.assert_allclose(
        stored.predict(asked, extrapolation=True)["extrapolation"][0],
        potential.predict(asked, extrapolation=True)["extrapolation"][0],
        rtol=1e-8,
    )


def test_an_ensemble_says_what_the_member_that_knows_least_says(potential, frames, tmp_path):
    other = trained(frames[:12], tmp_path, dataset__fp_params=FP_PARAMS)
    ensemble = amptorch.Ensemble([potential, other])
    asked = [squeezed(frames[0], 0.9)]
    parts = [m.predict(asked, extrapolation=True)["extrapolation"][0] for m in (potential, other)]
    found = ensemble.predict(asked, extrapolation=True)
    np.testing.assert_allclose(found["extrapolation"][0], np.max(parts, axis=0))
    atoms = asked[0].copy()
    atoms.calc = ensemble.get_calc(extrapolation_margin=100)
    atoms.get_forces()
    spread = np.linalg.norm(atoms.calc.results["forces_uncertainty"], axis=1)
    np.testing.assert_array_equal(atoms.calc.extrapolation.spread, spread)


def test_the_command_writes_columns(potential, frames, tmp_path, capsys):
    potential.save(tmp_path / "model")
    write(tmp_path / "asked.xyz", [frames[0].copy(), squeezed(frames[0])])
    with pytest.raises(SystemExit) as exit_info:
        main(["predict", str(tmp_path / "model"), f"{tmp_path}/asked.xyz", f"{tmp_path}/out.xyz"])
    assert not exit_info.value.code
    assert "1 of 2 frames have atoms far from those of the training" in capsys.readouterr().out
    found = read(tmp_path / "out.xyz", ":")
    assert found[0].arrays["extrapolation"].max() < 2 < found[1].arrays["extrapolation"].min()
    assert found[1].arrays["functions_outside"].dtype.kind == "i"
