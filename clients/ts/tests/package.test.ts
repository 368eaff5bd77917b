import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import * as sandpool from "../src/index.js";

const read = (name: string): string => readFileSync(new URL(`../${name}`, import.meta.url), "utf8");

test("the version matches package.json", () => {
  expect(JSON.parse(read("package.json"))).toMatchObject({ version: sandpool.VERSION });
});

test("the lock file contains no download addresses", () => {
  const { packages } = JSON.parse(read("package-lock.json")) as { packages: Record<string, { resolved?: string }> };
  expect(Object.keys(packages).length).toBeGreaterThan(10);
  expect(Object.values(packages).filter(({ resolved }) => resolved !== undefined)).toEqual([]);
});

test("the public names are pinned", () => {
  expect(Object.keys(sandpool).toSorted()).toEqual([
    "AuthenticationError",
    "ClientClosedError",
    "CommandTimeoutError",
    "ConflictError",
    "Files",
    "PagedList",
    "PathNotFoundError",
    "PermissionDeniedError",
    "PoolEmptyError",
    "PoolInUseError",
    "PoolNotFoundError",
    "PoolPausedError",
    "PortConnection",
    "PortExposureDisabledError",
    "Ports",
    "Process",
    "ProcessNotFoundError",
    "Processes",
    "QuotaExceededError",
    "ResourceAlreadyExistsError",
    "ResourceCreationError",
    "ResourceInUseError",
    "ResourceNotFoundError",
    "ResourceStateError",
    "ResourceTimeoutError",
    "Sandbox",
    "SandboxClient",
    "SandboxConnectionError",
    "SandboxNotFoundError",
    "SandboxNotReadyError",
    "SandpoolError",
    "SecretInUseError",
    "SecretNotFoundError",
    "SecretUnavailableError",
    "ServerError",
    "TemplateInUseError",
    "TemplateNotFoundError",
    "Terminal",
    "Terminals",
    "Tunnel",
    "TunnelConnectionRefusedError",
    "VERSION",
    "ValidationError",
  ]);
});
