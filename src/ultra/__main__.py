"""`python -m ultra`: the command `ultra`, for whoever has several environments and means this one."""

from __future__ import annotations

import sys

from ultra.cli import main

if __name__ == "__main__":
    sys.exit(main())
