"""What all tests share."""

import os

from hypothesis import settings

# Where a change is judged, the same histories are tried each time; at a desk, new ones.
settings.register_profile("repeatable", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("repeatable")
