"""The report of a study: what it says of any outcome, and the files it writes."""

import csv
import re
import sqlite3
import zipfile
from contextlib import closing

import numpy as np
import pytest
import yaml

from amptorch import cli
from amptorch.config import Config
from amptorch.ensemble import Ensemble
from amptorch.tuning import tune
from amptorch.tuning.picking import pick_trial
from amptorch.tuning.report.findings import Findings, HeldOut
from amptorch.tuning.report.page import as_page, markdown, write_report
from amptorch.tuning.report.words import compared, counted, duration, head, listed, number, row
from amptorch.tuning.space import Space
from amptorch.tuning.study import read_json, read_records, write_json
from tests.tuning.test_tuning_study import SPACE, TEST, TRAIN, options

NOT_FOR_PEOPLE = re.compile(r"\bnan\b|\bNone\b(?! of)|\binf\b|[{}]|  |\.\.|–%|\bTrue\b|\bFalse\b")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of three trials with everything in it."""
    out = tmp_path_factory.mktemp("report") / "study"
    config = options(ensemble=2, final_epochs=3, pruner="none")
    tune(TRAIN, out, TEST, 3, config=config, workers=0)
    return out


def texts(findings):
    """{title: all text of the section}, checked to be fit for people and not empty."""
    text, names = markdown(findings)
    assert len(set(names)) == len(names)
    found = {}
    for section in text.split("\n## ")[1:]:
        title, *blocks = section.strip().split("\n\n")
        assert blocks, title
        parts = []
        for block in blocks:
            if not block.startswith("|"):
                parts.append(block.removeprefix("```bash\n"))
                continue
            header, rule, *rows = [
                [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                for line in block.splitlines()
            ]
            assert rows, title
            assert {len(line) for line in (rule, *rows)} == {len(header)}, title
            parts += [cell for line in (header, *rows) for cell in line]
        for part in parts:
            assert not NOT_FOR_PEOPLE.search(part), (title, part)
        found[title] = "\n".join(parts)
    return found


@pytest.mark.slow
def test_files(finished):
    page = (finished / "report.html").read_text()
    assert page.count("<svg") == len(list((finished / "figures").glob("*.png")))
    assert not re.search(r"(src|href)=", page.replace("xlink:href", ""))
    text = (finished / "report.md").read_text()
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert sorted(pictures) == sorted(f"figures/{p.name}" for p in finished.glob("figures/*"))
    assert {"figures/parity.png", "figures/uncertainty.png"} < {*pictures}
    # The same sections, in the same order.
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles == re.findall(r"<h2>(.*?)</h2>", page)
    texts(Findings(finished))


@pytest.mark.slow
def test_numbers_of_the_report_are_those_of_the_records(finished):
    test, found = read_json(finished / "test.json"), texts(Findings(finished))
    chosen = test["chosen"]
    table = found["Errors on the test frames"]
    for value in (chosen["energy"]["rmse"], chosen["forces"]["mae"]):
        assert number(value) in table
    assert (
        test["opened"].replace("T", " at ").replace("+00:00", " UTC")
        in found["How it was validated"]
    )
    rows = list(csv.DictReader((finished / "trials.csv").open()))
    records = read_records(finished)
    assert [int(row["number"]) for row in rows] == [record["number"] for record in records]
    for line, record in zip(rows, records, strict=True):
        assert float(line["energy_rmse_meV_per_atom"]) == record["errors"]["energy"]["rmse"]
        assert int(line["width"]) == record["params"]["width"]


@pytest.mark.slow
def test_predictions_that_are_kept(finished):
    held, test = Findings(finished).predictions, read_json(finished / "test.json")
    assert held.kind == "test"
    assert held.models == ["chosen"]
    energy, forces = held.energy_errors("chosen"), held.force_errors("chosen")
    assert np.sqrt(np.mean(energy**2)) == pytest.approx(test["chosen"]["energy"]["rmse"])
    assert np.sqrt(np.mean(forces**2)) == pytest.approx(test["chosen"]["forces"]["rmse"], rel=1e-5)
    squares = held.frame_force_errors("chosen") ** 2
    assert np.average(squares, weights=held.counts) == pytest.approx(np.mean(forces**2))
    energy, forces = held.spreads("chosen")
    expected = 1000 * np.array(test["chosen"]["energy_uncertainty_per_atom"])
    np.testing.assert_allclose(energy, expected)
    assert forces.shape == held.forces.shape


@pytest.mark.slow
def test_without_test_frames_the_validation_frames_are_shown(finished):
    findings = Findings(finished)
    findings.test = None
    held = findings.predictions
    assert held.kind == "validation"
    errors = findings.results["member-1"]["errors"]
    assert np.sqrt(np.mean(held.energy_errors("chosen") ** 2)) == pytest.approx(
        errors["energy"]["rmse"]
    )
    assert "had a say" in texts(findings)["Parity"]


@pytest.mark.slow
def test_archive(finished, tmp_path):
    with zipfile.ZipFile(finished / "results.zip") as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        archive.extractall(tmp_path)
        for name in names:
            if not name.endswith((".pt", ".png", ".npz", ".db")):
                assert str(finished.parent) not in archive.read(name).decode(), name
    results = tmp_path / "results"
    for name in ("report.html", "report.md", "trials.csv", "study/settings.json", "study/test.npz"):
        assert (results / name).is_file()
    assert len(list((results / "study" / "trials").iterdir())) == 3
    with closing(sqlite3.connect(results / "study" / "study.db")) as database:
        assert database.execute("SELECT COUNT(*) FROM trials").fetchone() == (3,)
    moved = Ensemble.load(results / "checkpoint").predict(TEST)
    assert moved["energy"] == pytest.approx(read_json(finished / "test.json")["chosen"]["energies"])
    for name in ("best", "baseline", "final-member-1"):
        config = yaml.safe_load((results / "configurations" / f"{name}.yaml").read_text())
        Config.from_dict(config)
    given = yaml.safe_load((results / "configurations" / "tuning.yaml").read_text())
    assert given["tuning"]["ensemble"] == 2


@pytest.mark.slow
def test_the_command(finished, capsys, tmp_path):
    (finished / "report.md").unlink()
    (finished / "figures" / "of-before.png").write_text("")
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(finished)])
    assert ended.value.code == 0
    assert "results.zip" in capsys.readouterr().out
    assert (finished / "report.md").exists()
    assert not (finished / "figures" / "of-before.png").exists()
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(tmp_path)])
    assert ended.value.code == 1
    assert "there is no study" in capsys.readouterr().err


def errors(energy, forces=0.5, frames=6):
    def statistics(rmse):
        return {"rmse": rmse, "mae": 0.8 * rmse, "median": 0.5 * rmse}

    result = {"frames": frames, "energy": statistics(energy)}
    if forces is not None:
        result["forces"] = statistics(forces)
        result["forces_by_element"] = {"Cu": statistics(forces), "O": statistics(2 * forces)}
    return result


def record(number, error=20.0, cost=10.0, state="complete", forces=0.5, **params):
    base = Space(SPACE).baseline() if forces is not None else Space(SPACE, NO_FORCES).baseline()
    result = {"number": number, "state": state, "params": {**base, **params}, "epochs": []}
    result["seconds"] = {"fingerprints": 1.0, "training": 9.0, "evaluation": 0.0}
    if state == "complete":
        config = {"model": {}, "optim": {}, "dataset": {}, "cmd": {}}
        result |= {"error": error, "cost": cost, "config": config, "reports": [[1, 2 * error]]}
        force_part = 0.0 if forces is None else 10 * forces
        result |= {"errors": errors(error - force_part, forces), "n_functions": 9}
    else:
        result["reason"] = f"it went wrong in trial {number} at 3.5e-2"
    return result


NO_FORCES = {"model": {"get_forces": False}}


def study(out, records, config=None, of_before=False, **files):
    """The folder of a study, by hand, and its Findings."""
    about = {
        "config": config or {"tuning": {"space": SPACE}},
        "elements": ["Cu", "O"],
        "frames": 40,
        "outliers_above": 1.25,
        "correlation": 0.9,
        "folds": [{"train": list(range(34)), "validate": list(range(34, 40))}],
        "study": "tune-1",
        **({} if of_before else {"defaults": "recommended"}),
        "data": "somewhere/frames.traj",
    }
    write_json(out / "settings.json", about)
    for one in records:
        write_json(out / "trials" / f"{one['number']:05d}.json", one)
    for name, content in files.items():
        write_json(out / f"{name}.json", content)
    return Findings(out)


def after(chosen, base, widths=(6, 4)):
    """What else is in the folder after a final training and a test with these errors."""
    trainings = {
        name: {"trial": k, "params": {"width": width}, "config": {}}
        for k, (name, width) in enumerate(zip(("member-1", "baseline"), widths, strict=True))
    }
    files = {"final/plan": {"budget": {"seconds": 7200}, "trainings": trainings}}
    for name in trainings:
        files[f"final/{name}/result"] = {"name": name, "checkpoint": "x", "epochs": {}}
    if base is None:
        files["final/baseline/result"] = {"name": "baseline", "failed": "ValueError: no"}
    files["summary"] = {"chosen": "final/member-1/x", "baseline": None}
    models = {"chosen": chosen, "baseline": base}
    files["test"] = {name: errors_ for name, errors_ in models.items() if errors_ is not None}
    return files


def test_nothing_yet(tmp_path):
    found = texts(study(tmp_path, []))
    assert "No trial has given an error yet" in found["In short"]
    assert "There are no trials yet" in found["Trials without a result"]
    assert "What mattered, and by how much" not in found


def test_all_failed(tmp_path):
    records = [record(k, state="failed") for k in range(3)] + [record(3, state="died")]
    records[2]["reason"] = "something else\nand more"
    found = texts(study(tmp_path, records))
    assert "No trial gave an error, so that there is no result" in found["In short"]
    assert "3 failed, 1 died" in found["In short"]
    lost = found["Trials without a result"].splitlines()
    # Two reasons that differ in their numbers alone are one.
    assert lost[lost.index("it went wrong in trial … at …") + 1] == "2"
    assert "and more" not in lost


def test_one_trial_that_is_the_baseline(tmp_path):
    found = texts(study(tmp_path, [record(0)]))
    assert "That is the baseline itself" in found["In short"]
    assert "fewer than 20, say nothing" in found["What mattered, and by how much"]
    assert "both the most accurate and the cheapest" in found["Error against cost"]
    assert "No test frames were given" in found["How it was validated"]
    assert "too good by the luck of the draw" in found["Errors on the validation frames"]
    assert "no predictions on held-out frames" in found["Parity"]
    assert "The final training is not over" in found["In short"]


def test_the_baseline_failed(tmp_path):
    found = texts(study(tmp_path, [record(0, state="failed"), record(1, width=6)]))
    assert "There is no baseline to compare it with" in found["In short"]
    assert "so that there is no way from it" in found["What mattered, and by how much"]


def test_better_than_the_baseline(tmp_path):
    records = [record(0, 20.0, 10.0), record(1, 15.0, 8.0, width=6), record(2, 15.0, 9.0, width=6)]
    found = texts(study(tmp_path, records))
    assert "25 % lower than the baseline's" in found["In short"]
    assert "number 1," in found["In short"]
    assert "`width` 4 → 6" in found["What mattered, and by how much"]
    assert (
        "Trial 1 is as accurate as the baseline, or more so, at 0.80 of its cost"
        in (found["Error against cost"])
    )
    assert "1 trial after it did no better" in found["Course of the search"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "base", "said"),
    [
        (errors(4.0), errors(5.0), "4.00 meV/atom, is 20 % lower than the baseline's 5.00"),
        (errors(6.0), errors(5.0), "6.00 meV/atom, is 20 % higher than the baseline's 5.00"),
        (errors(15.0), errors(5.0), "is 3.00 times the baseline's 5.00"),
        (errors(5.0), errors(5.0), "is the same as the baseline's 5.00"),
        (errors(5.0, None), errors(5.0, None), "is the same as the baseline's"),
    ],
)
def test_comparison_with_the_baseline(tmp_path, chosen, base, said):
    forces = 0.5 if "forces" in chosen else None
    config = {"tuning": {"space": SPACE}, **(NO_FORCES if forces is None else {})}
    records = [record(0, forces=forces), record(1, 19.0, forces=forces, width=6)]
    findings = study(tmp_path, records, config, **after(chosen, base))
    found = texts(findings)
    assert said in found["Errors on the test frames"]
    assert "trained for 2.0 h on all training frames" in found["In short"]
    assert ("eV/Å" in found["Errors on the test frames"]) == (forces is not None)
    assert ("eV/Å" in found["What was searched, and how"]) == (forces is not None)


def test_the_same_configuration_twice(tmp_path):
    files = after(errors(4.0), errors(5.0), (4, 4))
    found = texts(study(tmp_path, [record(0)], **files))
    assert "differ in the seed alone" in found["Errors on the test frames"]


def test_without_a_baseline_at_the_end(tmp_path):
    found = texts(study(tmp_path, [record(0)], **after(errors(4.0), None)))
    assert "its training failed" in found["In short"]
    assert "Failed: baseline (ValueError: no)" in found["How it was validated"]


def test_outliers_and_what_they_make_up(tmp_path):
    chosen = errors(10.0, frames=10)
    chosen["without_outliers"] = errors(5.0, frames=9)
    found = texts(study(tmp_path, [record(0)], **after(chosen, errors(9.0))))
    # 1 - 9·25 / (10·100)
    assert "1 of 10 frames is beyond it and makes up 78 %" in found["Errors on the test frames"]


def test_nothing_trained_for_longer(tmp_path):
    config = {"tuning": {"space": SPACE, "ensemble": 0}}
    assert (
        "No trial was trained for longer" in texts(study(tmp_path, [record(0)], config))["In short"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("errors_", "noise", "said"),
    [
        (([5.0, 6.0], [9.0, 9.5]), 1.0, "it is better by more than the noise"),
        (([5.0, 9.0], [9.0, 9.5]), 4.0, "not better by more than the noise (4.00)"),
        (([5.0], [9.0, 9.5]), None, "could not be trained, so that the baseline"),
    ],
)
def test_what_is_trained_for_long_and_why(tmp_path, errors_, noise, said):
    files = after(errors(4.0), None)
    plan = files["final/plan"]
    del plan["trainings"]["baseline"]
    chosen = "best" if noise == 1.0 else "baseline"
    plan |= {"errors": dict(zip(("best", "baseline"), errors_, strict=True)), "chosen": chosen}
    plan |= {"best": {"trial": 1}, "baseline": {"trial": 0}}
    plan |= {} if noise is None else {"noise": noise}
    found = texts(study(tmp_path, [record(0), record(1, 15.0, width=6)], **files))
    assert said in found["In short"]
    assert "34 frames for 2.0 h; the 6 others chose" in found["How it was validated"]
    assert "There is no baseline beside it" not in found["In short"]


@pytest.mark.slow
def test_a_study_of_before_is_read(tmp_path):
    """One whose parameters this version does not know."""
    old = {"radial_recipe": "shells", "radial": 8, "ekf_width": 20, "force_coefficient": 500.0}
    old |= {"selection": "none", "optimizer": "ekf", "averaging": "none"}
    records = [record(k, 20.0 - k / 10) for k in range(25)]
    for k, one in enumerate(records):
        one["params"] = {**old, "force_coefficient": 500.0 + k, "radial": 6 + 2 * (k % 2)}
    records[24] |= {"state": "pruned", "reason": "it costs 9 µs/atom, and a trial may cost 4"}
    tuning = {"members": 3, "ensemble": "trials", "curve": [0.5], "space": {"radial": [6, 8]}}
    files = after(errors(4.0), errors(5.0))
    found = texts(study(tmp_path, records, {"tuning": tuning}, of_before=True, **files))
    assert "`force_coefficient`" in found["What was searched, and how"]
    assert "20 % lower than the baseline's 5.00" in found["Errors on the test frames"]
    assert pick_trial(tmp_path, max_error=19.0)["params"]["radial"] in (6, 8)
    assert "it costs … µs/atom" in found["Trials without a result"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        ({"sampler": "random"}, "The others were drawn by chance alone"),
        ({"startup_trials": 2}, "until 2 trials had ended, the rest by the tree-structured"),
        ({"pruner": "none"}, "No trial was ended early"),
        ({"objectives": ["error", "cost"]}, "Error and cost were minimised together"),
        ({"metric": "mae"}, "the MAE of the energy in meV/atom plus 10 times the MAE"),
        (
            {"trial_epochs": 3, "validation": {"folds": 3}},
            "trained for 3 epochs in each of 3 folds",
        ),
        ({"validation": {"folds": 3}}, "trained for 60 s, shared by 3 folds"),
    ],
)
def test_the_search_is_described(tmp_path, tuning, said):
    config = {"tuning": {"space": SPACE, **tuning}}
    found = texts(study(tmp_path, [record(k, 20.0 + k) for k in range(3)], config))
    assert said in found["What was searched, and how"]


def test_what_cannot_matter_is_not_searched(tmp_path):
    config = {"tuning": {"space": {**SPACE, "size": "own", "optimizer": "ekf"}}}
    text = texts(study(tmp_path, [record(0)], config))["What was searched, and how"]
    assert "`n_radial`" in text
    for name in ("functions", "lr", "weight_decay"):
        assert f"`{name}`" not in text


def test_commands(tmp_path):
    call = {"train": "/data/my train.traj", "test": None, "trials": None, "seconds": 5400.0}
    call |= {"workers": 2, "storage": "journal:/scratch/log", "begun": "2026-01-01T00:00:00+00:00"}
    call["environment"] = {"processor": "of a kind", "cores": 2}
    findings = study(tmp_path / "my study", [record(0)], calls=[call])
    found = texts(findings)
    assert (
        "amptorch tune --train 'my train.traj' --out 'my study' --time 90min "
        "--config configurations/tuning.yaml --storage journal:log --workers 2\n"
    ) in found["To do it again"]
    assert "of a kind" in found["Machine and versions"]
    assert "2026-01-01 at 00:00:00 UTC" in found["Machine and versions"]


@pytest.mark.slow
def test_a_journal_is_in_the_archive(tmp_path):
    (tmp_path / "journal.log").write_text('{"op_code": 0}\n')
    call = {"train": "train.traj", "test": None, "trials": 1, "seconds": None, "workers": 0}
    call |= {"begun": "2026-01-01T00:00:00+00:00", "environment": {}}
    call["storage"] = f"journal:{tmp_path / 'journal.log'}"
    out = tmp_path / "study"
    study(out, [record(0)], calls=[call])
    with zipfile.ZipFile(write_report(out)[-1]) as archive:
        assert archive.read("results/study/journal.log") == b'{"op_code": 0}\n'


def held_out(chosen, base, spread=None, n=40, seed=0):
    """HeldOut of n frames of two atoms whose errors have these standard deviations, meV/atom."""
    rng = np.random.default_rng(seed)
    energies = np.linspace(-1, 1, n)
    arrays = {"counts": np.full(n, 2), "numbers": np.tile([29, 8], n), "energies": energies}
    arrays["forces"] = rng.normal(size=(2 * n, 3)).astype(np.float32)
    for name in ("chosen", "baseline"):
        noise = 0.1 * rng.normal(size=(2 * n, 3))
        arrays[f"{name}_forces"] = (arrays["forces"] + noise).astype(np.float32)
    arrays["chosen_energies"] = energies + 1e-3 * chosen * rng.normal(size=n)
    arrays["baseline_energies"] = energies + 1e-3 * base * rng.normal(size=n)
    if spread is not None:
        arrays["chosen_energies_spread"] = spread / 1000
    return HeldOut("test", arrays)


def test_what_other_test_frames_might_have_given():
    low, high = held_out(1.0, 1.0, seed=2).ratio("energy")
    assert low < 1 < high
    low, high = held_out(1.0, 5.0).ratio("energy")
    assert 0.1 < low < 0.2 < high < 0.35
    assert held_out(1.0, 1.0, n=4).ratio("energy") is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "said"),
    [(1.0, "about the size of"), (0.2, "too small"), (5.0, "too large")],
)
def test_spread_against_error(tmp_path, factor, said):
    scale = np.geomspace(1.0, 50.0, 200)
    held = held_out(scale, 1.0, factor * scale, n=200)
    findings = study(tmp_path, [record(0)], **after(errors(4.0), errors(5.0)))
    findings.predictions = held
    text = texts(findings)["Uncertainty of the ensemble"]
    assert said in text
    assert "tells well which frames" in text


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (compared(8.0, 10.0), "20 % lower than"),
        (compared(10.0, 8.0), "25 % higher than"),
        (compared(10.0, 10.01), "within half a percent of"),
        (compared(0.0, 0.0), "the same as"),
        (compared(30.0, 10.0), "3.00 times"),
        (number(0.04567), "0.0457"),
        (number(12345.6), "12346"),
        (number(9.996), "10.0"),
        (number(float("nan")), "–"),
        (listed(["a"]), "a"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (counted(1, "trial"), "1 trial"),
        (duration(7300), "2.0 h"),
    ],
)
def test_words_for_numbers(said, expected):
    assert said == expected


def test_trials_as_a_table_without_any():
    from amptorch.tuning.report.archive import trial_table

    class Empty:
        records, space = [], Space(SPACE)

    assert trial_table(Empty) == ""


def test_columns_of_words_and_of_numbers():
    lines = [head(["", "reason", "energy RMSE (meV/atom)"], words=2)]
    text = "\n".join([*lines, row("died", "out of memory", 2.104), row("failed", "a | b", 3)])
    assert text.splitlines()[1] == "| --- | --- | ---: |"
    assert r"| a \| b | 3 |" in text
    assert "| 2.10 |" in text
    page = as_page(text + "\n\n![Of `x` & y](figures/cost.png)", {"cost": "<svg></svg>"})
    assert page.count("<td") == 6
    assert "<td>a | b</td>" in page
    assert "<figure><svg></svg><figcaption>Of x &amp; y</figcaption></figure>" in page
