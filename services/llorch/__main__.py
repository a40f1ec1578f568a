"""`python -m llorch` is the command `llorch`."""

from llorch.cli.main import main

if __name__ == "__main__":
    main()
