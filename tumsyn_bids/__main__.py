"""``python -m tumsyn_bids`` is ``tumsyn-bids``."""

from __future__ import annotations

import sys

from tumsyn_bids.cli.main import main

if __name__ == '__main__':
    sys.exit(main())
