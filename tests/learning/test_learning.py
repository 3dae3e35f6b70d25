"""Learning on the fly: labels, rounds, and going on after an end in the middle."""

import json
import sys

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write

import amptorch
from amptorch.cli import main
from amptorch.learning import LearningConfig, learn, make_labeller
from amptorch.novelty import check_elements
from tests.small_frames import config
from tests.test_md import copper


class Failing(EMT):
    """Fails for every second frame that it is asked."""

    asked = 0

    def calculate(self, *arguments, **options):
        type(self).asked += 1
        if type(self).asked % 2 == 0:
            raise RuntimeError("not converged")
        super().calculate(*arguments, **options)


COMMAND = """
import sys
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

frames = read(sys.argv[1], ":")[1:]
for atoms in frames:
    atoms.calc = EMT()
    found = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **found)
write(sys.argv[2], frames[::-1])
"""


@pytest.mark.parametrize("name", ["emt", "ase.calculators.emt:EMT"])
def test_labels_of_a_calculator(name):
    frames = copper(3)
    labelled, reasons = make_labeller(name)([atoms.copy() for atoms in frames])
    assert not reasons
    for atoms, expected in zip(labelled, frames, strict=True):
        assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy())
        np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), atol=1e-12)
        assert "stress" in atoms.calc.results


def test_frames_that_fail_are_named_and_left_out():
    Failing.asked = 0
    frames = copper(4)
    labelled, reasons = make_labeller("tests.learning.test_learning:Failing")(frames)
    assert sorted(reasons) == [1, 3]
    assert reasons[1] == "RuntimeError: not converged"
    np.testing.assert_array_equal(labelled[1].positions, frames[2].positions)


@pytest.mark.slow
def test_labels_of_a_command_which_leaves_out_a_frame(tmp_path):
    (tmp_path / "label.py").write_text(COMMAND)
    frames = copper(3)
    labeller = make_labeller(f"{sys.executable} {tmp_path}/label.py {{input}} {{output}}")
    labelled, reasons = labeller([atoms.copy() for atoms in frames])
    assert list(reasons) == [0]
    assert "no frame with its elements and positions" in reasons[0]
    for atoms, expected in zip(labelled, frames[1:], strict=True):
        np.testing.assert_array_equal(atoms.positions, expected.positions)
        np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "there is no calculator 'nobody'"),
        ("ase.calculators.emt:Nobody", "there is no calculator 'ase.calculators.emt:Nobody'"),
        ("label.sh {input}", "needs both {input} and {output}"),
        ("nobody {input} {output}", "there is no program 'nobody'"),
        (f"{sys.executable} -c 'import sys; sys.exit(3)' {{input}} {{output}}", "ended with 3"),
        (f"{sys.executable} -c '{{none}}' {{input}} {{output}}", "wrote no"),
        ("touch {input} {output}", r"ended with 0 and .*labelled\.xyz.*Empty file"),
        ("cp {input} {output} nowhere", r"ended with 1 and wrote no"),
        ("sh -c 'head -c 300 {input} > {output}; exit 3'", r"ended with 3 and .* cut short"),
    ],
)
def test_labellers_that_do_not_exist_or_fail(name, message):
    with pytest.raises(ValueError, match=message):
        make_labeller(name)(copper(1))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    run = tmp_path_factory.mktemp("model")
    settings = config(copper(20), run, optim__epochs=10, dataset__atomic_correction=True)
    amptorch.fit(amptorch.prepare(settings)).save(run / "model")
    return run / "model"


SETTINGS = {
    "temperature": 3000.0,
    "timestep": 2.0,
    "run": 0.2,
    "silent": 1.0,
    "interval": 1,
    "frames": 3,
    "training": {"optim": {"epochs": 2, "total_seconds": None}},
}


@pytest.mark.slow
def test_rounds_and_going_on_where_it_was_killed(model, tmp_path):
    settings = LearningConfig.from_dict(SETTINGS)
    start, real = copper(20), make_labeller("emt")
    calls = []

    def killed(images):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(images)

    with pytest.raises(KeyboardInterrupt):
        learn(start, killed, tmp_path / "run", settings, 2, model)
    done = tmp_path / "run" / "round-000" / "model" / "params.pt"
    moved = tmp_path / "run" / "round-001" / "dynamics.json"
    before = [path.stat().st_mtime_ns for path in (done, moved)]
    found = learn(start, killed, tmp_path / "run", settings, 2, model)
    assert [path.stat().st_mtime_ns for path in (done, moved)] == before
    assert len(calls) == 3
    assert found.rounds == 2
    assert not found.silent
    new = [read(tmp_path / "run" / f"round-00{k}" / "labelled.traj", ":") for k in (0, 1)]
    assert found.labelled == sum(map(len, new)) > 1
    first = amptorch.load(model)
    (there,) = (new[0][:1],)
    distances = [
        potential.predict(there, extrapolation=True)["extrapolation"][0].max()
        for potential in (first, found.potential)
    ]
    assert distances[0] > 2
    assert distances[1] < distances[0]
    # Nothing is left to do.
    again = learn(start, killed, tmp_path / "run", settings, 2, model)
    assert len(calls) == 3
    assert again.labelled == found.labelled


def test_it_ends_when_the_guard_is_silent(model, tmp_path):
    settings = LearningConfig.from_dict(
        {**SETTINGS, "temperature": 1.0, "silent": 0.03, "run": 0.01, "margin": 1.5}
    )
    found = learn(copper(5), make_labeller("emt"), tmp_path / "run", settings, 3, model)
    assert found.silent
    assert (found.labelled, found.rounds) == (0, 1)
    assert found.folder == model
    told = json.loads((tmp_path / "run" / "round-000" / "dynamics.json").read_text())
    assert told["lost"] == 0
    assert told["runs"] == 3


@pytest.mark.slow
def test_runs_go_on_some_way_beyond_where_trust_is_lost(model, tmp_path):
    candidates = {}
    for beyond in (1.0, 3.0):
        settings = LearningConfig.from_dict({**SETTINGS, "beyond": beyond})
        learn(copper(5), make_labeller("emt"), tmp_path / f"{beyond}", settings, 1, model)
        frames = read(tmp_path / f"{beyond}" / "round-000" / "candidates.traj", ":")
        candidates[beyond] = [atoms.info["extrapolation"] for atoms in frames]
        assert min(candidates[beyond]) > 2
    # As far as one step leads.
    assert len(candidates[1.0]) == 3
    assert len(candidates[3.0]) > 3
    assert max(candidates[3.0]) > max(candidates[1.0])


def test_no_frame_that_could_be_labelled(model, tmp_path):
    def nothing(images):
        return [], dict.fromkeys(range(len(images)), "no licence")

    settings = LearningConfig.from_dict(SETTINGS)
    with pytest.raises(ValueError, match="none of the frames"):
        learn(copper(5), nothing, tmp_path / "run", settings, 1, model)


def test_one_process_at_a_time_learns_in_a_folder(model, tmp_path):
    def meanwhile(images):
        with pytest.raises(BlockingIOError, match="another process learns in"):
            learn(copper(5), make_labeller("emt"), tmp_path, settings, 1, model)
        return [], {}

    settings = LearningConfig.from_dict(SETTINGS)
    with pytest.raises(ValueError, match="could be labelled"):
        learn(copper(5), meanwhile, tmp_path, settings, 1, model)
    assert not (tmp_path / ".lock").exists()


def test_elements_that_the_model_does_not_know(model):
    with pytest.raises(ValueError, match="Au, which the model does not know"):
        check_elements(amptorch.load(model), [bulk("Au")])


@pytest.mark.slow
def test_the_command_learn(model, tmp_path, capsys):
    write(tmp_path / "start.xyz", copper(20))
    (tmp_path / "md.yaml").write_text(json.dumps(SETTINGS))

    def run(label="tests.learning.test_learning:Failing"):
        command = ["learn", "--model", model, "--start", tmp_path / "start.xyz", "--label", label]
        command += ["--dynamics", tmp_path / "md.yaml", "--rounds", 1, "--out", tmp_path / "run"]
        with pytest.raises(SystemExit) as exit_info:
            main([str(word) for word in command])
        return exit_info.value.code or 0

    assert run("nobody") == 1
    assert "there is no calculator 'nobody'" in capsys.readouterr().err
    Failing.asked = 0
    assert run() == 0
    told = capsys.readouterr().out
    assert "frames were labelled; trust was lost until the last of 1 rounds" in told
    assert f"potential: {tmp_path / 'run' / 'round-000' / 'model'}" in told
    failed = json.loads((tmp_path / "run" / "round-000" / "failed.json").read_text())
    assert "1" in failed
    (tmp_path / "md.yaml").write_text("temprature: 300")
    assert run() == 1
    assert "temperature" in capsys.readouterr().err
