"""The asyncio variants of the modules."""
