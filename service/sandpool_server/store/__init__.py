"""The database behind `ports.Store`: SQLite now, written so that PostgreSQL can follow (see `dialect`)."""

from sandpool_server.store.store import SqlStore

__all__ = ["SqlStore"]
