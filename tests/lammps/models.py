"""A small potential, trained for two epochs: nothing but smooth."""

from amptorch import fit, prepare

CONFIG = {
    "model": {"get_forces": True, "hidden_layers": [8, 8], "activation": "tanh"},
    "optim": {"epochs": 2, "batch_size": 4, "lr": 1e-2, "force_coefficient": 0.3},
    "dataset": {
        "fp_scheme": "gaussian",
        "fp_params": {
            "default": {
                "cutoff": 4.0,
                "G2": {"etas": [0.5, 4.0], "rs_s": [0.0, 1.5]},
                "G4": {"etas": [0.1], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
            }
        },
    },
    "cmd": {"verbose": False, "seed": 1, "dtype": "float64"},
}


def trained(frames, seed=1, **model):
    config: dict = {name: dict(section) for name, section in CONFIG.items()}
    config["model"].update(model)
    config["cmd"]["seed"] = seed
    return fit(prepare(config, frames))
