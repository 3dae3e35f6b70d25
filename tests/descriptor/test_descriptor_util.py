"""Names of images, element dictionaries, and the file that keeps fingerprints."""

import hashlib
import multiprocessing
import sqlite3

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from numpy.testing import assert_array_equal

from amptorch.descriptor.constants import ATOM_INDEX_TO_SYMBOL_DICT, ATOM_SYMBOL_TO_INDEX_DICT
from amptorch.descriptor.store import FingerprintStore
from amptorch.descriptor.util import (
    get_hash,
    list_indices_to_symbols,
    list_symbols_to_indices,
    validate_image,
)


class TestImageHash:
    def test_it_is_the_md5_of_v1(self):
        atoms = Atoms("CO", [[0.25, 0, 0], [0, 0, 3.5]], cell=[2, 3, 3], pbc=(True, False, True))
        text = (
            str(atoms.pbc)
            + "2.000000000000000" + "0.000000000000000" * 3
            + "3.000000000000000" + "0.000000000000000" * 3
            + "3.000000000000000"
            + "  6  8"
            + "0.250000000000000" + "0.000000000000000" * 4
            + "0.500000000000000"
        )  # fmt: skip
        assert get_hash(atoms) == hashlib.md5(text.encode()).hexdigest()

    def test_it_changes_with_everything_that_counts(self):
        atoms = bulk("Cu", cubic=True)
        others = [atoms.copy() for _ in range(4)]
        others[0].positions[0, 0] += 1e-12
        others[1].symbols[0] = "Au"
        others[2].pbc = False
        others[3].set_cell(atoms.cell * 1.0001)
        assert len({get_hash(image) for image in [atoms, *others]}) == 5
        wrapped = atoms.copy()
        wrapped.positions += 1e-3 + 2 * atoms.cell.array[0]
        atoms.positions += 1e-3
        assert get_hash(wrapped) == get_hash(atoms)


def test_symbols_and_numbers():
    assert len(ATOM_SYMBOL_TO_INDEX_DICT) == len(ATOM_INDEX_TO_SYMBOL_DICT) == 118
    assert ATOM_SYMBOL_TO_INDEX_DICT["Og"] == 118
    assert_array_equal(list_symbols_to_indices(["Fe", "H"]), [26, 1])
    assert_array_equal(list_indices_to_symbols([26, 1]), ["Fe", "H"])
    with pytest.raises(ValueError, match="'Q' is not a chemical symbol"):
        list_symbols_to_indices(["Fe", "Q"])
    with pytest.raises(ValueError, match="119 is not an atomic number"):
        list_indices_to_symbols([119])


def test_validate_image():
    validate_image(molecule("H2O"))
    with pytest.raises(ValueError, match="frame 0 has no atoms"):
        validate_image(Atoms())


def put_some(path, first):
    for k in range(first, first + 20):
        FingerprintStore(path).put_many("setup", {f"image{k}": np.full((3, 2), float(k))})


class TestStore:
    @pytest.mark.slow
    def test_what_goes_in_comes_out(self, tmp_path):
        path = tmp_path / "processed" / "fingerprints.sqlite"
        rng = np.random.default_rng(0)
        fingerprints = {f"image{n}": rng.normal(size=(n + 1, 4)) for n in range(1200)}
        FingerprintStore(path).put_many("setup", fingerprints)
        store = FingerprintStore(path)
        found = store.get_many("setup", [*fingerprints, "unknown", "image3"])
        assert found.keys() == fingerprints.keys()
        for name, values in fingerprints.items():
            assert_array_equal(found[name], values)
        assert store.get_many("another setup", fingerprints) == {}
        found["image0"][:] = 0  # what is returned is the caller's

    def test_a_new_value_takes_the_place_of_the_old(self, tmp_path):
        store = FingerprintStore(tmp_path / "f.sqlite")
        store.put_many("setup", {"image": np.zeros((2, 3), dtype=np.float32)})
        store.put_many("setup", {"image": np.ones((2, 3))})
        assert_array_equal(store.get_many("setup", ["image"])["image"], np.ones((2, 3)))

    def test_one_file(self, tmp_path):
        put_some(tmp_path / "f.sqlite", 0)
        assert [path.name for path in tmp_path.iterdir()] == ["f.sqlite"]

    def test_a_damaged_entry_is_an_error_that_names_the_file(self, tmp_path):
        path = tmp_path / "f.sqlite"
        FingerprintStore(path).put_many("setup", {"image": np.ones((2, 3))})
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE fingerprints SET data = zeroblob(48)")
        connection.close()
        with pytest.raises(ValueError, match=r"f\.sqlite is damaged .*image.*delete it"):
            FingerprintStore(path).get_many("setup", ["image"])

    def test_a_file_of_another_kind_is_an_error_that_names_it(self, tmp_path):
        path = tmp_path / "f.sqlite"
        path.write_text("not a database " * 100)
        with pytest.raises(ValueError, match=r"f\.sqlite is damaged .*delete it"):
            FingerprintStore(path)
        assert path.read_text().startswith("not a database")

    def test_an_unusable_place_is_an_error_that_names_it(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="file"):
            FingerprintStore(tmp_path / "file" / "f.sqlite")
        (tmp_path / "folder").mkdir()
        with pytest.raises(OSError, match=r"cannot use .*folder"):
            FingerprintStore(tmp_path / "folder")

    @pytest.mark.slow
    def test_processes_at_one_time(self, tmp_path):
        path = tmp_path / "f.sqlite"
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=put_some, args=(path, first)) for first in (0, 20)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0]
        found = FingerprintStore(path).get_many("setup", [f"image{k}" for k in range(40)])
        assert len(found) == 40
