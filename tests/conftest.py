"""Hypothesis profiles for all tests."""

import os

from hypothesis import settings

# CI runs the same examples every time. Local runs generate new ones.
settings.register_profile("repeatable", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("repeatable")
