"""Stores: what is in them is what the frames, neighbour lists and descriptors say."""

import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import Trajectory, write

from amptorch.descriptor.blocks import RecomputedDerivatives
from amptorch.frames import Frames
from amptorch.neighbors import neighbor_list
from amptorch.store import FrameStore, find_elements
from tests.small_frames import labelled
from tests.small_store import ELEMENTS, N_FRAMES, SHARD, contents, descriptor, images, make

ASKED = {
    "one": [6],
    "one shard": [5, 6, 9],
    "all": list(range(N_FRAMES)),
    "across shards, any order": [12, 0, 7, 3, 8],
    "twice the same": [2, 2, 11],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make(images(), tmp_path_factory.mktemp("store") / "s", derivative_dtype="float64")


@pytest.fixture(scope="module")
def frames():
    return Frames.from_atoms(images(), energies=True, forces=True)


def same_frames(found, expected):
    for name in (
        "numbers",
        "positions",
        "cells",
        "pbc",
        "offsets",
        "energies",
        "forces",
        "indices",
    ):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
        assert getattr(found, name).dtype == getattr(expected, name).dtype, name


def same_neighbors(found, expected):
    for name in ("offsets", "neighbors", "shifts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
        assert getattr(found, name).dtype == getattr(expected, name).dtype, name
    np.testing.assert_allclose(found.vectors, expected.vectors, rtol=0, atol=1e-13)


def test_sizes(store, frames):
    assert (store.n_frames, len(store), store.n_atoms) == (N_FRAMES, N_FRAMES, frames.n_atoms)
    assert store.n_pairs == neighbor_list(frames, 4.0).n_pairs
    assert store.elements == ELEMENTS
    assert store.cutoff == 4.0
    assert store.has_forces
    assert store.skipped == []
    assert store.shard_starts.tolist() == [0, 5, 10, 13]
    assert store.shard_of_frame.tolist() == [0] * 5 + [1] * 5 + [2] * 3
    np.testing.assert_array_equal(store.counts, frames.counts)
    np.testing.assert_array_equal(store.energies, frames.energies)


@pytest.mark.parametrize("ids", ASKED.values(), ids=ASKED)
def test_frames_and_neighbours(store, frames, ids):
    same_frames(store.frames(ids), frames.select(ids))
    same_neighbors(store.neighbors(ids), neighbor_list(frames.select(ids), 4.0))


@pytest.mark.parametrize("ids", ASKED.values(), ids=ASKED)
def test_fingerprints(store, frames, ids):
    described = descriptor()
    values = store.fingerprints(described.descriptor_setup_hash, ids)
    np.testing.assert_allclose(values, described.values(frames.select(ids)), rtol=0, atol=1e-13)
    assert abs(values).max() > 0.1


@pytest.mark.parametrize("some", [False, True], ids=["all atoms", "some atoms"])
@pytest.mark.parametrize("ids", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("kind", ["stored", "recompute"])
def test_back_ends(store, frames, ids, kind, some):
    described, chosen, all_frames = descriptor(), frames.select(ids), np.arange(len(ids))
    backend, asked = RecomputedDerivatives(described, *store.structures(ids)), all_frames
    if kind == "stored":
        backend, asked = store.derivatives(described.descriptor_setup_hash, "float64"), ids
        backend.prepare(ids)
        assert backend.n_atoms == frames.n_atoms
    reference = RecomputedDerivatives(described, chosen, neighbor_list(chosen, 4.0))
    rng = np.random.default_rng(1)
    rows = np.flatnonzero(rng.random(chosen.n_atoms) < 0.1) if some else None
    n_rows = chosen.n_atoms if rows is None else len(rows)
    g, v = rng.normal(size=(chosen.n_atoms, described.n_features)), rng.normal(size=(n_rows, 3))
    for method, given in (("vjp", g), ("jvp", v)):
        found = getattr(backend, method)(asked, given, rows)
        expected = getattr(reference, method)(all_frames, given, rows)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11, err_msg=method)
        assert abs(found).max() > 0.1
    assert backend.n_features == described.n_features


def test_float32_derivatives_are_those_rounded(store, tmp_path):
    single = make(images(), tmp_path / "s", derivative_dtype="float32")
    name = descriptor().descriptor_setup_hash
    assert single.has_derivatives(name, "float32")
    assert not single.has_derivatives(name, np.float64)
    with pytest.raises(ValueError, match="no float64 derivatives"):
        single.derivatives(name, "float64")
    ids = np.arange(4, 9)
    g = np.ones((store.counts[ids].sum(), descriptor().n_features))
    found, expected = (
        s.derivatives(name, dtype).vjp(ids, g) for s, dtype in ((single, "float32"), (store, "f8"))
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert abs(found - expected).max() > 0
    ratio = store.derivatives(name, "float64").nbytes / single.derivatives(name, "float32").nbytes
    assert 1.8 < ratio < 2.0


def test_the_files_are_read_without_this_package(store, frames):
    folder = store.path / "shards" / "000001"
    atoms = np.load(folder / "offsets.npy")
    pairs = np.load(folder / "neighbors" / "offsets.npy")
    neighbors = np.load(folder / "neighbors" / "neighbors.npy")
    shifts = np.load(folder / "neighbors" / "shifts.npy").astype(int)
    positions, cells = np.load(folder / "positions.npy"), np.load(folder / "cells.npy")
    frame = 2
    rows = slice(pairs[atoms[frame]], pairs[atoms[frame + 1]])
    centres = np.repeat(np.arange(len(positions)), np.diff(pairs))[rows]
    others = atoms[frame] + neighbors[rows].astype(int)
    vectors = positions[others] - positions[centres] + shifts[rows] @ cells[frame]
    expected = neighbor_list(frames.select([SHARD + frame]), 4.0).vectors
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-12)
    names = [path.name for path in (store.path / "setups").iterdir()]
    assert names == [f"{descriptor().descriptor_setup_hash}.json"]
    about = json.loads((store.path / "store.json").read_text())
    assert about["format"] == "amptorch frame store"


def mixed():
    """Frames of all periodicities, with atoms far outside the cell, tiny and large shifts."""
    far = bulk("Cu", "fcc", a=3.7)
    far.positions += 300 * far.cell[0]
    apart = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]], cell=[2.4, 2.4, 2.4], pbc=[True, False, False])
    apart.positions[1] += 200 * apart.cell[0]
    single = Atoms("O", cell=[30, 30, 30])
    frames = [molecule("O2"), bulk("Cu", "fcc", a=3.7), far, apart, single]
    return [labelled(atoms, 0.5 * k, np.zeros((len(atoms), 3))) for k, atoms in enumerate(frames)]


def test_molecules_crystals_and_atoms_alone(tmp_path):
    described = descriptor(elements=["Cu", "O"])
    store = make(mixed(), tmp_path / "s", described, frames_per_shard=10)
    frames = Frames.from_atoms(mixed(), energies=True, forces=True)
    ids = [4, 3, 2, 1, 0]
    same_frames(store.frames(ids), frames.select(ids))
    same_neighbors(store.neighbors(ids), neighbor_list(frames.select(ids), 4.0))
    # A shift of 300 cells takes two bytes, and does so for the shard.
    assert np.load(tmp_path / "s/shards/000000/neighbors/shifts.npy").dtype == np.int16


def sources(folder):
    data = images()
    write(folder / "a.traj", data)
    write(folder / "a.xyz", data)
    write(folder / "a.json", data)
    write(folder / "b.xyz", data[:7])
    write(folder / "c.traj", data[7:])
    return {
        "trajectory": folder / "a.traj",
        "xyz": str(folder / "a.xyz"),
        "another format": folder / "a.json",
        "a slice": f"{folder / 'a.traj'}@0:13",
        "several files": [folder / "b.xyz", folder / "c.traj"],
        "images": data,
        "a reader": Trajectory(folder / "a.traj"),
        "a generator": iter(data),
    }


@pytest.mark.parametrize("skip_bad", [False, True])
def test_every_kind_of_source_gives_the_same(tmp_path, store, skip_bad):
    for name, source in sources(tmp_path).items():
        made = make(source, tmp_path / name, derivatives=None, skip_bad=skip_bad)
        assert made.n_frames == N_FRAMES, name
        found, expected = (s.frames(range(N_FRAMES)) for s in (made, store))
        for key in ("positions", "forces", "energies", "cells"):
            np.testing.assert_allclose(
                getattr(found, key), getattr(expected, key), atol=1e-7, err_msg=f"{name}: {key}"
            )
        if name == "several files":
            assert found.indices.tolist() == [*range(7), *range(6)]
        else:
            np.testing.assert_array_equal(found.indices, expected.indices)


def test_elements_are_found(tmp_path):
    write(tmp_path / "a.xyz", images(3))
    assert find_elements(tmp_path / "a.xyz") == ELEMENTS
    assert find_elements(images(3)) == ELEMENTS


def test_elements_are_those_of_the_frames_that_are_used(tmp_path):
    """Otherwise the store would be made with functions that training from it does not ask for."""
    data = images(4)
    data[1].symbols[0] = "Pt"
    data[1].positions[1] = np.nan
    assert find_elements(data) == ["Fe", "H", "O", "Pt"]
    assert find_elements(data, skip_bad=True) == ELEMENTS
    data[2].symbols[0] = "X"
    assert find_elements(data, skip_bad=True) == ELEMENTS
    with pytest.raises(ValueError, match="images: frame 0, atom 0"):
        make(data[2:], tmp_path / "s", descriptor(elements=find_elements(data)))


def test_other_functions_reuse_structures_and_neighbours(tmp_path, monkeypatch):
    first = descriptor()
    make(images(), tmp_path / "s", first)
    before = contents(tmp_path / "s")

    def search(*_):
        pytest.fail("neighbours were searched again")

    monkeypatch.setattr("amptorch.store.shard.neighbor_list", search)
    second = descriptor(cutoff=3.5, eta=3.0)
    store = make(images(), tmp_path / "s", second)
    after = contents(tmp_path / "s")
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)
    frames = Frames.from_atoms(images())
    ids = [1, 7, 12]
    for described in (first, second):
        name = described.descriptor_setup_hash
        assert store.has_fingerprints(name)
        expected = described.values(frames.select(ids))
        np.testing.assert_allclose(store.fingerprints(name, ids), expected, rtol=0, atol=1e-12)
        g, v = np.ones(expected.shape), np.ones((len(expected), 3))
        kept = store.derivatives(name, "float32")
        anew = RecomputedDerivatives(described, *store.structures(ids))
        np.testing.assert_allclose(kept.vjp(ids, g), anew.vjp(range(3), g), atol=1e-4)
        np.testing.assert_allclose(kept.jvp(ids, v), anew.jvp(range(3), v), atol=1e-4)
    with pytest.raises(ValueError, match="no fingerprints of the set-up"):
        store.fingerprints(descriptor(eta=5.0).descriptor_setup_hash, ids)


def test_what_is_complete_is_not_made_again(tmp_path, monkeypatch):
    make(images(), tmp_path / "s")
    monkeypatch.setattr("amptorch.store.build.make_shard", lambda *_: pytest.fail("made"))
    assert make(images(), tmp_path / "s", frames_per_shard=99).n_frames == N_FRAMES


def test_frames_whose_energies_are_computed(tmp_path):
    data = [atoms.copy() for atoms in mixed()[:2]]
    for atoms in data:
        atoms.calc = EMT()
    described = descriptor(elements=["Cu", "O"])
    first = make(data, tmp_path / "s", described)
    assert first.energies.tolist() == [atoms.get_potential_energy() for atoms in data]
    assert make(data, tmp_path / "s", described).n_frames == 2


def test_threads_and_progress_change_nothing(tmp_path, capsys):
    make(images(), tmp_path / "one", threads=1)
    make(images(), tmp_path / "three", threads=3, verbose=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert f"{N_FRAMES}/{N_FRAMES}" in capsys.readouterr().err


def test_frames_without_forces(tmp_path):
    data = images(3)
    for atoms in data:
        del atoms.calc.results["forces"]
    store = make(data, tmp_path / "s", forces=False)
    assert store.frames([0, 2]).forces is None
    assert not store.has_forces


def test_a_store_is_pickled_by_its_path(store):
    copy = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(copy.frames([3]).positions, store.frames([3]).positions)


def test_few_shards_are_open_at_a_time(store, monkeypatch):
    monkeypatch.setattr("amptorch.store.store.OPEN_SHARDS", 1)
    store = FrameStore(store.path)
    for frame in itertools.chain(range(N_FRAMES), range(N_FRAMES)):
        store.frames([frame])
        assert len(store._readers) == 1


@pytest.mark.parametrize("ids", [[], [N_FRAMES], [-1]])
def test_frames_that_are_not_there(store, ids):
    with pytest.raises((ValueError, IndexError), match=r"frames"):
        store.frames(ids)


def test_layout_is_what_the_page_says(store):
    page = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf8")
    shard = store.path / "shards" / "000000"
    for path in shard.rglob("*.npy"):
        if path.parent.name != "fingerprints":
            name = f"neighbors/{path.stem}" if path.parent.name == "neighbors" else path.stem
            assert f"| `{name}` |" in page, f"docs/store.md says nothing of {name}"
    for key in json.loads((store.path / "store.json").read_text()):
        assert f"`{key}`" in page, f"docs/store.md says nothing of {key}"
    for key in json.loads((shard / "shard.json").read_text()):
        assert f"`{key}`" in page, f"docs/store.md says nothing of {key}"
