"""`python -m ddoq` is the `ddoq` command."""

from __future__ import annotations

import sys

from ddoq.cli.main import main

sys.exit(main())
