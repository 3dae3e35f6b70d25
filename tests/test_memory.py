"""Work that would not fit into memory is refused before it begins, by a message that says why."""

import numpy as np
import pytest

from amptorch import memory
from amptorch.data.fingerprints import check_memory
from amptorch.dataset import AtomsDataset
from amptorch.descriptor.blocks import DerivativeBlocks, Kinds
from amptorch.descriptor.construct import construct_descriptor
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.frames import Frames
from amptorch.preprocessing import AtomsToData
from amptorch.trainer import AtomsTrainer
from tests.small_frames import FP_PARAMS, config, mixed_frames

SETUP = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])
MULTIPOLES = {"MCSHs": {"orders": [0, 1], "sigmas": [0.5]}, "cutoff": 4.0}


@pytest.fixture(scope="module")
def images():
    return mixed_frames(8)


@pytest.fixture
def little(monkeypatch):
    """A machine with so many bytes left; every amount is asked about."""

    def leave(n_bytes):
        monkeypatch.setattr(memory, "SMALL", 0)
        monkeypatch.setattr(memory, "available_memory", lambda: n_bytes)

    return leave


@pytest.fixture
def small_chunks(monkeypatch):
    """As if the frames were more than fit into one chunk."""
    monkeypatch.setattr("amptorch.data.fingerprints.CHUNK_ATOMS", 8)


def test_stored_derivatives_that_do_not_fit(images, little, small_chunks):
    little(20_000)
    with pytest.raises(ValueError, match=r"2e-05 GB are available; keep them on disk") as failure:
        AtomsDataset(images, SETUP, verbose=False)
    frames = Frames.from_atoms(images)
    n_features = construct_descriptor(SETUP).n_features
    message = str(failure.value)
    assert f"fingerprints and derivatives of 8 frames, {frames.n_atoms} atoms" in message
    assert f"by {n_features} functions for 2 elements" in message
    assert "dataset.derivatives: recompute" in message


def test_what_fits_is_not_refused(images, little, small_chunks):
    """The estimate of a data set is not far from what it takes."""
    descriptor, frames = construct_descriptor(SETUP), Frames.from_atoms(images)
    values, blocks = descriptor.values_and_derivatives(frames)
    taken = values.nbytes + blocks.nbytes + blocks.blocks.feature_row.nbytes
    little(4 * taken)
    check_memory(descriptor, frames, "stored")
    little(taken)
    with pytest.raises(ValueError, match="derivatives of 8 frames"):
        check_memory(descriptor, frames, "stored")
    check_memory(descriptor, frames.select(np.arange(2)), "recompute")


def test_fingerprints_alone_that_do_not_fit(images, little):
    little(2_000)
    with pytest.raises(ValueError, match=r"^fingerprints of 8 frames"):
        AtomsDataset(images, SETUP, derivatives="recompute", verbose=False)


@pytest.mark.parametrize("scheme", [SETUP, ("gmpordernorm", MULTIPOLES, None, ["Cu", "O"])])
def test_every_way_to_derivatives(scheme, images, little):
    """Those of one call are known exactly, whoever makes it."""
    descriptor = construct_descriptor(scheme)
    little(1_000)
    with pytest.raises(ValueError, match=rf"by {descriptor.n_features} functions for 2 elements"):
        descriptor.values_and_derivatives(Frames.from_atoms(images))
    with pytest.raises(ValueError, match="of memory"):
        AtomsToData(descriptor, save_fps=False).convert_all(images, disable_tqdm=True)
    descriptor.values(Frames.from_atoms(images))


def test_data_objects_of_many_frames(images, little, monkeypatch):
    """Each chunk fits, all of them do not."""
    monkeypatch.setattr("amptorch.descriptor.base.CHUNK", 1)
    converter = AtomsToData(Gaussian(FP_PARAMS, ["Cu", "O"]), save_fps=False)
    data = converter.convert(images[0])
    taken = 24 * data.fprimes.values().numel()
    little(4 * taken)
    converter.convert_all(images[:2], disable_tqdm=True)
    with pytest.raises(ValueError, match="derivatives of"):
        converter.convert_all(images, disable_tqdm=True)


def test_auto_recomputes_where_memory_is_short(images, tmp_path, monkeypatch):
    settings = config(images, tmp_path, cmd__debug=True, dataset__derivatives="auto")
    trainer = AtomsTrainer(settings)
    trainer.load()
    assert trainer.plan.derivatives == "stored"
    monkeypatch.setattr(
        "amptorch.training.prepare.available_memory", lambda: 1.5 * trainer.plan.stored_bytes
    )
    again = AtomsTrainer(settings)
    again.load()
    assert again.plan.derivatives == "recompute"
    assert "of memory are available" in again.plan.table()


def test_small_amounts_are_not_asked_about(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 0)
    memory.require_memory(memory.SMALL / 2, "something", "nothing")


def group_with(folder, names, limit, usage, stat):
    """A folder of Linux with the memory of a group of processes."""
    folder.mkdir(parents=True)
    for name, value in zip(names, (limit, usage), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(stat)


def test_a_container_has_less_than_its_machine(tmp_path, monkeypatch):
    job = tmp_path / "groups" / "job"
    stat = "anon 400000\ninactive_file 100000\n"
    group_with(job, memory.VERSION_2[:2], 1_000_000, 700_000, stat)
    (job / "step").mkdir()
    (job / "step" / "memory.max").write_text("max\n")
    file = tmp_path / "cgroup"
    file.write_text("1:cpu:/other\n0::/job/step\n")
    assert min(memory._left_by_cgroups(file, tmp_path / "groups")) == 400_000
    assert memory._left_by_cgroups(tmp_path / "none") == [np.inf]
    monkeypatch.setattr(memory, "_left_by_cgroups", lambda: [np.inf, 400_000])
    assert memory.available_memory() == 400_000


@pytest.mark.parametrize("controllers", ["memory", "hugetlb,memory"])
def test_limits_of_the_first_version_of_cgroups(controllers, tmp_path):
    groups = tmp_path / "groups"
    stat = "inactive_file 7\ntotal_cache 300000\ntotal_inactive_file 200000\n"
    group_with(groups / "memory" / "job", memory.VERSION_1[:2], 1_000_000, 900_000, stat)
    # Without a limit this is what stands there.
    group_with(groups / "memory" / "job" / "step", memory.VERSION_1[:2], 2**63 - 4096, 5, "")
    file = tmp_path / "cgroup"
    file.write_text(f"5:cpu,cpuacct:/other\n4:{controllers}:/job/step\n1:name=systemd:/a:b\n")
    assert min(memory._left_by_cgroups(file, groups)) == 300_000
    # The path is the host's where a container does not know its own: the limit is at the top.
    group_with(tmp_path / "inside" / "memory", memory.VERSION_1[:2], 50_000, 10_000, "")
    assert min(memory._left_by_cgroups(file, tmp_path / "inside")) == 40_000


def test_what_is_left_is_never_negative(tmp_path, monkeypatch):
    group_with(tmp_path / "memory", memory.VERSION_1[:2], 1_000, 5_000, "")
    file = tmp_path / "cgroup"
    file.write_text("4:memory:/\n")
    found = memory._left_by_cgroups(file, tmp_path)
    assert min(found) == -4_000
    monkeypatch.setattr(memory, "_left_by_cgroups", lambda: found)
    assert memory.available_memory() == 0


def test_kinds_are_kept_once(images):
    first, second, third = (np.full((1, 2, 3), value) for value in (0, 1, 0))
    kinds = Kinds()
    assert kinds.add(np.concatenate([first, second])).tolist() == [0, 1]
    assert kinds.add(third).tolist() == [0]
    assert len(kinds) == len(kinds.feature_row) == 2
    descriptor, frames = construct_descriptor(SETUP), Frames.from_atoms(images)
    parts = [descriptor.values_and_derivatives(frames[k])[1] for k in range(len(frames))]
    whole = DerivativeBlocks.concatenate(parts)
    g = np.random.default_rng(0).normal(size=(frames.n_atoms, descriptor.n_features))
    every = np.arange(len(frames))
    _, expected = descriptor.values_and_derivatives(frames)
    np.testing.assert_array_equal(whole.vjp(every, g), expected.vjp(every, g))
    assert len(whole.blocks.feature_row) == len(expected.blocks.feature_row)
