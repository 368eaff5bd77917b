/**
 * The parts that depend on the platform, for Node: the environment, the default transport and local files. The build for
 * browsers replaces this module and no other.
 */
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { packTar, unpackTar } from "modern-tar/fs";
import { randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, open, rename, rm, stat } from "node:fs/promises";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { Connection } from "../core/caller.js";

/** The default address of the server. */
export const DEFAULT_ADDRESS = "127.0.0.1:50051";

/** The interval of pings while calls are in progress and the server is silent, and the time limit of their responses. */
const PING_MS = 20_000;
const PING_TIMEOUT_MS = 10_000;

/** Scheme, host (an IPv6 address in brackets) and port. */
const ADDRESS = /^(?:(?<scheme>[a-z]+):\/\/)?(?<host>\[[0-9a-fA-F:.]+\]|[^:/@?#\s[\]]+)(?::(?<port>\d{1,5}))?\/?$/;

/** Returns an environment variable; undefined when it is not set or empty. */
export function environment(name: string): string | undefined {
  return process.env[name] || undefined;
}

/** The schemes of addresses, the corresponding schemes of HTTP, and the default ports. */
const SCHEMES: Readonly<Record<string, { scheme: string; port: string }>> = {
  http: { scheme: "http", port: "50051" },
  grpc: { scheme: "http", port: "50051" },
  https: { scheme: "https", port: "443" },
  grpcs: { scheme: "https", port: "443" },
};

/** Returns the origin of an address: `host:port` or a URL; `https` and `grpcs` mean TLS. */
export function originOf(address: string): string {
  const { scheme = "http", host, port } = ADDRESS.exec(address)?.groups ?? {};
  const known = SCHEMES[scheme];
  const origin = `${known?.scheme}://${host}:${port ?? known?.port}`;
  if (known === undefined || host === undefined || !URL.canParse(origin)) {
    const expected = "host:port, http://host:port or https://host:port";
    throw new TypeError(`${JSON.stringify(address)} is not a valid address; use ${expected}`);
  }
  return new URL(origin).origin;
}

/** Connects by gRPC over HTTP/2, with the first call. An idle connection does not keep the process running. */
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

/** Listens; `forward` receives the bytes of each connection and yields the bytes to send back. */
export async function listen(
  host: string,
  port: number,
  forward: (input: AsyncIterable<Uint8Array>, signal: AbortSignal) => AsyncIterable<Uint8Array>,
): Promise<LocalPort> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    const ended = new AbortController();
    socket.once("close", () => {
      sockets.delete(socket);
      ended.abort();
    });
    void send(socket, forward(socket, ended.signal));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

/** Writes bytes to the socket as fast as it accepts them; resets it when they cannot be had. */
async function send(socket: Socket, bytes: AsyncIterable<Uint8Array>): Promise<void> {
  try {
    for await (const part of bytes) {
      if (!socket.write(part)) await new Promise<void>((resolve) => socket.once("drain", resolve).once("close", resolve));
    }
    socket.end();
  } catch {
    socket.resetAndDestroy(); // the local client sees a connection that breaks
  }
}

/** A file of this machine to send, with the size that it had when it was opened. */
export interface LocalFile {
  readonly size: number;
  /** Reads at most `most` bytes from an offset on; rejects when the file became shorter. */
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

/** A file of this machine that is received: it appears under its name when it is complete. */
export interface IncomingFile {
  readonly write: (data: Uint8Array) => Promise<void>;
  /** Completes the file: sets its mode, within the umask of this process, and its name. */
  readonly finish: (mode: number) => Promise<void>;
  /** Removes the file unless it is complete. */
  readonly drop: () => Promise<void>;
}

/** Creates a file of this machine to receive into. */
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

/** Yields the contents of a directory of this machine as a tar archive. Symbolic links stay links. */
export async function* packDirectory(path: string): AsyncGenerator<Uint8Array, void, undefined> {
  if (!(await stat(path)).isDirectory()) throw new TypeError(`${path} is not a directory`);
  for await (const part of packTar(path)) yield part as Uint8Array;
}

/**
 * Receives a tar archive and unpacks it into a directory of this machine, which is created if it does not exist; returns
 * the number of entries. The archive comes from a sandbox and is not trusted: an entry that would lie or lead outside of
 * the directory, and a device, is an error.
 */
export async function unpackDirectory(
  parts: () => AsyncIterable<Uint8Array>,
  path: string,
  onArrived: () => void,
): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), "sandpool-"));
  try {
    const archive = join(directory, "archive.tar");
    const file = await open(archive, "wx", 0o600);
    try {
      for await (const part of parts()) {
        onArrived();
        await file.writeFile(part);
      }
    } finally {
      await file.close();
    }
    await mkdir(path, { recursive: true });
    let entries = 0;
    const unpacker = unpackTar(path, {
      filter: ({ name, type }) => {
        if (!UNPACKED.has(type ?? "file")) throw new Error(`${name} is a ${type}, which cannot be unpacked`);
        entries += 1;
        return true;
      },
    });
    await pipeline(createReadStream(archive), unpacker);
    return entries;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** The types of entries that can be unpacked. */
const UNPACKED: ReadonlySet<string> = new Set(["file", "directory", "symlink", "link"]);
