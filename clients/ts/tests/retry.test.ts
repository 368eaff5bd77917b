import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { DEFAULT_RETRY, Resumption, type Retry, retryDelay } from "../src/core/retry.js";
import { ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import {
  ClientClosedError,
  PoolEmptyError,
  QuotaExceededError,
  ResourceNotFoundError,
  SandboxClient,
  SandboxConnectionError,
} from "../src/index.js";
import { CLOSED, deferred, freePort, pool, sandbox, type Services, TestServer } from "./server.js";

/** Runs a command with one request. */
async function runOnce(client: SandboxClient, signal?: AbortSignal): Promise<unknown> {
  return (await client.getSandbox("s")).run("true", { resumable: false, signal });
}

const getSandbox = () => ({ sandbox: sandbox() });
const retry: Retry = { maxAttempts: 4, initialDelayMs: 100, maxDelayMs: 300, random: () => 0 };
const refused = new SandboxConnectionError("", { cause: Object.assign(new Error(), { code: "ECONNREFUSED" }) });
const broken = new SandboxConnectionError("", { cause: Object.assign(new Error(), { code: "ECONNRESET" }) });

describe("the pause before a retry", () => {
  test("doubles up to the maximum, and half of it is random", () => {
    const most = { ...retry, random: () => 1 };
    expect([1, 2, 3].map((attempt) => retryDelay(broken, attempt, "safe", retry))).toEqual([50, 100, 150]);
    expect([1, 2, 3].map((attempt) => retryDelay(broken, attempt, "safe", most))).toEqual([100, 200, 300]);
  });

  test("is at least the server's hint", () => {
    expect(retryDelay(new SandboxConnectionError("", { retryAfterMs: 700 }), 1, "safe", retry)).toBe(700);
  });

  test("is null after the last attempt and for an error of the server", () => {
    expect(retryDelay(broken, 4, "safe", retry)).toBeNull();
    expect(retryDelay(broken, 1, "safe", { ...retry, maxAttempts: 1 })).toBeNull();
    expect(retryDelay(new ResourceNotFoundError(""), 1, "safe", retry)).toBeNull();
  });

  test("is null for a call that must not run twice, unless it was never sent", () => {
    expect(retryDelay(refused, 1, "unsent", retry)).toBe(50);
    expect(retryDelay(broken, 1, "unsent", retry)).toBeNull();
    expect(retryDelay(new SandboxConnectionError("from the server"), 1, "unsent", retry)).toBeNull();
  });

  test("is at most a few seconds in total by default", () => {
    const most = { ...DEFAULT_RETRY, random: () => 1 };
    const delays = [1, 2, 3, 4, 5].map((attempt) => retryDelay(broken, attempt, "safe", most));
    expect(delays).toEqual([100, 200, 400, 800, null]);
  });
});

describe("a stream", () => {
  /** Returns after how many failures and how much time a stream gives up. */
  function failures(prepare: (resumption: Resumption) => void, policy = retry): [number, number] {
    let now = 0;
    const resumption = new Resumption(policy, () => now);
    prepare(resumption);
    for (let count = 1; ; count++) {
      const delay = resumption.delay(broken);
      if (delay === null) return [count, now];
      now += delay;
    }
  }

  test("that has not begun is opened as often as a call is made", () => {
    expect(failures(() => undefined)[0]).toBe(4);
  });

  test("that has begun is resumed for 60 s without progress", () => {
    const [count, elapsed] = failures((resumption) => resumption.arrived());
    expect(count).toBeGreaterThan(100);
    expect(elapsed).toBeGreaterThan(59_000);
    expect(elapsed).toBeLessThanOrEqual(60_000);
  });

  test("is not resumed by a client without retries", () => {
    expect(failures((resumption) => resumption.arrived(), { ...retry, maxAttempts: 1 })[0]).toBe(1);
  });
});

describe("against a server", () => {
  const unavailable = () =>
    new ConnectError("busy", Code.Unavailable, undefined, [
      { desc: RetryInfoSchema, value: { retryDelay: durationFromMs(1) } },
    ]);

  test("a creation is repeated with the same request id", async () => {
    const ids: string[] = [];
    const createSandbox: NonNullable<Services["sandboxes"]>["createSandbox"] = ({ requestId }) => {
      ids.push(requestId);
      if (ids.length < 3) throw unavailable();
      return { sandbox: sandbox() };
    };
    await using server = await TestServer.start({ sandboxes: { createSandbox } });
    using client = new SandboxClient({ address: server.address });
    await client.create({ poolId: "p" });
    expect(ids).toHaveLength(3);
    expect(new Set(ids).size).toBe(1);
  });

  test.each([
    ["POOL_LIMIT_REACHED", QuotaExceededError],
    ["POOL_EMPTY", PoolEmptyError],
  ] as const)("%s is not repeated", async (reason, kind) => {
    let calls = 0;
    const createSandbox = () => {
      calls += 1;
      throw new ConnectError("no", Code.ResourceExhausted, undefined, [
        { desc: ErrorInfoSchema, value: { reason, domain: "sandpool" } },
        { desc: RetryInfoSchema, value: { retryDelay: durationFromMs(1) } },
      ]);
    };
    await using server = await TestServer.start({ sandboxes: { createSandbox } });
    using client = new SandboxClient({ address: server.address });
    const error: unknown = await client.create({ poolId: "p" }).catch((thrown: unknown) => thrown);
    expect((error as Error).constructor).toBe(kind);
    expect(error).toMatchObject({ retryAfterMs: 1 });
    expect(error instanceof QuotaExceededError).toBe(reason === "POOL_LIMIT_REACHED");
    expect(calls).toBe(1);
  });

  test("a command is not repeated", async () => {
    let calls = 0;
    const runCommand = () => {
      calls += 1;
      throw unavailable();
    };
    await using server = await TestServer.start({ sandboxes: { getSandbox, runCommand } });
    using client = new SandboxClient({ address: server.address });
    await expect(runOnce(client)).rejects.toThrow(SandboxConnectionError);
    expect(calls).toBe(1);
  });

  test("a read is repeated after a broken connection, a command is not", async () => {
    const calls = { reads: 0, commands: 0 };
    const services: Services = {
      pools: {
        getPool: () => {
          calls.reads += 1;
          if (calls.reads === 1) server.cut();
          return { pool: pool() };
        },
      },
      sandboxes: {
        getSandbox,
        runCommand: () => {
          calls.commands += 1;
          server.cut();
          return {};
        },
      },
    };
    await using server = await TestServer.start(services);
    using client = new SandboxClient({ address: server.address });
    await client.getPool("p");
    await expect(runOnce(client)).rejects.toThrow(SandboxConnectionError);
    expect(calls).toEqual({ reads: 2, commands: 1 });
  });

  test("a command waits for a server that starts", async () => {
    const port = await freePort();
    using client = new SandboxClient({ address: `127.0.0.1:${port}` });
    const command = runOnce(client);
    let calls = 0;
    const runCommand = () => {
      calls += 1;
      return {};
    };
    await using _server = await TestServer.start({ sandboxes: { getSandbox, runCommand } }, port);
    await command;
    expect(calls).toBe(1);
  });

  test("no retry exceeds the time limit, and the last error is reported", async () => {
    const getPool = () => {
      throw new ConnectError("busy", Code.Unavailable, undefined, [
        { desc: RetryInfoSchema, value: { retryDelay: durationFromMs(60_000) } },
      ]);
    };
    await using server = await TestServer.start({ pools: { getPool } });
    using client = new SandboxClient({ address: server.address, requestTimeoutMs: 5_000 });
    await expect(client.getPool("p")).rejects.toThrow("busy");
  });
});

describe("cancelling", () => {
  /** A server that does not respond, with promises of the call and of its cancellation. */
  function silent() {
    const asked = deferred();
    const cancelled = deferred();
    const runCommand: NonNullable<Services["sandboxes"]>["runCommand"] = (_request, { signal }) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => {
          cancelled.resolve();
          reject(new ConnectError("cancelled", Code.Canceled));
        });
        asked.resolve();
      });
    return { services: { sandboxes: { getSandbox, runCommand } }, asked: asked.promise, cancelled: cancelled.promise };
  }

  test("the call rejects with the reason of the signal and is cancelled at the server", async () => {
    const { services, asked, cancelled } = silent();
    await using server = await TestServer.start(services);
    using client = new SandboxClient({ address: server.address });
    const abort = new AbortController();
    const command = runOnce(client, abort.signal);
    await asked;
    abort.abort(new Error("not needed"));
    await expect(command).rejects.toThrow("not needed");
    await cancelled;
  });

  test("an aborted signal sends no request, and ends the pause between attempts", async () => {
    using client = new SandboxClient({ address: CLOSED, retry: { maxAttempts: 1_000 } });
    const reason = new Error("not needed");
    await expect(client.listPools({ signal: AbortSignal.abort(reason) }).toArray()).rejects.toBe(reason);
    const call = client.listPools({ signal: AbortSignal.timeout(100) }).toArray();
    await expect(call).rejects.toMatchObject({ name: "TimeoutError" });
  });

  test("close ends calls in progress and rejects later ones", async () => {
    const { services, asked } = silent();
    await using server = await TestServer.start(services);
    const client = new SandboxClient({ address: server.address });
    const command = runOnce(client);
    await asked;
    client.close();
    client.close();
    await expect(command).rejects.toThrow(ClientClosedError);
    await expect(client.listPools().toArray()).rejects.toThrow(ClientClosedError);
  });
});
