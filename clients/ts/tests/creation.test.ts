import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { SandboxState } from "../src/gen/sandpool/v1/sandbox_pb.js";
import {
  type BatchCreateSandboxesRequest,
  type CreateSandboxRequest,
  WhenEmpty,
  type WatchSandboxRequest,
} from "../src/gen/sandpool/v1/sandbox_service_pb.js";
import { ResourceTimeoutError, Sandbox, SandboxNotReadyError } from "../src/index.js";
import { sandbox, type Services, withServer } from "./server.js";

/** A server that creates whatever is asked for, and what it was asked and how much time it was given, in seconds. */
function creating() {
  const seen: CreateSandboxRequest[] = [];
  const batches: BatchCreateSandboxesRequest[] = [];
  const given: number[] = [];
  const sandboxes: Services["sandboxes"] = {
    createSandbox: (request: CreateSandboxRequest, context: HandlerContext) => {
      seen.push(request);
      given.push((context.timeoutMs() ?? 0) / 1000);
      return { sandbox: sandbox() };
    },
    batchCreateSandboxes: (request: BatchCreateSandboxesRequest, context: HandlerContext) => {
      batches.push(request);
      given.push((context.timeoutMs() ?? 0) / 1000);
      return { sandboxes: Array.from({ length: request.count }, (_, index) => sandbox({ name: `s${index}` })) };
    },
  };
  return { services: { sandboxes }, seen, batches, given };
}

describe("creating", () => {
  test("what to do when no container is ready, and the environment, go with every way to a sandbox", async () => {
    const { services, seen, batches } = creating();
    const env = { TOKEN: "x" };
    await withServer(services, async (client) => {
      await client.create({ poolId: "p", env });
      await client.create({ poolId: "p", env, whenEmpty: "start_cold" });
      await client.createSandbox("t", { env, whenEmpty: "wait", waitSecs: 2.5 });
      await client.create({ templateName: "t", env, whenEmpty: "fail" });
      await client.create({ image: "i", env, readinessCommand: ["x", "y"], readinessIntervalSecs: 0.1 });
      await client.createBatch(2, { poolId: "p", env, whenEmpty: "wait" });
    });
    const asked = [...seen, batches[0]?.sandbox];
    expect(asked.map((request) => [request?.whenEmpty, request?.waitSecs])).toEqual([
      [WhenEmpty.UNSPECIFIED, undefined],
      [WhenEmpty.START_COLD, undefined],
      [WhenEmpty.WAIT, 2.5],
      [WhenEmpty.FAIL, undefined],
      [WhenEmpty.UNSPECIFIED, undefined],
      [WhenEmpty.WAIT, undefined],
    ]);
    for (const request of asked) expect(request?.env).toEqual(env);
    expect(seen[4]).toMatchObject({ readinessCommand: ["x", "y"], readinessIntervalSecs: 0.1 });
    expect(seen[4]?.readinessRetries).toBeUndefined();
  });

  test("a batch has one request_id of its own, and handles of all", async () => {
    const { services, batches } = creating();
    await withServer(services, async (client) => {
      const made = await client.createBatch(3, { templateName: "t", metadata: { a: "b" } }, { requestId: "mine" });
      expect(made.map(({ name }) => name)).toEqual(["s0", "s1", "s2"]);
      expect(made.every((one) => one instanceof Sandbox)).toBe(true);
    });
    expect(batches[0]).toMatchObject({ count: 3, requestId: "mine", sandbox: { templateName: "t", requestId: "" } });
    expect(batches[0]?.sandbox?.metadata).toEqual({ a: "b" });
  });

  test("a call lasts longer than what it asks to wait for", async () => {
    const { services, given } = creating();
    const tries = { readinessIntervalSecs: 1, readinessTimeoutSecs: 9, readinessRetries: 6 };
    await withServer(services, async (client) => {
      await client.create({ poolId: "p" });
      await client.create({ poolId: "p", whenEmpty: "wait" });
      await client.createBatch(2, { templateName: "t", whenEmpty: "wait", waitSecs: 600 });
      await client.create({ poolId: "p", whenEmpty: "wait", waitSecs: 600 }, { timeoutMs: 7_000 });
      await client.create({ image: "i", readinessCommand: ["x"] });
      await client.create({ image: "i", readinessCommand: ["x"], ...tries });
    });
    const expected = [120, 120 + 30, 120 + 600, 7, 120 + 110, 120 + 60];
    expect(given).toHaveLength(expected.length);
    for (const [index, most] of expected.entries()) {
      expect(given[index]).toBeGreaterThan(most - 3);
      expect(given[index]).toBeLessThanOrEqual(most);
    }
  });
});

describe("waiting for a sandbox that somebody else creates", () => {
  /** A server whose sandbox goes through these states and then stays as it is, until the watch is left. */
  function going(...states: SandboxState[]): Services {
    async function* watchSandbox(_request: WatchSandboxRequest, { signal }: HandlerContext) {
      const left = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
      for (const state of states) yield { sandbox: sandbox({ state }) };
      await left;
    }
    return { sandboxes: { watchSandbox, getSandbox: () => ({ sandbox: sandbox({ state: SandboxState.STARTING }) }) } };
  }

  test("it resolves as soon as the sandbox runs", async () => {
    await withServer(going(SandboxState.STARTING, SandboxState.RUNNING), async (client) => {
      expect(await client.getSandboxStatus("s")).toBe("starting");
      const found = await client.waitForSandbox("s", { timeout: 9, pollInterval: 1 });
      expect(found).toBeInstanceOf(Sandbox);
      expect(found.state).toBe("running");
    });
  });

  test("a sandbox that ends is not waited for", async () => {
    await withServer(going(SandboxState.STARTING, SandboxState.TERMINATING), async (client) => {
      const error: unknown = await client.waitForSandbox("s").catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(SandboxNotReadyError);
      expect(error).toMatchObject({ reason: "SANDBOX_ENDED", resourceType: "sandbox", resourceName: "s" });
    });
  });

  test("it ends after its time, by its signal, and with the error of the watch", async () => {
    await withServer(going(SandboxState.STARTING), async (client) => {
      const late: unknown = await client.waitForSandbox("s", { timeout: 0.05 }).catch((thrown: unknown) => thrown);
      expect(late).toBeInstanceOf(ResourceTimeoutError);
      expect(late).toMatchObject({ code: "deadline_exceeded", resourceName: "s" });
      const reason = new Error("not wanted any more");
      await expect(client.waitForSandbox("s", { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    });
    const watchSandbox = () => {
      throw new ConnectError("there is none", Code.NotFound);
    };
    await withServer({ sandboxes: { watchSandbox } }, async (client) => {
      await expect(client.waitForSandbox("s")).rejects.toMatchObject({ name: "ResourceNotFoundError" });
    });
  });
});
