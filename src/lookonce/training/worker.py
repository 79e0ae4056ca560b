"""A process that trains with others, started by rank 0: python -m lookonce.training.worker."""

import logging
import signal
import sys


def main() -> None:
    """Follow rank 0 to the end of its run. Errors are one line on standard error, which rank 0 reads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 decides
    from lookonce.errors import Interrupted, UserError
    from lookonce.training.ranks import end_with_parent, surrounding

    end_with_parent()
    logging.getLogger("lookonce").setLevel(logging.ERROR)
    from lookonce.training.run import follow

    try:
        follow(surrounding())
    except Interrupted:
        pass
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
