"""`python -m sandpool_server`: the same as the command `sandpool-server`."""

import sys

from sandpool_server.cli.main import main

sys.exit(main())
