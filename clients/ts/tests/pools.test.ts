import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { DiskEnforcement, PoolState, PullPolicy } from "../src/gen/sandpool/v1/pool_pb.js";
import type {
  CreatePoolRequest,
  DeletePoolRequest,
  UpdatePoolRequest,
} from "../src/gen/sandpool/v1/pool_service_pb.js";
import { RunCommandResponseSchema } from "../src/gen/sandpool/v1/sandbox_service_pb.js";
import type { CreateTemplateRequest, UpdateTemplateRequest } from "../src/gen/sandpool/v1/template_service_pb.js";
import { pool, template, withServer } from "./server.js";

const READINESS = {
  readinessCommand: ["test", "-e", "/ready"],
  readinessIntervalSecs: 0.25,
  readinessTimeoutSecs: 2.5,
  readinessRetries: 7,
};

test("how containers are made and kept goes out and comes back", async () => {
  const seen: CreatePoolRequest[] = [];
  const createPool = (request: CreatePoolRequest) => {
    seen.push(request);
    const { env, pullPolicy, imageCheckSecs, maxAgeSecs, drain } = request;
    return { pool: pool({ env, pullPolicy, imageCheckSecs, maxAgeSecs, drain, ...READINESS }) };
  };
  const kept = { pullPolicy: "always", imageCheckSecs: 60, maxAgeSecs: 3600, drain: true } as const;
  await withServer({ pools: { createPool } }, async (client) => {
    const made = await client.createPool({ image: "i", env: { A: "1" }, ...READINESS, ...kept });
    expect(made).toMatchObject({ env: { A: "1" }, ...READINESS, ...kept });
    await client.createPool("p", { templateName: "t", size: 1 });
  });
  expect(seen[0]).toMatchObject({ env: { A: "1" }, ...READINESS, ...kept, pullPolicy: PullPolicy.ALWAYS });
  expect(seen[1]).toMatchObject({ env: {}, readinessCommand: [], pullPolicy: PullPolicy.UNSPECIFIED, drain: false });
  expect(seen[1]?.readinessIntervalSecs).toBeUndefined();
});

test("an update names what is given, null included", async () => {
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
    await client.updatePool("p", { env: { A: "1" }, ...READINESS, pullPolicy: "never", maxAgeSecs: 0 });
    await client.updatePool("p", { env: null, readinessCommand: null, pullPolicy: null, imageCheckSecs: null });
    await client.pausePool("p");
    await client.drainPool("p");
    await client.resumePool("p", { requestId: "mine" });
    await client.updateTemplate("t", { env: {}, readinessRetries: null, readinessTimeoutSecs: 3 });
  });
  const paths = pools.map((request) => request.updateMask?.paths.toSorted());
  const readiness = ["command", "interval_secs", "retries", "timeout_secs"].map((name) => `readiness_${name}`);
  expect(paths).toEqual([
    ["env", "max_age_secs", "pull_policy", ...readiness],
    ["env", "image_check_secs", "pull_policy", "readiness_command"],
    ["paused"],
    ["drain"],
    ["drain", "paused"],
  ]);
  expect(pools[0]).toMatchObject({ env: { A: "1" }, ...READINESS, pullPolicy: PullPolicy.NEVER, maxAgeSecs: 0 });
  expect(pools[1]).toMatchObject({ env: {}, readinessCommand: [] });
  expect([pools[1]?.pullPolicy, pools[1]?.imageCheckSecs]).toEqual([undefined, undefined]);
  expect([pools[2]?.paused, pools[2]?.drain]).toEqual([true, undefined]);
  expect([pools[3]?.paused, pools[3]?.drain]).toEqual([undefined, true]);
  expect(pools[4]).toMatchObject({ paused: false, drain: false, requestId: "mine" });
  expect(templates[0]?.updateMask?.paths.toSorted()).toEqual(["env", "readiness_retries", "readiness_timeout_secs"]);
  expect(templates[0]?.readinessTimeoutSecs).toBe(3);
});

test("a template says the environment and the readiness command", async () => {
  const seen: CreateTemplateRequest[] = [];
  const createTemplate = (request: CreateTemplateRequest) => {
    seen.push(request);
    return { template: template({ env: request.env, ...READINESS }) };
  };
  await withServer({ templates: { createTemplate } }, async (client) => {
    const made = await client.createTemplate("t", { image: "i", env: { A: "1" }, ...READINESS });
    expect(made).toMatchObject({ env: { A: "1" }, ...READINESS });
  });
  expect(seen[0]).toMatchObject({ env: { A: "1" }, ...READINESS });
});

test("what the status says", async () => {
  const status = {
    state: PoolState.DRAINED,
    imageDigest: "sha256:1",
    imagePull: { image: "i", currentBytes: 2n ** 33n, totalBytes: 2n ** 34n },
    diskEnforcement: DiskEnforcement.WATCHED,
    waiting: 3,
  };
  await withServer({ pools: { getPool: () => ({ pool: pool({ status }) }) } }, async (client) => {
    expect((await client.getPool("p")).status).toMatchObject({
      state: "drained",
      imageDigest: "sha256:1",
      imagePull: { image: "i", currentBytes: 2 ** 33, totalBytes: 2 ** 34 },
      diskEnforcement: "watched",
      waiting: 3,
    });
  });
  const newer = pool({ pullPolicy: 99 as PullPolicy, status: { diskEnforcement: 99 as DiskEnforcement } });
  await withServer({ pools: { getPool: () => ({ pool: newer }) } }, async (client) => {
    expect(await client.getPool("p")).toMatchObject({ pullPolicy: "unknown", status: { diskEnforcement: "unknown" } });
  });
});

test("force is said and never assumed", async () => {
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

test("an answer of 16 MiB about a command arrives", async () => {
  const stdoutBytes = new Uint8Array(8 * 2 ** 20).fill(255);
  const answer = create(RunCommandResponseSchema, { stdoutBytes, stderrBytes: stdoutBytes });
  await withServer({ sandboxes: { runCommand: () => answer } }, async (client) => {
    const { stdoutBytes: first, stderrBytes: second } = await client.runOnce("s", "true");
    expect([first?.length, second?.length]).toEqual([8 * 2 ** 20, 8 * 2 ** 20]);
  });
});
