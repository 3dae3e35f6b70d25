"""The numbers of docs/performance.md, from the stored results."""

import statistics

import numpy as np
from scaling_fit import exponent
from train_16k import plan_rows, seconds_an_epoch

ATOM_COUNTS = np.arange(35, 165, 3)  # of `iron_water`, each as likely
N_FRAMES = 16_000
FUNCTIONS = 36
# Samples that lie further apart than this share of their median are those of a busy machine.
BUSY = 0.25
COO_BYTES = 2 * 8 + 8  # two 64-bit indices and a number
SEARCHES = (
    ("here", "neighbour search"),
    ("vesin", "neighbour search, vesin"),
    ("matscipy", "neighbour search, matscipy"),
    ("ASE", "neighbour search, ASE"),
)


def significant(value, digits=2):
    """A number with so many digits that mean something, thousands separated."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    decimals = digits - 1 - int(np.floor(np.log10(abs(float(f"{value:.{digits}g}")))))
    return f"{round(value, decimals):,.{max(decimals, 0)}f}"


def milliseconds(seconds, digits=2):
    return "–" if seconds is None else significant(1e3 * seconds, digits)


def megabytes(size, digits=2):
    return "–" if size is None else significant(size / 1e6, digits)


def percent(share):
    return f"{100 * share:.0f} %"


FILTERS = {"num": significant, "ms": milliseconds, "mb": megabytes, "percent": percent}


def numbers(results):
    """Everything the template names."""
    return {
        "v1": {**version_one(results["v1.0"]), **version_one_kernel(results)},
        "ablation": ablation(results["ablation"]),
        "upstream": {**results["upstream"], "table": upstream_table(results["upstream"])},
        "others": other_programs(results),
        "searches": searches(results),
        "memory": kept_memory(results),
        "start_up": start_up(results["standard"]),
        "big": sixteen_thousand(results),
        "curves": curves(results["scaling"]),
        "limits": limits(results["limits"]),
        "noise": noise(results),
        "runs": machines(results),
        "baseline": {
            name: {"machine": results[name]["machine"]["cpu"], "date": results[name]["date"]}
            for name in ("v1.0", "peers")
        },
    }


def v1_case(baseline, stage, atoms):
    """Median seconds of v1.0; None where it was not measured."""
    for case in baseline["cases"]:
        if case["stage"] == stage and case["atoms"] == atoms:
            return statistics.median(case["seconds"])
    return None


def version_one(baseline):
    """What v1.0 took for each size of frame, and how that grows."""
    stages = ("values", "values_and_derivatives", "epoch", "calculator_step")
    sizes = sorted({case["atoms"] for case in baseline["cases"]})
    nonzeros = {case["atoms"]: case["nonzeros"] for case in baseline["cases"] if "nonzeros" in case}
    rows = [
        {
            "atoms": atoms,
            **{stage: v1_case(baseline, stage, atoms) for stage in stages},
            "dense": (atoms * FUNCTIONS) * (3 * atoms) * 8,
            "kept": COO_BYTES * nonzeros[atoms] if atoms in nonzeros else None,
        }
        for atoms in sizes
    ]
    large = next(row for row in rows if row["atoms"] == 164)
    return {
        "rows": rows,
        "large": large,
        "values_share": large["values"] / large["values_and_derivatives"],
        "dense_of_10000": (10_000 * FUNCTIONS) * (3 * 10_000) * 8,
        "estimate": {
            "hours": estimate(rows, "values_and_derivatives") / 3600,
            "minutes": estimate(rows, "epoch") / 60,
            "gigabytes": estimate(rows, "kept") / 1e9,
        },
    }


def version_one_kernel(results):
    """Seconds, as texts in ms, of v1.0's C++ alone: as its build compiles it, and optimised."""
    cases = {case["software"]: case["seconds"] for case in results["peers"]["cases"]}
    name = "AMPTorch v1.0, kernel alone"
    texts = {"kernel": cases[f"{name}, as built"], "optimised": cases[name]}
    return {key: "–".join(map(milliseconds, seconds)) for key, seconds in texts.items()}


def estimate(rows, what):
    """Sum of `what` over 16,000 frames of 35 to 164 atoms, interpolated between sizes."""
    known = [(row["atoms"], row[what]) for row in rows if row[what] is not None]
    return N_FRAMES * float(np.interp(ATOM_COUNTS, *zip(*known, strict=True)).mean())


def ablation(results):
    """Rows with medians, sorted as measured."""
    return [
        {
            **row,
            "with": statistics.median(row["with"]),
            "without": statistics.median(row["without"]),
        }
        for row in results["rows"]
    ]


def median_of(results, row):
    """Median wall time, or the value, of a row of standard.py; None where it is not there."""
    for result in results["results"]:
        if result["row"] == row:
            return result.get("value") or statistics.median(result["wall"])
    return None


def upstream_table(upstream):
    """Return the lines of a table, in Markdown, of v1.0 and this package in one run."""
    lines = ["| in turn, ms a frame | v1.0 | here | times as fast |", "|---|---:|---:|---:|"]
    for row in upstream["rows"]:
        cells = " | ".join(_range(row[key]) for key in ("v1.0", "here", "ratio"))
        lines.append(f"| {row['name']} | {cells} |")
    return "\n".join(lines)


def _range(numbers):
    digits = 0 if all(number == int(number) for number in numbers) else 1
    return "–".join(f"{number:.{digits}f}" for number in numbers)


def other_programs(results):
    """Rows of what other programs took, on the machine of `peers`."""
    return [
        {
            "software": case["software"],
            "stage": case["stage"].replace("_", " "),
            "seconds": case["seconds"],
            "note": case.get("note", ""),
        }
        for case in results["peers"]["cases"]
        if case["stage"] != "neighbors"
    ]


def searches(results):
    rows = [(name, median_of(results["standard"], row)) for name, row in SEARCHES]
    return [(name, seconds) for name, seconds in rows if seconds is not None]


def kept_memory(results):
    """Bytes of derivatives that are kept for a frame of 164 atoms."""
    return {
        dtype: 1e6 * median_of(results["standard"], f"kept derivatives, {dtype}")
        for dtype in ("float64", "float32")
    }


def start_up(results):
    rows = ("import amptorch", "first fingerprint, cold cache", "first fingerprint, warm cache")
    return {row: median_of(results, row) for row in rows}


def sixteen_thousand(results):
    """Preprocessing and training on the large data set."""
    prepared, runs = results["preprocess"], results["training"]["runs"]
    frames = max(run["frames"] for run in runs)
    runs = [
        {**run, "epoch": epoch, "per_frame": epoch / run["frames"]}
        for run in runs
        for epoch in [seconds_an_epoch(run)]
    ]
    return {
        "generate": prepared["generate"],
        "seconds": prepared["seconds"],
        "memory": 2**20 * prepared["anonymous"],
        "frames": prepared["frames"],
        "atoms": prepared["atoms"] / prepared["frames"],
        "pairs": prepared["pairs"] / prepared["frames"],
        "runs": {run["derivatives"]: run for run in runs if run["frames"] == frames},
        "all_runs": sorted(runs, key=lambda run: (run["derivatives"], run["frames"])),
        "plans": plan_rows(runs),
        "training_frames": frames,
    }


def curves(results):
    """Scaling studies with medians, and exponents of memory."""
    found = []
    for curve in results["curves"]:
        medians = [statistics.median(samples) for samples in curve["seconds"]]
        growth = None
        if curve["memory"] and None not in curve["memory"]:
            chosen = [k for k, x in enumerate(curve["x"]) if x >= curve["fit_from"]]
            growth = exponent(
                [curve["x"][k] for k in chosen], [max(curve["memory"][k], 1) for k in chosen]
            )
        found.append({**curve, "medians": medians, "memory_exponent": growth})
    return found


def limits(results):
    """The kernels against the machine."""
    limits, kernel = results["limits"], results["derivatives"]
    seconds, work = kernel["seconds"]["kernel"], kernel["per_frame"]
    least = max(work["bounds"].values())
    loops = []
    for name, cost in results["inner_loops"].items():
        stage = kernel["per_pair"][name]
        runs = kernel["functions"] if name in ("power", "accumulate_gradient") else 1
        # A lane of the loop that runs alone is one function's; the tally is of all functions.
        alone = cost["lane"] * runs
        binding = max(stage["bounds"], key=stage["bounds"].get)
        loops.append(
            {
                "name": name,
                **stage,
                "alone": alone,
                "binding": binding,
                "least": 1e9 * stage["bounds"][binding],
                "fraction": 1e9 * stage["bounds"][binding] / alone,
            }
        )
    bandwidth = limits["memory"]["read"]
    contraction = [
        {**row, "of_bandwidth": row["gb_per_s"] / bandwidth} for row in results["contraction"]
    ]
    inside = 1e-9 * kernel["pairs"] * sum(loop["alone"] for loop in loops)
    return {
        "machine": limits,
        "loops": loops,
        "compiled": results["compiled_loop"],
        "flops": work["flops"],
        "special": work["special"],
        "fused_share": 2 * work["fused"] / work["flops"],
        "flops_per_pair": work["flops"] / kernel["pairs"],
        "pairs": kernel["pairs"],
        "seconds": seconds,
        "shares": kernel["seconds"],
        "gflops": work["flops"] / seconds / 1e9,
        "of_peak": work["flops"] / seconds / 1e9 / limits["fused_gflops"],
        "bounds": work["bounds"],
        "binding": max(work["bounds"], key=work["bounds"].get),
        "of_bound": least / seconds,
        "inside": inside,
        "inside_share": inside / seconds,
        "function_alone": sum(
            cost["lane"]
            for name, cost in results["inner_loops"].items()
            if name in ("power", "accumulate_gradient")
        ),
        "fit": kernel["fit"],
        "page_faults": kernel["page_faults"],
        "error": results["counted"]["derivatives"]["largest_error"],
        "counted_atoms": results["counted"]["derivatives"]["atoms_counted"],
        "contraction": contraction,
        "flops_per_value": results["counted"]["contraction"]["flops"]
        / results["counted"]["contraction"]["values"],
    }


def noise(results):
    """How far samples of one row of standard.py lie apart: 10 to 90 % over the median."""
    spreads = []
    for result in results["standard"]["results"]:
        if len(result.get("wall", ())) >= 5:
            low, middle, high = np.quantile(result["wall"], (0.1, 0.5, 0.9))
            spreads.append((high - low) / middle)
    middle = statistics.median(spreads)
    return {"median": middle, "largest": max(spreads), "busy": middle > BUSY}


def machines(results):
    """Where and when each set of results was measured."""
    rows = []
    for name in ("standard", "ablation", "limits", "scaling", "preprocess", "training"):
        described = results[name]["machine"]
        rows.append({"name": name, "command": results[name]["command"], **described})
    return rows
