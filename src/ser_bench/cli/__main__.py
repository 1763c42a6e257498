"""Run the command line with `python -m ser_bench.cli`."""

import sys

from ser_bench.cli.app import main

sys.exit(main())
