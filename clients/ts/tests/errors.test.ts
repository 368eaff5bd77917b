import { readFileSync } from "node:fs";
import { fromBinary } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import * as details from "../src/core/details.js";
import * as sandpool from "../src/index.js";
import { originOf } from "../src/platform/node.js";
import { freePort, pool, type Services, TestServer } from "./server.js";

type Detail = NonNullable<ConstructorParameters<typeof ConnectError>[3]>[number];

/** The error that a call gets when the server answers with this status. */
async function caught(code: Code, message: string, ...parts: Detail[]): Promise<unknown> {
  const getPool = () => {
    throw new ConnectError(message, code, undefined, parts);
  };
  await using server = await TestServer.start({ pools: { getPool } });
  using client = new sandpool.SandboxClient({ address: server.address, maxRetries: 0 });
  return await client.getPool("p").catch((error: unknown) => error);
}

const info = (reason: string): Detail => ({ desc: details.ErrorInfoSchema, value: { reason, domain: "sandpool" } });

describe("the described google.rpc messages read what googleapis' own code writes", () => {
  // Encoded by Python's googleapis-common-protos.
  test.each([
    [details.ErrorInfoSchema, "CgtQT09MX0FUX01BWBIIc2FuZHBvb2waBgoBYRIBYg==", {
      reason: "POOL_AT_MAX",
      domain: "sandpool",
      metadata: { a: "b" },
    }],
    [details.RetryInfoSchema, "CggIARCAyrXuAQ==", { retryDelay: { seconds: 1n, nanos: 500_000_000 } }],
    [details.BadRequestSchema, "ChMKBGNwdXMSCHRvbyBtYW55GgFY", {
      fieldViolations: [{ field: "cpus", description: "too many" }],
    }],
    [details.ResourceInfoSchema, "CgRwb29sEgFwGgFvIgFk", {
      resourceType: "pool",
      resourceName: "p",
      owner: "o",
      description: "d",
    }],
    [details.QuotaFailureSchema, "Cg4KBnBvb2w6cBIEZnVsbA==", {
      violations: [{ subject: "pool:p", description: "full" }],
    }],
  ])("%s", (schema, encoded, expected) => {
    expect(fromBinary(schema, base64Decode(encoded))).toMatchObject(expected);
  });
});

describe("one class to each status", () => {
  test.each([
    [Code.InvalidArgument, "INVALID_FIELD", sandpool.ValidationError, "invalid_argument"],
    [Code.OutOfRange, "X", sandpool.ValidationError, "out_of_range"],
    [Code.Unauthenticated, "X", sandpool.SandboxAuthenticationError, "unauthenticated"],
    [Code.PermissionDenied, "X", sandpool.PermissionDeniedError, "permission_denied"],
    [Code.NotFound, "POOL_NOT_FOUND", sandpool.ResourceNotFoundError, "not_found"],
    [Code.AlreadyExists, "POOL_ALREADY_EXISTS", sandpool.ResourceAlreadyExistsError, "already_exists"],
    [Code.FailedPrecondition, "X", sandpool.ResourceStateError, "failed_precondition"],
    [Code.FailedPrecondition, "POOL_IN_USE", sandpool.PoolInUseError, "failed_precondition"],
    [Code.FailedPrecondition, "TEMPLATE_IN_USE", sandpool.TemplateInUseError, "failed_precondition"],
    [Code.FailedPrecondition, "SECRET_IN_USE", sandpool.SecretInUseError, "failed_precondition"],
    [Code.FailedPrecondition, "SECRET_MISSING", sandpool.SecretUnavailableError, "failed_precondition"],
    [Code.FailedPrecondition, "SECRET_UNREADABLE", sandpool.SecretUnavailableError, "failed_precondition"],
    [Code.FailedPrecondition, "POOL_PAUSED", sandpool.PoolPausedError, "failed_precondition"],
    [Code.FailedPrecondition, "POOL_DRAINED", sandpool.PoolPausedError, "failed_precondition"],
    [Code.FailedPrecondition, "SANDBOX_STARTING", sandpool.SandboxNotReadyError, "failed_precondition"],
    [Code.FailedPrecondition, "SANDBOX_ENDED", sandpool.SandboxNotReadyError, "failed_precondition"],
    [Code.FailedPrecondition, "IMAGE_NOT_FOUND", sandpool.ResourceCreationError, "failed_precondition"],
    [Code.Aborted, "ETAG_MISMATCH", sandpool.ResourceChangedError, "aborted"],
    [Code.ResourceExhausted, "POOL_AT_MAX", sandpool.QuotaExceededError, "resource_exhausted"],
    [Code.ResourceExhausted, "POOL_EMPTY", sandpool.PoolEmptyError, "resource_exhausted"],
    [Code.NotFound, "SECRET_NOT_FOUND", sandpool.ResourceNotFoundError, "not_found"],
    [Code.DeadlineExceeded, "NOT_READY_IN_TIME", sandpool.ResourceTimeoutError, "deadline_exceeded"],
    [Code.Unavailable, "ENGINE_UNREACHABLE", sandpool.SandboxConnectionError, "unavailable"],
    [Code.Internal, "INTERNAL", sandpool.RemoteAPIError, "internal"],
    [Code.Unimplemented, "X", sandpool.RemoteAPIError, "unimplemented"],
  ] as const)("%s with %s", async (status, reason, kind, code) => {
    const error = await caught(status, "what happened", info(reason));
    expect((error as Error).constructor).toBe(kind);
    expect(error).toBeInstanceOf(sandpool.SandpoolError);
    expect(error).toMatchObject({ name: kind.name, message: "what happened", code, reason });
  });

  test("ABORTED without details, from a server without them, is still a changed resource", async () => {
    expect(await caught(Code.Aborted, "changed")).toBeInstanceOf(sandpool.ResourceChangedError);
  });
});

test("details become properties", async () => {
  const error = await caught(
    Code.ResourceExhausted,
    "the pool is full",
    info("POOL_AT_MAX"),
    { desc: details.ResourceInfoSchema, value: { resourceType: "pool", resourceName: "p" } },
    { desc: details.RetryInfoSchema, value: { retryDelay: durationFromMs(1500) } },
    { desc: details.QuotaFailureSchema, value: { violations: [{ subject: "pool:p", description: "full" }] } },
  );
  const resource = { resourceType: "pool", resourceName: "p" };
  expect(error).toMatchObject({ ...resource, quotaSubject: "pool:p", retryAfterMs: 1500, fieldViolations: [] });
});

test("a wrong request says which field is wrong", async () => {
  const fieldViolations = [{ field: "memory_mb", description: "must be at least 16" }];
  const error = await caught(Code.InvalidArgument, "memory_mb: must be at least 16", info("INVALID_FIELD"), {
    desc: details.BadRequestSchema,
    value: { fieldViolations },
  });
  expect(error).toMatchObject({ fieldViolations, resourceType: null, retryAfterMs: null });
});

describe("without a server", () => {
  test("nobody listens: the error names the address and what to look at", async () => {
    const address = `127.0.0.1:${await freePort()}`;
    using client = new sandpool.SandboxClient({ address, maxRetries: 0 });
    const error: unknown = await client.listPools().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(sandpool.SandboxConnectionError);
    expect(error).toMatchObject({ code: "unavailable", reason: "NO_ANSWER" });
    expect((error as Error).message).toMatch(`no answer from sandpool at ${address}`);
    expect((error as Error).message).toMatch("SANDPOOL_ADDRESS");
  });

  test("the server does not answer in time", async () => {
    const getPool: NonNullable<Services["pools"]>["getPool"] = (_request, context) =>
      new Promise((resolve) => context.signal.addEventListener("abort", () => resolve({ pool: pool() })));
    await using server = await TestServer.start({ pools: { getPool } });
    using client = new sandpool.SandboxClient({ address: server.address, timeoutMs: 50 });
    const error: unknown = await client.getPool("p").catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(sandpool.ResourceTimeoutError);
    expect((error as Error).message).toMatch("did not answer in time");
  });
});

describe("found before anything is sent", () => {
  const client = new sandpool.SandboxClient();

  test.each([
    ["a fraction of a container", () => client.createPool({ image: "i", warmContainers: 1.5 }), "warmContainers"],
    ["more than 32 bits", () => client.create({ image: "i", memoryMb: 2 ** 40 }), "memoryMb"],
    ["no number", () => client.updatePool("p", { maxContainers: Number.NaN }), "maxContainers"],
    ["a fraction of a try", () => client.createPool({ image: "i", readinessRetries: 1.5 }), "readinessRetries"],
    ["a fraction of a sandbox", () => client.createBatch(1.5, { poolId: "p" }), "count"],
    ["no such policy", () => client.updatePool("p", { pullPolicy: "sometimes" as never }), "pullPolicy"],
    ["a word that every object has", () => client.create({ poolId: "p", whenEmpty: "toString" as never }), "whenEmpty"],
    ["no time to wait", () => client.waitForSandbox("s", { timeout: 0 }), "timeout"],
    ["text", () => client.updateSandbox("s", { timeoutSecs: "9" as unknown as number }), "timeoutSecs"],
    ["no time", () => client.listPools({ timeoutMs: 0 }), "timeoutMs"],
    ["two sizes", () => client.createPool("p", { templateName: "t", size: 1, replicas: 1 } as never), "warmContainers"],
  ])("%s", async (_what, call, field) => {
    const error: unknown = await call().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(sandpool.ValidationError);
    expect(error).toMatchObject({ fieldViolations: [{ field }] });
  });
});

/** The classes that the drawing at the top of errors.ts shows, each with the one that it is drawn under. */
function drawn(): [string, string][] {
  const source = readFileSync(new URL("../src/core/errors.ts", import.meta.url), "utf8");
  const above: string[] = [];
  return source.split("*/")[0]!.split("\n").flatMap((line): [string, string][] => {
    const [, lead = "", name] = /^ \*     ([ │├└─]*)([A-Z]\w+Error)\b/.exec(line) ?? [];
    if (name === undefined) return [];
    const depth = lead.length / 4;
    above[depth] = name;
    return [[name, depth === 0 ? "Error" : above[depth - 1]!]];
  });
}

test("the tree at the top of the module is the tree", () => {
  const classes = Object.entries(sandpool).filter(([name]) => name.endsWith("Error"));
  const real = classes.map(([name, kind]) => [name, (Object.getPrototypeOf(kind) as { name: string }).name]);
  expect(drawn().toSorted()).toEqual(real.toSorted());
});

describe("addresses", () => {
  test.each([
    ["127.0.0.1:50051", "http://127.0.0.1:50051"],
    ["example.org", "http://example.org:50051"],
    ["http://example.org:1/", "http://example.org:1"],
    ["grpc://example.org", "http://example.org:50051"],
    ["https://example.org", "https://example.org"],
    ["grpcs://example.org:8443", "https://example.org:8443"],
    ["[::1]:50051", "http://[::1]:50051"],
  ])("%s", (address, origin) => {
    expect(originOf(address)).toBe(origin);
  });

  const wrong = ["", "ftp://host", "host:port", "host:70000", "http://host/path", "user@host:1", "a b"];
  test.each(wrong)("%j is none", (address) => {
    expect(() => originOf(address)).toThrow(sandpool.ValidationError);
  });
});
