"""Installation of amptorch; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = "2.0.0.dev0"

DASK = ["distributed>=2024.1"]
TUNE = ["optuna>=4"]
LMDB = ["lmdb>=1.4"]
TEST = ["pytest>=7", "pytest-benchmark>=5.2", "hypothesis>=6", *DASK, *TUNE, *LMDB]
PROFILING = ["py-spy>=0.3", "line_profiler>=4"]
DOCS = ["pdoc>=14"]

setup(
    name="amptorch",
    version=VERSION,
    description="Behler-Parrinello neural network potentials on numba kernels: "
    "a fast, drop-in fork of AMPTorch",
    long_description=(HERE / "README.md").read_text(encoding="utf8"),
    long_description_content_type="text/markdown",
    license="GPL-3.0-or-later",
    python_requires=">=3.10",
    packages=find_packages(include=["amptorch", "amptorch.*"]),
    package_data={
        "amptorch.descriptor.densities": ["*.json"],
        "amptorch.profiling": ["*.html", "*.json"],
        "amptorch.tuning.report": ["*.html", "*.md"],
    },
    install_requires=[
        "numpy>=1.24",
        "scipy>=1.10",
        "numba>=0.60",
        "ase>=3.22.1",
        "torch>=2.4",
        "skorch>=1.0",
        "scikit-learn>=1.3",
        "tqdm>=4.60",
        "matplotlib>=3.7",
        "typer>=0.12",
        "pyyaml>=6",
        "filelock>=3",
        "psutil>=5.6",
        "jinja2>=3",
    ],
    extras_require={
        "test": TEST,
        "profiling": PROFILING,
        "docs": DOCS,
        "dask": DASK,
        "tune": TUNE,
        "lmdb": LMDB,
        "densities": ["pyscf>=2.4"],
        "dev": [
            *TEST,
            *PROFILING,
            *DOCS,
            "ruff>=0.6",
            "pre-commit>=3",
            "vesin",
            "matscipy",
            "dscribe",
        ],
    },
    entry_points={"console_scripts": ["amptorch = amptorch.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: GNU General Public License v3 or later (GPLv3+)",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Chemistry",
        "Topic :: Scientific/Engineering :: Physics",
    ],
)
