"""The implementation of `interfaces.Store` on SQLite. Only the module `dialect` depends on SQLite."""

from sandpool_server.store.store import SqlStore

__all__ = ["SqlStore"]
