# Made from _async/pools.py by tools/codegen/blocking_client.py: change that one, then run `make generate`.
"""The client's methods about pools."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, overload

from sandpool._core import pools
from sandpool._core.arguments import UNSET, Maybe, one_of, ref, ref_and_name
from sandpool._core.call import Call
from sandpool._core.filling import Filling
from sandpool._core.model import Pool, PoolEvent
from sandpool._core.resuming import AllPools, NamedPools, Resuming
from sandpool._core.specs import PullPolicyLike, Spec
from sandpool._io.blocking import Transport, notify
from sandpool._io.progress import bar
from sandpool._sync.resuming import resumed
from sandpool.errors import PoolNotFoundError, ResourceTimeoutError


class PoolMethods:
    """Pools of ready containers. `pool_id` takes the identifier or the name everywhere."""

    _transport: Transport

    @overload
    def create_pool(
        self,
        name: str | None = None,
        *,
        image: str,
        cpus: float | None = None,
        memory_mb: int | None = None,
        ephemeral_disk_mb: int | None = None,
        disk_mb: int | None = None,
        warm_containers: int | None = None,
        max_containers: int | None = None,
        timeout_secs: int | None = None,
        secret_names: Sequence[str] | None = None,
        entrypoint: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        readiness_command: Sequence[str] | None = None,
        readiness_interval_secs: float | None = None,
        readiness_timeout_secs: float | None = None,
        readiness_retries: int | None = None,
        pull_policy: PullPolicyLike | None = None,
        image_check_secs: int | None = None,
        max_age_secs: int | None = None,
        paused: bool | None = None,
        drain: bool | None = None,
        timeout: float | None = None,
    ) -> Pool: ...

    @overload
    def create_pool(
        self,
        name: str | None,
        template_name: str,
        size: int | None = None,
        *,
        replicas: int | None = None,
        warm_containers: int | None = None,
        max_containers: int | None = None,
        timeout_secs: int | None = None,
        pull_policy: PullPolicyLike | None = None,
        image_check_secs: int | None = None,
        max_age_secs: int | None = None,
        paused: bool | None = None,
        drain: bool | None = None,
        timeout: float | None = None,
    ) -> Pool: ...

    @overload
    def create_pool(
        self,
        *,
        template_name: str,
        size: int | None = None,
        replicas: int | None = None,
        warm_containers: int | None = None,
        max_containers: int | None = None,
        timeout_secs: int | None = None,
        pull_policy: PullPolicyLike | None = None,
        image_check_secs: int | None = None,
        max_age_secs: int | None = None,
        paused: bool | None = None,
        drain: bool | None = None,
        timeout: float | None = None,
    ) -> Pool: ...

    def create_pool(
        self,
        name: str | None = None,
        template_name: str | None = None,
        size: int | None = None,
        *,
        image: str | None = None,
        cpus: float | None = None,
        memory_mb: int | None = None,
        ephemeral_disk_mb: int | None = None,
        disk_mb: int | None = None,
        warm_containers: int | None = None,
        replicas: int | None = None,
        max_containers: int | None = None,
        timeout_secs: int | None = None,
        secret_names: Sequence[str] | None = None,
        entrypoint: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        readiness_command: Sequence[str] | None = None,
        readiness_interval_secs: float | None = None,
        readiness_timeout_secs: float | None = None,
        readiness_retries: int | None = None,
        pull_policy: PullPolicyLike | None = None,
        image_check_secs: int | None = None,
        max_age_secs: int | None = None,
        paused: bool | None = None,
        drain: bool | None = None,
        timeout: float | None = None,
    ) -> Pool:
        """Create a pool. The server begins to fill it; this does not wait until it is full.

        Either `image` says what its containers are, or `template_name` does; never both.

        Args:
            name: A name, unique among the pools; none by default.
            template_name: The template whose specification the pool follows.
            size: With a template: how many containers are kept ready; 0 by default.
            image: The container image.
            cpus: With an image: CPUs of each container; 1.0 by default.
            memory_mb: With an image: memory in MiB; 512 by default.
            ephemeral_disk_mb: With an image: disk in MiB; 1024 by default.
            disk_mb: Another name of `ephemeral_disk_mb`.
            warm_containers: How many containers are kept ready; 0 by default.
            replicas: Another name of `size`.
            max_containers: The most containers at once, in whatever state; no limit by default.
            timeout_secs: The lifetime of a sandbox from its claim, in seconds; 0, none, by default.
            secret_names: With an image: names of secrets for each sandbox.
            entrypoint: With an image: a command that runs in each container beside the sandbox's commands; with
                secrets it starts when a sandbox is claimed, else when its container does. When it ends, so does the
                sandbox.
            env: With an image: environment of the sandbox's processes and of the entrypoint, over the image's.
            readiness_command: With an image: a program and its arguments that must succeed in a container before it
                counts as ready; none by default: a container is ready when it runs commands.
            readiness_interval_secs: With an image: seconds between two tries of it; 0.5 by default.
            readiness_timeout_secs: With an image: seconds that one try may take; 5 by default.
            readiness_retries: With an image: how often it may fail before the container is given up; 20 by default.
            pull_policy: When the image is pulled: "missing" (the default), "always" or "never".
            image_check_secs: Seconds between two looks at whether the image's tag names another image by now, whereupon
                the ready containers are replaced; 0, never, by default.
            max_age_secs: Seconds after which a ready container is replaced; 0, never, by default.
            paused: Create it paused, without containers.
            drain: Create it drained, which is paused too.
            timeout: Seconds for this call; the client's by default.

        Raises:
            TypeError: The two styles are mixed, or neither is given.
            ResourceAlreadyExistsError: The name is taken.
            ResourceNotFoundError: The template or a secret does not exist.
            ValidationError: A value is out of its bounds.
        """
        return self._transport.call(
            pools.create_pool(
                name=name,
                template_name=template_name,
                spec=Spec(
                    image,
                    cpus,
                    memory_mb,
                    ephemeral_disk_mb,
                    disk_mb,
                    secret_names,
                    entrypoint,
                    env=env,
                    readiness_command=readiness_command,
                    readiness_interval_secs=readiness_interval_secs,
                    readiness_timeout_secs=readiness_timeout_secs,
                    readiness_retries=readiness_retries,
                ),
                warm_containers=warm_containers,
                size=size,
                replicas=replicas,
                options={
                    "max_containers": max_containers,
                    "timeout_secs": timeout_secs,
                    "pull_policy": pull_policy,
                    "image_check_secs": image_check_secs,
                    "max_age_secs": max_age_secs,
                    "paused": paused,
                    "drain": drain,
                },
                timeout=timeout,
            )
        )

    @overload
    def get_pool(self, pool_id: str, *, timeout: float | None = None) -> Pool: ...

    @overload
    def get_pool(self, *, name: str, timeout: float | None = None) -> Pool: ...

    def get_pool(self, pool_id: str | None = None, *, name: str | None = None, timeout: float | None = None) -> Pool:
        """Read one pool with its present status. Raises PoolNotFoundError."""
        return self._transport.call(pools.get_pool(ref("pool_id", pool_id, name), timeout))

    def list_pools(self, *, page_size: int = 0, timeout: float | None = None) -> list[Pool]:
        """All pools, oldest first. They are read in pages of `page_size`, 100 by default; `timeout` is for a page."""
        return self._transport.pages(lambda token: pools.list_pools(page_size, token, timeout))

    def update_pool(
        self,
        pool_id: str | None = None,
        image: Maybe[str] = UNSET,
        *,
        name: Maybe[str | None] = UNSET,
        new_name: Maybe[str | None] = UNSET,
        cpus: Maybe[float | None] = UNSET,
        memory_mb: Maybe[int | None] = UNSET,
        ephemeral_disk_mb: Maybe[int | None] = UNSET,
        disk_mb: Maybe[int | None] = UNSET,
        warm_containers: Maybe[int | None] = UNSET,
        size: Maybe[int | None] = UNSET,
        replicas: Maybe[int | None] = UNSET,
        max_containers: Maybe[int | None] = UNSET,
        timeout_secs: Maybe[int | None] = UNSET,
        secret_names: Maybe[Sequence[str] | None] = UNSET,
        entrypoint: Maybe[Sequence[str] | None] = UNSET,
        env: Maybe[Mapping[str, str] | None] = UNSET,
        readiness_command: Maybe[Sequence[str] | None] = UNSET,
        readiness_interval_secs: Maybe[float | None] = UNSET,
        readiness_timeout_secs: Maybe[float | None] = UNSET,
        readiness_retries: Maybe[int | None] = UNSET,
        pull_policy: Maybe[PullPolicyLike | None] = UNSET,
        image_check_secs: Maybe[int | None] = UNSET,
        max_age_secs: Maybe[int | None] = UNSET,
        paused: Maybe[bool | None] = UNSET,
        drain: Maybe[bool | None] = UNSET,
        etag: str = "",
        timeout: float | None = None,
    ) -> Pool:
        """Change what is given of a pool; None puts a field back to its default (`max_containers=None`: no limit).

        Ready containers of another specification are replaced and never handed out again; sandboxes in use keep what
        they started with. `new_name` means `name`, which without `pool_id` says which pool is meant; `disk_mb` means
        `ephemeral_disk_mb`, `size` and `replicas` mean `warm_containers`.

        Raises:
            TypeError: Nothing to change, or one field under two names.
            ResourceChangedError: `etag` is given and is not the pool's present one.
        """
        pool, own_name = ref_and_name("pool_id", pool_id, name)
        fields = {
            "image": image,
            "name": one_of(UNSET, name=own_name, new_name=new_name),
            "cpus": cpus,
            "memory_mb": memory_mb,
            "ephemeral_disk_mb": one_of(UNSET, ephemeral_disk_mb=ephemeral_disk_mb, disk_mb=disk_mb),
            "warm_containers": one_of(UNSET, warm_containers=warm_containers, size=size, replicas=replicas),
            "max_containers": max_containers,
            "timeout_secs": timeout_secs,
            "secret_names": secret_names,
            "entrypoint": entrypoint,
            "env": env,
            "readiness_command": readiness_command,
            "readiness_interval_secs": readiness_interval_secs,
            "readiness_timeout_secs": readiness_timeout_secs,
            "readiness_retries": readiness_retries,
            "pull_policy": pull_policy,
            "image_check_secs": image_check_secs,
            "max_age_secs": max_age_secs,
            "paused": paused,
            "drain": drain,
        }
        return self._transport.call(pools.update_pool(pool, fields, etag, timeout))

    def pause_pool(self, pool_id: str, *, timeout: float | None = None) -> Pool:
        """Let nothing be created for a pool and nothing be taken from it; what it has stays."""
        return self.update_pool(pool_id, paused=True, timeout=timeout)

    def drain_pool(self, pool_id: str, *, timeout: float | None = None) -> Pool:
        """Pause a pool and remove its ready containers; sandboxes in use stay."""
        return self.update_pool(pool_id, drain=True, timeout=timeout)

    def resume_pool(self, pool_id: str, *, timeout: float | None = None) -> Pool:
        """Let a pool that was paused or drained work again."""
        return self.update_pool(pool_id, paused=False, drain=False, timeout=timeout)

    @overload
    def delete_pool(
        self, pool_id: str, *, force: bool = False, etag: str = "", timeout: float | None = None
    ) -> None: ...

    @overload
    def delete_pool(self, *, name: str, force: bool = False, etag: str = "", timeout: float | None = None) -> None: ...

    def delete_pool(
        self,
        pool_id: str | None = None,
        *,
        name: str | None = None,
        force: bool = False,
        etag: str = "",
        timeout: float | None = None,
    ) -> None:
        """Delete a pool and its unclaimed containers, with `force` also the sandboxes of it that are in use.

        Raises:
            PoolInUseError: Sandboxes of it are active. The message names them.
            ResourceChangedError: `etag` is given and is not the pool's present one.
        """
        self._transport.call(pools.delete_pool(ref("pool_id", pool_id, name), force, etag, timeout))

    def watch_pools(
        self, pool_ids: Iterable[str] = (), *, timeout: float | None = None
    ) -> Generator[PoolEvent, None, None]:
        """Each pool as it is, and then each change of one, until the iterator is closed.

        Changes in quick succession may come as one; the last state always comes. Without `pool_ids` all pools are
        watched, new ones included. With a `timeout` in seconds it ends with ResourceTimeoutError.

        It goes on over broken connections, with the state as it is then; what was deleted meanwhile is told. A watch
        that names its pools ends when all of them are deleted.
        """
        named = NamedPools(pool_ids)
        return self._watch_named(named, timeout) if named.refs else self._watch_all(timeout)

    def _watch_all(self, timeout: float | None) -> Generator[PoolEvent, None, None]:
        every = AllPools()

        def watch(left: float | None) -> Call[Any, PoolEvent | None]:
            every.begin()
            return pools.watch_all_pools(left)

        with closing(resumed(self._transport, watch, timeout)) as events:
            for event in events:
                for told in every.take(event):
                    yield told

    def _watch_named(self, named: NamedPools, timeout: float | None) -> Generator[PoolEvent, None, None]:
        left = Resuming(timeout, time.monotonic).left
        while named.refs:
            events = resumed(self._transport, lambda secs: pools.watch_pools(named.refs, secs), left())
            try:
                with closing(events):
                    for event in events:
                        yield named.take(event)
                return
            except PoolNotFoundError as failure:
                gone = named.deleted(failure)
                if gone is None:
                    raise
                yield named.take(gone)

    def wait_for_pool(
        self,
        pool_id: str,
        *,
        warm: int | None = None,
        timeout: float = 300.0,
        on_progress: Callable[[Pool], object] | None = None,
        progress: bool = False,
    ) -> Pool:
        """The pool as soon as it has its containers ready.

        Args:
            pool_id: The pool.
            warm: How many ready containers are enough; as many as the pool wants by default.
            timeout: Seconds to wait at most.
            on_progress: Called with the pool as it is and after each change, the pull of its image included.
            progress: Show a bar, in a terminal on the standard error, or in a notebook. It is drawn by tqdm, which
                `sandpool[progress]` installs.

        Raises:
            ModuleNotFoundError: With `progress`: tqdm is not installed.
            PoolNotFoundError: There is none, or it was deleted meanwhile.
            PoolPausedError: It is paused or drained, so that it does not fill.
            ResourceTimeoutError: It is not full in time; the message says what its last failure was.
        """
        filling = Filling(pool_id, warm)
        with bar(progress) as show:
            with closing(self._pool_states(filling, timeout)) as states:
                for pool in states:
                    show(filling.line(pool), filling.step(pool))
                    if on_progress is not None:
                        notify(on_progress, pool)
                    if filling.is_full(pool):
                        return pool
        raise filling.timed_out(timeout)

    def _pool_states(self, filling: Filling, timeout: float) -> Generator[Pool, None, None]:
        """A pool's states until the time is over."""
        try:
            with closing(self.watch_pools([filling.pool_id], timeout=timeout)) as events:
                for event in events:
                    yield filling.seen(event)
        except ResourceTimeoutError:
            return
