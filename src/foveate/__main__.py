"""`python -m foveate`: the same as the command `foveate`."""

from foveate.cli import main

if __name__ == "__main__":
    main()
