/** Checks that the client reaches every method of the contract. */
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { FileService } from "../src/gen/sandpool/v1/file_service_pb.js";
import { MonitorService } from "../src/gen/sandpool/v1/monitor_service_pb.js";
import { PoolService } from "../src/gen/sandpool/v1/pool_service_pb.js";
import { PortService } from "../src/gen/sandpool/v1/port_service_pb.js";
import { ProcessService } from "../src/gen/sandpool/v1/process_service_pb.js";
import { SandboxService } from "../src/gen/sandpool/v1/sandbox_service_pb.js";
import { SecretService } from "../src/gen/sandpool/v1/secret_service_pb.js";
import { TemplateService } from "../src/gen/sandpool/v1/template_service_pb.js";
import { type Sandbox, type SandboxClient, SandpoolError } from "../src/index.js";
import * as stubs from "../src/stubs.js";
import { type Services, sandbox, withServer } from "./server.js";

const SERVICES = {
  pools: PoolService,
  templates: TemplateService,
  secrets: SecretService,
  sandboxes: SandboxService,
  processes: ProcessService,
  files: FileService,
  ports: PortService,
  monitor: MonitorService,
} satisfies Record<keyof Services, DescService>;

const HERE = fileURLToPath(import.meta.url);

type Reach = (client: SandboxClient, box: Sandbox) => Promise<unknown> | AsyncIterable<unknown>;

const REACHED: Record<string, Record<string, Reach>> = {
  PoolService: {
    CreatePool: (client) => client.createPool({ image: "i" }),
    GetPool: (client) => client.getPool("p"),
    ListPools: (client) => client.listPools(),
    UpdatePool: (client) => client.updatePool("p", { cpus: 1 }),
    DeletePool: (client) => client.deletePool("p"),
    WatchPools: (client) => client.watchPools(),
  },
  TemplateService: {
    CreateTemplate: (client) => client.createTemplate("t", { image: "i" }),
    GetTemplate: (client) => client.getTemplate("t"),
    ListTemplates: (client) => client.listTemplates(),
    UpdateTemplate: (client) => client.updateTemplate("t", { image: "j" }),
    DeleteTemplate: (client) => client.deleteTemplate("t"),
  },
  SecretService: {
    CreateSecret: (client) => client.createSecret("S", "v"),
    GetSecret: (client) => client.getSecret("S"),
    UpdateSecret: (client) => client.updateSecret("S", "v"),
    ListSecrets: (client) => client.listSecrets(),
    DeleteSecret: (client) => client.deleteSecret("S"),
  },
  SandboxService: {
    CreateSandbox: (client) => client.create({ poolId: "p" }),
    BatchCreateSandboxes: (client) => client.createBatch(2, { poolId: "p" }),
    GetSandbox: (_client, box) => box.refresh(),
    ListSandboxes: (client) => client.listSandboxes(),
    UpdateSandbox: (_client, box) => box.update({ name: "n" }),
    DeleteSandbox: (_client, box) => box.delete(),
    WatchSandbox: (_client, box) => box.watch(),
    RunCommand: (_client, box) => box.run("x", { resumable: false }),
  },
  ProcessService: {
    StartProcess: (_client, box) => box.processes.start("x"),
    AttachProcess: (_client, box) => box.processes.follow("p"),
    ConnectProcess: (_client, box) => box.run("x"),
    WriteProcessInput: (_client, box) => box.processes.writeStdin("p", "x"),
    ResizeProcess: async (_client, box) => (await box.processes.attach("p")).resize(30, 90),
    SignalProcess: (_client, box) => box.processes.signal("p", 15),
    KillProcess: (_client, box) => box.processes.kill("p"),
    GetProcess: (_client, box) => box.processes.get("p"),
    ListProcesses: (_client, box) => box.processes.list(),
    RestartProcess: (_client, box) => box.processes.restart("p"),
  },
  FileService: {
    ReadFile: (_client, box) => box.files.read("/f"),
    WriteFile: (_client, box) => box.files.upload(HERE, "/f"),
    PutFile: (_client, box) => box.files.write("/f", "x"),
    GetUpload: (_client, box) => box.files.upload(HERE, "/f"),
    StatFile: (_client, box) => box.files.stat("/f"),
    ListDirectory: (_client, box) => box.files.list("/"),
    MakeDirectory: (_client, box) => box.files.mkdir("/d"),
    MoveFile: (_client, box) => box.files.move("/a", "/b"),
    CopyFile: (_client, box) => box.files.copy("/a", "/b"),
    RemoveFile: (_client, box) => box.files.remove("/a"),
    GlobFiles: (_client, box) => box.files.glob("/*"),
    WatchFiles: (_client, box) => box.files.watch("/"),
    DownloadDirectory: (_client, box) => box.files.downloadArchive("/d"),
    UploadDirectory: (_client, box) => box.files.uploadArchive(new Uint8Array(1024), "/d"),
  },
  PortService: {
    OpenTunnel: (_client, box) => box.ports.connect(80),
    ExposePort: (_client, box) => box.ports.expose(80),
    UnexposePort: (_client, box) => box.ports.unexpose(80),
    ListExposedPorts: (_client, box) => box.ports.list(),
  },
  MonitorService: {
    ReadLogs: (_client, box) => box.logs(),
    GetMetrics: (_client, box) => box.metrics(),
    WatchMetrics: (_client, box) => box.watchMetrics(),
  },
};

const CONTRACT = Object.values(SERVICES).flatMap((service) => service.methods.map((method) => nameOf(method)));

function nameOf(method: DescMethod): string {
  return `${method.parent.name}.${method.name}`;
}

/** The responses that a method needs before the method in question is called. */
const RESPONSES: Record<string, object> = {
  "SandboxService.GetSandbox": { sandbox: sandbox() },
  "ProcessService.GetProcess": { process: { processId: "p" } },
};

/** Notes all calls and fails them; an upload fails as a broken connection does, so that its progress is read. */
function recording(called: string[]): Services {
  const handlerOf = (method: DescMethod) => {
    const name = nameOf(method);
    const respond = () => {
      called.push(name);
      if (RESPONSES[name] !== undefined) return RESPONSES[name];
      throw new ConnectError("no", name === "FileService.WriteFile" ? Code.Unavailable : Code.PermissionDenied);
    };
    const streams = method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming";
    return streams
      ? async function* () {
          yield respond();
        }
      : respond;
  };
  const handlers = Object.entries(SERVICES).map(([key, service]) => {
    return [key, Object.fromEntries(service.methods.map((method) => [method.localName, handlerOf(method)]))];
  });
  return Object.fromEntries(handlers) as Services;
}

async function exhaust(found: Promise<unknown> | AsyncIterable<unknown>): Promise<void> {
  if (found instanceof Promise) await found;
  else for await (const _ of found) return;
}

test("no method and no service is missing", () => {
  const reached = Object.entries(REACHED).flatMap(([service, methods]) => Object.keys(methods).map((m) => `${service}.${m}`));
  expect(reached.toSorted()).toEqual(CONTRACT.toSorted());
  const services = Object.keys(stubs).filter((name) => name.endsWith("Service"));
  expect(Object.keys(REACHED).toSorted()).toEqual(services.toSorted());
});

test.each(CONTRACT)("%s", async (name) => {
  const [service = "", method = ""] = name.split(".");
  const called: string[] = [];
  await withServer(recording(called), async (client) => {
    const box = await client.getSandbox("s");
    called.length = 0;
    const failure: unknown = await exhaust(REACHED[service]![method]!(client, box)).catch((error: unknown) => error);
    if (failure !== undefined) expect(failure).toBeInstanceOf(SandpoolError);
  });
  expect(called).toContain(name);
});
