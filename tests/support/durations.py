"""Durations of the API."""

from google.protobuf.duration_pb2 import Duration


def seconds(value: float) -> Duration:
    """Return a number of seconds as a Duration."""
    found = Duration()
    found.FromNanoseconds(round(value * 1e9))
    return found
