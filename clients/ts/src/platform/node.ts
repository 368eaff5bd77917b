/**
 * What depends on where the client runs: the environment and the default transport. A build for another platform
 * replaces this module and nothing else.
 */
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { randomUUID } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { basename, dirname, join } from "node:path";
import type { Connection } from "../core/caller.js";
import { invalid } from "../core/errors.js";

/** Where the server is when nothing else is said. */
export const DEFAULT_ADDRESS = "127.0.0.1:50051";

/** How often a server that says nothing while calls are under way is asked for a sign of life, and how long it has. */
const PING_MS = 20_000;
const PING_TIMEOUT_MS = 10_000;

/** Scheme, host (an IPv6 address in brackets) and port. */
const ADDRESS = /^(?:(?<scheme>[a-z]+):\/\/)?(?<host>\[[0-9a-fA-F:.]+\]|[^:/@?#\s[\]]+)(?::(?<port>\d{1,5}))?\/?$/;

/** A variable of the environment; undefined where it is not set or empty. */
export function environment(name: string): string | undefined {
  return process.env[name] || undefined;
}

/** What stands before the host, whether that means TLS, and the port where none is given. */
const SCHEMES: Readonly<Record<string, { scheme: string; port: string }>> = {
  http: { scheme: "http", port: "50051" },
  grpc: { scheme: "http", port: "50051" },
  https: { scheme: "https", port: "443" },
  grpcs: { scheme: "https", port: "443" },
};

/** The origin of an address: `host:port`, plain text, or with a scheme, of which `https` and `grpcs` mean TLS. */
export function originOf(address: string): string {
  const { scheme = "http", host, port } = ADDRESS.exec(address)?.groups ?? {};
  const known = SCHEMES[scheme];
  const origin = `${known?.scheme}://${host}:${port ?? known?.port}`;
  if (known === undefined || host === undefined || !URL.canParse(origin)) {
    const given = JSON.stringify(address);
    throw invalid("address", `must be host:port, http://host:port or https://host:port, not ${given}`);
  }
  return new URL(origin).origin;
}

/** gRPC over HTTP/2 to the address. It connects with the first call, and an idle connection lets the process end. */
export function connect(address: string): Connection {
  const baseUrl = originOf(address);
  const sessionManager = new Http2SessionManager(baseUrl, { pingIntervalMs: PING_MS, pingTimeoutMs: PING_TIMEOUT_MS });
  return {
    transport: createGrpcTransport({ baseUrl, sessionManager }),
    duplex: true,
    target: address,
    close: () => sessionManager.abort(),
  };
}

/** A listener on this machine. */
export interface LocalPort {
  readonly port: number;
  readonly close: () => Promise<void>;
}

/** Listens on 127.0.0.1; each connection is given to `carry`, which takes its bytes and yields those to answer with. */
export async function listen(
  port: number,
  carry: (input: AsyncIterable<Uint8Array>, signal: AbortSignal) => AsyncIterable<Uint8Array>,
): Promise<LocalPort> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    const ended = new AbortController();
    socket.once("close", () => {
      sockets.delete(socket);
      ended.abort();
    });
    void answer(socket, carry(socket, ended.signal));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

/** Writes what comes to the socket, as fast as it takes it; a connection that fails is broken. */
async function answer(socket: Socket, bytes: AsyncIterable<Uint8Array>): Promise<void> {
  try {
    for await (const part of bytes) {
      if (!socket.write(part)) await new Promise<void>((resolve) => socket.once("drain", resolve).once("close", resolve));
    }
    socket.end();
  } catch {
    // Whoever connected sees it as whoever connects to a port that breaks.
    socket.resetAndDestroy();
  }
}

/** A file of this machine that is sent, as large as it was when it was opened. */
export interface LocalFile {
  readonly size: number;
  /** The next bytes from an offset on, at most `most` and none beyond `size`; rejects where the file became shorter. */
  readonly read: (offset: number, most: number) => Promise<Uint8Array>;
  readonly close: () => Promise<void>;
}

/** Opens a file of this machine to send it. */
export async function openFile(path: string): Promise<LocalFile> {
  const file = await open(path, "r");
  const { size } = await file.stat();
  return {
    size,
    read: async (offset, most) => {
      const length = Math.min(most, size - offset);
      const { bytesRead, buffer } = await file.read(new Uint8Array(length), 0, length, offset);
      if (bytesRead === 0) throw new Error(`${path} became shorter while it was read`);
      return buffer.subarray(0, bytesRead);
    },
    close: () => file.close(),
  };
}

/** A file of this machine that is being received: it appears under its name when it is whole. */
export interface IncomingFile {
  readonly write: (data: Uint8Array) => Promise<void>;
  /** It is whole: gives it its mode, within the process's umask, and its name. */
  readonly finish: (mode: number) => Promise<void>;
  /** Throws it away, unless it is finished. */
  readonly drop: () => Promise<void>;
}

/** Makes a file of this machine to receive into. */
export async function receiveFile(path: string): Promise<IncomingFile> {
  const part = join(dirname(path), `.${basename(path)}.${randomUUID()}`);
  const file = await open(part, "wx", 0o666);
  return {
    write: (data) => file.writeFile(data),
    finish: async (mode) => {
      const allowed = (await file.stat()).mode & 0o666;
      await file.chmod(mode & (allowed | ((allowed & 0o444) >> 2)));
      await file.close();
      await rename(part, path);
    },
    drop: async () => {
      await file.close();
      await rm(part, { force: true });
    },
  };
}
