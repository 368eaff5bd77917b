"""Run the `sandpool-server` command with `python -m sandpool_server`."""

import sys

from sandpool_server.cli.main import main

sys.exit(main())
