"""Start one run (`python run.py model=cnn_text`) or a sweep (`-m`); see README.md, and --help for all options."""

import sys

from ser_bench.hydra_program import main

if __name__ == "__main__":
    sys.exit(main())
