import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { PullPolicy } from "../src/gen/sandpool/v1/container_pb.js";
import { DiskEnforcement, PoolState } from "../src/gen/sandpool/v1/pool_pb.js";
import type {
  CreatePoolRequest,
  DeletePoolRequest,
  UpdatePoolRequest,
} from "../src/gen/sandpool/v1/pool_service_pb.js";
import { RunCommandResponseSchema } from "../src/gen/sandpool/v1/sandbox_service_pb.js";
import type { CreateTemplateRequest, UpdateTemplateRequest } from "../src/gen/sandpool/v1/template_service_pb.js";
import { pool, sandbox, SPEC, template, withServer } from "./server.js";

const readinessProbe = { command: ["test", "-e", "/ready"], intervalMs: 250, timeoutMs: 2500, failureThreshold: 7 };
const SENT_PROBE = {
  command: ["test", "-e", "/ready"],
  interval: { seconds: 0n, nanos: 250_000_000 },
  timeout: { seconds: 2n, nanos: 500_000_000 },
  failureThreshold: 7,
};

test("the options of a pool are sent and returned", async () => {
  const seen: CreatePoolRequest[] = [];
  const createPool = (request: CreatePoolRequest) => {
    seen.push(request);
    const { spec, imageRefreshInterval, warmTtl, drained } = request;
    return { pool: pool({ spec: spec ?? SPEC, imageRefreshInterval, warmTtl, drained }) };
  };
  const container = { env: { A: "1" }, readinessProbe, pullPolicy: "always" } as const;
  const options = { imageRefreshIntervalMs: 60_000, warmTtlMs: 3_600_000, drained: true };
  await withServer({ pools: { createPool } }, async (client) => {
    const made = await client.createPool({ image: "i", ...container, ...options });
    expect(made).toMatchObject({ env: { A: "1" }, spec: container, ...options });
    await client.createPool("p", { templateName: "t", size: 1, imageRefreshIntervalMs: null });
    await client.createPool("p", { image: "i", warmContainers: 1 });
  });
  expect(seen[0]).toMatchObject({ imageRefreshInterval: { seconds: 60n }, warmTtl: { seconds: 3600n }, drained: true });
  expect(seen[0]?.spec).toMatchObject({ env: { A: "1" }, readinessProbe: SENT_PROBE, pullPolicy: PullPolicy.ALWAYS });
  expect(seen[1]).toMatchObject({ drained: false, imageRefreshInterval: { seconds: 0n }, warmContainers: 1 });
  expect([seen[1]?.spec, seen[1]?.warmTtl]).toEqual([undefined, undefined]);
  expect(seen[2]).toMatchObject({ warmContainers: 1 });
  expect(seen[2]?.spec).toMatchObject({ env: {}, pullPolicy: PullPolicy.UNSPECIFIED });
  expect(seen[2]?.spec?.readinessProbe).toBeUndefined();
});

test("an update names the given fields, including null", async () => {
  const pools: UpdatePoolRequest[] = [];
  const templates: UpdateTemplateRequest[] = [];
  const services = {
    pools: {
      updatePool: (request: UpdatePoolRequest) => {
        pools.push(request);
        return { pool: pool() };
      },
    },
    templates: {
      updateTemplate: (request: UpdateTemplateRequest) => {
        templates.push(request);
        return { template: template() };
      },
    },
  };
  await withServer(services, async (client) => {
    await client.updatePool("p", { env: { A: "1" }, readinessProbe, pullPolicy: "never", warmTtlMs: 0 });
    await client.updatePool("p", { env: null, readinessProbe: null, pullPolicy: null, imageRefreshIntervalMs: null });
    await client.updatePool("p", { paused: true });
    await client.updatePool("p", { paused: false, drained: false, requestId: "mine" });
    await client.updatePool("p", { timeoutMs: null });
    await client.updateTemplate("t", { env: {}, cpus: null, timeoutMs: 3_000 });
  });
  const paths = pools.map((request) => request.updateMask?.paths.toSorted());
  expect(paths).toEqual([
    ["spec.env", "spec.pull_policy", "spec.readiness_probe", "warm_ttl"],
    ["image_refresh_interval", "spec.env", "spec.pull_policy", "spec.readiness_probe"],
    ["paused"],
    ["drained", "paused"],
    ["timeout"],
  ]);
  const spec = { env: { A: "1" }, readinessProbe: SENT_PROBE, pullPolicy: PullPolicy.NEVER };
  expect(pools[0]).toMatchObject({ spec, warmTtl: { seconds: 0n } });
  expect(pools[1]?.spec).toMatchObject({ env: {}, pullPolicy: PullPolicy.UNSPECIFIED });
  expect([pools[1]?.spec?.readinessProbe, pools[1]?.imageRefreshInterval]).toEqual([undefined, undefined]);
  expect([pools[2]?.paused, pools[2]?.drained, pools[2]?.spec]).toEqual([true, undefined, undefined]);
  expect(pools[3]).toMatchObject({ paused: false, drained: false, requestId: "mine" });
  expect(pools[4]?.timeout).toBeUndefined();
  expect(templates[0]?.updateMask?.paths.toSorted()).toEqual(["spec.cpus", "spec.env", "timeout"]);
  expect(templates[0]?.timeout?.seconds).toBe(3n);
});

test("a template has an environment and a readiness probe", async () => {
  const seen: CreateTemplateRequest[] = [];
  const createTemplate = (request: CreateTemplateRequest) => {
    seen.push(request);
    return { template: template({ spec: request.spec ?? SPEC }) };
  };
  await withServer({ templates: { createTemplate } }, async (client) => {
    const made = await client.createTemplate("t", { image: "i", env: { A: "1" }, readinessProbe });
    expect(made).toMatchObject({ env: { A: "1" }, spec: { readinessProbe } });
  });
  expect(seen[0]?.spec).toMatchObject({ env: { A: "1" }, readinessProbe: SENT_PROBE });
});

test("the status of a pool", async () => {
  const status = {
    state: PoolState.DRAINED,
    imageDigest: "sha256:1",
    imagePull: { image: "i", currentBytes: 2n ** 33n, totalBytes: 2n ** 34n },
    diskEnforcement: DiskEnforcement.BEST_EFFORT,
    waiting: 3,
  };
  await withServer({ pools: { getPool: () => ({ pool: pool({ status }) }) } }, async (client) => {
    expect((await client.getPool("p")).status).toMatchObject({
      state: "drained",
      imageDigest: "sha256:1",
      imagePull: { image: "i", currentBytes: 2 ** 33, totalBytes: 2 ** 34 },
      diskEnforcement: "best_effort",
      waiting: 3,
    });
  });
  const spec = { ...SPEC, pullPolicy: 99 as PullPolicy };
  const newer = pool({ spec, status: { diskEnforcement: 99 as DiskEnforcement } });
  await withServer({ pools: { getPool: () => ({ pool: newer }) } }, async (client) => {
    const found = await client.getPool("p");
    expect(found).toMatchObject({ spec: { pullPolicy: "unknown" }, status: { diskEnforcement: "unknown" } });
  });
});

test("force is sent and is false by default", async () => {
  const seen: DeletePoolRequest[] = [];
  const deletePool = (request: DeletePoolRequest) => {
    seen.push(request);
    return {};
  };
  await withServer({ pools: { deletePool } }, async (client) => {
    await client.deletePool("p", { etag: "e1" });
    await client.deletePool("p", { force: true });
  });
  expect(seen.map(({ force, etag }) => [force, etag])).toEqual([[false, "e1"], [true, ""]]);
});

test("a response of 16 MiB arrives", async () => {
  const stdoutBytes = new Uint8Array(8 * 2 ** 20).fill(255);
  const response = create(RunCommandResponseSchema, { stdoutBytes, stderrBytes: stdoutBytes });
  const sandboxes = { getSandbox: () => ({ sandbox: sandbox() }), runCommand: () => response };
  await withServer({ sandboxes }, async (client) => {
    const result = await (await client.getSandbox("s")).run("true", { resumable: false });
    expect([result.stdoutBytes.length, result.stderrBytes.length]).toEqual([8 * 2 ** 20, 8 * 2 ** 20]);
  });
});
