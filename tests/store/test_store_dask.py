"""Preprocessing on a Dask cluster: two local processes."""

import numpy as np
import pytest
from ase.io import write
from distributed import Client, LocalCluster

from amptorch.cli import main
from amptorch.store import FrameStore, build
from amptorch.store.arrays import UNFINISHED
from tests.small_frames import labelled
from tests.small_store import N_FRAMES, contents, images, make

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def test_a_cluster_makes_what_this_machine_makes(cluster, tmp_path, capsys):
    write(tmp_path / "frames.traj", images())
    (tmp_path / "config.yaml").write_text(
        "dataset: {fp_scheme: gaussian, elements: [Fe, H, O], fp_params: "
        "{default: {cutoff: 4.0, G2: {etas: [2.0, 20.0], rs_s: [0.0]}}}}"
    )
    command = ["preprocess", str(tmp_path / "frames.traj"), "--frames-per-shard", "3"]
    command += ["--config", str(tmp_path / "config.yaml"), "--derivatives", "float32", "--out"]
    for name, options in {
        "here": [],
        "there": ["--dask", cluster.scheduler_address],
    }.items():
        with pytest.raises(SystemExit) as info:
            main([*command, str(tmp_path / name), *options])
        assert not info.value.code
        assert f"{N_FRAMES}/{N_FRAMES}" in capsys.readouterr().err
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_images_in_memory_go_to_the_workers(cluster, tmp_path):
    with Client(cluster) as client:
        make(images(), tmp_path / "there", dask=client)
        assert client.status == "running"
    make(images(), tmp_path / "here")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_a_bad_frame_ends_the_work_and_is_named(cluster, tmp_path):
    data = images()
    broken = data[8].copy()
    broken.positions[0] = np.nan
    data[8] = labelled(broken, 0.0, np.zeros((len(broken), 3)))
    write(tmp_path / "frames.traj", data)
    with pytest.raises(ValueError, match=r"frames.traj: frame 8, atom 0"):
        make(tmp_path / "frames.traj", tmp_path / "s", dask=cluster.scheduler_address)
    with pytest.raises(ValueError, match="not complete"):
        FrameStore(tmp_path / "s")
    options = {"dask": cluster.scheduler_address, "skip_bad": True}
    store = make(tmp_path / "frames.traj", tmp_path / "s", **options)
    assert store.n_frames == N_FRAMES - 1


def test_a_scheduler_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("amptorch.store.build.CONNECT_TIMEOUT", 0.5)
    with pytest.raises(OSError, match=r"tcp://127.0.0.1:9"):
        make(images(3), tmp_path / "s", dask="tcp://127.0.0.1:9")


def test_what_lost_workers_leave_is_removed(tmp_path, monkeypatch):
    def run(cluster, settings, tasks, sizes, bar):
        build._run_here(settings, tasks, bar)
        (settings.store / "shards" / f"000001{UNFINISHED}ab12cd34").mkdir()

    monkeypatch.setattr(build, "_run_on_dask", run)
    make(images(), tmp_path / "there", dask="tcp://nowhere")
    assert not list((tmp_path / "there").rglob(f"*{UNFINISHED}*"))
