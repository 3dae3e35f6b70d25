import sys

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
    parity_plot,
    prediction_errors,
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
    [("p.pdf", b"%PDF"), ("p.svg", b"<?xml"), ("p", b"\x89PNG"), ("p.1", b"\x89PNG")],
)
@pytest.mark.slow
def test_a_picture_is_what_its_name_says(frames, prediction, tmp_path, name, magic):
    parity_plot(str(tmp_path / name), {"held out": (frames, prediction)})
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes().startswith(magic)


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
