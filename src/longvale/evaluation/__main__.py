"""`accelerate launch -m longvale.evaluation MODEL ...` is `longvale evaluate MODEL ...` over several processes."""

import sys

from longvale.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "evaluate")
    main()
