import { create } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { afterEach, describe, expect, test, vi } from "vitest";
import { PoolErrorReason, PoolState } from "../src/gen/sandpool/v1/pool_pb.js";
import type { CreatePoolRequest, UpdatePoolRequest } from "../src/gen/sandpool/v1/pool_service_pb.js";
import { ExitReason, SandboxState, StartType, TerminationReason } from "../src/gen/sandpool/v1/sandbox_pb.js";
import {
  type CreateSandboxRequest,
  type ListSandboxesRequest,
  type RunCommandRequest,
  RunCommandResponseSchema,
  type UpdateSandboxRequest,
} from "../src/gen/sandpool/v1/sandbox_service_pb.js";
import type { CreateTemplateRequest, UpdateTemplateRequest } from "../src/gen/sandpool/v1/template_service_pb.js";
import { CommandTimeoutError, Sandbox, SandboxClient, VERSION } from "../src/index.js";
import {
  CREATED,
  pool,
  SPEC,
  SPEC_ATTRIBUTES,
  sandbox,
  type Services,
  template,
  TestServer,
  withServer,
} from "./server.js";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const encoded = (text: string) => new TextEncoder().encode(text);

afterEach(() => {
  vi.unstubAllEnvs();
});

describe("pools", () => {
  test("createPool in the template style sends name, template and size", async () => {
    const seen: CreatePoolRequest[] = [];
    const createPool = (request: CreatePoolRequest) => {
      seen.push(request);
      return { pool: pool({ name: request.name, templateName: request.templateName, warmContainers: 5 }) };
    };
    await withServer({ pools: { createPool } }, async (client) => {
      const made = await client.createPool("python-pool", { templateName: "python-sandbox", size: 5 });
      expect(made).toMatchObject({ name: "python-pool", templateName: "python-sandbox", warmContainers: 5 });
      await client.createPool({ name: "python-pool", templateName: "python-sandbox", size: 4 });
    });
    expect(seen[0]).toMatchObject({ name: "python-pool", templateName: "python-sandbox", warmContainers: 5 });
    expect(seen[0]?.requestId).toMatch(UUID);
    expect(seen[0]?.spec).toBeUndefined();
    expect(seen[1]).toMatchObject({ name: "python-pool", warmContainers: 4 });
    expect(seen[1]?.requestId).not.toBe(seen[0]?.requestId);
  });

  test("createPool with an image sends the whole specification", async () => {
    const seen: CreatePoolRequest[] = [];
    const createPool = (request: CreatePoolRequest) => {
      seen.push(request);
      return { pool: pool() };
    };
    await withServer({ pools: { createPool } }, async (client) => {
      const spec = { cpus: 0.5, memoryMb: 256, ephemeralDiskMb: 64, secretNames: ["A"], entrypoint: ["sleep", "9"] };
      const limits = { warmContainers: 3, maxContainers: 9, paused: true };
      await client.createPool({ image: "python:3.11-slim", ...spec, ...limits, timeoutMs: 60_500, requestId: "mine" });
      expect(seen[0]).toMatchObject({ name: "", templateName: "", ...limits, requestId: "mine" });
      expect(seen[0]?.spec).toMatchObject({ image: "python:3.11-slim", ...spec });
      expect(seen[0]?.timeout).toMatchObject({ seconds: 60n, nanos: 500_000_000 });
    });
  });

  test("a pool is a plain object with dates, text enums, milliseconds and null for absent values", async () => {
    const failed = {
      reason: PoolErrorReason.IMAGE_NOT_FOUND,
      message: "no such image",
      time: timestampFromDate(CREATED),
      consecutiveFailures: 2,
    };
    const status = { state: PoolState.DEGRADED, warm: 1, creating: 2, active: 3, removing: 4, stale: 5, desired: 6 };
    const message = pool({ status: { ...status, hits: 7n, misses: 8n, lastError: failed } });
    await withServer({ pools: { getPool: () => ({ pool: message }) } }, async (client) => {
      expect(await client.getPool("python-pool")).toStrictEqual({
        poolId: "pool-00000000000000000001",
        name: null,
        templateName: null,
        spec: { ...SPEC_ATTRIBUTES, pullPolicy: "missing", readinessProbe: null },
        ...SPEC_ATTRIBUTES,
        warmContainers: null,
        maxContainers: null,
        timeoutMs: 0,
        paused: false,
        drained: false,
        imageRefreshIntervalMs: null,
        warmTtlMs: null,
        etag: "e1",
        createTime: CREATED,
        updateTime: CREATED,
        status: {
          ...status,
          state: "degraded",
          hits: 7,
          misses: 8,
          lastError: {
            reason: "image_not_found",
            message: "no such image",
            time: CREATED,
            nextAttemptTime: null,
            consecutiveFailures: 2,
          },
          imageDigest: null,
          imagePull: null,
          diskEnforcement: null,
          waiting: 0,
        },
      });
    });
  });

  test("a state of a newer server is unknown", async () => {
    const getPool = () => ({ pool: pool({ status: { state: 99 as PoolState } }) });
    await withServer({ pools: { getPool } }, async (client) => {
      expect((await client.getPool("p")).status.state).toBe("unknown");
    });
  });

  test("listPools reads pages while the loop needs items", async () => {
    const tokens: [string, number][] = [];
    const listPools = ({ pageToken, pageSize }: { pageToken: string; pageSize: number }) => {
      tokens.push([pageToken, pageSize]);
      return pageToken === "" ? { pools: [pool({ name: "a" })], nextPageToken: "2" } : { pools: [pool({ name: "b" })] };
    };
    await withServer({ pools: { listPools } }, async (client) => {
      const list = client.listPools({ pageSize: 1 });
      expect(tokens).toEqual([]);
      for await (const { name } of list) {
        expect(name).toBe("a");
        break;
      }
      expect(tokens).toEqual([["", 1]]);
      expect((await list.toArray()).map(({ name }) => name)).toEqual(["a", "b"]);
      await client.listPools().toArray();
    });
    expect(tokens.slice(1)).toEqual([["", 1], ["2", 1], ["", 1000], ["2", 1000]]);
  });

  test("updatePool names the given fields in the mask, including null", async () => {
    const seen: UpdatePoolRequest[] = [];
    const updatePool = (request: UpdatePoolRequest) => {
      seen.push(request);
      return { pool: pool({ warmContainers: 2 }) };
    };
    await withServer({ pools: { updatePool } }, async (client) => {
      const changes = { warmContainers: 0, maxContainers: null, entrypoint: [], name: null, etag: "e1" };
      await client.updatePool("python-pool", changes);
    });
    expect(seen[0]).toMatchObject({ poolId: "python-pool", warmContainers: 0, etag: "e1" });
    expect(seen[0]?.maxContainers).toBeUndefined();
    expect(seen[0]?.name).toBeUndefined();
    const paths = ["max_containers", "name", "spec.entrypoint", "warm_containers"];
    expect(seen[0]?.updateMask?.paths.toSorted()).toEqual(paths);
    expect(seen[0]?.requestId).toMatch(UUID);
  });

  test("deletePool sends pool, etag and a request id", async () => {
    const deletePool = vi.fn((_request: object) => ({}));
    await withServer({ pools: { deletePool } }, async (client) => {
      await client.deletePool("python-pool", { etag: "e1" });
    });
    const sent = { poolId: "python-pool", etag: "e1", requestId: expect.stringMatching(UUID) };
    expect(deletePool.mock.calls[0]?.[0]).toMatchObject(sent);
  });
});

describe("templates", () => {
  test("all five calls", async () => {
    const created: CreateTemplateRequest[] = [];
    const updated: UpdateTemplateRequest[] = [];
    const deleteTemplate = vi.fn((_request: object) => ({}));
    const templates: Services["templates"] = {
      createTemplate: (request) => {
        created.push(request);
        return { template: template({ name: request.name }) };
      },
      getTemplate: (request) => ({ template: template({ name: request.templateName }) }),
      listTemplates: () => ({ templates: [template(), template({ name: "other" })] }),
      updateTemplate: (request) => {
        updated.push(request);
        return { template: template({ name: "renamed" }) };
      },
      deleteTemplate,
    };
    await withServer({ templates }, async (client) => {
      const made = await client.createTemplate("python-sandbox", { image: "python:3.11-slim", memoryMb: 256 });
      expect(made).toMatchObject({ name: "python-sandbox", createTime: CREATED, timeoutMs: 0 });
      expect((await client.getTemplate("x")).name).toBe("x");
      const names = (await client.listTemplates().toArray()).map(({ name }) => name);
      expect(names).toEqual(["python-sandbox", "other"]);
      expect((await client.updateTemplate("x", { name: "renamed", cpus: null })).name).toBe("renamed");
      await client.deleteTemplate("x");
    });
    expect(created[0]).toMatchObject({ name: "python-sandbox", spec: { image: "python:3.11-slim", memoryMb: 256 } });
    expect(updated[0]).toMatchObject({ templateName: "x", name: "renamed" });
    expect(updated[0]?.updateMask?.paths).toEqual(["name", "spec.cpus"]);
    expect(deleteTemplate.mock.calls[0]?.[0]).toMatchObject({ templateName: "x" });
  });
});

describe("sandboxes", () => {
  test("create sends the source of the sandbox", async () => {
    const seen: CreateSandboxRequest[] = [];
    const createSandbox = (request: CreateSandboxRequest) => {
      seen.push(request);
      return { sandbox: sandbox() };
    };
    await withServer({ sandboxes: { createSandbox } }, async (client) => {
      await client.create({ poolId: "p" });
      await client.create({ image: "i", cpus: 2, metadata: { a: "b" }, timeoutMs: null });
      const made = await client.create({ templateName: "t", name: "n" });
      expect(made).toBeInstanceOf(Sandbox);
      expect(made).toMatchObject({ startType: "warm", state: "running", name: null });
      expect(made.info).toMatchObject({ startDurationMs: 3.5, expireTime: null });
    });
    const sources = seen.map(({ poolId, templateName, spec }) => [poolId, templateName, spec?.image]);
    expect(sources).toEqual([["p", "", undefined], ["", "", "i"], ["", "t", undefined]]);
    expect(seen[0]?.timeout).toBeUndefined();
    expect(seen[1]).toMatchObject({ spec: { cpus: 2 }, metadata: { a: "b" }, timeout: { seconds: 0n, nanos: 0 } });
    expect(seen[2]?.name).toBe("n");
    expect(new Set(seen.map(({ requestId }) => requestId)).size).toBe(3);
  });

  test("the info of a sandbox is a plain object, also as JSON of the handle", async () => {
    const terminated = { state: SandboxState.TERMINATED, terminationReason: TerminationReason.EXITED, exitCode: 3 };
    const times = { expireTime: timestampFromDate(CREATED), endTime: timestampFromDate(CREATED) };
    const spec = { ...SPEC, env: { FROM: "pool" }, entrypoint: ["serve"] };
    const message = sandbox({ ...terminated, ...times, metadata: { a: "b" }, name: "n", spec, startType: StartType.COLD });
    const attributes = { ...SPEC_ATTRIBUTES, env: { FROM: "pool" }, entrypoint: ["serve"] };
    await withServer({ sandboxes: { getSandbox: () => ({ sandbox: message }) } }, async (client) => {
      const handle = await client.getSandbox("n");
      expect(handle.info).toStrictEqual({
        sandboxId: "sbx-00000000000000000001",
        name: "n",
        state: "terminated",
        poolId: "pool-00000000000000000001",
        templateName: null,
        spec: { ...attributes, pullPolicy: "missing", readinessProbe: null },
        ...attributes,
        timeoutMs: 0,
        metadata: { a: "b" },
        startType: "cold",
        startDurationMs: 3.5,
        createTime: CREATED,
        expireTime: CREATED,
        endTime: CREATED,
        terminationReason: "exited",
        terminationMessage: null,
        exitCode: 3,
        etag: "e1",
      });
      expect(JSON.parse(JSON.stringify(handle))).toEqual(JSON.parse(JSON.stringify(handle.info)));
    });
  });

  test("listSandboxes sends its filters and reads all pages", async () => {
    const seen: ListSandboxesRequest[] = [];
    const listSandboxes = (request: ListSandboxesRequest) => {
      seen.push(request);
      return request.pageToken === "" ? { sandboxes: [sandbox()], nextPageToken: "2" } : { sandboxes: [sandbox()] };
    };
    await withServer({ sandboxes: { listSandboxes } }, async (client) => {
      const filter = { poolId: "p", states: ["running", "starting"], metadata: { a: "b" } } as const;
      const found = await client.listSandboxes(filter).toArray();
      expect(found).toHaveLength(2);
      expect(found[0]).toBeInstanceOf(Sandbox);
    });
    const states = [SandboxState.RUNNING, SandboxState.STARTING];
    for (const request of seen) expect(request).toMatchObject({ poolId: "p", states, metadata: { a: "b" } });
    expect(seen.map(({ pageToken }) => pageToken)).toEqual(["", "2"]);
  });

  test("update and refresh change the handle in place and return the info", async () => {
    const seen: UpdateSandboxRequest[] = [];
    const sandboxes: Services["sandboxes"] = {
      getSandbox: () => ({ sandbox: sandbox({ state: SandboxState.TERMINATING }) }),
      updateSandbox: (request) => {
        seen.push(request);
        return { sandbox: sandbox({ name: request.name ?? "" }) };
      },
    };
    await withServer({ sandboxes }, async (client) => {
      const handle = await client.updateSandbox("s", { name: "n" });
      expect(handle.name).toBe("n");
      const updated = await handle.update({ metadata: {}, timeoutMs: 60_000 });
      expect(handle.name).toBeNull();
      expect(handle.info).toBe(updated);
      const read = await handle.refresh();
      expect([read.state, handle.state]).toEqual(["terminating", "terminating"]);
    });
    expect(seen.map((request) => request.updateMask?.paths)).toEqual([["name"], ["metadata", "timeout"]]);
    expect(seen[1]).toMatchObject({ sandboxId: "sbx-00000000000000000001", timeout: { seconds: 60n } });
  });
});

describe("commands in one request", () => {
  const response = create(RunCommandResponseSchema, {
    stdout: "hello\n",
    stderr: "",
    status: { case: "exitCode", value: 0 },
    reason: ExitReason.EXITED,
    duration: durationFromMs(12),
  });
  const once = { resumable: false } as const;

  test("run takes a shell command, or a program with its arguments", async () => {
    const seen: RunCommandRequest[] = [];
    const sandboxes: Services["sandboxes"] = {
      getSandbox: () => ({ sandbox: sandbox() }),
      runCommand: (request) => {
        seen.push(request);
        return response;
      },
    };
    await withServer({ sandboxes }, async (client) => {
      const handle = await client.getSandbox("s");
      const options = { ...once, timeoutMs: 1500, env: { A: "1" }, cwd: "/tmp", user: "nobody" };
      expect(await handle.run("echo hello", options)).toStrictEqual({
        stdout: "hello\n",
        stderr: "",
        stdoutBytes: encoded("hello\n"),
        stderrBytes: encoded(""),
        exitCode: 0,
        signal: null,
        reason: "exited",
        success: true,
        timedOut: false,
        durationMs: 12,
        stdoutDroppedBytes: 0,
        stderrDroppedBytes: 0,
      });
      await handle.run(["echo", "a b"], once);
    });
    const first = { command: "echo hello", argv: [], env: { A: "1" }, workingDir: "/tmp", user: "nobody" };
    const timeout = { seconds: 1n, nanos: 500_000_000 };
    expect(seen[0]).toMatchObject({ ...first, sandboxId: "sbx-00000000000000000001", timeout });
    expect(seen[1]).toMatchObject({ command: "", argv: ["echo", "a b"], timeout: { seconds: 60n } });
  });

  test("a killed command has a signal and no exit code", async () => {
    const killed = create(RunCommandResponseSchema, {
      status: { case: "signal", value: 9 },
      reason: ExitReason.TIMED_OUT,
      stdout: "\ufffd",
      stdoutBytes: new Uint8Array([255]),
      stdoutDroppedBytes: 7n,
    });
    const sandboxes: Services["sandboxes"] = { getSandbox: () => ({ sandbox: sandbox() }), runCommand: () => killed };
    await withServer({ sandboxes }, async (client) => {
      const result = await (await client.getSandbox("s")).run("sleep 9", { ...once, timeoutMs: 100 });
      const exit = { exitCode: null, signal: 9, reason: "timed_out", success: false, timedOut: true };
      expect(result).toMatchObject({ ...exit, stdoutBytes: new Uint8Array([255]), stdoutDroppedBytes: 7 });
    });
  });

  test("the request has 10 s more than the command, and then fails with CommandTimeoutError", async () => {
    const given: (number | undefined)[] = [];
    const sandboxes: Services["sandboxes"] = {
      getSandbox: () => ({ sandbox: sandbox() }),
      runCommand: (_request, context) => {
        given.push(context.timeoutMs());
        return new Promise((resolve) => context.signal.addEventListener("abort", () => resolve(response)));
      },
    };
    await withServer({ sandboxes }, async (client) => {
      const handle = await client.getSandbox("s");
      const running = handle.run("sleep 9", { ...once, timeoutMs: 5_000, signal: AbortSignal.timeout(50) });
      await expect(running).rejects.toMatchObject({ name: "TimeoutError" });
      const failure: unknown = await handle
        .run("sleep 9", { ...once, timeoutMs: 9, requestTimeoutMs: 50 })
        .catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(CommandTimeoutError);
      expect(failure).toMatchObject({ code: "DEADLINE_EXCEEDED", timeoutMs: 9 });
    });
    expect(given[0]).toBeGreaterThan(14_000);
    expect(given[0]).toBeLessThanOrEqual(15_000);
  });
});

describe("settings", () => {
  test("address and key come from the environment; the key is sent as a bearer token", async () => {
    const headers: Headers[] = [];
    const listPools: NonNullable<Services["pools"]>["listPools"] = (_request, context) => {
      headers.push(context.requestHeader);
      return {};
    };
    await using server = await TestServer.start({ pools: { listPools } });
    vi.stubEnv("SANDPOOL_ADDRESS", `http://${server.address}`);
    vi.stubEnv("SANDPOOL_API_KEY", "key-1");
    using client = new SandboxClient();
    expect(client.address).toBe(`http://${server.address}`);
    await client.listPools().toArray();
    using other = new SandboxClient({ apiKey: "key-2" });
    await other.listPools().toArray();
    expect(headers.map((header) => header.get("authorization"))).toEqual(["Bearer key-1", "Bearer key-2"]);
    expect(headers[0]?.get("user-agent")).toBe(`sandpool-ts/${VERSION}`);
  });

  test("a request has 30 s by default, the limit of the client or of the call, or none", async () => {
    const given: (number | undefined)[] = [];
    const getPool: NonNullable<Services["pools"]>["getPool"] = (_request, context) => {
      given.push(context.timeoutMs());
      return { pool: pool() };
    };
    await using server = await TestServer.start({ pools: { getPool } });
    const { address } = server;
    using usual = new SandboxClient({ address });
    await usual.getPool("p");
    await usual.getPool("p", { requestTimeoutMs: 7_000 });
    await usual.getPool("p", { requestTimeoutMs: null });
    using patient = new SandboxClient({ address, requestTimeoutMs: 9_000 });
    await patient.getPool("p");
    using endless = new SandboxClient({ address, requestTimeoutMs: null });
    await endless.getPool("p");
    const seconds = given.map((left) => (left === undefined ? undefined : Math.ceil(left / 1000)));
    expect(seconds).toEqual([30, 7, undefined, 9, undefined]);
  });

  test("an injected transport replaces the default one", async () => {
    const { createRouterTransport } = await import("@connectrpc/connect");
    const { PoolService } = await import("../src/gen/sandpool/v1/pool_service_pb.js");
    const transport = createRouterTransport(({ service }) => {
      service(PoolService, { getPool: ({ poolId }) => ({ pool: pool({ name: poolId }) }) });
    });
    using client = new SandboxClient({ transport });
    expect((await client.getPool("injected")).name).toBe("injected");
  });
});

describe("end of scope", () => {
  /** A server that notes which sandboxes are deleted. */
  function noting(deleted: string[]): NonNullable<Services["sandboxes"]> {
    return {
      createSandbox: () => ({ sandbox: sandbox() }),
      batchCreateSandboxes: () => ({ sandboxes: [sandbox()] }),
      getSandbox: () => ({ sandbox: sandbox() }),
      listSandboxes: () => ({ sandboxes: [sandbox()] }),
      updateSandbox: () => ({ sandbox: sandbox() }),
      deleteSandbox: ({ sandboxId }) => {
        deleted.push(sandboxId);
        return { sandbox: sandbox({ state: SandboxState.TERMINATING }) };
      },
    };
  }

  test("deletes a sandbox that this client created, also when the block throws", async () => {
    const deleted: string[] = [];
    await withServer({ sandboxes: noting(deleted) }, async (client) => {
      const use = async () => {
        await using made = await client.create({ poolId: "p" });
        throw new Error(`thrown with ${made.sandboxId}`);
      };
      await expect(use()).rejects.toThrow("thrown with sbx-00000000000000000001");
      expect(deleted).toHaveLength(1);
      {
        await using made = (await client.createBatch(1, { poolId: "p" }))[0]!;
        expect(made.state).toBe("running");
      }
      expect(deleted).toHaveLength(2);
    });
  });

  test("keeps a sandbox running that this client did not create", async () => {
    const deleted: string[] = [];
    await withServer({ sandboxes: noting(deleted) }, async (client) => {
      const found = [
        await client.getSandbox("s"),
        (await client.listSandboxes().toArray())[0]!,
        await client.updateSandbox("s", { name: "n" }),
      ];
      for (const handle of found) {
        {
          await using scoped = handle;
          await scoped.refresh();
          await scoped.update({ name: "m" });
        }
        await expect(handle.refresh()).rejects.toMatchObject({ name: "ClientClosedError" });
      }
    });
    expect(deleted).toEqual([]);
  });

  test("keeps a sandbox running whose handle was closed", async () => {
    const deleted: string[] = [];
    await withServer({ sandboxes: noting(deleted) }, async (client) => {
      await using made = await client.create({ poolId: "p" });
      made.close();
      await expect(made.files.read("/f")).rejects.toMatchObject({ name: "ClientClosedError", code: null });
    });
    expect(deleted).toEqual([]);
  });
});
