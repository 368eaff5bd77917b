# Code generated from _async/__init__.py by tools/codegen/blocking_client.py. DO NOT EDIT.
"""The blocking variant."""
