/** The names of other products, by the modules that wrap the core. */
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import * as langsmith from "../src/compat/langsmith.js";
import * as tensorlake from "../src/compat/tensorlake.js";
import { ErrorInfoSchema, ResourceInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import type { CreatePoolRequest, UpdatePoolRequest } from "../src/gen/sandpool/v1/pool_service_pb.js";
import { OutputStream, ProcessEventSchema, ProcessState } from "../src/gen/sandpool/v1/process_pb.js";
import type { StartProcessRequest } from "../src/gen/sandpool/v1/process_service_pb.js";
import { ExitReason, SandboxState } from "../src/gen/sandpool/v1/sandbox_pb.js";
import type { CreateSandboxRequest, WatchSandboxRequest } from "../src/gen/sandpool/v1/sandbox_service_pb.js";
import type { CreateTemplateRequest } from "../src/gen/sandpool/v1/template_service_pb.js";
import * as core from "../src/index.js";
import { pool, type Services, sandbox, template, TestServer } from "./server.js";

async function withLangsmith(services: Services, use: (client: langsmith.SandboxClient) => Promise<void>): Promise<void> {
  await using server = await TestServer.start(services);
  using client = new langsmith.SandboxClient({ apiEndpoint: server.address });
  await use(client);
}

async function withTensorlake(services: Services, use: (client: tensorlake.SandboxClient) => Promise<void>): Promise<void> {
  await using server = await TestServer.start(services);
  using client = tensorlake.SandboxClient.forLocalhost({ apiUrl: server.address });
  await use(client);
}

/** A process that prints `out` and exits with 0, with the requests that started it. */
function printing() {
  const starts: StartProcessRequest[] = [];
  const process = { processId: "p", pid: 7, state: ProcessState.RUNNING };
  const data = new TextEncoder().encode("out");
  const processes: Services["processes"] = {
    startProcess: (request) => {
      starts.push(request);
      return { process };
    },
    getProcess: () => ({ process }),
    attachProcess: async function* () {
      yield { event: create(ProcessEventSchema, { event: { case: "process", value: process } }) };
      const output = { stream: OutputStream.STDOUT, offset: 0n, data };
      yield { event: create(ProcessEventSchema, { event: { case: "output", value: output } }) };
      const exited = { status: { case: "exitCode" as const, value: 0 }, reason: ExitReason.EXITED };
      yield { event: create(ProcessEventSchema, { event: { case: "exited", value: exited } }) };
    },
  };
  return { starts, services: { processes, sandboxes: { getSandbox: () => ({ sandbox: sandbox({ name: "s" }) }) } } };
}

describe("langsmith", () => {
  test("the errors of the core are those of the module, with their other names", () => {
    expect(langsmith.ResourceNotFoundError).toBe(core.ResourceNotFoundError);
    expect(langsmith.SandboxAuthenticationError).toBe(core.AuthenticationError);
    expect(langsmith.ResourceNameConflictError).toBe(core.ResourceAlreadyExistsError);
    expect(langsmith.TunnelPortNotAllowedError).toBe(core.PortExposureDisabledError);
  });

  test("templates have quantities", async () => {
    const seen: CreateTemplateRequest[] = [];
    const createTemplate = (request: CreateTemplateRequest) => {
      seen.push(request);
      return { template: template() };
    };
    await withLangsmith({ templates: { createTemplate } }, async (client) => {
      await client.createTemplate("t", { image: "i", cpu: "500m", memory: "512Mi", storage: "2Gi" });
      const wrong = () => client.createTemplate("t", { image: "i", memory: "1 apple" });
      expect(wrong).toThrow(core.ValidationError);
      expect(() => client.createTemplate("t", { image: "i", cpu: 1, cpus: 1 })).toThrow(TypeError);
    });
    expect(seen[0]?.spec).toMatchObject({ cpus: 0.5, memoryMb: 512, ephemeralDiskMb: 2048 });
  });

  test("pools have a size or replicas", async () => {
    const created: CreatePoolRequest[] = [];
    const updated: UpdatePoolRequest[] = [];
    const pools: Services["pools"] = {
      createPool: (request) => {
        created.push(request);
        return { pool: pool({ warmContainers: request.warmContainers ?? 0 }) };
      },
      updatePool: (request) => {
        updated.push(request);
        return { pool: pool({ warmContainers: 2 }) };
      },
      listPools: () => ({ pools: [pool()] }),
    };
    await withLangsmith({ pools }, async (client) => {
      expect(await client.createPool("p", { templateName: "t", size: 5 })).toMatchObject({ size: 5, replicas: 5 });
      await client.createPool("p", { templateName: "t", replicas: 4 });
      await client.updatePool("p", { newName: "q", replicas: 2 });
      expect((await client.listPools()).map(({ replicas }) => replicas)).toEqual([0]);
    });
    expect(created.map(({ warmContainers }) => warmContainers)).toEqual([5, 4]);
    expect(updated[0]).toMatchObject({ name: "q", warmContainers: 2 });
  });

  test("every sandbox has a name that deleteSandbox accepts", async () => {
    const seen: CreateSandboxRequest[] = [];
    const deleted: string[] = [];
    const sandboxes: Services["sandboxes"] = {
      createSandbox: (request) => {
        seen.push(request);
        return { sandbox: sandbox({ name: request.name }) };
      },
      getSandbox: () => ({ sandbox: sandbox() }),
      deleteSandbox: ({ sandboxId }) => {
        deleted.push(sandboxId);
        return { sandbox: sandbox() };
      },
    };
    await withLangsmith({ sandboxes }, async (client) => {
      const first = await client.createSandbox("t");
      await client.deleteSandbox(first.name);
      const second = await client.createSandbox("t", { name: "mine", timeout: 9 });
      expect(second.name).toBe("mine");
      const unnamed = await client.getSandbox("s");
      expect(unnamed.name).toBe(unnamed.sandboxId);
    });
    expect(seen[0]?.name).toMatch(/^sandbox-[0-9a-f]{8}$/);
    expect(seen[0]?.templateName).toBe("t");
    expect(deleted).toEqual([seen[0]?.name]);
  });

  test("commands take seconds, and a handle has a result", async () => {
    const { services, starts } = printing();
    await withLangsmith(services, async (client) => {
      const box = await client.getSandbox("s");
      const heard: string[] = [];
      const onStdout = (text: string) => heard.push(text);
      expect((await box.run("make", { timeout: 1.5, ttlSeconds: 60, onStdout })).stdout).toBe("out");
      expect(heard).toEqual(["out"]);
      const handle = await box.run("make", { wait: false, pty: true, shell: "/bin/zsh" });
      for await (const chunk of handle) expect(chunk).toMatchObject({ stream: "stdout", data: "out", offset: 0 });
      expect((await handle.result).exitCode).toBe(0);
      expect((await handle.reconnect()).commandId).toBe("p");
    });
    const limits = { timeout: { seconds: 1n }, idleTimeout: { seconds: 300n }, retention: { seconds: 60n }, stdin: false };
    expect(starts[0]).toMatchObject({ command: "make", ...limits });
    expect(starts[1]).toMatchObject({ argv: ["/bin/zsh", "-c", "make"], stdin: true, terminal: { rows: 24, cols: 80 } });
  });

  /** A server whose sandbox goes through these states and then stays as it is. */
  function changing(...states: SandboxState[]): Services {
    async function* watchSandbox(_request: WatchSandboxRequest, { signal }: HandlerContext) {
      const left = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
      for (const state of states) yield { sandbox: sandbox({ state }) };
      await left;
    }
    return { sandboxes: { watchSandbox, getSandbox: () => ({ sandbox: sandbox({ state: states.at(-1)! }) }) } };
  }

  test("waitForSandbox returns a running sandbox", async () => {
    await withLangsmith(changing(SandboxState.STARTING, SandboxState.RUNNING), async (client) => {
      expect((await client.waitForSandbox("s", { timeout: 9, pollInterval: 1 })).state).toBe("running");
      expect(await client.getSandboxStatus("s")).toBe("running");
    });
  });

  test("waitForSandbox rejects for a sandbox that terminates, and after its timeout", async () => {
    await withLangsmith(changing(SandboxState.STARTING, SandboxState.TERMINATING), (client) =>
      expect(client.waitForSandbox("s")).rejects.toThrow(core.SandboxNotReadyError),
    );
    await withLangsmith(changing(SandboxState.STARTING), (client) =>
      expect(client.waitForSandbox("s", { timeout: 0.05 })).rejects.toThrow(core.ResourceTimeoutError),
    );
  });
});

describe("tensorlake", () => {
  test("the errors of the core are those of the module, with their other names", () => {
    expect(tensorlake.RemoteAPIError).toBe(core.ServerError);
    expect(tensorlake.SandboxPending).toBe(core.SandboxNotReadyError);
  });

  test("the error for a pool with active sandboxes has its identifier", async () => {
    const deletePool = () => {
      throw new ConnectError("sandboxes are active", Code.FailedPrecondition, undefined, [
        { desc: ErrorInfoSchema, value: { reason: "POOL_IN_USE" } },
        { desc: ResourceInfoSchema, value: { resourceType: "pool", resourceName: "p" } },
      ]);
    };
    await withTensorlake({ pools: { deletePool } }, async (client) => {
      const error: unknown = await client.deletePool("p").catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(tensorlake.PoolInUseError);
      expect(error).toBeInstanceOf(core.PoolInUseError);
      expect(error).toMatchObject({ poolId: "p", reason: "POOL_IN_USE", message: "sandboxes are active" });
    });
  });

  test("sandboxes come from an image or a pool", async () => {
    const seen: CreateSandboxRequest[] = [];
    const sandboxes: Services["sandboxes"] = {
      createSandbox: (request) => {
        seen.push(request);
        return { sandbox: sandbox() };
      },
      listSandboxes: () => ({ sandboxes: [sandbox()] }),
    };
    await withTensorlake({ sandboxes }, async (client) => {
      const box = await client.createAndConnect({ image: "i", diskMb: 64, timeoutSecs: 600, name: "n" });
      expect(box.status).toBe("running");
      await client.claim("p");
      expect((await client.list()).map(({ sandboxId }) => sandboxId)).toEqual([box.sandboxId]);
      await expect(client.create({ image: "i", poolId: "p" })).rejects.toThrow(TypeError);
    });
    expect(seen[0]).toMatchObject({ name: "n", timeout: { seconds: 600n }, spec: { image: "i", ephemeralDiskMb: 64 } });
    expect(seen[1]).toMatchObject({ poolId: "p" });
  });

  test("commands have arguments and a working directory", async () => {
    const { services, starts } = printing();
    await withTensorlake(services, async (client) => {
      const box = await client.connect("s");
      const run = { args: ["-c", "true"], workingDir: "/tmp", timeout: 5, user: "nobody" };
      expect((await box.run("sh", run)).stdout).toBe("out");
      const started = await box.startProcess("cat", { stdinMode: "pipe", name: "cat", restart: "always" });
      expect(started).toMatchObject({ processId: "p", pid: 7 });
      const texts: string[] = [];
      for await (const { data } of box.followStdout("p")) texts.push(data);
      expect(texts).toEqual(["out"]);
    });
    expect(starts[0]).toMatchObject({ argv: ["sh", "-c", "true"], workingDir: "/tmp", timeout: { seconds: 5n } });
    expect(starts[1]).toMatchObject({ command: "cat", stdin: true, service: { name: "cat" } });
  });
});
