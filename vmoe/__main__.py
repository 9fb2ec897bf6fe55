"""`python -m vmoe`: the same as `vmoe`."""

import sys

from vmoe.cli import main

sys.exit(main())
