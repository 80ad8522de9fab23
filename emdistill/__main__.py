"""`python -m emdistill`."""

import sys

from emdistill.cli import main

sys.exit(main())
