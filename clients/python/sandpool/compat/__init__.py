"""Clients with the method and argument names of other products, for code that was written for them.

The modules `sandpool.compat.tensorlake` and `sandpool.compat.langsmith` subclass the client of `sandpool`.
"""
