/**
 * What depends on where the client runs: the environment and the default transport. A build for another platform
 * replaces this module and nothing else.
 */
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import type { Connection } from "../core/caller.js";
import { invalid } from "../core/errors.js";

/** Where the server is when nothing else is said. */
export const DEFAULT_ADDRESS = "127.0.0.1:50051";

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
  const sessionManager = new Http2SessionManager(baseUrl);
  return {
    transport: createGrpcTransport({ baseUrl, sessionManager }),
    target: address,
    close: () => sessionManager.abort(),
  };
}
