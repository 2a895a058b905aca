"""`python -m flashrank_lite` is the `flashrank-lite` command."""

import sys

from flashrank_lite.cli import main

if __name__ == "__main__":
    sys.exit(main())
