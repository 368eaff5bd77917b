"""Everything that waits: gRPC channels, threads and tasks, sockets and files, once for asyncio and once for threads.

`asyncio` and `threads` define the same names with the same meaning. The code in `sandpool._async` uses `asyncio`. The
code in `sandpool._sync`, which is generated from it, uses `threads`.
"""
