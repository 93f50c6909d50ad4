"""`python -m raytensor.devnet`: the same as `raytensor devnet`."""

import sys

from raytensor.devnet.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
