# Made from _async/__init__.py by tools/codegen/blocking_client.py: change that one, then run `make generate`.
"""The client for asyncio, written by hand. The blocking one, in `sandpool._sync`, is made from it."""
