import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { ErrorInfoSchema, RetryInfoSchema } from "../src/core/details.js";
import { DEFAULT_RETRY, type RetryPolicy, retryDelay } from "../src/core/retry.js";
import {
  ClientClosedError,
  PoolEmptyError,
  QuotaExceededError,
  ResourceNotFoundError,
  SandboxClient,
  SandboxConnectionError,
} from "../src/index.js";
import { deferred, freePort, pool, sandbox, type Services, TestServer } from "./server.js";

const policy: RetryPolicy = { maxRetries: 3, baseDelayMs: 100, maxDelayMs: 300, random: () => 0 };
const refused = new SandboxConnectionError("", { cause: Object.assign(new Error(), { code: "ECONNREFUSED" }) });
const broken = new SandboxConnectionError("", { cause: Object.assign(new Error(), { code: "ECONNRESET" }) });

describe("how long to wait", () => {
  test("it doubles up to the ceiling, and half of it is random", () => {
    const most = { ...policy, random: () => 1 };
    expect([0, 1, 2].map((retry) => retryDelay(broken, retry, "safe", policy))).toEqual([50, 100, 150]);
    expect([0, 1, 2].map((retry) => retryDelay(broken, retry, "safe", most))).toEqual([100, 200, 300]);
  });

  test("the server's hint is the least", () => {
    expect(retryDelay(new SandboxConnectionError("", { retryAfterMs: 700 }), 0, "safe", policy)).toBe(700);
  });

  test("never more often than allowed, never for an answer", () => {
    expect(retryDelay(broken, 3, "safe", policy)).toBeNull();
    expect(retryDelay(broken, 0, "safe", { ...policy, maxRetries: 0 })).toBeNull();
    expect(retryDelay(new ResourceNotFoundError(""), 0, "safe", policy)).toBeNull();
  });

  test("what must not run twice is repeated only when it never left", () => {
    expect(retryDelay(refused, 0, "unsent", policy)).toBe(50);
    expect(retryDelay(broken, 0, "unsent", policy)).toBeNull();
    expect(retryDelay(new SandboxConnectionError("said the server"), 0, "unsent", policy)).toBeNull();
  });

  test("the default gives up within a few seconds", () => {
    const most = { ...DEFAULT_RETRY, random: () => 1 };
    const delays = [0, 1, 2, 3].map((retry) => retryDelay(broken, retry, "safe", most) ?? Number.NaN);
    expect(delays).toEqual([100, 200, 400, 800]);
  });
});

describe("against a server", () => {
  const unavailable = () =>
    new ConnectError("busy", Code.Unavailable, undefined, [
      { desc: RetryInfoSchema, value: { retryDelay: durationFromMs(1) } },
    ]);

  test("a creation is repeated under the same request_id", async () => {
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
    ["POOL_AT_MAX", QuotaExceededError],
    ["POOL_EMPTY", PoolEmptyError],
  ] as const)("%s is the caller's to wait for", async (reason, kind) => {
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
    expect(error instanceof QuotaExceededError).toBe(reason === "POOL_AT_MAX");
    expect(calls).toBe(1);
  });

  test("a command is not repeated, whatever the server says", async () => {
    let calls = 0;
    const runCommand = () => {
      calls += 1;
      throw unavailable();
    };
    await using server = await TestServer.start({ sandboxes: { runCommand } });
    using client = new SandboxClient({ address: server.address });
    await expect(client.runOnce("s", "true")).rejects.toThrow(SandboxConnectionError);
    expect(calls).toBe(1);
  });

  test("a connection that is cut under a call: a read is repeated, a command is not", async () => {
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
    await expect(client.runOnce("s", "true")).rejects.toThrow(SandboxConnectionError);
    expect(calls).toEqual({ reads: 2, commands: 1 });
  });

  test("a server that is not there yet is found, even by a command", async () => {
    const port = await freePort();
    using client = new SandboxClient({ address: `127.0.0.1:${port}` });
    const command = client.runOnce("s", "true");
    let calls = 0;
    const runCommand = () => {
      calls += 1;
      return {};
    };
    await using _server = await TestServer.start({ sandboxes: { runCommand } }, port);
    await command;
    expect(calls).toBe(1);
  });

  test("no repetition goes beyond the call's time: the last error is the answer", async () => {
    const getPool = () => {
      throw new ConnectError("busy", Code.Unavailable, undefined, [
        { desc: RetryInfoSchema, value: { retryDelay: durationFromMs(60_000) } },
      ]);
    };
    await using server = await TestServer.start({ pools: { getPool } });
    using client = new SandboxClient({ address: server.address, timeoutMs: 5_000 });
    await expect(client.getPool("p")).rejects.toThrow("busy");
  });
});

describe("cancelling", () => {
  /** A server that answers nothing, and says when it was asked and when that was cancelled. */
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
    return { services: { sandboxes: { runCommand } }, asked: asked.promise, cancelled: cancelled.promise };
  }

  test("the signal's reason is what the call rejects with, and the server hears of it", async () => {
    const { services, asked, cancelled } = silent();
    await using server = await TestServer.start(services);
    using client = new SandboxClient({ address: server.address });
    const abort = new AbortController();
    const command = client.runOnce("s", "sleep 9", { signal: abort.signal });
    await asked;
    abort.abort(new Error("not wanted any more"));
    await expect(command).rejects.toThrow("not wanted any more");
    await cancelled;
  });

  test("a signal that is aborted already sends nothing; one ends the wait between repetitions", async () => {
    const port = await freePort();
    using client = new SandboxClient({ address: `127.0.0.1:${port}`, maxRetries: 1_000 });
    const reason = new Error("not wanted any more");
    await expect(client.listPools({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const call = client.listPools({ signal: AbortSignal.timeout(100) });
    await expect(call).rejects.toMatchObject({ name: "TimeoutError" });
  });

  test("close ends calls under way and refuses later ones", async () => {
    const { services, asked } = silent();
    await using server = await TestServer.start(services);
    const client = new SandboxClient({ address: server.address });
    const command = client.runOnce("s", "sleep 9");
    await asked;
    client.close();
    client.close();
    await expect(command).rejects.toThrow(ClientClosedError);
    await expect(client.listPools()).rejects.toThrow(ClientClosedError);
  });
});
