import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { PoolState } from "../src/gen/sandpool/v1/pool_pb.js";
import { WatchEventType, type WatchPoolsRequest } from "../src/gen/sandpool/v1/pool_service_pb.js";
import { SandboxState } from "../src/gen/sandpool/v1/sandbox_pb.js";
import { ClientClosedError, ResourceTimeoutError, SandboxClient, SandboxConnectionError } from "../src/index.js";
import { deferred, pool, sandbox, TestServer } from "./server.js";

const current = (warm: number) => ({
  type: WatchEventType.CURRENT,
  pool: pool({ name: "p", status: { state: PoolState.FILLING, warm } }),
});

/** A watch that sends the current state and then nothing, until it is cancelled. */
function endless() {
  const cancelled = deferred();
  async function* watchPools(_request: WatchPoolsRequest, { signal }: HandlerContext) {
    const end = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    yield current(0);
    await end;
    cancelled.resolve();
  }
  return { services: { pools: { watchPools } }, cancelled: cancelled.promise };
}

describe("watchPools", () => {
  test("yields the current state and each change, until the server ends the stream", async () => {
    const requested: string[][] = [];
    async function* watchPools(request: WatchPoolsRequest) {
      requested.push(request.poolIds);
      yield current(0);
      yield { ...current(1), type: WatchEventType.CHANGED };
      yield { ...current(0), type: WatchEventType.DELETED };
    }
    await using server = await TestServer.start({ pools: { watchPools } });
    using client = new SandboxClient({ address: server.address });
    const seen: [string, number][] = [];
    for await (const event of client.watchPools(["p"])) seen.push([event.type, event.pool.status.warm]);
    expect(seen).toEqual([["current", 0], ["changed", 1], ["deleted", 0]]);
    expect(requested).toEqual([["p"]]);
  });

  test("is cancelled at the server when the loop is left", async () => {
    const { services, cancelled } = endless();
    await using server = await TestServer.start(services);
    using client = new SandboxClient({ address: server.address });
    for await (const event of client.watchPools()) {
      expect(event.type).toBe("current");
      break;
    }
    await cancelled;
  });

  test("rejects with the reason of the signal and is cancelled at the server", async () => {
    const { services, cancelled } = endless();
    await using server = await TestServer.start(services);
    using client = new SandboxClient({ address: server.address });
    const abort = new AbortController();
    const watch = client.watchPools([], { signal: abort.signal });
    await watch.next();
    const next = watch.next();
    abort.abort(new Error("seen enough"));
    await expect(next).rejects.toThrow("seen enough");
    await cancelled;
  });

  test("ends when the client is closed", async () => {
    const { services } = endless();
    await using server = await TestServer.start(services);
    const client = new SandboxClient({ address: server.address });
    const watch = client.watchPools();
    await watch.next();
    const next = watch.next();
    client.close();
    await expect(next).rejects.toThrow(ClientClosedError);
  });

  test("is resumed before and after the first message, but not without retries", async () => {
    let opened = 0;
    async function* watchPools() {
      opened += 1;
      if (opened > 1) yield current(opened);
      throw new ConnectError("busy", Code.Unavailable);
    }
    await using server = await TestServer.start({ pools: { watchPools } });
    using client = new SandboxClient({ address: server.address });
    const watch = client.watchPools();
    expect((await watch.next()).value?.pool.status.warm).toBe(2);
    expect((await watch.next()).value?.pool.status.warm).toBe(3);
    await watch.return();
    using once = new SandboxClient({ address: server.address, retry: { maxAttempts: 1 } });
    const other = once.watchPools();
    expect((await other.next()).value?.pool.status.warm).toBe(4);
    await expect(other.next()).rejects.toThrow(SandboxConnectionError);
    expect(opened).toBe(4);
  });
});

test("a watch rejects with ResourceTimeoutError after its timeoutMs", async () => {
  const { services, cancelled } = endless();
  await using server = await TestServer.start(services);
  using client = new SandboxClient({ address: server.address });
  const watch = client.watchPools(["p"], { timeoutMs: 100 });
  await watch.next();
  await expect(watch.next()).rejects.toThrow(ResourceTimeoutError);
  await cancelled;
});

test("the watch on a sandbox yields its info until it is terminated", async () => {
  async function* watchSandbox() {
    yield { sandbox: sandbox() };
    yield { sandbox: sandbox({ state: SandboxState.TERMINATED }) };
  }
  const getSandbox = () => ({ sandbox: sandbox() });
  await using server = await TestServer.start({ sandboxes: { watchSandbox, getSandbox } });
  using client = new SandboxClient({ address: server.address });
  const states: string[] = [];
  for await (const change of (await client.getSandbox("s")).watch()) states.push(change.state);
  expect(states).toEqual(["running", "terminated"]);
});
