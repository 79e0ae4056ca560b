"""Run the command line: `python -m lookonce`."""

from lookonce.cli import entry

if __name__ == "__main__":
    entry()
