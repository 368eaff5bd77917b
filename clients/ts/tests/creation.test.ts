import type { HandlerContext } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import {
  type BatchCreateSandboxesRequest,
  type CreateSandboxRequest,
  WhenEmpty,
} from "../src/gen/sandpool/v1/sandbox_service_pb.js";
import { Sandbox } from "../src/index.js";
import { sandbox, type Services, withServer } from "./server.js";

/** A server that creates all sandboxes, with the requests that it received and their time limits in seconds. */
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
  test("whenEmpty and the environment are sent with every source", async () => {
    const { services, seen, batches } = creating();
    const env = { TOKEN: "x" };
    await withServer(services, async (client) => {
      await client.create({ poolId: "p", env });
      await client.create({ poolId: "p", env, whenEmpty: "start_cold" });
      await client.create({ templateName: "t", env, whenEmpty: "wait", queueTimeoutMs: 2500 });
      await client.create({ templateName: "t", env, whenEmpty: "fail" });
      await client.create({ image: "i", env, readinessProbe: { command: ["x", "y"], intervalMs: 100 } });
      await client.createBatch(2, { poolId: "p", env, whenEmpty: "wait" });
    });
    const requests = [...seen, batches[0]?.sandbox];
    expect(requests.map((request) => [request?.whenEmpty, request?.queueTimeout?.nanos])).toEqual([
      [WhenEmpty.UNSPECIFIED, undefined],
      [WhenEmpty.START_COLD, undefined],
      [WhenEmpty.WAIT, 500_000_000],
      [WhenEmpty.FAIL, undefined],
      [WhenEmpty.UNSPECIFIED, undefined],
      [WhenEmpty.WAIT, undefined],
    ]);
    // With an image, the variables are part of the specification, so that the entrypoint receives them as well.
    for (const request of requests) expect(request?.spec?.image ? request.spec.env : request?.env).toEqual(env);
    const probe = seen[4]?.spec?.readinessProbe;
    expect(probe).toMatchObject({ command: ["x", "y"], interval: { seconds: 0n, nanos: 100_000_000 } });
    expect(probe?.failureThreshold).toBeUndefined();
    expect(seen[4]?.env).toEqual({});
  });

  test("a batch has one request id and returns all handles", async () => {
    const { services, batches } = creating();
    await withServer(services, async (client) => {
      const made = await client.createBatch(3, { templateName: "t", metadata: { a: "b" }, requestId: "mine" });
      expect(made.map(({ name }) => name)).toEqual(["s0", "s1", "s2"]);
      expect(made.every((one) => one instanceof Sandbox)).toBe(true);
    });
    expect(batches[0]).toMatchObject({ count: 3, requestId: "mine", sandbox: { templateName: "t", requestId: "" } });
    expect(batches[0]?.sandbox?.metadata).toEqual({ a: "b" });
  });

  test("the time limit includes the waits that the request asks for", async () => {
    const { services, given } = creating();
    const command = ["x"];
    await withServer(services, async (client) => {
      await client.create({ poolId: "p" });
      await client.create({ poolId: "p", whenEmpty: "wait" });
      await client.createBatch(2, { templateName: "t", whenEmpty: "wait", queueTimeoutMs: 600_000 });
      await client.create({ poolId: "p", whenEmpty: "wait", queueTimeoutMs: 600_000, requestTimeoutMs: 7_000 });
      await client.create({ image: "i", readinessProbe: { command } });
      const probe = { command, intervalMs: 1_000, timeoutMs: 9_000, failureThreshold: 6 };
      await client.create({ image: "i", readinessProbe: probe });
    });
    const expected = [120, 120 + 30, 120 + 600, 7, 120 + 110, 120 + 60];
    expect(given).toHaveLength(expected.length);
    for (const [index, most] of expected.entries()) {
      expect(given[index]).toBeGreaterThan(most - 3);
      expect(given[index]).toBeLessThanOrEqual(most);
    }
  });
});
