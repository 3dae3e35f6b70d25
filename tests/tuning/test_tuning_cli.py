"""`amptorch tune` and `amptorch pick`."""

import subprocess
import sys

import pytest
import yaml
from ase.io import write

from amptorch import cli
from amptorch.files import read_config
from amptorch.trainer import AtomsTrainer
from tests.tuning.test_tuning_study import TEST, TRAIN, options


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    write(folder / "train.traj", TRAIN)
    write(folder / "test.traj", TEST)
    config = options(ensemble=1, final_epochs=2, pruner="none")
    config["dataset"]["fp_params"]["default"]["G2"]["etas"] = [0.5, 4.0]
    (folder / "base.yaml").write_text(yaml.safe_dump(config))
    return folder


def call(*arguments):
    cli.main([str(argument) for argument in arguments])


def command(study, *more):
    return ("tune", "--train", study / "train.traj", "--out", study / "out", "--workers", 0, *more)


@pytest.mark.slow
def test_tune_and_pick(study, capsys):
    with pytest.raises(SystemExit) as ended:
        call(
            *command(
                study, "--test", study / "test.traj", "--trials", 2, "--config", study / "base.yaml"
            )
        )
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "nothing was decided by" in text
    assert "best trial:" in text
    with pytest.raises(SystemExit):
        call("pick", study / "out")
    assert "µs/atom" in capsys.readouterr().out
    picked = study / "picked.yaml"
    with pytest.raises(SystemExit) as ended:
        call("pick", study / "out", "--trial", 1, "--config", picked)
    assert ended.value.code == 0
    config = read_config(picked)
    config["dataset"]["raw_data"] = TRAIN
    config["optim"] |= {"epochs": 1}
    config["cmd"] |= {"debug": True, "verbose": False}
    AtomsTrainer(config).train()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "give trials or a time"),
        (("--time", "soon"), "no time such as"),
        (("--trials", 1, "--storage", "nonsense"), "no URL"),
    ],
)
def test_what_is_wrong_is_one_line(study, capsys, more, message):
    with pytest.raises(SystemExit) as ended:
        call(*command(study, *more)[:4], study / "new", "--workers", 0, *more)
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_pick_without_a_study(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        call("pick", tmp_path)
    assert ended.value.code == 1
    assert "there is no study" in capsys.readouterr().err


@pytest.mark.slow
def test_without_optuna_there_is_one_clear_line():
    code = (
        "import sys; sys.modules['optuna'] = None\n"
        "import amptorch.tuning, amptorch.descriptor.Gaussian.recipes\n"
        "try:\n    amptorch.tuning.tune\n"
        "except ImportError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install optuna" in run.stdout


def test_too_little_time_says_how_much_is_needed(study, capsys):
    """Before the work begins, where it is known."""
    out = study / "short"
    with pytest.raises(SystemExit) as ended:
        call("tune", "--train", study / "train.traj", "--out", out, "--time", "20s")
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert "of 20 s the search has 5 s, and a trial takes 2.5 s; give --time" in error
    assert not out.exists()


@pytest.mark.slow
def test_time_that_is_gone_before_a_trial_begins(study, capsys):
    """The message names nothing that is not there."""
    out = study / "gone"
    with pytest.raises(SystemExit) as ended:
        call(
            *command(study)[:-4],
            "--out",
            out,
            "--time",
            "0.001s",
            "--workers",
            0,
            "--config",
            study / "base.yaml",
        )
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert "were gone before a trial could begin" in error
    assert "--time" in error
    assert str(out / "trials") not in error
