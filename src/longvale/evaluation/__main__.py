"""Entry point for several processes: `accelerate launch -m longvale.evaluation MODEL ...` runs `longvale evaluate`."""

import sys

from longvale.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "evaluate")
    main()
