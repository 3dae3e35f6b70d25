"""A small study in this process: what it writes, what it reuses, what it refuses."""

import gc
import json
import shutil
from copy import deepcopy

import numpy as np
import pytest
from ase.io import write
from optuna import TrialPruned
from optuna.trial import FixedTrial, TrialState

import amptorch
from amptorch.descriptor.construct import construct_descriptor
from amptorch.descriptor.Gaussian import Gaussian
from amptorch.files import write_json
from amptorch.store import shard
from amptorch.trainer import AtomsTrainer
from amptorch.training.net import PotentialNet
from amptorch.training.restart import EpochCheckpoint
from amptorch.tuning import tune
from amptorch.tuning.cache import Cache
from amptorch.tuning.command import front_table, seconds_of
from amptorch.tuning.errors import combined, summary
from amptorch.tuning.final import decide
from amptorch.tuning.jobs import Jobs, load_problem
from amptorch.tuning.objective import Objective
from amptorch.tuning.picking import front_of, pick_trial, train_config
from amptorch.tuning.report.findings import Findings
from amptorch.tuning.report.page import markdown
from amptorch.tuning.run import _Run
from amptorch.tuning.settings import tuning_config
from amptorch.tuning.space import BY_NAME
from amptorch.tuning.study import (
    fail_trials_of,
    open_storage,
    open_study,
    process_name,
    quiet_optuna,
    read_records,
)
from tests.small_frames import FP_PARAMS, labelled, mixed_frames

FRAMES = mixed_frames(28)
TRAIN, TEST = FRAMES[:24], FRAMES[24:]
SPACE = {
    "layers": 1,
    "width": [4, 6],
    "activation": "Tanh",
    "optimizer": "adam",
    "lr": [4e-3, 6e-3],
    "batch_size": 8,
    "averaging": "none",
}


def options(space=None, dataset=None, **tuning):
    """A configuration of a study that takes no time."""
    tuning = {"trial_epochs": 2, "ensemble": 0, "max_cost": 1e9, "space": space or SPACE, **tuning}
    dataset = (
        {"fp_params": deepcopy(FP_PARAMS), "cutoff_params": {"cutoff_func": "Cosine"}}
        if dataset is None
        else dataset
    )
    return {"tuning": tuning, "dataset": dataset}


def run(out, trials=2, train=TRAIN, test=None, config=None, storage=None):
    # A file is made in no time, a database takes a second.
    storage = storage or f"journal:{out.with_name('journal')}"
    config = config or options()
    return tune(train, out, test, trials, None, config, storage, workers=0, report=False)


@pytest.fixture(scope="module")
def study_of_one_trial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    run(folder / "study", 1)
    return folder


@pytest.fixture
def one_trial(study_of_one_trial, tmp_path):
    """A folder of its own with a study of one trial, the baseline."""
    shutil.copytree(study_of_one_trial, tmp_path, dirs_exist_ok=True)
    return tmp_path / "study"


@pytest.mark.slow
def test_a_study_from_frames_to_tested_models(tmp_path):
    config = options(
        {**SPACE, "size": ["small", "own"], "functions": [5], "selection": ["none", "fps"]},
        dataset={},
        ensemble=2,
        final_epochs=3,
        pruner="none",
    )
    tuned = run(tmp_path / "study", 4, test=TEST, config=config)
    records = read_records(tuned.out)
    assert [record["number"] for record in records] == [0, 1, 2, 3]
    assert {record["state"] for record in records} == {"complete"}
    assert records[0]["config"]["dataset"]["fp_params"] == {"recipe": "auto", "size": "small"}
    for record in records:
        assert len(record["epochs"][0]["val_energy_mae"]) == 2
        assert record["error"] == pytest.approx(
            record["errors"]["energy"]["rmse"] + 10 * record["errors"]["forces"]["rmse"]
        )
        assert record["cost"] > 0
    assert tuned.best["error"] == min(record["error"] for record in records)
    # The errors on the test frames are those of the models that are there.
    about = json.loads((tuned.out / "settings.json").read_text())
    predicted = np.array(amptorch.load(tuned.chosen).predict(TEST)["energy"])
    reference = np.array([atoms.get_potential_energy() for atoms in TEST])
    errors = 1000 * (predicted - reference) / [len(atoms) for atoms in TEST]
    assert tuned.test["chosen"]["energy"]["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert tuned.baseline in (None, tuned.chosen)
    assert len(tuned.test["chosen"]["energy_uncertainty_per_atom"]) == len(TEST)
    assert about["outliers_above"] == tuned.test["outliers_above"]
    assert (tuned.chosen / "ensemble.json").is_file()
    with pytest.raises(ValueError, match="was tested on other frames"):
        run(tmp_path / "study", 4, test=TEST[:3], config=config)
    # Again: nothing is left to do, and the test frames are not read for errors again.
    (tuned.out / "test.json").write_text('{"chosen": {"energy": "as it was"}}')
    again = run(tmp_path / "study", 4, test=TEST, config=config)
    assert len(read_records(again.out)) == 4
    assert again.test == {"chosen": {"energy": "as it was"}}
    # Picking.
    front = front_of(tuned.out)
    assert str(front[0]["number"]) in front_table(front)
    assert pick_trial(tuned.out, max_cost=1e9)["number"] == tuned.best["number"]
    assert pick_trial(tuned.out, max_error=1e9)["cost"] == min(r["cost"] for r in records)
    with pytest.raises(ValueError, match="cheapest trial takes"):
        pick_trial(tuned.out, max_cost=0)
    with pytest.raises(ValueError, match="trial 99"):
        pick_trial(tuned.out, trial=99)
    picked = train_config(pick_trial(tuned.out, trial=2), minutes=1)
    assert picked["optim"]["max_seconds"] == 60.0
    AtomsTrainer({**picked, "dataset": {**picked["dataset"], "raw_data": TRAIN}})


@pytest.mark.slow
def test_functions_and_neighbours_are_computed_once(tmp_path, monkeypatch):
    described, listed = [], []
    describe, search = Gaussian.values_and_derivatives, shard.neighbor_list

    def counted(self, frames, *arguments, **options):
        described.append(len(frames))
        return describe(self, frames, *arguments, **options)

    def counted_search(frames, cutoff, threads=None):
        listed.append(len(frames) if cutoff > 1 else 0)
        return search(frames, cutoff, threads)

    monkeypatch.setattr(Gaussian, "values_and_derivatives", counted)
    monkeypatch.setattr(shard, "neighbor_list", counted_search)
    run(tmp_path / "study", 3)
    assert sum(described) == len(TRAIN)
    assert sum(listed) == len(TRAIN)
    records = read_records(tmp_path / "study")
    assert all(record["seconds"]["training"] > 0 for record in records)


def test_functions_that_two_trials_share_are_computed_once(tmp_path, monkeypatch):
    write(tmp_path / "frames.traj", TRAIN)
    cache = Cache(tmp_path / "cache" / "store", str(tmp_path / "frames.traj"))
    cache.begin(["Cu", "O"], 4.5)
    computed, describe = [], Gaussian.values_and_derivatives

    def counted(self, *arguments, **options):
        computed.append(self.n_features)
        return describe(self, *arguments, **options)

    monkeypatch.setattr(Gaussian, "values_and_derivatives", counted)
    # One of each element for every eta.
    for etas, new in (((1.0, 2.0), {4}), ((2.0, 3.0, 1.0), {2}), ((3.0, 2.0), set())):
        functions = {"default": {"cutoff": 4.0, "G2": {"etas": list(etas)}}}
        setup = ("gaussian", functions, {"cutoff_func": "Cosine"}, ["Cu", "O"])
        computed.clear()
        dataset, _ = cache.dataset(setup, np.arange(16), {"type": "normalize"}, None)
        assert set(computed) == new
        frames = dataset.store.frames([3])
        np.testing.assert_allclose(
            dataset.store.fingerprints(dataset.descriptor.descriptor_setup_hash, [3]),
            dataset.descriptor.values(frames),
        )


def test_scalers_know_nothing_of_the_validation_frames(tmp_path):
    write(tmp_path / "frames.traj", TRAIN)
    cache = Cache(tmp_path / "cache" / "store", str(tmp_path / "frames.traj"))
    cache.begin(["Cu", "O"], 4.5)
    setup = ("gaussian", FP_PARAMS, {"cutoff_func": "Cosine"}, ["Cu", "O"])
    train = np.arange(16)
    dataset, _ = cache.dataset(setup, train, {"type": "standardize"}, None)
    alone = construct_descriptor(setup)
    rows = dataset.store.frames(train)
    copper = rows.numbers == 29
    expected = alone.values(rows)[copper].mean(axis=0)
    np.testing.assert_allclose(dataset.feature_scaler.scales[29]["offset"], expected)
    energies = dataset.store.energies[train]
    assert float(dataset.target_scaler.target_mean) == pytest.approx(energies.mean())


def test_the_cache_keeps_to_its_size(tmp_path):
    write(tmp_path / "frames.traj", TRAIN)
    cache = Cache(tmp_path / "cache" / "store", str(tmp_path / "frames.traj"), limit=1)
    cache.begin(["Cu", "O"], 4.5)
    for eta in (1.0, 2.0):
        functions = {"default": {"cutoff": 4.0, "G2": {"etas": [eta]}}}
        descriptor = construct_descriptor(
            ("gaussian", functions, {"cutoff_func": "Cosine"}, ["Cu", "O"])
        )
        store, seconds = cache.describe(descriptor)
        assert seconds > 0
        assert store.has_derivatives(descriptor.descriptor_setup_hash, "float32")
    kept = [path.stem for path in (tmp_path / "cache").glob("store/shards/*/fingerprints/*.json")]
    assert kept == [descriptor.descriptor_setup_hash]


@pytest.mark.slow
def test_nan_does_not_end_the_study(tmp_path, monkeypatch):
    get_loss = PotentialNet.get_loss

    def sometimes_nan(self, *arguments, **options):
        return get_loss(self, *arguments, **options) * (np.nan if self.lr > 5e-3 else 1.0)

    monkeypatch.setattr(PotentialNet, "get_loss", sometimes_nan)
    tuned = run(tmp_path / "study", 12)
    states = {r["params"]["lr"]: (r["state"], r.get("reason")) for r in read_records(tuned.out)}
    state, reason = states[6e-3]
    assert state == "diverged"
    assert "the loss of a batch in epoch 1 is nan" in reason
    assert states[4e-3][0] in ("complete", "pruned")
    assert tuned.best["params"]["lr"] == 4e-3
    summary = json.loads((tuned.out / "summary.json").read_text())
    assert sum(summary["trials"].values()) == 12


@pytest.mark.slow
def test_failed_trials_are_kept_and_explained(tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise RuntimeError("no such loss")

    monkeypatch.setattr(PotentialNet, "get_loss", fails)
    with pytest.raises(ValueError, match="no trial gave an error"):
        run(tmp_path / "study", 2)
    records = read_records(tmp_path / "study")
    assert {record["state"] for record in records} == {"failed"}
    assert all("no such loss" in record["reason"] for record in records)


@pytest.mark.slow
def test_folds_and_objectives(tmp_path):
    validation = {"folds": 3, "fraction": 0.3, "method": "random"}
    config = options(objectives=["error", "cost"], validation=validation, sampler="nsga2")
    tuned = run(tmp_path / "study", 2, config=config)
    record = read_records(tuned.out)[0]
    assert len(record["folds"]) == len(record["epochs"]) == 3
    mean = np.mean([fold["energy"]["rmse"] for fold in record["folds"]])
    assert record["errors"]["energy"]["rmse"] == pytest.approx(mean)
    assert tuned.study.trials[0].values == [record["error"], record["cost"]]
    about = json.loads((tuned.out / "settings.json").read_text())
    # All but the outlier, the frame of the highest energy.
    highest = int(np.argmax([atoms.get_potential_energy() / len(atoms) for atoms in TRAIN]))
    validated = sorted(k for fold in about["folds"] for k in fold["validate"])
    assert validated == [k for k in range(24) if k != highest]


@pytest.mark.slow
def test_folds_tell_optuna_each_step_once(tmp_path):
    config = options(trial_epochs=18, validation={"folds": 3, "fraction": 0.3}, pruner="none")
    tuned = run(tmp_path / "study", 1, config=config)
    steps = [step for step, _ in read_records(tuned.out)[0]["reports"]]
    assert steps == sorted(set(steps))
    assert dict(read_records(tuned.out)[0]["reports"]) == tuned.study.trials[0].intermediate_values


@pytest.mark.slow
def test_an_ensemble_of_seeds(tmp_path):
    config = options(ensemble=2, final_epochs=1, pruner="none")
    tuned = run(tmp_path / "study", 2, config=config)
    plan = json.loads((tuned.out / "final" / "plan.json").read_text())["trainings"]
    first, second = plan["member-1"], plan["member-2"]
    assert first["trial"] == second["trial"]
    assert first["config"]["cmd"].pop("seed") != second["config"]["cmd"].pop("seed")
    assert first == second
    assert (tuned.chosen / "ensemble.json").is_file()
    words, _ = markdown(Findings(tuned.out))
    assert "with each of 2 seeds" in words


def planned(out, best, base):
    """The plan of a study by hand whose trials and repetitions had these errors."""
    problem = load_problem(out)
    problem.tuning.ensemble, problem.tuning.force_weight = 1, 0
    start = problem.space.baseline()
    other = {**start, "width": 6}
    plan = {"again": {}, "best": {"trial": 1, "params": other}}
    plan["baseline"] = base and {"trial": 0, "params": start}
    for number, error in enumerate((base or [None])[:1] + best[:1]):
        write_json(
            out / "trials" / f"{number:05d}.json",
            {"number": number, "folds": [{"energy": {"rmse": error}}]},
        )
    for name, errors in (("best", best), ("baseline", base or [])):
        if base is not None:
            plan["again"][f"again-{name}"] = {"config": {}}
            result = {"errors": {"energy": {"rmse": errors[1]}}} if errors[1:] else {"failed": "x"}
            write_json(out / "final" / f"again-{name}" / "result.json", result)
    return decide(problem, plan, 1000.0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("best", "base", "chosen"),
    [
        ([5.0, 6.0], [10.0, 10.5], "best"),
        # The two seeds of one are as far apart as the two configurations.
        ([5.0, 10.0], [10.0, 10.5], "baseline"),
        ([9.0, 9.5], [9.2, 11.5], "baseline"),
        ([5.0], [10.0, 10.5], "baseline"),
        ([5.0], None, "best"),
    ],
)
def test_the_best_trial_is_taken_where_it_is_better_by_more_than_the_noise(
    one_trial, best, base, chosen
):
    plan = planned(one_trial, best, base)
    assert plan["chosen"] == chosen
    (training,) = plan["trainings"].values()
    assert training["trial"] == (1 if chosen == "best" else 0)
    assert training["config"]["model"]["num_nodes"] == (6 if chosen == "best" else 4)
    # All that is left, but for a reserve.
    assert plan["budget"] == {"seconds": 950.0}


@pytest.mark.slow
def test_trials_that_cost_too_much_are_not_trained(tmp_path, caplog):
    space = {**SPACE, "size": ["small", "large"]}
    config = options(space, dataset={}, max_cost=1e-3)
    problem = load_problem(run(tmp_path / "study", 1, config={**config, "size": "small"}).out)
    # The baseline, whatever it costs.
    (first,) = read_records(problem.out)
    assert (first["state"], first["params"]["size"]) == ("complete", "small")
    assert "more than tuning.max_cost (--max-cost), 0.001" in caplog.text
    large = FixedTrial({**problem.space.baseline(), "size": "large"})
    with pytest.raises(TrialPruned, match=r"µs/atom, and a trial may cost 0\.001"):
        Objective(problem)(large)
    record = read_records(problem.out)[0]
    assert record["state"] == "pruned"
    assert record["cost"] > 1e-3
    assert "epochs" not in record
    problem.tuning.max_cost = 1e9
    Objective(problem)(large)
    assert read_records(problem.out)[0]["state"] == "complete"
    # Without a word the limit follows from the baseline, as it is now.
    problem.tuning.max_cost = None
    cost, most = problem.costs(problem.resolved(first["config"]))
    assert 0 < cost < 1e6
    assert 0 < most < 1e6


@pytest.mark.slow
def test_frames_of_different_sizes(tmp_path):
    """Energies of frames of 2 to 8 atoms, 30 eV for each Cu and 50 eV for each O lower, differ by
    hundreds of eV; what is left to learn does not."""
    frames = [labelled(atoms) for atoms in FRAMES]
    assert len({len(atoms) for atoms in frames}) > 2
    for atoms in frames:
        atoms.calc.results["energy"] -= 30 * atoms.numbers.tolist().count(29)
        atoms.calc.results["energy"] -= 50 * atoms.numbers.tolist().count(8)
    errors = {}
    for given in ({}, {"atomic_correction": False, "target_scaling": True}):
        config = options(ensemble=1, final_epochs=2)
        config["dataset"] |= given
        on = not given
        tuned = run(tmp_path / str(on), 1, frames[:24], frames[24:], config)
        record = read_records(tuned.out)[0]
        assert train_config(record)["dataset"]["atomic_correction"] is on
        assert (amptorch.load(tuned.chosen).target_scaler.atomic is not None) is on
        errors[on] = np.array(
            [one["energy"]["rmse"] for one in (record["errors"], tuned.test["chosen"])]
        )
    assert np.all(10 * errors[True] < errors[False])


def test_a_study_of_before_is_not_searched_further(tmp_path):
    config = {"tuning": {"members": 3, "ensemble": "trials", "space": {"radial": [6, 8]}}}
    write_json(tmp_path / "settings.json", {"config": config, "study": "tune-1"})
    with pytest.raises(ValueError, match="of an earlier version"):
        run(tmp_path)


@pytest.mark.slow
def test_without_forces(tmp_path):
    config = options()
    config["model"] = {"get_forces": False}
    tuned = run(tmp_path / "study", 1, config=config)
    record = read_records(tuned.out)[0]
    assert record["error"] == record["errors"]["energy"]["rmse"]
    assert "forces" not in record["errors"]


def test_errors_with_and_without_outliers():
    from amptorch.frames import Frames

    frames = Frames.from_atoms(TEST, energies=True, forces=True)
    energies = frames.energies.copy()
    per_atom = frames.energies / frames.counts
    energies[np.argmax(per_atom)] += 0.5
    above = np.sort(per_atom)[-2]
    result = summary(frames, energies, frames.forces + 0.2, above)
    atoms = frames.counts[np.argmax(per_atom)]
    assert result["energy"]["rmse"] == pytest.approx(1000 * 0.5 / atoms / np.sqrt(len(TEST)))
    assert result["energy"]["median"] == 0
    assert result["without_outliers"]["energy"]["rmse"] == 0
    assert result["without_outliers"]["frames"] == len(TEST) - 1
    assert combined(result, "median", 100) == pytest.approx(20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("sqlite:////no/such/folder/x.db", FileNotFoundError, "no folder"),
        ("journal:/no/such/folder/x.log", FileNotFoundError, "no folder"),
        ("nonsense", ValueError, "no URL"),
        ("nosuch://host/name", (ValueError, OSError, ImportError), "nosuch"),
        # No such machine, or no driver; the password is not shown.
        ("postgresql://me:secret@h.invalid/x", (OSError, ImportError), r"me:\*\*\*@h\.invalid/x"),
    ],
)
def test_storages_that_cannot_be_reached(tmp_path, url, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path / "study", 1, storage=url)


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "file.db").write_text("not a database" * 100)
    with pytest.raises(OSError, match="cannot be reached"):
        open_storage(f"sqlite:///{tmp_path / 'file.db'}")


@pytest.mark.slow
def test_what_cannot_be_used_is_said_before_any_work(tmp_path):
    gold = labelled(TRAIN[0].copy())
    gold.symbols[0] = "Au"
    out = tmp_path / "study"
    with pytest.raises(ValueError, match=r"test frames: frame 0.*Au"):
        run(out, test=[gold])
    nothing = TEST[0].copy()
    with pytest.raises(ValueError, match=r"test frames: frame 1.*energy"):
        run(out, test=[TEST[0], nothing])
    with pytest.raises(ValueError, match="frames cannot be split into 10"):
        run(out, train=TRAIN[:5])
    with pytest.raises(ValueError, match="24 frames cannot be split into 30"):
        run(out, config=options(validation={"folds": 30}))
    with pytest.raises(ValueError, match="trials or a time"):
        run(out, None)
    with pytest.raises(ValueError, match="trials must be above 0"):
        run(out, 0)
    with pytest.raises(FileNotFoundError, match="no file"):
        run(out, train="nowhere.traj")
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("")
    with pytest.raises(FileExistsError, match="no study"):
        run(out)


@pytest.mark.slow
def test_a_study_is_gone_on_with_and_only_with_what_it_is_of(tmp_path):
    out = tmp_path / "study"
    run(out, 1)
    tuned = run(out, 2)
    assert [trial.number for trial in tuned.study.trials] == [0, 1]
    with pytest.raises(ValueError, match="other training frames"):
        run(out, train=TRAIN[:20])
    with pytest.raises(ValueError, match="other settings"):
        run(out, config=options(metric="mae"))
    # A process that is gone leaves a trial that runs for ever: it is run again.
    trial = tuned.study.ask()
    trial.suggest_categorical("width", [4, 6])
    trial.set_user_attr("worker", "elsewhere:1")
    assert fail_trials_of(tuned.study, out, lambda worker: worker == "here:1", "dead") == []
    assert fail_trials_of(tuned.study, out, lambda worker: True, "dead", again=True) == [2]
    assert read_records(out)[2]["state"] == "interrupted"
    tuned = run(out, 3)
    assert len(tuned.study.trials) == 4
    assert tuned.study.trials[3].params["width"] == trial.params["width"]


@pytest.mark.slow
def test_what_may_change_is_as_the_last_call_says(tmp_path):
    out = tmp_path / "study"
    assert run(out, 1).chosen is None
    later = run(out, 1, config=options(ensemble=1, final_epochs=1, sampler="random"))
    assert later.chosen is not None
    assert json.loads((out / "settings.json").read_text())["config"]["tuning"]["ensemble"] == 1


@pytest.mark.slow
def test_a_training_whose_process_died_is_gone_on_with_once(tmp_path, monkeypatch):
    config = options(ensemble=2, final_epochs=2)
    train, deaths = Jobs._train, {"member-1": 1, "member-2": 2}

    def dies(self, name):
        if deaths[name]:
            deaths[name] -= 1
        else:
            train(self, name)

    monkeypatch.setattr(Jobs, "_train", dies)
    tuned = run(tmp_path / "study", 2, test=TEST, config=config)
    assert set(deaths.values()) == {0}
    result = json.loads((tuned.out / "final" / "member-2" / "result.json").read_text())
    assert result["failed"] == "its process died"
    assert tuned.chosen.parents[1].name == "member-1"
    assert "chosen" in tuned.test


@pytest.mark.slow
def test_a_training_that_diverges_late_leaves_its_best_epoch(tmp_path, monkeypatch):
    written = EpochCheckpoint.on_epoch_end

    def diverges(self, net, **kwargs):
        written(self, net, **kwargs)
        if len(net.history) == 3:
            raise ValueError("the Kalman filter has diverged")

    monkeypatch.setattr(EpochCheckpoint, "on_epoch_end", diverges)
    config = options(ensemble=1, final_epochs=5)
    tuned = run(tmp_path / "study", 1, test=TEST, config=config)
    result = json.loads((tuned.out / "final" / "member-1" / "result.json").read_text())
    assert result["cut_short"] == "ValueError: the Kalman filter has diverged"
    assert tuned.test["chosen"]["energy"]["rmse"] > 0
    words, _ = markdown(Findings(tuned.out))
    assert "member-1 after 3 epochs (ValueError: the Kalman filter has diverged)" in words
    # No trial begins once it is decided what is trained for long.
    one = _Run(load_problem(tuned.out), tuned.study, f"journal:{tmp_path / 'journal'}", 0, 99, None)
    assert one._take_trial() is None


def opened(out):
    """The URL of the storage of a study, and the study."""
    url = f"journal:{out.with_name('journal')}"
    about = json.loads((out / "settings.json").read_text())
    with quiet_optuna():
        return url, open_study(open_storage(url), about["study"], tuning_config(about["config"]))


@pytest.mark.slow
def test_a_process_of_another_machine_with_the_same_number_is_another(one_trial):
    url, study = opened(one_trial)
    one = _Run(load_problem(one_trial), study, url, 0, 1, None)
    for worker, state in (("elsewhere:123", "RUNNING"), (process_name(123), "FAIL")):
        trial = study.ask()
        trial.set_user_attr("worker", worker)
        one._died(123, "killed; its last words")
        assert study.trials[trial.number].state.name == state


@pytest.mark.slow
def test_trials_that_optuna_gave_up_are_recorded(one_trial):
    _, study = opened(one_trial)
    trial = study.ask()
    trial.set_user_attr("worker", "elsewhere:123")
    study.tell(trial, state=TrialState.FAIL)
    run(one_trial, 3)
    record = read_records(one_trial)[1]
    assert record["state"] == "died"
    assert "elsewhere:123 gave no sign of life" in record["reason"]
    assert len(study.trials) == 3


@pytest.mark.slow
def test_nothing_of_a_job_is_left_when_it_is_over(one_trial):
    url, study = opened(one_trial)
    jobs = Jobs(one_trial, url, study.study_name, [0])
    gc.collect()
    gc.disable()
    try:
        jobs({"job": "trial"})
        assert not [one for one in gc.get_objects() if type(one) is PotentialNet]
    finally:
        gc.enable()


def test_times():
    assert [seconds_of(text) for text in ("90", "45s", "1.5 min", "2h")] == [90, 45, 90, 7200]
    for text in ("two hours", "inf", "-5", "1h30", "0", "0.0 min"):
        with pytest.raises(ValueError, match="is no time such as 90s, 30min or 2h"):
            seconds_of(text)


ADAM = {"lr": 4e-3, "schedule": "cosine", "batchnorm": False}
OWN = {"size": "own", "cutoff": 4.0, "n_radial": 3, "n_angular": 2, "zetas": "1 4"}
KINDS = [
    {**ADAM, "optimizer": "adamw", "weight_decay": 1e-4, "model": "singlenn"},
    {"optimizer": "ekf", "activation": "SiLU", **OWN, "angular": "G5", "angular_cutoff": 5.0},
    {"optimizer": "lbfgs", "activation": "Tanh", "averaging": "swa", "size": "small"},
    {**ADAM, "optimizer": "adam", "schedule": "constant", "force_fraction": 0.5, "batchnorm": True},
    {"cutoff_function": "polynomial", "selection": "cur", "functions": 6, "cutoff": 4.0},
]


@pytest.mark.slow
def test_every_kind_of_trial_trains(tmp_path):
    given = {**SPACE, "functions": [6], "width": [4, 6], "size": ["small", "own"]}
    searched = ("optimizer", "averaging", "activation", "model", "selection", "batchnorm")
    for name in (*searched, "cutoff_function"):
        given[name] = list(BY_NAME[name].limits)
    out = tmp_path / "study"
    run(out, 1, config=options(given, dataset={}))
    problem = load_problem(out)
    for kind in KINDS:
        Objective(problem)(FixedTrial({**problem.space.baseline(), **kind}))
        record = read_records(out)[0]
        assert record["state"] == "complete", record
        assert record["params"].items() >= kind.items()
        assert len(record["epochs"][0]["train_loss"]) == 2


@pytest.mark.slow
def test_a_budget_of_time_ends_a_trial(tmp_path):
    tuned = run(tmp_path / "study", 1, config=options(trial_epochs=None, trial_seconds=0.3))
    record = read_records(tuned.out)[0]
    assert record["config"]["optim"]["max_seconds"] == 0.3
    assert record["config"]["optim"]["scheduler"]["policy"] == "cosine_time"
    assert record["state"] == "complete"
