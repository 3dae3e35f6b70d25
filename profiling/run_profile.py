"""Where time and memory go: `amptorch profile` as a script. See README.md beside it.

python profiling/run_profile.py --frames 16000
"""

import sys

from amptorch.cli import main

if __name__ == "__main__":
    main(["profile", *sys.argv[1:]])
