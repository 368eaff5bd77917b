import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import * as sandpool from "../src/index.js";

const read = (name: string): string => readFileSync(new URL(`../${name}`, import.meta.url), "utf8");

test("the version is that of package.json", () => {
  expect(JSON.parse(read("package.json"))).toMatchObject({ version: sandpool.VERSION });
});

test("the lock file names no place to download from", () => {
  const { packages } = JSON.parse(read("package-lock.json")) as { packages: Record<string, { resolved?: string }> };
  expect(Object.keys(packages).length).toBeGreaterThan(10);
  expect(Object.values(packages).filter(({ resolved }) => resolved !== undefined)).toEqual([]);
});

test("the public names", () => {
  expect(Object.keys(sandpool).toSorted()).toEqual([
    "ClientClosedError",
    "CommandHandle",
    "Files",
    "PathNotFoundError",
    "PermissionDeniedError",
    "PoolEmptyError",
    "PoolInUseError",
    "PoolNotFoundError",
    "PoolPausedError",
    "PortConnection",
    "Ports",
    "ProcessNotFoundError",
    "Processes",
    "Pty",
    "QuotaExceededError",
    "RemoteAPIError",
    "ResourceAlreadyExistsError",
    "ResourceChangedError",
    "ResourceCreationError",
    "ResourceInUseError",
    "ResourceNotFoundError",
    "ResourceStateError",
    "ResourceTimeoutError",
    "Sandbox",
    "SandboxAuthenticationError",
    "SandboxClient",
    "SandboxConnectionError",
    "SandboxNotFoundError",
    "SandboxNotReadyError",
    "SandpoolError",
    "SecretInUseError",
    "SecretNotFoundError",
    "SecretUnavailableError",
    "TemplateInUseError",
    "TemplateNotFoundError",
    "Tunnel",
    "TunnelConnectionRefusedError",
    "TunnelPortNotAllowedError",
    "VERSION",
    "ValidationError",
  ]);
});
