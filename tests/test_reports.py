import sys
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from amptorch.frames import Frames
from amptorch.reports import (
    ErrorRow,
    Stages,
    aligned,
    duration,
    error_table,
    group_table,
    parity_plot,
    prediction_errors,
    unfair_groups,
    useless,
    worst_frames,
)


def labelled(symbols, energy):
    atoms = Atoms(symbols, positions=np.arange(3.0 * len(symbols)).reshape(-1, 3))
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((len(atoms), 3)))
    return atoms


@pytest.fixture
def frames():
    """Frames of two and four atoms."""
    return Frames.from_atoms(
        [labelled(["O", "H"], 1.0), labelled(["H"] * 4, 2.0)], energies=True, forces=True
    )


@pytest.fixture
def prediction():
    """Off by 20 and -40 meV/atom; forces off by 0.5 on oxygen and 0.1 on hydrogen."""
    oxygen, hydrogen = np.full((1, 3), 0.5), np.full((1, 3), -0.1)
    return {
        "energy": [1.04, 1.84],
        "forces": [np.concatenate([oxygen, hydrogen]), np.repeat(hydrogen, 4, axis=0)],
    }


def test_errors_have_their_units_and_weights(frames, prediction):
    rows = {row.quantity: row for row in prediction_errors(frames, prediction)}
    assert list(rows) == ["energy", "forces", "forces on H", "forces on O"]
    assert rows["energy"].unit == "meV/atom"
    assert rows["energy"].mae == pytest.approx(30)
    assert rows["energy"].rmse == pytest.approx(np.sqrt((20**2 + 40**2) / 2))
    assert rows["energy"].count == 2
    assert rows["forces on O"].rmse == pytest.approx(0.5)
    assert rows["forces on H"].mae == pytest.approx(0.1)
    assert rows["forces"].unit == "eV/Å"
    assert rows["forces"].mae == pytest.approx((0.5 + 5 * 0.1) / 6)
    assert rows["forces"].rmse == pytest.approx(np.sqrt((0.25 + 5 * 0.01) / 6))


def test_energy_alone_has_no_rows_for_forces(frames, prediction):
    prediction["forces"] = [np.array([]), np.array([])]
    assert [row.quantity for row in prediction_errors(frames, prediction)] == ["energy"]


def test_a_prediction_for_other_frames_is_refused(frames, prediction):
    prediction["energy"].append(0.0)
    with pytest.raises(ValueError, match="3 predictions for 2 frames"):
        prediction_errors(frames, prediction)


def test_table_has_a_pair_of_columns_for_each_set():
    training = [ErrorRow("energy", "meV/atom", 12.345678, 7.0, 300)]
    held_out = [ErrorRow("energy", "meV/atom", 23.0, 17.0, 60)]
    lines = error_table({"training": training, "held out": held_out}).splitlines()
    assert lines[0].split() == ["training", "held", "out"]
    assert lines[1].split() == ["RMSE", "MAE", "RMSE", "MAE"]
    assert lines[2].split() == ["energy", "(meV/atom)", "12.35", "7", "23", "17"]
    assert lines[3].split() == ["frames", "300", "60"]


def test_a_set_without_one_of_the_elements_has_empty_cells():
    def rows(*quantities):
        return [ErrorRow(name, "eV/Å", 2.0, 1.0, 10) for name in quantities]

    errors = {
        "training": rows("forces", "forces on Fe", "forces on H"),
        "test": rows("forces", "forces on H"),
        "more": rows("forces", "forces on O"),
    }
    header, _, *lines, _ = error_table(errors).splitlines()
    test, more = header.index("test"), header.index("more")
    found = {}
    for line in lines:
        quantity, unit = line[: line.index(")")].split(" (")
        assert unit == "eV/Å"
        cells = line[line.index(")") + 1 : test], line[test:more], line[more:]
        found[quantity] = [cell.split() for cell in cells]
    there, missing = ["2", "1"], []
    assert found == {
        "forces": [there, there, there],
        "forces on Fe": [there, missing, missing],
        "forces on H": [there, there, missing],
        "forces on O": [missing, missing, there],
    }


@pytest.mark.parametrize(
    ("name", "magic"),
    [("p.pdf", b"%PDF"), ("p.svg", b"<?xml"), ("p.PNG", b"\x89PNG")],
)
@pytest.mark.slow
def test_a_picture_is_what_its_name_says(frames, prediction, tmp_path, name, magic):
    parity_plot(str(tmp_path / name), {"held out": (frames, prediction)})
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes().startswith(magic)


@pytest.mark.parametrize("name", ["p", "p.1", "p.foo"])
def test_a_picture_of_no_known_format(frames, prediction, tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}': its name must end with .png, .pdf or .svg"):
        parity_plot(tmp_path / name, {"held out": (frames, prediction)})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("with_forces", [True, False])
def test_parity_plot_is_a_png_and_needs_no_pyplot(frames, prediction, tmp_path, with_forces):
    if not with_forces:
        prediction["forces"] = [np.array([]), np.array([])]
    pyplot_before = "matplotlib.pyplot" in sys.modules
    parity_plot(tmp_path / "parity.png", {"held out": (frames, prediction)})
    assert (tmp_path / "parity.png").read_bytes().startswith(b"\x89PNG")
    assert ("matplotlib.pyplot" in sys.modules) == pyplot_before


def test_stages_add_up_also_after_an_error(monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 13.0, 20.0, 21.0])
    monkeypatch.setattr("amptorch.reports.time.perf_counter", lambda: next(clock))
    stages = Stages()
    with stages("first"):
        pass
    with pytest.raises(KeyError), stages("second"):
        raise KeyError
    with stages("first"):
        pass
    assert stages.seconds == {"first": 3.0, "second": 3.0}
    assert stages.table().splitlines()[-1].split() == ["total", "6.0"]


def test_columns_and_durations():
    assert aligned([["stage", "s"], ["a", "10"]]) == "stage   s\na      10"
    seconds = (0.42, 25.2, 200, 7560)
    assert [duration(value) for value in seconds] == ["0.42 s", "25 s", "3 min", "2.1 h"]


@pytest.fixture
def images():
    """Ten frames of H2 and four of OH."""
    return [labelled(["H", "H"], 1.0) for _ in range(10)] + [
        labelled(["O", "H"], 1.0) for _ in range(4)
    ]


def predicted(images, energy_errors, force_errors=None):
    """(frames, prediction) with errors in eV/atom of frames, and in eV/Å of (n, 3) forces."""
    frames = Frames.from_atoms(images, energies=True, forces=True)
    forces = np.zeros((frames.n_atoms, 3)) if force_errors is None else force_errors
    energies = frames.energies + np.asarray(energy_errors) * frames.counts
    return frames, {"energy": energies, "forces": np.split(forces, frames.offsets[1:-1])}


def test_groups_are_sorted_by_their_errors(images):
    force_errors = np.where(np.arange(28)[:, None] < 20, 0.1, 0.3) * np.ones(3)
    for key in ("config_type", "group", "mine"):
        for k, atoms in enumerate(images):
            atoms.info = {key: "bulk" if k < 10 else "surface"}
        frames, prediction = predicted(images, [0.002] * 10 + [-0.03] * 4, force_errors)
        header, first, second = group_table(
            images, frames, prediction, key if key == "mine" else None
        ).splitlines()
        assert header.startswith(key)
        assert header.endswith("frames  energy RMSE (meV/atom)  forces RMSE (eV/Å)")
        assert first.split() == ["surface", "4", "30", "0.3"]
        assert second.split() == ["bulk", "10", "2", "0.1"]


def test_without_a_key_frames_are_grouped_by_size_or_composition(images):
    frames, prediction = predicted(images, [0.001] * 10 + [0.002] * 4)
    names = [line.split()[0] for line in group_table(images, frames, prediction).splitlines()]
    assert names == ["composition", "HO", "H2"]
    assert group_table(images[:10], *predicted(images[:10], [0.001] * 10)) == ""
    sizes = [labelled(["H"] * n, 1.0) for n in range(2, 14)]
    table = group_table(sizes, *predicted(sizes, np.arange(12) / 1000)).splitlines()
    assert [line.split()[:2] for line in table] == [
        ["atoms", "frames"],
        *(["11-13", "3"], ["8-10", "3"], ["5-7", "3"], ["2-4", "3"]),
    ]


def test_a_table_of_many_groups_ends_with_the_rest(images):
    for k, atoms in enumerate(images):
        atoms.info["group"] = f"g{k}"
    table = group_table(images, *predicted(images, np.arange(14) / 1000)).splitlines()
    assert len(table) == 13
    assert table[1].split()[:3] == ["g13", "1", "13"]
    assert table[-1].split()[:4] == ["3", "others", "3", f"{np.sqrt(5 / 3):.4g}"]


def test_a_table_has_no_forces_where_none_were_predicted(images):
    frames, prediction = predicted(images, np.zeros(14))
    prediction["forces"] = [np.empty((0, 3))] * 14
    assert "forces" not in group_table(images, frames, prediction)
    assert "forces" not in worst_frames(frames, prediction)
    assert unfair_groups(images, frames, prediction) == []


def test_wrong_groups_are_refused(images):
    frames, prediction = predicted(images, np.zeros(14))
    with pytest.raises(ValueError, match="no frame has 'phase'"):
        group_table(images, frames, prediction, "phase")
    with pytest.raises(ValueError, match="13 images for 14 frames"):
        group_table(images[1:], frames, prediction)


def test_the_worst_frames_are_named_with_their_worst_atom(images):
    force_errors = np.zeros((28, 3))
    force_errors[24] = [3.0, 0.0, 4.0]
    frames, prediction = predicted(images, [0.001] * 12 + [-0.05, 0.02], force_errors)
    lines = worst_frames(frames, prediction, number=2).splitlines()
    assert lines == [
        "frame 12, HO: energy off by -50 meV/atom, forces by up to 5 eV/Å on atom 0 (O)",
        "frame 13, HO: energy off by +20 meV/atom, forces by up to 0 eV/Å on atom 0 (O)",
    ]


def test_unfair_groups_and_elements_are_named(images):
    frames, prediction = predicted(images, [0.005] * 10 + [0.024] * 4)
    assert unfair_groups(images, frames, prediction) == []
    force_errors = np.where(Frames.from_atoms(images).numbers == 8, 1.0, 0.1)[:, None] * np.ones(3)
    frames, prediction = predicted(images, [0.005] * 10 + [0.04] * 4, force_errors)
    groups, element = unfair_groups(images, frames, prediction)
    assert "4 frames with composition HO are off by 40 meV/atom" in groups
    assert "forces on O are off by 1 eV/Å, those on other elements by 0.1" in element


def test_predictions_worse_than_none_are_named(images):
    frames, prediction = predicted(images, np.full(14, 0.05))
    frames = replace(frames, forces=np.full((frames.n_atoms, 3), 0.2))
    prediction["forces"] = list(np.split(frames.forces + 0.1, frames.offsets[1:-1]))
    assert useless(frames, prediction, frames.energies + 0.06 * frames.counts) == []
    (energies,) = useless(frames, prediction, frames.energies + 0.04 * frames.counts)
    assert "no better than the reference energies of the elements alone: 50 meV/atom" in energies
    assert "40 without any network; more frames, or more time, are needed" in energies
    prediction["forces"] = list(np.split(frames.forces + 0.3, frames.offsets[1:-1]))
    _, forces = useless(frames, prediction, frames.energies + 0.04 * frames.counts)
    assert "no better than none at all: 0.3 eV/Å, where their own size is 0.2" in forces


def test_forces_that_are_zero_by_symmetry_are_good_enough(frames, prediction):
    frames = replace(frames, forces=np.zeros_like(frames.forces))
    prediction["forces"] = list(np.split(frames.forces, frames.offsets[1:-1]))
    assert useless(frames, prediction, frames.energies + 1) == []


def test_frames_of_one_size_are_unfair_whatever_their_group():
    images = [labelled(["H"] * n, 1.0) for n in (2, 3, 4) for _ in range(4)]
    for k, atoms in enumerate(images):
        atoms.info["group"] = "ab"[k % 2]
    errors = [0.1] * 4 + [0.005] * 8
    (warning,) = unfair_groups(images, *predicted(images, errors))
    assert warning.startswith("energies of the 4 frames with atoms 2 are off by 100 meV/atom")
    # Two frames say little.
    assert unfair_groups(images[2:], *predicted(images[2:], errors[2:])) == []
