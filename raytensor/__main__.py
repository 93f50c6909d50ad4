"""`python -m raytensor` is the `raytensor` command."""

import sys

from raytensor.cli import main

sys.exit(main(sys.argv[1:]))
