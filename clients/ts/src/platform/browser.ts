/** The parts that depend on the platform, for browsers: the client reaches the server's web port, by Connect over `fetch`. */
import { createConnectTransport } from "@connectrpc/connect-web";
import type { Connection } from "../core/caller.js";

/** The default address of the server: the origin of the page. */
export const DEFAULT_ADDRESS = globalThis.location?.origin ?? "http://localhost";

/** Browsers have no environment variables. */
export function environment(_name: string): string | undefined {
  return undefined;
}

/** Connects to the web port by its address, `http://host:port` or `https://host`. */
export function connect(address: string): Connection {
  if (!/^https?:\/\//.test(address) || !URL.canParse(address)) {
    const expected = "the web port's http://host:port or https://host";
    throw new TypeError(`${JSON.stringify(address)} is not a valid address; use ${expected}`);
  }
  return {
    transport: createConnectTransport({ baseUrl: new URL(address).origin, useBinaryFormat: true }),
    duplex: false,
    target: address,
    close: () => undefined,
  };
}

/** A listener on this machine. */
export interface LocalPort {
  readonly port: number;
  readonly close: () => Promise<void>;
}

/** Pages cannot listen. */
export function listen(): Promise<LocalPort> {
  throw new TypeError("tunnels are not available in browsers; expose the port and use its URL");
}

/** A file of this machine to send. */
export interface LocalFile {
  readonly size: number;
  readonly read: (offset: number, most: number) => Promise<Uint8Array>;
  readonly close: () => Promise<void>;
}

/** A file of this machine that is received. */
export interface IncomingFile {
  readonly write: (data: Uint8Array) => Promise<void>;
  readonly finish: (mode: number) => Promise<void>;
  readonly drop: () => Promise<void>;
}

/** Pages cannot open files by path. */
export function openFile(): Promise<LocalFile> {
  throw noFiles();
}

/** Pages cannot write files. */
export function receiveFile(): Promise<IncomingFile> {
  throw noFiles();
}

/** Pages cannot read directories. */
export function packDirectory(): AsyncIterable<Uint8Array> {
  throw noFiles();
}

/** Pages cannot write directories. */
export function unpackDirectory(): Promise<number> {
  throw noFiles();
}

function noFiles(): Error {
  return new TypeError("local paths are not available in browsers; use read, write, uploadArchive and downloadArchive");
}
