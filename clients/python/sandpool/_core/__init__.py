"""Everything that needs no input or output: requests, responses, errors, retries, stream positions.

The code in this package never opens a connection, a file or a thread, and never waits.
"""
