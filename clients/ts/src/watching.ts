/** Watches that go on where their connection broke. */
import type { CallOptions as ConnectOptions, Client } from "@connectrpc/connect";
import type { Caller } from "./core/caller.js";
import { toPoolEvent } from "./core/convert.js";
import {
  invalid,
  PoolPausedError,
  ResourceNotFoundError,
  ResourceTimeoutError,
  SandboxConnectionError,
  type SandpoolError,
} from "./core/errors.js";
import { type PoolService, WatchEventType } from "./gen/sandpool/v1/pool_service_pb.js";
import type { WaitForPoolOptions } from "./options.js";
import type { Pool, PoolEvent } from "./types.js";

/** How long a wait for a pool lasts where nothing else is said, in seconds. */
const FILL_SECS = 300;
/** The longest time of a timer of Node's. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

type Events = AsyncGenerator<PoolEvent, void, undefined>;

/** Aborts when the caller's signal does, or after so many seconds. */
export interface Limit {
  readonly signal: AbortSignal;
  /** Whether it was the time that ended it. */
  readonly isOver: (error: unknown) => boolean;
}

/** A limit in seconds, besides a caller's signal. */
export function limitOf(timeout: number, signal: AbortSignal | undefined): Limit {
  if (!(timeout > 0)) throw invalid("timeout", `must be more than 0, not ${timeout}`);
  const limit = AbortSignal.timeout(Math.min(Math.ceil(timeout * 1000), LONGEST_TIMER_MS));
  return {
    signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
    isOver: (error) => limit.aborted && error === limit.reason,
  };
}

/** What was seen of the pools that a watch names. */
class Named {
  readonly #seen = new Map<string, Pool>();
  #refs: readonly string[];

  constructor(refs: readonly string[]) {
    this.#refs = refs;
  }

  /** What to ask for next: identifiers where they are known, so that a new pool of an old name is not taken for it. */
  get refs(): string[] {
    return [...this.#refs, ...this.#seen.keys()];
  }

  take(event: PoolEvent): void {
    const { pool, type } = event;
    this.#refs = this.#refs.filter((ref) => ref !== pool.poolId && ref !== pool.name);
    if (type === "deleted") this.#seen.delete(pool.poolId);
    else this.#seen.set(pool.poolId, pool);
  }

  /** The event for a pool that was deleted while nobody watched, or null when the error is about something else. */
  deleted(error: unknown): PoolEvent | null {
    const gone = error instanceof ResourceNotFoundError ? this.#seen.get(error.resourceName ?? "") : undefined;
    return gone === undefined ? null : { type: "deleted", pool: gone };
  }
}

/** What was seen of all pools, by a watch over any number of connections. */
class All {
  readonly #seen = new Map<string, Pool>();
  #untold = new Set<string>();

  /** A connection begins: what it does not tell before its bookmark was deleted while nobody watched. */
  begin(): void {
    this.#untold = new Set(this.#seen.keys());
  }

  /** The events that one of a connection means; null for the bookmark. */
  *take(event: PoolEvent | null): Generator<PoolEvent, void, undefined> {
    if (event === null) {
      for (const pool of [...this.#untold].map((id) => this.#seen.get(id)!)) {
        this.#seen.delete(pool.poolId);
        yield { type: "deleted", pool };
      }
      return;
    }
    const { pool, type } = event;
    if (type === "deleted") this.#seen.delete(pool.poolId);
    else this.#seen.set(pool.poolId, pool);
    this.#untold.delete(pool.poolId);
    yield event;
  }
}

/** The events of a watch on all pools, over broken connections too. */
export async function* allPoolEvents(
  caller: Caller,
  pools: Client<typeof PoolService>,
  signal: AbortSignal | undefined,
): Events {
  const all = new All();
  const open = async function* () {
    all.begin();
    const invoke = (to: ConnectOptions) => pools.watchPools({ bookmark: true }, to);
    for await (const event of caller.stream(invoke, signal)) {
      yield event.type === WatchEventType.BOOKMARK ? null : toPoolEvent(event);
    }
  };
  for await (const event of caller.follow(open, signal)) yield* all.take(event);
}

/** The events of a watch that names its pools, over broken connections too. It ends when all of them are deleted. */
export async function* poolEvents(
  caller: Caller,
  pools: Client<typeof PoolService>,
  refs: readonly string[],
  signal: AbortSignal | undefined,
): Events {
  const open = async function* (poolIds: string[]): Events {
    const invoke = (to: ConnectOptions) => pools.watchPools({ poolIds }, to);
    for await (const event of caller.stream(invoke, signal)) yield toPoolEvent(event);
  };
  const named = new Named(refs);
  while (named.refs.length > 0) {
    try {
      for await (const event of caller.follow(() => open(named.refs), signal)) {
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

/** A pool as soon as it is full, by the events of a watch on it. */
export async function fullPool(
  ref: string,
  watch: (signal: AbortSignal) => Events,
  options: WaitForPoolOptions,
): Promise<Pool> {
  const { warm, timeout = FILL_SECS } = options;
  const limit = limitOf(timeout, options.signal);
  let last: Pool | undefined;
  try {
    for await (const { type, pool } of watch(limit.signal)) {
      if (type === "deleted") throw deleted(ref);
      last = pool;
      options.onProgress?.(pool);
      const isFull = warm === undefined ? pool.status.state === "ready" : pool.status.warm >= warm;
      if (isFull) return pool;
      if (pool.paused || pool.drain) throw paused(ref, pool);
    }
  } catch (error) {
    throw limit.isOver(error) ? late(ref, timeout, warm, last) : error;
  }
  throw new SandboxConnectionError(`the watch on pool ${ref} ended; wait again`, { code: "unavailable" });
}

const about = (ref: string) => ({ resourceType: "pool", resourceName: ref });

function deleted(ref: string): SandpoolError {
  const details = { ...about(ref), code: "not_found", reason: "POOL_NOT_FOUND" } as const;
  return new ResourceNotFoundError(`pool ${ref} was deleted`, details);
}

function paused(ref: string, pool: Pool): SandpoolError {
  const message = `pool ${ref} is ${pool.status.state} and does not fill; resumePool lets it work again`;
  const reason = pool.drain ? "POOL_DRAINED" : "POOL_PAUSED";
  return new PoolPausedError(message, { ...about(ref), code: "failed_precondition", reason });
}

function late(ref: string, timeout: number, warm: number | undefined, last: Pool | undefined): SandpoolError {
  const ready = last === undefined ? "" : `: ${last.status.warm} of ${warm ?? last.status.wanted} are ready`;
  const failure = last?.status.lastError ? `; the last failure: ${last.status.lastError.message}` : "";
  const message = `pool ${ref} was not full within ${timeout} s${ready}${failure}`;
  return new ResourceTimeoutError(message, { ...about(ref), code: "deadline_exceeded", reason: "NOT_READY_IN_TIME" });
}
