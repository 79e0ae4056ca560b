"""Start the command line: the command `lookonce`, and `python -m lookonce`."""

import sys


def entry() -> None:
    """Run the command line. Ctrl-C while it is still being imported ends in a line as well."""
    try:
        from lookonce.cli import main
    except KeyboardInterrupt:
        sys.stderr.write("lookonce: interrupted\n")
        sys.exit(130)
    sys.exit(main())


if __name__ == "__main__":
    entry()
