"""`python -m raytensor.devnet`: the same as `raytensor devnet`."""

import sys

from raytensor.devnet.cli import devnet_main

if __name__ == "__main__":
    sys.exit(devnet_main(sys.argv[1:]))
