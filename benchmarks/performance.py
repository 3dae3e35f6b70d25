"""Generates docs/performance.md and its figures from what is stored in benchmarks/results.

    python benchmarks/performance.py                      # generate
    python benchmarks/performance.py --measure            # measure everything anew, then generate
    python benchmarks/performance.py --measure limits     # only that, then generate

The text is `performance.md.j2`, whose numbers come from the stored results and from the baseline of
other programs (`baseline/`). Measuring everything takes about a quarter of an hour on two quiet
cores and 13 GB in the folder for temporary files; `--quick` takes few repeats and 1,000 frames
instead of 16,000, to see that all of it runs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
UPSTREAM = Path(__file__).with_name("upstream.json")
BASELINE = HERE / "baseline"
TEMPLATE = HERE / "performance.md.j2"
PAGE = HERE.parent / "docs" / "performance.md"
FIGURES = HERE.parent / "docs" / "figures"

NAMES = ("standard", "ablation", "limits", "scaling", "preprocess", "training")


def run(script, *arguments):
    """Run a script of this folder; returns what it writes to stdout."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(name, quick):
    """Measure `name` anew and store the results."""
    print(f"measuring: {name}", file=sys.stderr)
    frames = 1000 if quick else 16000
    path = RESULTS / f"{name}.json"
    if name == "preprocess":
        results = measure_preprocessing(frames)
    elif name == "training":
        results = measure_training(frames)
    else:
        run(f"{name}.py", "--json", path, *(("--repeats", 3) if quick else ()))
        results = json.loads(path.read_text(encoding="utf8"))
        results["command"] = f"python benchmarks/{name}.py"
    path.write_text(json.dumps(compact(results), indent=1) + "\n", encoding="utf8")


def compact(value):
    """The same with floats of six digits, which is more than any of them means."""
    if isinstance(value, dict):
        return {key: compact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [compact(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def measure_preprocessing(frames):
    from preprocess_16k import generate
    from setups import machine

    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "frames.traj", Path(folder) / "store"
        described = machine()
        seconds = generate(data, frames)
        done = run("preprocess_16k.py", "--work", data, out)
    return {
        "machine": described,
        "command": f"python benchmarks/preprocess_16k.py --frames {frames}",
        "generate": seconds,
        **json.loads(done.splitlines()[-1]),
    }


def measure_training(frames):
    from setups import machine

    described = machine()
    options = ("--frames", *(str(frames // part) for part in (8, 2, 1)), "--epochs", "3")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "training.json"
        run("train_16k.py", *options, "--json", path)
        runs = json.loads(path.read_text(encoding="utf8"))
    for one in runs:
        del one["log"]
    return {
        "machine": described,
        "command": f"python benchmarks/train_16k.py {' '.join(options)}",
        "runs": runs,
    }


def load():
    """Everything stored: {name: results}, baseline included."""
    files = [RESULTS / f"{name}.json" for name in NAMES]
    files += [BASELINE / "v1.0.json", BASELINE / "peers.json", UPSTREAM]
    missing = [path.name for path in files if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"no {', '.join(missing)} is stored; measure first: "
            "python benchmarks/performance.py --measure"
        )
    return {path.stem: json.loads(path.read_text(encoding="utf8")) for path in files}


def page(results):
    """The text of docs/performance.md."""
    import jinja2
    from report_numbers import FILTERS, numbers

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters.update(FILTERS)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf8"))
    return template.render(numbers(results)).rstrip() + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--measure",
        nargs="*",
        choices=NAMES,
        metavar="NAME",
        help=f"measure first: all, or some of {', '.join(NAMES)}",
    )
    parser.add_argument("--quick", action="store_true", help="few repeats and frames")
    options = parser.parse_args()
    if options.measure is not None:
        RESULTS.mkdir(exist_ok=True)
        for name in options.measure or NAMES:
            measure(name, options.quick)
    results = load()
    PAGE.write_text(page(results), encoding="utf8")
    from figures import draw

    FIGURES.mkdir(exist_ok=True)
    draw(results, FIGURES)


if __name__ == "__main__":
    main()
