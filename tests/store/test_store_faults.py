"""Stores when things go wrong: nothing is harmed, and the next call puts it right."""

import errno
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.io import Trajectory, write
from ase.io.trajectory import TrajectoryReader

from amptorch.cli import main
from amptorch.store import FrameStore, arrays
from amptorch.store.store import read_store
from tests.small_frames import labelled
from tests.small_store import N_FRAMES, SHARD, contents, descriptor, images, make

CONFIG = """
dataset:
  fp_scheme: gaussian
  fp_params: {default: {cutoff: 4.0, G2: {etas: [2.0], rs_s: [0.0]}}}
"""


@pytest.fixture(scope="module", autouse=True)
def _several_chunks_a_shard():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amptorch.store.shard.CHUNK_ATOMS", 80)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "s"
    make(images(), folder)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "s")
    return tmp_path / "s"


def read_all(path):
    """Use every array of a store."""
    store, name, every = FrameStore(path), descriptor().descriptor_setup_hash, np.arange(N_FRAMES)
    frames, _ = store.structures(every)
    values = store.fingerprints(name, every)
    store.derivatives(name, "float32").vjp(every, np.ones_like(values))
    return frames


@pytest.mark.slow
def test_a_full_disk(tmp_path, whole, monkeypatch):
    write_bytes, writes = arrays.write_bytes, 0

    def write_until(limit):
        def write(file, data):
            nonlocal writes
            writes += 1
            if writes > limit:
                file.write(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            write_bytes(file, data)

        return write

    monkeypatch.setattr(arrays, "write_bytes", write_until(10**9))
    make(images(), tmp_path / "counted", threads=1)
    total = writes
    for limit in random.Random(0).sample(range(total), 12):
        writes, out = 0, tmp_path / f"s{limit}"
        monkeypatch.setattr(arrays, "write_bytes", write_until(limit))
        with pytest.raises(OSError, match=r"no space left for .*MB free") as info:
            make(images(), out)
        assert info.value.errno == errno.ENOSPC
        assert str(out) in str(info.value)
        kept = contents(out)
        assert not [name for name in kept if arrays.UNFINISHED in name]
        monkeypatch.setattr(arrays, "write_bytes", write_bytes)
        make(images(), out)
        after = contents(out)
        assert after == contents(whole)
        kept.pop("store.json")
        assert {name: after[name] for name in kept} == kept


def test_a_full_disk_while_fingerprints_are_added(copy, monkeypatch):
    before = contents(copy)

    def full(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(arrays, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        make(images(), copy, descriptor(eta=3.0))
    after = contents(copy)
    assert {name: data for name, data in after.items() if not name.startswith("setups")} == {
        name: data for name, data in before.items() if not name.startswith("setups")
    }
    read_all(copy)


@pytest.mark.slow
def test_killed_and_gone_on_with(tmp_path):
    data = tmp_path / "frames.traj"
    write(data, images(120))
    options = {"frames_per_shard": 3, "threads": 1}
    make(str(data), tmp_path / "whole", **options)
    code = f"import sys; from tests.small_store import make; make(*sys.argv[1:], **{options})"
    command = [sys.executable, "-c", code, str(data), str(tmp_path / "s")]
    rng, out, kills = random.Random(1), tmp_path / "s", 0
    for _ in range(2):
        shards = len(list(out.glob("shards/*")))
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        while process.poll() is None and len(list(out.glob("shards/*"))) <= shards:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        # It may have been done, or as good as done, before it was killed.
        if read_store(out)["complete"]:
            break
        kills += 1
        with pytest.raises(ValueError, match="not complete"):
            FrameStore(out)
    assert kills > 0
    make(str(data), out, **options)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_every_damaged_file_is_found_and_made_again(whole, tmp_path):
    rng, broken = random.Random(2), tmp_path / "s"
    for name, data in contents(whole).items():
        if name.startswith("setups") or not data:
            continue
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(whole, broken)
        flipped = bytearray(data)
        # Behind the header of an array, or within the first numbers of a JSON file.
        place = rng.randrange(128, len(data)) if name.endswith(".npy") else data.index(b'": ') + 4
        flipped[place] ^= 1 << rng.randrange(7)
        (broken / name).write_bytes(flipped)
        with pytest.raises(ValueError, match="damaged") as info:
            read_all(broken)
        assert str(broken / name) in str(info.value)
        if name == "store.json":
            # What the shards were made from is not known any more.
            assert str(info.value).endswith(f"delete the store {broken} and make it anew")
        else:
            told = str(info.value).split("; delete ")[1].split(" and run")[0]
            remove(Path(told))
            make(images(), broken)
            assert contents(broken) == contents(whole), name


def remove(path):
    assert path.exists()
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("name", ["positions", "neighbors/shifts"])
@pytest.mark.slow
def test_a_bit_flipped_anywhere_in_a_header(copy, name):
    path = copy / "shards" / "000001" / f"{name}.npy"
    data, original, complaints = path.read_bytes(), np.load(path), 0
    for place in range(128):
        flipped = bytearray(data)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        found = complaint(copy)
        if found is None:  # one kind of space for another, a byte order of single bytes
            np.testing.assert_array_equal(np.load(path), original)
        else:
            assert str(path) in found
            complaints += 1
    assert complaints > 60


def complaint(path):
    try:
        read_all(path)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("size", [0, 60, 300])
def test_files_that_are_cut_short_or_missing(copy, size):
    path = copy / "shards" / "000002" / "positions.npy"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"positions.npy is (damaged|cut short)"):
        read_all(copy)
    path.unlink()
    with pytest.raises(ValueError, match=r"positions.npy is missing; delete .*000002 and run"):
        read_all(copy)
    shutil.rmtree(path.parent)
    with pytest.raises(ValueError, match="000002 is missing from the store"):
        FrameStore(copy)


def test_two_writers(copy):
    code = (
        "import sys, filelock\n"
        "with filelock.FileLock(sys.argv[1]): print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(copy / ".lock")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    before = contents(copy)
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(BlockingIOError, match="another process is writing to the store"):
            make(images(), copy, descriptor(eta=3.0))
        assert contents(copy) == before
        read_all(copy)
        # Nothing is to be written.
        assert make(images(), copy).n_frames == N_FRAMES
        other.stdin.close()
    make(images(), copy, descriptor(eta=3.0))


def test_what_another_worker_has_made_meanwhile_stays(tmp_path, monkeypatch):
    """A worker that was taken for dead may end its task with the one that was given it anew."""
    path = tmp_path / "folder"
    # It may come between a look and what is done about it.
    monkeypatch.setattr(Path, "exists", lambda path: False)
    for content in ("first", "second"):
        with arrays.folder_when_complete(path) as folder:
            (folder / "array").write_text(content)
    assert (path / "array").read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_leftovers_are_removed(copy, whole):
    for place in ("shards/000001", "store.json", "shards/000000/derivatives/x-float32"):
        path = copy / f"{place}{arrays.UNFINISHED}ab12cd34"
        path.mkdir(parents=True)
        (path / "positions.npy").write_text("half")
    shutil.rmtree(copy / "shards" / "000002")
    make(images(), copy)
    assert contents(copy) == contents(whole)
    assert not list(copy.rglob(f"*{arrays.UNFINISHED}*"))


# --- unusable frames ---


def bad_data(folder, form):
    data = images()
    for frame, atom, position in ((7, 2, np.nan), (11, 4, data[11].positions[5] + 1e-6)):
        energy, forces = data[frame].get_potential_energy(), data[frame].get_forces()
        data[frame].positions[atom] = position
        data[frame] = labelled(data[frame], energy, forces)
    path = folder / f"frames.{form}"
    if form == "traj":
        with Trajectory(path, "w") as trajectory:
            for atoms in data:
                trajectory.write(atoms)
    else:
        write(path, data)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("form", ["traj", "xyz"])
def test_an_unusable_frame_is_named_or_left_out(tmp_path, form):
    first = tmp_path / "first.traj"
    write(first, images(3))
    data = [first, bad_data(tmp_path, form)]
    with pytest.raises(ValueError, match=rf"frames.{form}: frame 7, atom 2 .*finite"):
        make(data, tmp_path / "s")
    made = sorted(path.name for path in (tmp_path / "s" / "shards").iterdir())
    assert "000002" not in made  # frame 7 of the second file
    with pytest.raises(ValueError, match="not complete"):
        FrameStore(tmp_path / "s")
    store = make(data, tmp_path / "s", skip_bad=True)
    assert store.n_frames == N_FRAMES + 3 - 2
    assert [skipped[:2] for skipped in store.skipped] == [(str(data[1]), 7), (str(data[1]), 11)]
    assert "one place" in store.skipped[1][2]
    assert np.diff(store.shard_starts).tolist() == [5, 5, 3, 1]
    indices = store.frames(range(store.n_frames)).indices
    assert indices.tolist() == [0, 1, 2, *range(7), 8, 9, 10, 12]


@pytest.mark.slow
def test_skipped_frames_are_listed_at_the_end(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    data, out = bad_data(tmp_path, "traj"), tmp_path / "s"
    command = ["preprocess", str(data), "--config", str(config), "--out", str(out)]
    with pytest.raises(SystemExit) as info:
        main(command)
    assert info.value.code == 1
    assert "frame 7, atom 2" in capsys.readouterr().err
    with pytest.raises(SystemExit) as info:
        main([*command, "--skip-bad", "--derivatives", "float64"])
    assert not info.value.code
    report = capsys.readouterr().out
    assert f"{N_FRAMES - 2} frames" in report
    assert "left out 2 frames" in report
    assert report.index("frame 7,") < report.index("frame 11:")
    assert [k for _, k, _ in FrameStore(out).skipped] == [7, 11]


def test_a_damaged_frame_of_a_trajectory_is_left_out(tmp_path):
    path = tmp_path / "frames.xyz"
    write(path, images())
    lines = path.read_text().split("\n")
    starts = [k for k, line in enumerate(lines) if line.strip().isdigit()]
    lines[starts[6] + 4] = "Fe 1.0 oops"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"frames.xyz: frame 6 cannot be read"):
        make(path, tmp_path / "s")
    store = make(path, tmp_path / "s", skip_bad=True)
    assert [k for _, k, _ in store.skipped] == [6]
    assert store.n_frames == N_FRAMES - 1


def test_a_disk_that_fails_leaves_no_frames_out(tmp_path, monkeypatch):
    path, out, read = tmp_path / "frames.traj", tmp_path / "s", TrajectoryReader.__getitem__
    write(path, images())

    def failing(reader, index):
        if index == 6:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(reader, index)

    monkeypatch.setattr(TrajectoryReader, "__getitem__", failing)
    with pytest.raises(OSError, match=r"frames.traj: frame 6 cannot be read .Input/output") as info:
        make(path, out, skip_bad=True)
    assert info.value.errno == errno.EIO
    monkeypatch.undo()
    assert make(path, out, skip_bad=True).skipped == []


def test_whole_shards_of_bad_frames(tmp_path):
    data = images()
    for atoms in data[SHARD : 2 * SHARD]:
        atoms.positions[0] = np.inf
    store = make(data, tmp_path / "s", skip_bad=True)
    assert np.diff(store.shard_starts).tolist() == [5, 0, 3]
    ids = np.arange(8)
    name = descriptor().descriptor_setup_hash
    assert store.frames(ids).indices.tolist() == [0, 1, 2, 3, 4, 10, 11, 12]
    values = store.fingerprints(name, ids)
    assert store.derivatives(name, "float32").vjp(ids, values).shape == (store.n_atoms, 3)
    assert make(data, tmp_path / "s", descriptor(eta=3.0), skip_bad=True).n_frames == 8


def test_no_usable_frame_at_all(tmp_path):
    data = images(3)
    for atoms in data:
        atoms.calc = None
    with pytest.raises(ValueError, match=r"none of the 3 frames can be used.*no energy"):
        make(data, tmp_path / "s", skip_bad=True)


def test_frames_left_out_for_their_elements_are_not_forgotten(tmp_path):
    """With the elements added, a store without those frames would be taken for one with all."""
    data, out = images(4), tmp_path / "s"
    data[1].symbols[0] = "C"
    assert make(data, out, skip_bad=True).n_frames == 3
    before = contents(out)
    with pytest.raises(ValueError, match=r"left out .*frame 1, atom 0 \(C\): this element"):
        make(data, out, descriptor(elements=["C", "Fe", "H", "O"]), skip_bad=True)
    assert contents(out) == before
    assert make(data, out, descriptor(eta=3.0)).n_frames == 3


# --- input, places and stores that do not fit ---


def test_input_that_is_not_there_or_not_readable(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.traj"):
        make(tmp_path / "none.traj", tmp_path / "s")
    (tmp_path / "text.unheardof").write_text("nothing")
    with pytest.raises(ValueError, match=r"text.unheardof"):
        make(tmp_path / "text.unheardof", tmp_path / "s")
    for wrong in ("nonsense", "-3", "1.5"):
        (tmp_path / "bad.xyz").write_text(f"3\n\nH 0 0 0\nH 0 0 1\nH 0 1 1\n{wrong}\n")
        with pytest.raises(ValueError, match=r"bad.xyz: line 6, where frame 1 .*number of atoms"):
            make(tmp_path / "bad.xyz", tmp_path / "s")
    with pytest.raises(ValueError, match="no frames"):
        make([], tmp_path / "s")
    path = tmp_path / "cut.traj"
    write(path, images(4))
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    with pytest.raises(ValueError, match=r"cut.traj: cannot be read"):
        make(path, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.traj"):
        make(path, tmp_path / "s")


def test_something_in_the_way(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file; a store is a folder"):
        make(images(3), tmp_path / "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="other files in it"):
        make(images(3), tmp_path / "folder")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["thesis.txt"]

    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(PermissionError, match=r"cannot write a store to .*new"):
        make(images(3), tmp_path / "new")
    with pytest.raises(FileNotFoundError, match="there is no store in"):
        FrameStore(tmp_path / "folder")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": images(seed=1)}, "is not what it was made from"),
        ({"data": images()[:-1]}, "is not what it was made from"),
        ({"described": descriptor(cutoff=4.5)}, r"end at 4.0 Å .* reach 4.5 Å"),
    ],
    ids=["other frames", "fewer frames", "longer cutoff"],
)
def test_a_store_that_does_not_fit_is_refused(copy, whole, change, message):
    with pytest.raises(ValueError, match=message):
        make(**{"data": images(), "out": copy, **change})
    assert contents(copy) == contents(whole)


def test_a_store_that_was_begun_with_forces_is_ended_with_them(tmp_path):
    data = [*images(7), images()[7].copy(), *images()[8:]]
    with pytest.raises(ValueError, match="frame 7 has no energy"):
        make(data, tmp_path / "s")
    store = make(data, tmp_path / "s", forces=False, derivatives=None, skip_bad=True)
    assert store.has_forces
    assert store.forces(np.arange(store.n_frames)).shape == (store.n_atoms, 3)


def test_other_frames_of_the_same_file_are_refused(tmp_path):
    data, out = tmp_path / "frames.traj", tmp_path / "s"
    write(data, images())
    make(f"{data}@2:7", out)
    before = contents(out)
    for other in (f"{data}@7:12", f"{data}@2:6", data):
        with pytest.raises(ValueError, match=r"frames.traj.* is not what it was made from"):
            make(other, out)
    assert make(f"{data}@2:7", out).n_frames == 5
    assert contents(out) == before


def test_other_reasons_to_refuse_a_store(tmp_path, copy):
    with pytest.raises(ValueError, match=r"end at 4.0 Å"):
        make(images(), copy, descriptor(cutoff=5.0))
    with pytest.raises(ValueError, match=r"reaches 5.0 Å"):
        FrameStore(copy).check_reach(descriptor(cutoff=5.0))
    make(images(), tmp_path / "energies", forces=False)
    with pytest.raises(ValueError, match="without forces"):
        make(images(), tmp_path / "energies", forces=True)
    about = arrays.read_checked_json(copy / "store.json")
    arrays.write_checked_json(copy / "store.json", {**about, "version": 99})
    for use in (FrameStore, lambda path: make(images(), path)):
        with pytest.raises(ValueError, match="version 99"):
            use(copy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"derivatives": "yes"}, "'stored' or None"),
        ({"derivative_dtype": "float16"}, "'float32' or 'float64'"),
        ({"frames_per_shard": 0}, "positive integer"),
    ],
)
def test_options_that_mean_nothing(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make(images(3), tmp_path / "s", **options)
