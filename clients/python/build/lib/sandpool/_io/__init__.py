"""What waits: gRPC channels, threads and tasks, sockets and files, once for asyncio and once for threads.

`aio` and `blocking` have the same names with the same meaning. The code in `sandpool._async` is written on `aio`; what
is generated from it, in `sandpool._sync`, uses `blocking`.
"""
