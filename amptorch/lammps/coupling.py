"""Let a running LAMMPS take its forces from a trained potential."""

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import units
from ase.data import atomic_masses, atomic_numbers

from amptorch.checks import number
from amptorch.distances import warn_of_lonely
from amptorch.ensemble import Ensemble
from amptorch.frames import FARTHEST, Frames
from amptorch.lammps.library import communicator
from amptorch.lammps.share import Members, SharedList, Shares
from amptorch.loading import potential_of
from amptorch.potential import Potential
from amptorch.threads import num_threads, use_threads

# What one unit of energy and of length of LAMMPS's `units` is, in eV and Å.
UNITS = {
    "metal": (1.0, 1.0),
    "real": (units.kcal / units.mol, 1.0),
    "electron": (units.Hartree, units.Bohr),
}
FIX = "amptorch"


def attach(
    lmp: Any,
    model: Any,
    elements: Sequence[str],
    skin: float = 0.5,
    fix: str = FIX,
    on_error: Callable[[Exception], None] | None = None,
) -> "Coupling":
    """Let LAMMPS add a potential's forces, energy and virial to its own, from its next run on.

    lmp : `lammps.lammps` with a simulation box
    model : a `Potential`, an `Ensemble` (its mean), or the folder of what `amptorch.load` reads
    elements : symbol of each of LAMMPS's atom types, in their order; two types may be one element
    skin : Å beyond the cutoff up to which neighbours are listed, as of the ASE calculator
    fix : the ID of the `fix external` that is made
    on_error : called, in every process, with an error within a run. By default the run ends before
        its next step, and the call of `lmp` that began it (`command`, `file`, …) raises the error

    Where no pair style is set, it sets `pair_style zero`, of which LAMMPS needs the cutoff. Energy
    and virial count in `pe`, `press`, minimisation and barostats, those of the atoms in `pe/atom`
    and `stress/atom`. `f_<fix>` is the energy, `f_<fix>[1]` its standard deviation (0 where `model`
    is no ensemble), in LAMMPS's unit, and `f_<fix>[2]` the number of atoms that are too far from
    the training atoms: see `amptorch.extrapolation`.

    Raises ValueError where the units are not metal, real or electron, there is no box, `elements`
    do not fit the atom types or the model, or the model gives no forces; ImportError where LAMMPS
    runs in several processes and mpi4py is missing.
    """
    potential = potential_of(model)
    coupling = Coupling(lmp, potential, elements, skin, fix)
    if lmp.extract_global("pair_style") in (None, "", "none"):
        lmp.command(f"pair_style {pair_zero(lmp, potential)}")
        lmp.command("pair_coeff * *")
    coupling.begin(on_error)
    return coupling


def pair_zero(lmp: Any, potential: Potential | Ensemble) -> str:
    """Return the words that stand for the potential in a `pair_style` command; ValueError where
    LAMMPS's units are none that are known."""
    return f"zero {potential.cutoff / _scales(lmp)[1]:.6f}"


class Coupling:
    """A potential in a running LAMMPS; `attach` makes it.

    error : what ended a run, or None
    neighbors : the `SharedList` of this process
    """

    def __init__(
        self,
        lmp: Any,
        potential: Potential | Ensemble,
        elements: Sequence[str],
        skin: float = 0.5,
        fix: str = FIX,
    ) -> None:
        self.energy_unit, self.length_unit = _scales(lmp)
        if not lmp.extract_setting("box_exist"):
            raise ValueError(
                "LAMMPS has no simulation box yet: attach after read_data, read_restart or "
                "create_box"
            )
        if not potential.has_forces:
            raise ValueError("the model gives no forces (model.get_forces: false)")
        self.numbers = _numbers_of_types(lmp, potential, elements)
        if lmp.has_id("fix", fix):
            raise ValueError(f"there is a fix {fix!r} already: `unfix {fix}`, or give another name")
        self.lmp = lmp
        self.potential = potential
        self.fix = fix
        self.comm = communicator(lmp)
        rank, size = (0, 1) if self.comm is None else (self.comm.rank, self.comm.size)
        self.members = Members(potential)
        self.neighbors = SharedList(
            potential.cutoff, number(minimum=0)("skin", skin), rank=rank, size=size
        )
        self.threads = _threads(potential, self.comm)
        self.error: Exception | None = None
        self._known = np.empty(0)
        self._handle: Callable[[Exception], None] = self._stop

    def begin(self, on_error: Callable[[Exception], None] | None = None) -> None:
        """Make the fix; on_error: see `attach`."""
        lmp = self.lmp
        if on_error is not None:
            self._handle = on_error
        lmp.command(f"fix {self.fix} all external pf/callback 1 1")
        lmp.command(f"fix_modify {self.fix} energy yes virial yes")
        lmp.fix_external_set_vector_length(self.fix, 2)
        lmp.set_fix_external_callback(self.fix, self._step, None)
        if on_error is None:
            self._command = lmp.command
            for name in ("command", "commands_list", "commands_string", "file"):
                setattr(lmp, name, self._raising(getattr(lmp, name)))

    def _step(self, _: Any, step: int, n: int, tags: Any, positions: Any, forces: Any) -> None:
        """Answer LAMMPS, which asks for the forces on this process's atoms."""
        forces[:] = 0.0
        if self.error is not None:
            return
        types = self.lmp.numpy.extract_atom("type")[:n]
        table = np.column_stack([tags, types, positions * self.length_unit])
        table = self._gathered(table)
        table = table[np.argsort(table[:, 0])]
        found = failed = None
        try:
            with use_threads(self.threads):
                found = self._share(table)
        except Exception as error:  # any: the other processes wait for this one
            failed = error
        total, failed = self._summed(found, failed, len(table))
        finite = np.isfinite(total.forces).all() and np.isfinite(total.energies).all()
        if failed is None and not finite:
            failed = ValueError("energy or forces are not finite numbers")
        if failed is not None:
            self._handle(_explained(failed, step))
            return
        mine = np.searchsorted(table[:, 0], tags)
        forces[:] = total.forces[mine] * (self.length_unit / self.energy_unit)
        self._tell_totals(total)
        # A mean energy of whole frames is shared out equally.
        mean = float(self.members.weights @ self.members.means) / len(table)
        self._tell_atoms(total.of_atoms[mine, 0] + mean, total.of_atoms[mine, 1:])

    def _tell_totals(self, total: Shares) -> None:
        """Give LAMMPS energy and virial, and the two numbers of the fix."""
        weights, energies = self.members.weights, total.energies + self.members.means
        mean = float(weights @ energies)
        spread = 0.0
        if len(energies) > 1:
            spread = np.sqrt(weights @ (energies - mean) ** 2 / (1 - weights @ weights))
        lmp = self.lmp
        lmp.fix_external_set_energy_global(self.fix, mean / self.energy_unit)
        lmp.fix_external_set_vector(self.fix, 1, float(spread) / self.energy_unit)
        lmp.fix_external_set_vector(self.fix, 2, float(total.far[0]))
        six = total.virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
        lmp.fix_external_set_virial_global(self.fix, (six / self.energy_unit).tolist())

    def _tell_atoms(self, energies: np.ndarray, strains: np.ndarray) -> None:
        """Give LAMMPS energies and virials of this process's atoms, which it takes in steps where
        something asks for them."""
        energies = np.ascontiguousarray(energies / self.energy_unit)
        # In LAMMPS's order: xx, yy, zz, xy, xz, yz.
        virials = np.ascontiguousarray(-strains[:, [0, 1, 2, 5, 4, 3]] / self.energy_unit)
        rows = (virials.ctypes.data + virials.strides[0] * np.arange(len(virials))).astype(np.uintp)
        library, handle, fix = self.lmp.lib, self.lmp.lmp, self.fix.encode()
        doubles = ctypes.POINTER(ctypes.c_double)
        library.lammps_fix_external_set_energy_peratom(
            handle, fix, energies.ctypes.data_as(doubles)
        )
        library.lammps_fix_external_set_virial_peratom(
            handle, fix, rows.ctypes.data_as(ctypes.POINTER(doubles))
        )

    def _gathered(self, table: np.ndarray) -> np.ndarray:
        """Return the rows of all processes."""
        if self.comm is None:
            return table
        counts = np.array(self.comm.allgather(table.size))
        every = np.empty(counts.sum())
        self.comm.Allgatherv(np.ascontiguousarray(table).ravel(), (every, counts))
        return every.reshape(-1, table.shape[1])

    def _share(self, table: np.ndarray) -> Shares:
        """Return what `Members.evaluate` does, of the atoms in `table`: ID, type, position (Å)."""
        if len(table) == 0:
            raise ValueError("LAMMPS has lost all atoms")
        positions = np.ascontiguousarray(table[:, 2:])
        bad = np.flatnonzero(~(np.abs(positions) < FARTHEST).all(axis=1))
        if len(bad):
            raise ValueError(
                f"the atom with ID {table[bad[0], 0]:.0f} is at {positions[bad[0]].tolist()} Å"
            )
        if len(table) > 1 and not np.diff(table[:, 0]).all():
            raise ValueError("atoms have no IDs of their own (atom_modify id yes)")
        cell, pbc = self._box()
        frames = Frames(
            numbers=self.numbers[table[:, 1].astype(np.int64)],
            positions=self.neighbors.unwrapped(positions, cell, pbc),
            cells=cell[None],
            pbc=pbc[None],
            offsets=np.array([0, len(table)]),
        )
        builds = self.neighbors.builds
        pairs = self.neighbors.update(frames)
        if self.neighbors.builds > builds and not np.array_equal(frames.numbers, self._known):
            self._known = frames.numbers
            if self.neighbors.rank == 0:
                self.potential.check_compositions(frames)
                if self.neighbors.size == 1:
                    warn_of_lonely(frames, pairs, self.potential.cutoff)
        return self.members.evaluate(frames, pairs, self.neighbors.first, self.neighbors.last)

    def _box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the cell (3, 3), Å, and which directions are periodic; in place of the cell
        vectors of the others, unit vectors."""
        low, high, xy, yz, xz, periodic, _ = self.lmp.extract_box()
        cell = np.diag(np.subtract(high, low))
        cell[[1, 2, 2], [0, 0, 1]] = xy, xz, yz
        pbc = np.array(periodic, dtype=bool)
        cell *= self.length_unit
        cell[~pbc] = np.eye(3)[~pbc]
        return cell, pbc

    def _summed(
        self, found: Shares | None, failed: Exception | None, n: int
    ) -> tuple[Shares, Exception | None]:
        """Return the shares summed over all processes, and the error, the same in all processes,
        that one of them met."""
        nothing = Shares.zeros(len(self.members.means), n)
        if self.comm is None:
            return found or nothing, failed
        words = [text for text in self.comm.allgather(failed and str(failed)) if text]
        if words or found is None:
            return nothing, ValueError(words[0])
        total = np.concatenate([part.ravel() for part in found])
        from mpi4py import MPI

        self.comm.Allreduce(MPI.IN_PLACE, total)
        parts = np.split(total, np.cumsum([part.size for part in found])[:-1])
        shaped = [one.reshape(own.shape) for one, own in zip(parts, found, strict=True)]
        return Shares(*shaped), None

    def _stop(self, error: Exception) -> None:
        """Keep the error and let LAMMPS end its run."""
        self.error = error
        self.lmp.fix_external_set_energy_global(self.fix, np.nan)
        self.lmp.force_timeout()

    def _raising(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            try:
                return call(*arguments)
            finally:
                error, self.error = self.error, None
                if error is not None:
                    self._command("timer timeout off")  # that later runs run
                    raise error from None

        return called


def _scales(lmp: Any) -> tuple[float, float]:
    style = lmp.extract_global("units")
    if style not in UNITS:
        raise ValueError(f"LAMMPS has `units {style}`; the potential needs {', '.join(UNITS)}")
    return UNITS[style]


def _numbers_of_types(
    lmp: Any, potential: Potential | Ensemble, elements: Sequence[str]
) -> np.ndarray:
    """Return the atomic number of each type, behind a 0 for the type 0 that there is not."""
    n_types = lmp.extract_setting("ntypes")
    if isinstance(elements, str):
        raise TypeError(f"elements is {elements!r}; give a list, such as {elements.split()}")
    if len(elements) != n_types:
        raise ValueError(
            f"LAMMPS has {n_types} atom types and {len(elements)} elements are given for them: "
            f"{', '.join(elements)}"
        )
    for kind, symbol in enumerate(elements, 1):
        if symbol not in potential.elements:
            raise ValueError(
                f"atom type {kind} is {symbol}, and the model knows {', '.join(potential.elements)}"
            )
    return np.array([0] + [atomic_numbers[symbol] for symbol in elements])


def elements_by_mass(lmp: Any, known: Sequence[str]) -> list[str]:
    """Return the symbol of each atom type, that of the element among `known` whose mass is within
    0.5 g/mol of the type's; ValueError that names a type of which there is none."""
    masses = lmp.extract_atom("mass")
    found = []
    for kind in range(1, lmp.extract_setting("ntypes") + 1):
        mass = masses[kind] if masses else 0.0
        nearest = min(known, key=lambda s: abs(atomic_masses[atomic_numbers[s]] - mass))
        if abs(atomic_masses[atomic_numbers[nearest]] - mass) > 0.5:
            raise ValueError(
                f"atom type {kind} has the mass {mass:g}, which none of the model's elements "
                f"({', '.join(known)}) has; name the elements of all types by --elements"
            )
        found.append(nearest)
    return found


def _threads(potential: Potential | Ensemble, comm: Any) -> int | None:
    """Return the number of threads: the cores are shared by the processes of one computer."""
    if potential.threads is not None or comm is None or "AMPTORCH_NUM_THREADS" in os.environ:
        return potential.threads
    from mpi4py import MPI

    beside = comm.Split_type(MPI.COMM_TYPE_SHARED)
    threads = max(1, num_threads() // beside.size)
    beside.Free()
    return threads


def _explained(error: Exception, step: int) -> Exception:
    text = str(error).removeprefix("frame 0: ").removeprefix("frame 0, ")
    if text.startswith("atom"):
        text += " (atoms are counted from 0 in the order of their IDs)"
    advice = "check the time step, the starting structure, and what the model was trained on"
    return ValueError(f"LAMMPS step {step}: {text}; {advice}")
