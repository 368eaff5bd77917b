/** A gRPC server on loopback with the handlers of a test, and messages for its responses. */
import { create, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import * as http2 from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import { type ContainerSpecSchema, PullPolicy } from "../src/gen/sandpool/v1/container_pb.js";
import { FileService } from "../src/gen/sandpool/v1/file_service_pb.js";
import { MonitorService } from "../src/gen/sandpool/v1/monitor_service_pb.js";
import { PoolSchema, PoolState } from "../src/gen/sandpool/v1/pool_pb.js";
import { PoolService } from "../src/gen/sandpool/v1/pool_service_pb.js";
import { PortService } from "../src/gen/sandpool/v1/port_service_pb.js";
import { ProcessService } from "../src/gen/sandpool/v1/process_service_pb.js";
import { SandboxSchema, StartType, SandboxState } from "../src/gen/sandpool/v1/sandbox_pb.js";
import { SandboxService } from "../src/gen/sandpool/v1/sandbox_service_pb.js";
import { SecretSchema } from "../src/gen/sandpool/v1/secret_pb.js";
import { SecretService } from "../src/gen/sandpool/v1/secret_service_pb.js";
import { TemplateSchema } from "../src/gen/sandpool/v1/template_pb.js";
import { TemplateService } from "../src/gen/sandpool/v1/template_service_pb.js";
import { SandboxClient, type SandboxClientOptions } from "../src/index.js";

export interface Services {
  readonly pools?: Partial<ServiceImpl<typeof PoolService>>;
  readonly templates?: Partial<ServiceImpl<typeof TemplateService>>;
  readonly sandboxes?: Partial<ServiceImpl<typeof SandboxService>>;
  readonly files?: Partial<ServiceImpl<typeof FileService>>;
  readonly monitor?: Partial<ServiceImpl<typeof MonitorService>>;
  readonly ports?: Partial<ServiceImpl<typeof PortService>>;
  readonly processes?: Partial<ServiceImpl<typeof ProcessService>>;
  readonly secrets?: Partial<ServiceImpl<typeof SecretService>>;
}

/** A server that listens. */
export class TestServer {
  readonly #server: http2.Http2Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: http2.Http2Server) {
    this.#server = server;
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
  }

  /** Serves on a free port, or on the one given. */
  static async start(services: Services, port = 0): Promise<TestServer> {
    const handler = connectNodeAdapter({
      routes: (router) => {
        router.service(PoolService, services.pools ?? {});
        router.service(TemplateService, services.templates ?? {});
        router.service(SandboxService, services.sandboxes ?? {});
        router.service(FileService, services.files ?? {});
        router.service(MonitorService, services.monitor ?? {});
        router.service(PortService, services.ports ?? {});
        router.service(ProcessService, services.processes ?? {});
        router.service(SecretService, services.secrets ?? {});
      },
    });
    const server = http2.createServer(handler);
    const started = new TestServer(server);
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, "127.0.0.1", resolve);
    });
    return started;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** Breaks every connection, as a killed process does. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** Calls `use` with a client of a server with these services. */
export async function withServer(
  services: Services,
  use: (client: SandboxClient) => Promise<void>,
  options: SandboxClientOptions = {},
): Promise<void> {
  await using server = await TestServer.start(services);
  using client = new SandboxClient({ address: server.address, ...options });
  await use(client);
}

/** An address at which no server listens: no other test can take a privileged port. */
export const CLOSED = "127.0.0.1:1";

/** Returns a port on which no process listens. Another process may take it. */
export async function freePort(): Promise<number> {
  await using server = await TestServer.start({});
  return server.port;
}

/** Returns a promise and the function that resolves it. */
export function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

/** The fields that a builder accepts. */
type Fields<D extends DescMessage> = Exclude<MessageInitShape<D>, MessageShape<D>>;

export const CREATED = new Date("2026-01-02T03:04:05.678Z");

/** A specification with the server's defaults. */
export const SPEC: Fields<typeof ContainerSpecSchema> = {
  image: "python:3.11-slim",
  cpus: 1,
  memoryMb: 512,
  ephemeralDiskMb: 1024,
  pullPolicy: PullPolicy.MISSING,
};

/** The specification as the client returns it. */
export const SPEC_ATTRIBUTES = {
  image: "python:3.11-slim",
  cpus: 1,
  memoryMb: 512,
  ephemeralDiskMb: 1024,
  env: {},
  entrypoint: null,
  secretNames: [],
};

export function pool(values: Fields<typeof PoolSchema> = {}) {
  return create(PoolSchema, {
    poolId: "pool-00000000000000000001",
    spec: SPEC,
    etag: "e1",
    createTime: timestampFromDate(CREATED),
    updateTime: timestampFromDate(CREATED),
    status: { state: PoolState.FILLING },
    ...values,
  });
}

export function template(values: Fields<typeof TemplateSchema> = {}) {
  return create(TemplateSchema, {
    templateId: "tpl-00000000000000000001",
    name: "python-sandbox",
    spec: SPEC,
    etag: "e1",
    createTime: timestampFromDate(CREATED),
    updateTime: timestampFromDate(CREATED),
    ...values,
  });
}

export function secret(name: string) {
  return create(SecretSchema, {
    name,
    createTime: timestampFromDate(CREATED),
    updateTime: timestampFromDate(CREATED),
  });
}

export function sandbox(values: Fields<typeof SandboxSchema> = {}) {
  return create(SandboxSchema, {
    sandboxId: "sbx-00000000000000000001",
    state: SandboxState.RUNNING,
    poolId: "pool-00000000000000000001",
    spec: SPEC,
    startType: StartType.WARM,
    startDuration: durationFromMs(3.5),
    createTime: timestampFromDate(CREATED),
    etag: "e1",
    ...values,
  });
}
