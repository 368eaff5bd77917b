"""Container sandboxes in milliseconds, from pools of warm containers.

    from sandpool import SandboxClient

    client = SandboxClient()
    pool = client.create_pool(image="python:3.11-slim", warm_containers=3)
    with client.create(pool_id=pool.pool_id) as sandbox:
        print(sandbox.run("python3 --version").stdout)

The generated stubs are in `sandpool.v1`.
"""

from sandpool import sandbox as _public
from sandpool._version import __version__
from sandpool.sandbox import *  # noqa: F403 - exactly the names that sandpool.sandbox makes public

__all__ = ["__version__"]
__all__ += _public.__all__
