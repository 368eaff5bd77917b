/** What depends on where the client runs, in a browser: it reaches the server's web port, by Connect over `fetch`. */
import { createConnectTransport } from "@connectrpc/connect-web";
import type { Connection } from "../core/caller.js";
import { invalid } from "../core/errors.js";

/** Where the server is when nothing else is said: where the page came from. */
export const DEFAULT_ADDRESS = globalThis.location?.origin ?? "http://localhost";

/** A browser has no environment. */
export function environment(_name: string): string | undefined {
  return undefined;
}

/** Connect over HTTP to the web port's address, `http://host:port` or `https://host`. */
export function connect(address: string): Connection {
  if (!/^https?:\/\//.test(address) || !URL.canParse(address)) {
    throw invalid("address", `must be the web port's http://host:port or https://host, not ${JSON.stringify(address)}`);
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

/** A page cannot listen. */
export function listen(): Promise<LocalPort> {
  throw invalid("tunnel", "is not there in a browser, which cannot listen; expose the port and use its URL");
}

/** A file of this machine that is sent. */
export interface LocalFile {
  readonly size: number;
  readonly read: (offset: number, most: number) => Promise<Uint8Array>;
  readonly close: () => Promise<void>;
}

/** A file of this machine that is being received. */
export interface IncomingFile {
  readonly write: (data: Uint8Array) => Promise<void>;
  readonly finish: (mode: number) => Promise<void>;
  readonly drop: () => Promise<void>;
}

/** A page sees no files but those that it is given. */
export function openFile(): Promise<LocalFile> {
  throw noFiles();
}

/** A page writes no files. */
export function receiveFile(): Promise<IncomingFile> {
  throw noFiles();
}

function noFiles(): Error {
  return invalid("localPath", "is not there in a browser, which has no files of its own; use read and write");
}
