/** Watches on pools, which are resumed after a broken connection, and the wait for a pool. */
import type { CallOptions as ConnectOptions, Client } from "@connectrpc/connect";
import type { Caller } from "./core/caller.js";
import { toPoolEvent } from "./core/convert.js";
import { POOL_WAIT_TIMEOUT_MS } from "./core/defaults.js";
import {
  PoolNotFoundError,
  PoolPausedError,
  ResourceNotFoundError,
  ResourceTimeoutError,
  SandboxConnectionError,
  type SandpoolError,
} from "./core/errors.js";
import { limitOf } from "./core/limits.js";
import { type PoolService, WatchEventType } from "./gen/sandpool/v1/pool_service_pb.js";
import type { WaitForPoolOptions } from "./options.js";
import type { Pool, PoolEvent } from "./types.js";

type Events = AsyncGenerator<PoolEvent, void, undefined>;

/** The pools of a watch on named pools. */
class NamedPools {
  readonly #known = new Map<string, Pool>();
  #refs: readonly string[];

  constructor(refs: readonly string[]) {
    this.#refs = refs;
  }

  /** What to watch next: identifiers where they are known, so that a new pool with an old name does not match. */
  get refs(): string[] {
    return [...this.#refs, ...this.#known.keys()];
  }

  take({ pool, type }: PoolEvent): void {
    this.#refs = this.#refs.filter((ref) => ref !== pool.poolId && ref !== pool.name);
    if (type === "deleted") this.#known.delete(pool.poolId);
    else this.#known.set(pool.poolId, pool);
  }

  /** Returns the event for a pool that was deleted between two connections, or null for another error. */
  deleted(error: unknown): PoolEvent | null {
    const pool = error instanceof ResourceNotFoundError ? this.#known.get(error.resourceName ?? "") : undefined;
    return pool === undefined ? null : { type: "deleted", pool };
  }
}

/** The pools of a watch on all pools, over any number of connections. */
class AllPools {
  readonly #known = new Map<string, Pool>();
  #unconfirmed = new Set<string>();

  /** Starts a connection: a pool that it does not report before its bookmark was deleted in the meantime. */
  start(): void {
    this.#unconfirmed = new Set(this.#known.keys());
  }

  /** Yields the events that follow from an event of a connection; null is the bookmark. */
  *take(event: PoolEvent | null): Generator<PoolEvent, void, undefined> {
    if (event === null) {
      for (const pool of [...this.#unconfirmed].map((id) => this.#known.get(id)!)) {
        this.#known.delete(pool.poolId);
        yield { type: "deleted", pool };
      }
      this.#unconfirmed.clear();
      return;
    }
    const { pool, type } = event;
    if (type === "deleted") this.#known.delete(pool.poolId);
    else this.#known.set(pool.poolId, pool);
    this.#unconfirmed.delete(pool.poolId);
    yield event;
  }
}

/** Yields the events of a watch on all pools. */
export async function* allPoolEvents(
  caller: Caller,
  pools: Client<typeof PoolService>,
  signal: AbortSignal | undefined,
): Events {
  const all = new AllPools();
  const invoke = (to: ConnectOptions) => pools.watchPools({ bookmark: true }, to);
  const open = async function* () {
    all.start();
    for await (const event of caller.stream(invoke, { signal, timeoutMs: undefined })) {
      yield event.type === WatchEventType.BOOKMARK ? null : toPoolEvent(event);
    }
  };
  for await (const event of caller.resumed(open, signal)) yield* all.take(event);
}

/** Yields the events of a watch on named pools. It ends when all of them are deleted. */
export async function* poolEvents(
  caller: Caller,
  pools: Client<typeof PoolService>,
  refs: readonly string[],
  signal: AbortSignal | undefined,
): Events {
  const named = new NamedPools(refs);
  const open = async function* (): Events {
    const poolIds = named.refs;
    const invoke = (to: ConnectOptions) => pools.watchPools({ poolIds }, to);
    for await (const event of caller.stream(invoke, { signal, timeoutMs: undefined })) yield toPoolEvent(event);
  };
  while (named.refs.length > 0) {
    try {
      for await (const event of caller.resumed(open, signal)) {
        named.take(event);
        yield event;
      }
      return;
    } catch (error) {
      const event = named.deleted(error);
      if (event === null) throw error;
      named.take(event);
      yield event;
    }
  }
}

/** Returns a pool when it has its warm containers, by the events of a watch on it. */
export async function readyPool(
  ref: string,
  watch: (signal: AbortSignal | undefined) => Events,
  options: WaitForPoolOptions,
): Promise<Pool> {
  const { warm, timeoutMs = POOL_WAIT_TIMEOUT_MS } = options;
  const limit = limitOf(timeoutMs, options.signal);
  let last: Pool | undefined;
  try {
    for await (const { type, pool } of watch(limit.signal)) {
      if (type === "deleted") throw deleted(ref);
      last = pool;
      options.onProgress?.(pool);
      const isReady = warm === undefined ? pool.status.state === "ready" : pool.status.warm >= warm;
      if (isReady) return pool;
      if (pool.paused || pool.drained) throw paused(ref, pool);
    }
  } catch (error) {
    throw limit.caused(error) ? late(ref, timeoutMs, warm, last) : error;
  }
  throw new SandboxConnectionError(`the watch on pool ${ref} ended; wait again`, { code: "UNAVAILABLE" });
}

const about = (ref: string) => ({ resourceType: "pool", resourceName: ref });

function deleted(ref: string): SandpoolError {
  const details = { ...about(ref), code: "NOT_FOUND", reason: "POOL_NOT_FOUND" } as const;
  return new PoolNotFoundError(`pool ${ref} was deleted`, details);
}

function paused(ref: string, pool: Pool): SandpoolError {
  const change = pool.drained ? "drained: false" : "paused: false";
  const message = `pool ${ref} is ${pool.status.state} and creates no containers; update it with ${change}`;
  const reason = pool.drained ? "POOL_DRAINED" : "POOL_PAUSED";
  return new PoolPausedError(message, { ...about(ref), code: "FAILED_PRECONDITION", reason });
}

function late(ref: string, timeoutMs: number | null, warm: number | undefined, last: Pool | undefined): SandpoolError {
  const count = last === undefined ? "" : `: ${last.status.warm} of ${warm ?? last.status.desired} are warm`;
  const failure = last?.status.lastError ? `; the last failure: ${last.status.lastError.message}` : "";
  const message = `pool ${ref} did not have its warm containers within ${timeoutMs} ms${count}${failure}`;
  return new ResourceTimeoutError(message, { ...about(ref), code: "DEADLINE_EXCEEDED" });
}
