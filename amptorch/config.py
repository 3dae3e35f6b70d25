"""The configuration: every key with its default, its check and its meaning.

`Config.from_dict` takes the dictionary that v1.0's `AtomsTrainer` takes. It never changes it, fills
in the defaults, and refuses what it does not know: the message names `section.key` and what would
be right. `known_part` leaves out beforehand what v1.0 ignored. `Config.to_dict` gives a dictionary
of JSON types that `Config.from_dict` reads back.

torch is imported only when a configuration is made: classes may be given as such or by name.
"""

# ruff: noqa: RUF009 (`option` only wraps dataclasses.field)

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from ase.units import GPa

from amptorch.checks import (
    activations,
    anything,
    atomic_correction,
    averaging,
    boolean,
    choice,
    dtype,
    elements,
    fp_params,
    fp_scheme,
    group_weights,
    hidden_layers,
    identifier,
    loss_class,
    mapping,
    nearest,
    number,
    of_functions,
    optimizer_class,
    optimizer_takes,
    path,
    paths,
    pca,
    repulsion,
    scaling,
    scheduler,
    text,
    weights,
)
from amptorch.labels import Labels
from amptorch.plain import to_json
from amptorch.recommended import completed
from amptorch.sections import Section, count, option, or_word


@dataclass
class ModelConfig(Section):
    """Hold the section `model`: the networks."""

    name_in_config: ClassVar[str] = "model"

    name: str = option(
        "bpnn",
        choice("bpnn", "singlenn"),
        "bpnn: a network for each element; singlenn: one for all",
    )
    get_forces: bool = option(True, boolean, "predict forces and train on them")
    num_layers: int = option(5, count, "hidden layers")
    num_nodes: int = option(20, count, "nodes in each hidden layer")
    hidden_layers: list | None = option(
        None,
        hidden_layers,
        "widths of the hidden layers, such as [20, 20], in place of num_layers and num_nodes",
    )
    activation: Any = option(
        "Tanh",
        activations,
        "activation function: a class or its name, or a list with one for each layer",
    )
    batchnorm: bool = option(False, boolean, "batch normalisation after each hidden layer")
    dropout: bool = option(False, boolean, "dropout after each hidden layer")
    dropout_rate: float = option(0.5, number(minimum=0, below=1), "probability of dropout")
    members: int = option(
        1,
        count,
        "networks trained one after another, whose mean is the potential; fewer in a short time",
    )
    repulsion: Any = option(
        None, repulsion, "'zbl', or its {inner, outer}: a pair potential under the networks"
    )
    initialization: str = option(
        "xavier", choice("xavier", "zero", "small"), "first weights; small: of the output"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.activation, list):
            n_hidden = self.num_layers if self.hidden_layers is None else len(self.hidden_layers)
            if len(self.activation) not in (n_hidden, n_hidden + 1):
                raise ValueError(
                    f"model.activation lists {len(self.activation)} activations for {n_hidden} "
                    "hidden layers; give one for each, and one more if the output has one"
                )
            if self.members > 1 and len(self.activation) > n_hidden:
                raise ValueError(
                    f"model.members is {self.members}: the mean of networks is one network where "
                    "the output has no activation; leave the last of model.activation out"
                )
        for key in ("batchnorm", "dropout"):
            if self.members > 1 and getattr(self, key):
                raise ValueError(f"model.members is {self.members}: set model.{key} to False")

    @property
    def widths(self) -> list[int]:
        """Return the widths of the hidden layers: those of all members beside each other."""
        own = self.hidden_layers
        own = [self.num_nodes] * self.num_layers if own is None else own
        return [self.members * width for width in own]


@dataclass
class OptimConfig(Section):
    """Hold the section `optim`: how the networks are trained."""

    name_in_config: ClassVar[str] = "optim"

    gpus: int = option(0, number(minimum=0, integer=True), "number of GPUs; 0 is the CPU")
    force_coefficient: float = option(
        0.0, number(minimum=0), "weight alpha of the forces in the loss ½ (L_E + alpha L_F)"
    )
    energy_per_atom: bool = option(
        False, boolean, "the loss takes energies per atom, not of whole frames"
    )
    force_per_mev: float | None = option(
        None,
        number(above=0),
        "eV/Å of force error that weigh as much as 1 meV/atom of energy; sets force_coefficient",
    )
    stress_coefficient: float = option(
        0.0,
        number(minimum=0),
        "gamma in ½ (L_E + alpha L_F + gamma L_S)",
    )
    stress_per_mev: float | None = option(
        None,
        number(above=0),
        "GPa of stress error that weigh as much as 1 meV/atom, where frames have stresses",
    )
    lr: float = option(None, number(above=0), "learning rate; by default 0.1, and 1 for EKF")
    batch_size: int | str = option(
        32, or_word("auto", count), "frames in a batch; auto: by their number"
    )
    epochs: int = option(100, number(minimum=0, integer=True), "passes over the training frames")
    recover: bool = option(
        False, boolean, "after NaN, go on from the best weights with half of the learning rate"
    )
    max_seconds: float | None = option(
        None, number(above=0), "seconds of training; it ends with these or with `epochs`"
    )
    total_seconds: float | None = option(
        None, number(above=0), "seconds of everything, from when the frames are read"
    )
    optimizer: Any = option(
        "Adam", optimizer_class, "a class or name out of torch.optim, or ekf: the Kalman filter"
    )
    optimizer_args: dict = option({}, mapping, "arguments of the optimizer")
    loss_fn: Any = option(None, loss_class, "class of a loss of your own, in place of `loss`")
    loss: str = option("mse", choice("mse", "mae", "huber"), "measure of the errors in the loss")
    huber_delta: float = option(
        3.0, number(above=0), "huber: errors count linearly beyond so many times their median"
    )
    metric: str = option("mae", choice("mae", "mse"), "errors that are printed for each epoch")
    cp_metric: str = option(
        "energy", choice("energy", "forces", "both", "loss"), "errors that choose the best epoch"
    )
    force_fraction: float = option(
        1.0,
        number(above=0, maximum=1),
        "share of the atoms whose forces are trained on, drawn anew for each batch",
    )
    scheduler: dict | None = option(
        None, scheduler, "course of the learning rate: {policy: name or cosine_time, params: {…}}"
    )
    averaging: dict | None = option(
        None, averaging, "average of the weights: ema, swa, or {kind: ema, decay: 0.999}"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr is None:
            self.lr = getattr(self.optimizer, "default_lr", 0.1)
        for name, unit in (("force", 1.0), ("stress", GPa)):
            if getattr(self, f"{name}_per_mev") is not None:
                setattr(self, f"{name}_coefficient", self._coefficient_of(name, unit))
        optimizer_takes(self.optimizer, self.lr, self.optimizer_options)

    def _coefficient_of(self, name: str, unit: float) -> float:
        """Return the coefficient with which `<name>_per_mev` counts as much as 1 meV/atom."""
        per_mev, given = getattr(self, f"{name}_per_mev"), getattr(self, f"{name}_coefficient")
        if not self.energy_per_atom:
            raise ValueError(
                f"optim.{name}_per_mev is {per_mev}, which weighs against energies per atom; "
                "set optim.energy_per_atom to True"
            )
        # The errors are squared, but for "mae".
        coefficient = (1e-3 / (per_mev * unit)) ** (1 if self.loss == "mae" else 2)
        # A configuration that was written out holds both.
        if given not in (0, coefficient):
            raise ValueError(
                f"optim.{name}_coefficient is {given} and optim.{name}_per_mev is {per_mev}, "
                f"which sets it to {coefficient:.4g}; give one of them"
            )
        return coefficient

    @property
    def optimizer_options(self) -> dict[str, Any]:
        """Return `optimizer_args` by the optimizer's own names, without those of skorch."""
        own = {name.removeprefix("optimizer__"): v for name, v in self.optimizer_args.items()}
        return {name: v for name, v in own.items() if name not in ("param_groups", "decoupled")}


@dataclass
class DatasetConfig(Section):
    """Hold the section `dataset`: frames, fingerprints, and how they are kept."""

    name_in_config: ClassVar[str] = "dataset"

    raw_data: Any = option(None, anything, "frames: a path or paths, or a list of Atoms")
    lmdb_path: list | None = option(None, paths, "LMDB files, in place of raw_data")
    cache: str = option(
        "no", choice("no", "full", "partial"), "what of the LMDB files is kept in memory"
    )
    skip_bad: bool = option(False, boolean, "leave out frames of raw_data that cannot be used")
    energy_key: str | None = option(None, text, "name of the energies, if not the calculator's")
    forces_key: str | None = option(None, text, "name of the forces, if not the calculator's")
    stress_key: str | None = option(None, text, "name of the stress, if not the calculator's")
    missing_forces: str = option(
        "error",
        choice("error", "ignore"),
        "frames without forces: an error, or their energies are trained on",
    )
    val_split: float = option(
        0.0, number(minimum=0, below=1), "fraction of the frames kept for validation"
    )
    val_split_mode: str = option(
        "cv",
        choice("cv", "inorder", "block"),
        "which: at random, the last ones, or blocks of consecutive ones",
    )
    val_data: Any = option(
        None, anything, "frames to validate on, in place of `val_split`: as raw_data"
    )
    elements: list | None = option(
        None, elements, "elements, in the order of the networks; by default found and sorted"
    )
    fp_scheme: str = option(
        None,
        fp_scheme,
        "gaussian, gmp or gmpordernorm; by default as fp_params say, gmpordernorm without",
    )
    fp_params: Any = option(
        None, fp_params, "its functions; auto, or {recipe: …}: chosen by the frames"
    )
    cutoff_params: Any = option(
        {"cutoff_func": "Cosine"},
        anything,
        "cutoff function of symmetry functions",
    )
    save_fps: bool = option(
        True, boolean, "keep fingerprints in a file of `run_dir` for the next training"
    )
    scaling: dict = option(
        {}, scaling, "scaling of the fingerprints: type, range, elementwise, threshold"
    )
    pca: dict | None = option(
        None, pca, "principal components of the scaled fingerprints: {num_pc: 20}"
    )
    target_scaling: bool | str = option(
        True,
        or_word("per_atom", boolean),
        "scale energies and forces; per_atom: no mean energy is subtracted",
    )
    atomic_correction: Any = option(
        False,
        atomic_correction,
        "take off energies of the elements: fitted, or given as {symbol: eV}",
    )
    isolated_atoms: Any = option(
        None, anything, "frames of single atoms, whose energies are taken off: as raw_data"
    )
    weights: Any = option(
        None, weights, "weights of the frames in the loss: a list, or a key of Atoms.info"
    )
    group_weights: dict | None = option(
        None, group_weights, "weights of groups of frames: {name: weight}; 1 for other groups"
    )
    group_key: str = option("config_type", text, "key of Atoms.info that holds a frame's group")
    store: str | None = option(
        None, path, "folder of a store on disk, which is filled from raw_data"
    )
    derivatives: str = option(
        "auto",
        choice("auto", "stored", "recompute"),
        "derivatives of the fingerprints: kept, or computed anew in each step",
    )
    memory_budget: float = option(
        2.0,
        number(above=0),
        "GB for derivatives that auto keeps, or for what `cache: partial` keeps",
    )
    derivative_dtype: str = option(
        "float64", choice("float64", "float32"), "precision of stored derivatives"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fp_scheme is None:
            self.fp_scheme = "gaussian" if of_functions(self.fp_params) else "gmpordernorm"
        # A descriptor set has a cutoff function of its own.
        if self.fp_scheme == "gaussian" and not hasattr(self.fp_params, "descriptor_setup"):
            self.cutoff_params = mapping("dataset.cutoff_params", self.cutoff_params)
        taken_off = self.atomic_correction is True and self.target_scaling == "per_atom"
        if self.isolated_atoms is not None and not taken_off:
            raise ValueError(
                "dataset.isolated_atoms needs dataset.atomic_correction: true and "
                "dataset.target_scaling: per_atom, which defaults: recommended sets"
            )

    @property
    def labels(self) -> Labels:
        """Return the `Labels` of the frames."""
        return Labels(self.energy_key, self.forces_key, self.stress_key, self.missing_forces)

    @property
    def descriptor_setup(self) -> tuple[str, Any, Any, list[str] | None]:
        """Return (fp_scheme, fp_params, cutoff_params, elements) for `construct_descriptor`."""
        return (self.fp_scheme, self.fp_params, self.cutoff_params, self.elements)

    def require_data(self) -> None:
        """Raise ValueError that names the keys which a training set still needs."""
        if self.raw_data is None and self.lmdb_path is None and self.store is None:
            raise ValueError(
                "config needs dataset.raw_data (a file of frames or a list of Atoms), "
                "dataset.store or dataset.lmdb_path"
            )
        if self.lmdb_path is None and self.fp_params is None:
            raise ValueError(f"config needs dataset.fp_params for fp_scheme {self.fp_scheme!r}")


@dataclass
class CmdConfig(Section):
    """Hold the section `cmd`: files, output, seeds and threads."""

    name_in_config: ClassVar[str] = "cmd"
    aliases: ClassVar[dict] = {"early_stoppping_patience": "early_stopping_patience"}

    debug: bool = option(False, boolean, "write no checkpoint")
    dtype: Any = option("float64", dtype, "precision of weights and data")
    run_dir: str = option("./", path, "folder in which checkpoints/ is made")
    seed: int = option(
        0,
        number(minimum=0, maximum=2**63, integer=True),
        "seed of the random numbers: weights, batches, validation frames",
    )
    identifier: str | None = option(None, identifier, "end of the name of the checkpoint folder")
    verbose: bool = option(True, boolean, "print a line for each epoch")
    logger: bool = option(False, boolean, "log to Weights and Biases")
    early_stopping: bool = option(False, boolean, "stop when training no longer improves")
    early_stopping_patience: int = option(5, count, "epochs without improvement until it stops")
    threads: int | None = option(
        None, count, "threads of the kernels; by default AMPTORCH_NUM_THREADS, or all cores"
    )


SECTIONS = {
    section.name_in_config: section
    for section in (ModelConfig, OptimConfig, DatasetConfig, CmdConfig)
}


# Keys of v1.0's scripts that need no word: what they ask for is so anyway.
SILENT = {("optim", "device"), ("dataset", "descriptor"), ("dataset", "fp_length")}


def known_part(config: Any) -> tuple[Any, list[str]]:
    """Return the part of `config` that `Config.from_dict` takes, and a message for each other key.

    v1.0 ignored keys that it did not know, and scripts are full of them. What is no dictionary of
    sections is returned as it is.
    """
    if not isinstance(config, Mapping):
        return config, []
    known, messages = {}, []
    for name, values in config.items():
        if name in ("defaults", "size"):
            known[name] = values
            continue
        section = SECTIONS.get(name)
        if section is None:
            hint = nearest(name, list(SECTIONS), likeness=0)
            messages.append(f"config section {name!r} is not known and ignored{hint}")
            continue
        if not isinstance(values, Mapping):
            known[name] = values
            continue
        keys = [key.name for key in fields(section)]
        known[name] = {}
        for key, value in values.items():
            if key in keys or key in section.aliases:
                known[name][key] = value
            elif (name, key) not in SILENT:
                hint = nearest(key, keys, likeness=0)
                messages.append(f"config key {name}.{key} is not known and ignored{hint}")
    return known, messages


@dataclass
class Config:
    """Hold the whole configuration; each section has its defaults where nothing was given."""

    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    cmd: CmdConfig = field(default_factory=CmdConfig)

    def __post_init__(self) -> None:
        if self.dataset.val_data is not None and self.dataset.val_split:
            raise ValueError("config gives dataset.val_data and dataset.val_split: give one")
        if self.optim.stress_coefficient and not self.model.get_forces:
            raise ValueError(
                f"optim.stress_coefficient is {self.optim.stress_coefficient:g}, but "
                "model.get_forces is False: stresses come with forces"
            )
        for key, value in {"scheduler": None, "recover": False}.items():
            if self.model.members > 1 and getattr(self.optim, key) != value:
                raise ValueError(
                    f"model.members is {self.model.members}, and optim.{key} is for one network: "
                    f"set it to {value}"
                )
        if self.model.members > 1 and self.optim.cp_metric == "loss":
            raise ValueError("model.members needs optim.cp_metric energy, forces or both")
        if self.optim.cp_metric == "forces" and not self.model.get_forces:
            raise ValueError("optim.cp_metric is 'forces', but model.get_forces is False")
        if getattr(self.optim.optimizer, "by_observations", False):
            self._check_observations()

    def _check_observations(self) -> None:
        """Raise ValueError where single predictions have no derivatives, or no variances."""
        wanted = {
            "model.batchnorm": (self.model.batchnorm, False),
            "model.dropout": (self.model.dropout, False),
            # "huber" has variances as "mse" has.
            "optim.loss": (self.optim.loss.replace("huber", "mse"), "mse"),
            "optim.loss_fn": (self.optim.loss_fn, None),
            "optim.recover": (self.optim.recover, False),
        }
        for key, (value, right) in wanted.items():
            if value != right:
                raise ValueError(
                    f"{key} is {value!r}, with which the Kalman filter cannot train; "
                    f"set it to {right!r}, or take another optim.optimizer"
                )

    @classmethod
    def from_dict(cls, config: Any) -> "Config":
        """Return the checked configuration out of a dictionary of the sections, which stays as it
        is.

        Raises ValueError for an unknown section, key or value, and TypeError for a value of the
        wrong type; the message names `section.key`.
        """
        if not isinstance(config, Mapping):
            raise TypeError(f"config must be a dictionary, got {config!r}")
        config = completed(config)
        for name in config:
            if name not in SECTIONS:
                raise ValueError(f"config has no section {name!r}{nearest(name, list(SECTIONS))}")
        # An empty section of a YAML file is None.
        return cls(
            **{
                name: section.from_dict({} if config.get(name) is None else config[name])
                for name, section in SECTIONS.items()
            }
        )

    def to_dict(self) -> dict[str, dict]:
        """Return the configuration in JSON types, without what says where the data are, and without
        `weights` and `group_weights`; classes become their names."""
        result = {
            name: {key.name: getattr(getattr(self, name), key.name) for key in fields(section)}
            for name, section in SECTIONS.items()
        }
        # Where the data are is no business of who is given the model.
        elsewhere = ("raw_data", "val_data", "isolated_atoms", "store", "lmdb_path")
        for key in (*elsewhere, "weights", "group_weights"):
            del result["dataset"][key]
        return to_json(result)
