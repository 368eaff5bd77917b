import { create } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { afterEach, describe, expect, test, vi } from "vitest";
import { PoolErrorReason, PoolState } from "../src/gen/sandpool/v1/pool_pb.js";
import type { CreatePoolRequest, UpdatePoolRequest } from "../src/gen/sandpool/v1/pool_service_pb.js";
import { CommandEndReason, SandboxEndReason, SandboxStart, SandboxState } from "../src/gen/sandpool/v1/sandbox_pb.js";
import {
  type CreateSandboxRequest,
  type ListSandboxesRequest,
  type RunCommandRequest,
  RunCommandResponseSchema,
  type UpdateSandboxRequest,
} from "../src/gen/sandpool/v1/sandbox_service_pb.js";
import type { CreateTemplateRequest, UpdateTemplateRequest } from "../src/gen/sandpool/v1/template_service_pb.js";
import { Sandbox, SandboxClient, VERSION } from "../src/index.js";
import { CREATED, pool, sandbox, type Services, template, TestServer, withServer } from "./server.js";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

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
      const answer = await client.createPool("python-pool", { templateName: "python-sandbox", size: 5 });
      expect(answer).toMatchObject({ name: "python-pool", templateName: "python-sandbox", size: 5, replicas: 5 });
      await client.createPool("python-pool", { templateName: "python-sandbox", replicas: 4 });
    });
    const sent = { name: "python-pool", templateName: "python-sandbox", image: "", warmContainers: 5 };
    expect(seen[0]).toMatchObject(sent);
    expect(seen[0]?.requestId).toMatch(UUID);
    expect(seen[0]?.cpus).toBeUndefined();
    expect(seen[1]?.warmContainers).toBe(4);
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
      const limits = { warmContainers: 3, maxContainers: 9, timeoutSecs: 60, paused: true };
      await client.createPool({ image: "python:3.11-slim", ...spec, ...limits }, { requestId: "mine" });
      expect(seen[0]).toMatchObject({ image: "python:3.11-slim", name: "", ...spec, ...limits, requestId: "mine" });
    });
  });

  test("a pool is a plain object with dates, words and null for what is absent", async () => {
    const failed = {
      reason: PoolErrorReason.IMAGE_NOT_FOUND,
      message: "no such image",
      time: timestampFromDate(CREATED),
      consecutiveFailures: 2,
    };
    const status = { state: PoolState.DEGRADED, warm: 1, creating: 2, active: 3, removing: 4, stale: 5, wanted: 6 };
    const message = pool({ status: { ...status, hits: 7n, misses: 8n, lastError: failed } });
    await withServer({ pools: { getPool: () => ({ pool: message }) } }, async (client) => {
      const answer = await client.getPool("python-pool");
      expect(answer).toStrictEqual({
        poolId: "pool-00000000000000000001",
        name: null,
        templateName: null,
        image: "python:3.11-slim",
        cpus: 1,
        memoryMb: 512,
        ephemeralDiskMb: 1024,
        timeoutSecs: 0,
        secretNames: [],
        entrypoint: [],
        env: {},
        readinessCommand: [],
        readinessIntervalSecs: 0.5,
        readinessTimeoutSecs: 5,
        readinessRetries: 20,
        warmContainers: 0,
        size: 0,
        replicas: 0,
        maxContainers: null,
        pullPolicy: "missing",
        imageCheckSecs: 0,
        maxAgeSecs: 0,
        paused: false,
        drain: false,
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

  test("a state of a newer server is unknown, not an error", async () => {
    const getPool = () => ({ pool: pool({ status: { state: 99 as PoolState } }) });
    await withServer({ pools: { getPool } }, async (client) => {
      expect((await client.getPool("p")).status.state).toBe("unknown");
    });
  });

  test("listPools reads all pages", async () => {
    const tokens: string[] = [];
    const listPools = ({ pageToken }: { pageToken: string }) => {
      tokens.push(pageToken);
      return pageToken === "" ? { pools: [pool({ name: "a" })], nextPageToken: "2" } : { pools: [pool({ name: "b" })] };
    };
    await withServer({ pools: { listPools } }, async (client) => {
      expect((await client.listPools()).map(({ name }) => name)).toEqual(["a", "b"]);
    });
    expect(tokens).toEqual(["", "2"]);
  });

  test("updatePool names in the mask what is given, null included", async () => {
    const seen: UpdatePoolRequest[] = [];
    const updatePool = (request: UpdatePoolRequest) => {
      seen.push(request);
      return { pool: pool({ warmContainers: 2 }) };
    };
    await withServer({ pools: { updatePool } }, async (client) => {
      const changes = { replicas: 0, maxContainers: null, entrypoint: [], newName: null, etag: "e1" };
      await client.updatePool("python-pool", changes);
    });
    expect(seen[0]).toMatchObject({ poolId: "python-pool", warmContainers: 0, etag: "e1" });
    expect(seen[0]?.maxContainers).toBeUndefined();
    expect(seen[0]?.name).toBeUndefined();
    expect(seen[0]?.updateMask?.paths.toSorted()).toEqual(["entrypoint", "max_containers", "name", "warm_containers"]);
    expect(seen[0]?.requestId).toMatch(UUID);
  });

  test("deletePool sends pool, etag and a request_id", async () => {
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
      expect(made).toMatchObject({ name: "python-sandbox", createTime: CREATED });
      expect((await client.getTemplate("x")).name).toBe("x");
      expect((await client.listTemplates()).map(({ name }) => name)).toEqual(["python-sandbox", "other"]);
      expect((await client.updateTemplate("x", { newName: "renamed", cpus: null })).name).toBe("renamed");
      await client.deleteTemplate("x");
    });
    expect(created[0]).toMatchObject({ name: "python-sandbox", image: "python:3.11-slim", memoryMb: 256 });
    expect(updated[0]).toMatchObject({ templateName: "x", name: "renamed" });
    expect(updated[0]?.updateMask?.paths).toEqual(["name", "cpus"]);
    expect(deleteTemplate.mock.calls[0]?.[0]).toMatchObject({ templateName: "x" });
  });
});

describe("sandboxes", () => {
  test("create, claim and createSandbox each say where the sandbox comes from", async () => {
    const seen: CreateSandboxRequest[] = [];
    const createSandbox = (request: CreateSandboxRequest) => {
      seen.push(request);
      return { sandbox: sandbox() };
    };
    await withServer({ sandboxes: { createSandbox } }, async (client) => {
      await client.create({ poolId: "p" });
      await client.claim("p");
      await client.create({ image: "i", cpus: 2, metadata: { a: "b" } });
      const made = await client.createSandbox("t", { name: "n", timeout: 9 });
      expect(made).toBeInstanceOf(Sandbox);
      expect(made).toMatchObject({ start: "warm", startDurationMs: 3.5, state: "running", expireTime: null });
    });
    const sources = seen.map(({ poolId, templateName, image }) => [poolId, templateName, image]);
    expect(sources).toEqual([["p", "", ""], ["p", "", ""], ["", "", "i"], ["", "t", ""]]);
    expect(seen[2]).toMatchObject({ cpus: 2, metadata: { a: "b" } });
    expect(seen[3]?.name).toBe("n");
    expect(new Set(seen.map(({ requestId }) => requestId)).size).toBe(4);
  });

  test("a sandbox shows plain properties and nothing of the client", async () => {
    const ended = { state: SandboxState.TERMINATED, endReason: SandboxEndReason.EXITED, exitCode: 3 };
    const times = { expireTime: timestampFromDate(CREATED), endTime: timestampFromDate(CREATED) };
    const own = { metadata: { a: "b" }, name: "n", env: { FROM: "pool" } };
    const message = sandbox({ ...ended, ...times, ...own, start: SandboxStart.COLD });
    await withServer({ sandboxes: { getSandbox: () => ({ sandbox: message }) } }, async (client) => {
      const answer = await client.getSandbox("n");
      expect({ ...answer }).toStrictEqual({
        sandboxId: "sbx-00000000000000000001",
        name: "n",
        state: "terminated",
        poolId: "pool-00000000000000000001",
        templateName: null,
        image: "python:3.11-slim",
        cpus: 1,
        memoryMb: 512,
        ephemeralDiskMb: 1024,
        timeoutSecs: 0,
        secretNames: [],
        entrypoint: [],
        env: { FROM: "pool" },
        metadata: { a: "b" },
        start: "cold",
        startDurationMs: 3.5,
        createTime: CREATED,
        expireTime: CREATED,
        endTime: CREATED,
        endReason: "exited",
        endMessage: "",
        exitCode: 3,
        etag: "e1",
      });
    });
  });

  test("listSandboxes sends its conditions and reads all pages", async () => {
    const seen: ListSandboxesRequest[] = [];
    const listSandboxes = (request: ListSandboxesRequest) => {
      seen.push(request);
      return request.pageToken === "" ? { sandboxes: [sandbox()], nextPageToken: "2" } : { sandboxes: [sandbox()] };
    };
    await withServer({ sandboxes: { listSandboxes } }, async (client) => {
      const filter = { poolId: "p", states: ["running", "starting"], metadata: { a: "b" } } as const;
      expect(await client.listSandboxes(filter)).toHaveLength(2);
    });
    const states = [SandboxState.RUNNING, SandboxState.STARTING];
    for (const request of seen) expect(request).toMatchObject({ poolId: "p", states, metadata: { a: "b" } });
    expect(seen.map(({ pageToken }) => pageToken)).toEqual(["", "2"]);
  });

  test("updateSandbox takes a new name or changes", async () => {
    const seen: UpdateSandboxRequest[] = [];
    const updateSandbox = (request: UpdateSandboxRequest) => {
      seen.push(request);
      return { sandbox: sandbox({ name: request.name ?? "" }) };
    };
    await withServer({ sandboxes: { updateSandbox } }, async (client) => {
      const renamed = await client.updateSandbox("s", "n");
      expect(renamed.name).toBe("n");
      await renamed.update({ metadata: {}, timeoutSecs: 60 });
    });
    expect(seen.map((request) => request.updateMask?.paths)).toEqual([["name"], ["metadata", "timeout_secs"]]);
    expect(seen[1]).toMatchObject({ sandboxId: "sbx-00000000000000000001", timeoutSecs: 60 });
  });
});

describe("commands", () => {
  const answer = create(RunCommandResponseSchema, {
    stdout: "hello\n",
    stderr: "",
    exit: { case: "exitCode", value: 0 },
    reason: CommandEndReason.EXITED,
    duration: durationFromMs(12),
  });

  test("runOnce takes a line for the shell or a program with its arguments", async () => {
    const seen: RunCommandRequest[] = [];
    const sandboxes: Services["sandboxes"] = {
      getSandbox: () => ({ sandbox: sandbox() }),
      runCommand: (request) => {
        seen.push(request);
        return answer;
      },
    };
    await withServer({ sandboxes }, async (client) => {
      const handle = await client.getSandbox("s");
      const options = { timeout: 1.5, env: { A: "1" }, cwd: "/tmp", user: "nobody" };
      expect(await handle.runOnce("echo hello", options)).toStrictEqual({
        stdout: "hello\n",
        stderr: "",
        exitCode: 0,
        signal: null,
        reason: "exited",
        success: true,
    timedOut: false,
        durationMs: 12,
        stdoutBytes: null,
        stderrBytes: null,
        stdoutDroppedBytes: 0,
        stderrDroppedBytes: 0,
      });
      await handle.runOnce(["echo", "a b"]);
    });
    const first = { command: "echo hello", argv: [], env: { A: "1" }, workingDir: "/tmp", user: "nobody" };
    expect(seen[0]).toMatchObject({ ...first, sandboxId: "sbx-00000000000000000001", timeoutSecs: 1.5 });
    expect(seen[1]).toMatchObject({ command: "", argv: ["echo", "a b"] });
    expect(seen[1]?.timeoutSecs).toBeUndefined();
  });

  test("a command that is killed has a signal and no exit code", async () => {
    const killed = create(RunCommandResponseSchema, {
      exit: { case: "signal", value: 9 },
      reason: CommandEndReason.TIMED_OUT,
      stdoutBytes: new Uint8Array([255]),
      stdoutDroppedBytes: 7n,
    });
    await withServer({ sandboxes: { runCommand: () => killed } }, async (client) => {
      const result = await client.runOnce("s", "sleep 9", { timeout: 0.1 });
      expect(result).toMatchObject({ exitCode: null, signal: 9, reason: "timed_out", success: false });
      expect(result.stdoutBytes).toEqual(new Uint8Array([255]));
      expect(result.stdoutDroppedBytes).toBe(7);
    });
  });
});

describe("settings", () => {
  test("address and key come from the environment; the key goes as a bearer token", async () => {
    const headers: Headers[] = [];
    const listPools: NonNullable<Services["pools"]>["listPools"] = (_request, context) => {
      headers.push(context.requestHeader);
      return {};
    };
    await using server = await TestServer.start({ pools: { listPools } });
    vi.stubEnv("SANDPOOL_ADDRESS", `http://${server.address}`);
    vi.stubEnv("SANDPOOL_API_KEY", "key-1");
    using client = new SandboxClient();
    await client.listPools();
    using other = new SandboxClient({ apiKey: "key-2" });
    await other.listPools();
    expect(headers.map((header) => header.get("authorization"))).toEqual(["Bearer key-1", "Bearer key-2"]);
    expect(headers[0]?.get("user-agent")).toBe(`sandpool-ts/${VERSION}`);
  });

  test("an injected transport is used in place of the default one", async () => {
    const { createRouterTransport } = await import("@connectrpc/connect");
    const { PoolService } = await import("../src/gen/sandpool/v1/pool_service_pb.js");
    const transport = createRouterTransport(({ service }) => {
      service(PoolService, { getPool: ({ poolId }) => ({ pool: pool({ name: poolId }) }) });
    });
    using client = new SandboxClient({ transport });
    expect((await client.getPool("injected")).name).toBe("injected");
  });
});

describe("dispose", () => {
  test("await using deletes the sandbox, also when the block throws", async () => {
    const deleted: string[] = [];
    const sandboxes: Services["sandboxes"] = {
      createSandbox: () => ({ sandbox: sandbox() }),
      deleteSandbox: ({ sandboxId }) => {
        deleted.push(sandboxId);
        return { sandbox: sandbox({ state: SandboxState.TERMINATING }) };
      },
    };
    await withServer({ sandboxes }, async (client) => {
      const use = async () => {
        await using made = await client.create({ poolId: "p" });
        throw new Error(`thrown with ${made.sandboxId}`);
      };
      await expect(use()).rejects.toThrow("thrown with sbx-00000000000000000001");
      expect(deleted).toEqual(["sbx-00000000000000000001"]);
      await (await client.create({ poolId: "p" })).terminate();
      expect(deleted).toHaveLength(2);
    });
  });
});
