"""Functions that a new set has in common with others in a store are copied from there."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amptorch.descriptor.Gaussian import Gaussian
from amptorch.store import FrameStore
from amptorch.store.build import write_setup
from amptorch.store.shard import Settings, make_shard
from tests.small_store import ELEMENTS, images, make

CUTOFF = 4.5


def g2(element, eta, rs=0.0):
    return {"type": "G2", "element": element, "eta": eta, "Rs": rs}


def g4(pair, eta, zeta, gamma):
    return {"type": "G4", "elements": list(pair), "eta": eta, "zeta": zeta, "gamma": gamma}


POOL = [
    *(g2(element, eta, rs) for element in ELEMENTS for eta in (0.5, 8.0) for rs in (0.0, 1.5)),
    *(
        g4(pair, eta, zeta, gamma)
        for pair in (("Fe", "O"), ("O", "O"), ("H", "O"), ("H", "H"))
        for eta, zeta in ((0.1, 1.0), (0.1, 4.0), (2.0, 1.0))
        for gamma in (1.0, -1.0)
    ),
    {"type": "G2W", "eta": 2.0, "Rs": 1.0},
    *({"type": "G4W", "eta": 0.1, "zeta": zeta, "gamma": 1.0} for zeta in (1.0, 2.0)),
]
EVERY = range(len(POOL))
RADIAL = range(12)


def functions_of(places, cutoff=CUTOFF, cutoff_params=None):
    """The descriptor with the functions of POOL at {symbol: places}."""
    chosen = {symbol: [POOL[k] for k in numbers] for symbol, numbers in places.items()}
    return Gaussian({"cutoff": cutoff, **chosen}, ELEMENTS, cutoff_params)


def add(store, descriptor, forces=True, share=True):
    root = Path(store.path)
    for number in range(store.n_shards):
        options = (store.cutoff, forces, "float64" if forces else None, False)
        make_shard(Settings(root, descriptor, *options, share=share), number, [])
    write_setup(root, descriptor)
    return FrameStore(store.path)


@pytest.fixture
def computed(monkeypatch):
    """{symbol: number of functions} of every descriptor that was asked for values."""
    calls = []

    def count(method):
        def counted(self, *arguments, **options):
            calls.append(dict(self.num_descriptors))
            return method(self, *arguments, **options)

        monkeypatch.setattr(Gaussian, method.__name__, counted)

    count(Gaussian.values)
    count(Gaussian.values_and_derivatives)
    return calls


def check(store, descriptor, forces=True):
    """The set as it is in the store is the set computed as a whole."""
    name = descriptor.descriptor_setup_hash
    everything = np.arange(len(store))
    frames = store.frames(everything)
    neighbors = store.neighbors(everything)
    np.testing.assert_allclose(
        store.fingerprints(name, everything),
        descriptor.values(frames, neighbors),
        rtol=1e-12,
        atol=1e-14,
    )
    if not forces:
        return
    for number in range(store.n_shards):
        stored = store.reader(number).derivatives(name, "float64", descriptor.n_features)
        part = store.reader(number).frames(np.arange(len(stored.frame_offsets) - 1))
        _, expected = descriptor.values_and_derivatives(part)
        for field in ("atom_start", "atoms", "value_start"):
            np.testing.assert_array_equal(
                getattr(stored.blocks, field), getattr(expected.blocks, field)
            )
        np.testing.assert_array_equal(
            stored.blocks.feature_row[stored.blocks.kind],
            expected.blocks.feature_row[expected.blocks.kind],
        )
        np.testing.assert_allclose(
            stored.blocks.values, expected.blocks.values, rtol=1e-10, atol=1e-13
        )


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A store of structures, and of a set that no other has a function of."""
    out = tmp_path_factory.mktemp("store") / "bare"
    # The first frames have little water, so that elements are missing around some atoms.
    make(images(7), out, functions_of({symbol: [0] for symbol in ELEMENTS}, cutoff=5.0))
    return out


@pytest.fixture
def store(bare, tmp_path):
    shutil.copytree(bare, tmp_path / "store")
    return FrameStore(tmp_path / "store")


def test_only_what_is_missing_is_computed(store, computed):
    kept = functions_of({"Fe": RADIAL, "H": RADIAL, "O": EVERY})
    wanted = functions_of({"Fe": [0, 5, 14, 15], "H": [3], "O": [1, 20, 30]})
    store = add(store, kept)
    assert computed.pop() == {"Fe": 12, "H": 12, "O": len(POOL)}
    computed.clear()
    store = add(store, wanted)
    # One function must be there of each element; those of H and O are not used.
    assert computed
    assert all(numbers == {"Fe": 2, "H": 1, "O": 1} for numbers in computed)
    check(store, wanted)


@pytest.mark.nojit
def test_what_is_all_there_costs_nothing_but_a_copy(store, computed):
    store = add(store, functions_of(dict.fromkeys(ELEMENTS, EVERY)))
    wanted = functions_of({"Fe": [20, 3, 11, 36], "H": [30, 2, 38], "O": [1]})
    computed.clear()
    store = add(store, wanted)
    assert computed == []
    check(store, wanted)


def test_functions_of_several_sets(store, computed):
    add(store, functions_of({"Fe": RADIAL, "H": [13, 36], "O": [13]}))
    store = add(store, functions_of({"Fe": [14], "H": [1, 2], "O": [*RADIAL, 37]}))
    wanted = functions_of({"Fe": [2, 3, 14], "H": [1, 13, 36], "O": [4, 13, 37]})
    computed.clear()
    store = add(store, wanted)
    assert computed == []
    check(store, wanted)


sets = st.fixed_dictionaries(
    {symbol: st.lists(st.sampled_from(EVERY), min_size=1, max_size=9) for symbol in ELEMENTS}
)


@given(st.lists(sets, min_size=1, max_size=3), sets)
@pytest.mark.slow
def test_a_set_put_together_is_the_set_computed(bare, kept, wanted):
    with TemporaryDirectory() as folder:
        shutil.copytree(bare, Path(folder) / "store")
        store = FrameStore(Path(folder) / "store")
        for places in kept:
            store = add(store, functions_of(places))
        check(add(store, functions_of(wanted)), functions_of(wanted))


def test_without_forces(tmp_path, computed):
    out = tmp_path / "store"
    first = functions_of(dict.fromkeys(ELEMENTS, RADIAL))
    store = make(images(7), out, first, forces=False, derivatives=None)
    wanted = functions_of({symbol: [0, 7, 13] for symbol in ELEMENTS})
    computed.clear()
    store = add(store, wanted, forces=False)
    assert all(numbers == dict.fromkeys(ELEMENTS, 1) for numbers in computed)
    check(store, wanted, forces=False)


@pytest.mark.parametrize(
    "other",
    [
        {"cutoff": 4.0},
        {"cutoff_params": {"cutoff_func": "Polynomial", "gamma": 4.0}},
    ],
    ids=["another cutoff", "another cutoff function"],
)
def test_functions_that_only_look_alike(store, computed, other):
    places = {symbol: [0, 1, 14] for symbol in ELEMENTS}
    store = add(store, functions_of(places, **other))
    computed.clear()
    store = add(store, functions_of(places))
    assert all(numbers == dict.fromkeys(ELEMENTS, 3) for numbers in computed)
    check(store, functions_of(places))


def test_sets_that_are_gone_or_damaged(store, computed):
    places = dict.fromkeys(ELEMENTS, RADIAL)
    gone, damaged = functions_of(places), functions_of({**places, "O": EVERY})
    add(add(store, gone), damaged)
    for path in Path(store.path).glob(f"shards/*/fingerprints/{gone.descriptor_setup_hash}.*"):
        path.unlink()
    for path in Path(store.path).glob(
        f"shards/*/derivatives/{damaged.descriptor_setup_hash}*/values.npy"
    ):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    wanted = functions_of({symbol: [1, 2] for symbol in ELEMENTS})
    computed.clear()
    store = add(FrameStore(store.path), wanted)
    assert all(numbers == dict.fromkeys(ELEMENTS, 2) for numbers in computed)
    check(store, wanted)


def test_other_stores_share_nothing(store, computed):
    places = dict.fromkeys(ELEMENTS, RADIAL)
    store = add(store, functions_of(places))
    computed.clear()
    add(store, functions_of({symbol: [0] for symbol in ELEMENTS}), share=False)
    assert all(numbers == dict.fromkeys(ELEMENTS, 1) for numbers in computed)
    assert computed
