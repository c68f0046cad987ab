"""Entry point of `python -m longvale`."""

from longvale.cli import main

if __name__ == "__main__":
    main()
