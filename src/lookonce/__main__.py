"""`python -m lookonce`: the command line."""

from lookonce.cli import entry

if __name__ == "__main__":
    entry()
