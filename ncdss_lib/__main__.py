"""``python -m ncdss_lib`` is the same program as ``ncdss``."""

import sys

from ncdss_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
