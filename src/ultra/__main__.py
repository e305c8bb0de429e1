"""`python -m ultra`: the command `ultra` of the Python environment that runs it."""

from __future__ import annotations

import sys

from ultra.cli import main

if __name__ == "__main__":
    sys.exit(main())
