import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { PoolState } from "../src/gen/sandpool/v1/pool_pb.js";
import { WatchEventType, type WatchPoolsRequest } from "../src/gen/sandpool/v1/pool_service_pb.js";
import { SandboxState } from "../src/gen/sandpool/v1/sandbox_pb.js";
import { ClientClosedError, SandboxClient, SandboxConnectionError } from "../src/index.js";
import { deferred, pool, sandbox, TestServer } from "./server.js";

const present = (warm: number) => ({
  type: WatchEventType.PRESENT,
  pool: pool({ name: "p", status: { state: PoolState.FILLING, warm } }),
});

/** A watch that says the present state and then nothing, until it is cancelled. */
function endless() {
  const cancelled = deferred();
  async function* watchPools(_request: WatchPoolsRequest, { signal }: HandlerContext) {
    const end = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    yield present(0);
    await end;
    cancelled.resolve();
  }
  return { services: { pools: { watchPools } }, cancelled: cancelled.promise };
}

describe("watchPools", () => {
  test("yields the present state and each change, until the server ends it", async () => {
    const asked: string[][] = [];
    async function* watchPools(request: WatchPoolsRequest) {
      asked.push(request.poolIds);
      yield present(0);
      yield { ...present(1), type: WatchEventType.CHANGED };
      yield { ...present(0), type: WatchEventType.DELETED };
    }
    await using server = await TestServer.start({ pools: { watchPools } });
    using client = new SandboxClient({ address: server.address });
    const seen: [string, number][] = [];
    for await (const event of client.watchPools({ pools: ["p"] })) seen.push([event.type, event.pool.status.warm]);
    expect(seen).toEqual([["present", 0], ["changed", 1], ["deleted", 0]]);
    expect(asked).toEqual([["p"]]);
  });

  test("leaving the loop cancels it at the server", async () => {
    const { services, cancelled } = endless();
    await using server = await TestServer.start(services);
    using client = new SandboxClient({ address: server.address });
    for await (const event of client.watchPools()) {
      expect(event.type).toBe("present");
      break;
    }
    await cancelled;
  });

  test("aborting the signal rejects with its reason and cancels it at the server", async () => {
    const { services, cancelled } = endless();
    await using server = await TestServer.start(services);
    using client = new SandboxClient({ address: server.address });
    const abort = new AbortController();
    const watch = client.watchPools({ signal: abort.signal });
    await watch.next();
    const next = watch.next();
    abort.abort(new Error("seen enough"));
    await expect(next).rejects.toThrow("seen enough");
    await cancelled;
  });

  test("closing the client ends it", async () => {
    const { services } = endless();
    await using server = await TestServer.start(services);
    const client = new SandboxClient({ address: server.address });
    const watch = client.watchPools();
    await watch.next();
    const next = watch.next();
    client.close();
    await expect(next).rejects.toThrow(ClientClosedError);
  });

  test("it is opened again, before anything has arrived and after, unless nothing is to be repeated", async () => {
    let opened = 0;
    async function* watchPools() {
      opened += 1;
      if (opened > 1) yield present(opened);
      throw new ConnectError("busy", Code.Unavailable);
    }
    await using server = await TestServer.start({ pools: { watchPools } });
    using client = new SandboxClient({ address: server.address });
    const watch = client.watchPools();
    expect((await watch.next()).value?.pool.status.warm).toBe(2);
    expect((await watch.next()).value?.pool.status.warm).toBe(3);
    await watch.return();
    using once = new SandboxClient({ address: server.address, maxRetries: 0 });
    const other = once.watchPools();
    expect((await other.next()).value?.pool.status.warm).toBe(4);
    await expect(other.next()).rejects.toThrow(SandboxConnectionError);
    expect(opened).toBe(4);
  });
});

test("watchSandbox yields sandboxes until the end", async () => {
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
