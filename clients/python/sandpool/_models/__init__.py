"""The data that the client accepts and returns, as frozen dataclasses and enums."""
