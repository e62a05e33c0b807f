"""`python -m cano` is the `cano` command."""

import sys

from cano.cli import main

if __name__ == "__main__":  # a worker process imports this file, too
    sys.exit(main())
