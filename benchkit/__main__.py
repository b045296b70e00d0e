"""`python -m benchkit` is the command `benchkit`."""

import sys

from benchkit.cli import main

sys.exit(main())
