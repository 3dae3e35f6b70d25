"""Small stores for tests: frames, descriptors, and what is in a folder."""

from amptorch.datasets import iron_water
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.store import preprocess

ELEMENTS = ["Fe", "H", "O"]
SHARD = 5
N_FRAMES = 13


def descriptor(cutoff=4.0, eta=2.0, elements=ELEMENTS):
    functions = {
        "cutoff": cutoff,
        "G2": {"etas": [eta, 20.0], "rs_s": [0.0]},
        "G4": {"etas": [0.1], "zetas": [1.0], "gammas": [1.0, -1.0]},
    }
    return Gaussian({"default": functions}, elements)


def images(n_frames=N_FRAMES, seed=0):
    return iron_water(n_frames, seed=seed, max_water=4)


def make(data, out, described=None, **options):
    options = {"frames_per_shard": SHARD, "derivatives": "stored", "verbose": False, **options}
    return preprocess(data, described or descriptor(), out, **options)


def contents(folder):
    """{path within the folder: bytes} of all files but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
