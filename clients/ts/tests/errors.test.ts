import { readFileSync } from "node:fs";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import * as details from "../src/gen/google/rpc/error_details_pb.js";
import * as sandpool from "../src/index.js";
import { originOf } from "../src/platform/node.js";
import { CLOSED, pool, type Services, TestServer } from "./server.js";

type Detail = NonNullable<ConstructorParameters<typeof ConnectError>[3]>[number];

/** Returns the error of a call when the server returns this status. */
async function caught(code: Code, message: string, ...parts: Detail[]): Promise<unknown> {
  const getPool = () => {
    throw new ConnectError(message, code, undefined, parts);
  };
  await using server = await TestServer.start({ pools: { getPool } });
  using client = new sandpool.SandboxClient({ address: server.address, retry: { maxAttempts: 1 } });
  return await client.getPool("p").catch((error: unknown) => error);
}

const info = (reason: string): Detail => ({ desc: details.ErrorInfoSchema, value: { reason, domain: "sandpool" } });

describe("each status has one class", () => {
  test.each([
    [Code.InvalidArgument, "INVALID_FIELD", sandpool.ValidationError, "INVALID_ARGUMENT"],
    [Code.OutOfRange, "X", sandpool.ValidationError, "OUT_OF_RANGE"],
    [Code.Unauthenticated, "X", sandpool.AuthenticationError, "UNAUTHENTICATED"],
    [Code.PermissionDenied, "X", sandpool.PermissionDeniedError, "PERMISSION_DENIED"],
    [Code.NotFound, "POOL_NOT_FOUND", sandpool.ResourceNotFoundError, "NOT_FOUND"],
    [Code.AlreadyExists, "POOL_ALREADY_EXISTS", sandpool.ResourceAlreadyExistsError, "ALREADY_EXISTS"],
    [Code.FailedPrecondition, "X", sandpool.ResourceStateError, "FAILED_PRECONDITION"],
    [Code.FailedPrecondition, "POOL_IN_USE", sandpool.PoolInUseError, "FAILED_PRECONDITION"],
    [Code.FailedPrecondition, "TEMPLATE_IN_USE", sandpool.TemplateInUseError, "FAILED_PRECONDITION"],
    [Code.FailedPrecondition, "SECRET_IN_USE", sandpool.SecretInUseError, "FAILED_PRECONDITION"],
    [Code.FailedPrecondition, "SECRET_MISSING", sandpool.SecretUnavailableError, "FAILED_PRECONDITION"],
    [Code.FailedPrecondition, "SECRET_UNREADABLE", sandpool.SecretUnavailableError, "FAILED_PRECONDITION"],
    [Code.FailedPrecondition, "POOL_PAUSED", sandpool.PoolPausedError, "FAILED_PRECONDITION"],
    [Code.FailedPrecondition, "POOL_DRAINED", sandpool.PoolPausedError, "FAILED_PRECONDITION"],
    [Code.FailedPrecondition, "SANDBOX_STARTING", sandpool.SandboxNotReadyError, "FAILED_PRECONDITION"],
    [Code.FailedPrecondition, "SANDBOX_TERMINATED", sandpool.SandboxNotReadyError, "FAILED_PRECONDITION"],
    [Code.FailedPrecondition, "IMAGE_NOT_FOUND", sandpool.ResourceCreationError, "FAILED_PRECONDITION"],
    [Code.Aborted, "ETAG_MISMATCH", sandpool.ConflictError, "ABORTED"],
    [Code.ResourceExhausted, "POOL_LIMIT_REACHED", sandpool.QuotaExceededError, "RESOURCE_EXHAUSTED"],
    [Code.ResourceExhausted, "POOL_EMPTY", sandpool.PoolEmptyError, "RESOURCE_EXHAUSTED"],
    [Code.NotFound, "SECRET_NOT_FOUND", sandpool.ResourceNotFoundError, "NOT_FOUND"],
    [Code.DeadlineExceeded, "QUEUE_TIMEOUT", sandpool.ResourceTimeoutError, "DEADLINE_EXCEEDED"],
    [Code.Unavailable, "ENGINE_UNREACHABLE", sandpool.SandboxConnectionError, "UNAVAILABLE"],
    [Code.Internal, "INTERNAL", sandpool.ServerError, "INTERNAL"],
    [Code.Unimplemented, "X", sandpool.ServerError, "UNIMPLEMENTED"],
  ] as const)("%s with %s", async (status, reason, kind, code) => {
    const error = await caught(status, "what happened", info(reason));
    expect((error as Error).constructor).toBe(kind);
    expect(error).toBeInstanceOf(sandpool.SandpoolError);
    expect(error).toMatchObject({ name: kind.name, message: "what happened", code, reason });
  });

  test("ABORTED without details is a ConflictError too", async () => {
    expect(await caught(Code.Aborted, "changed")).toBeInstanceOf(sandpool.ConflictError);
  });
});

test("details become properties", async () => {
  const error = await caught(
    Code.ResourceExhausted,
    "the pool is full",
    info("POOL_LIMIT_REACHED"),
    { desc: details.ResourceInfoSchema, value: { resourceType: "pool", resourceName: "p" } },
    { desc: details.RetryInfoSchema, value: { retryDelay: durationFromMs(1500) } },
    { desc: details.QuotaFailureSchema, value: { violations: [{ subject: "pool:p", description: "full" }] } },
  );
  const resource = { resourceType: "pool", resourceName: "p" };
  expect(error).toMatchObject({ ...resource, quotaSubject: "pool:p", retryAfterMs: 1500, fieldViolations: [] });
});

test("the error of a wrong request names the field", async () => {
  const fieldViolations = [{ field: "memory_mb", description: "must be at least 16" }];
  const error = await caught(Code.InvalidArgument, "memory_mb: must be at least 16", info("INVALID_FIELD"), {
    desc: details.BadRequestSchema,
    value: { fieldViolations },
  });
  expect(error).toMatchObject({ fieldViolations, field: "memory_mb", resourceType: null, retryAfterMs: null });
});

describe("without a server", () => {
  test("the error names the address and the next action when no server listens", async () => {
    using client = new sandpool.SandboxClient({ address: CLOSED, retry: { maxAttempts: 1 } });
    const error: unknown = await client.listPools().toArray().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(sandpool.SandboxConnectionError);
    expect(error).toMatchObject({ code: "UNAVAILABLE", reason: "NO_RESPONSE" });
    expect((error as Error).message).toMatch(`the sandpool server at ${CLOSED} did not respond to ListPools`);
    expect((error as Error).message).toMatch("SANDPOOL_ADDRESS");
  });

  test("the error says so when the server does not respond in time", async () => {
    const getPool: NonNullable<Services["pools"]>["getPool"] = (_request, context) =>
      new Promise((resolve) => context.signal.addEventListener("abort", () => resolve({ pool: pool() })));
    await using server = await TestServer.start({ pools: { getPool } });
    using client = new sandpool.SandboxClient({ address: server.address, requestTimeoutMs: 50 });
    const error: unknown = await client.getPool("p").catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(sandpool.ResourceTimeoutError);
    expect((error as Error).message).toMatch("did not finish GetPool within the time limit");
  });
});

describe("before a request is sent", () => {
  const client = new sandpool.SandboxClient();
  const probe = { command: ["x"], failureThreshold: 1.5 };

  test.each([
    ["a fraction of a container", () => client.createPool({ image: "i", warmContainers: 1.5 }), "warmContainers"],
    ["more than 32 bits", () => client.create({ image: "i", memoryMb: 2 ** 40 }), "memoryMb"],
    ["no number", () => client.updatePool("p", { maxContainers: Number.NaN }), "maxContainers"],
    ["a fraction of an attempt", () => client.createPool({ image: "i", readinessProbe: probe }), "readinessProbe.failureThreshold"],
    ["a fraction of a sandbox", () => client.createBatch(1.5, { poolId: "p" }), "count"],
    ["an unknown policy", () => client.updatePool("p", { pullPolicy: "sometimes" as never }), "pullPolicy"],
    ["a name that every object has", () => client.create({ poolId: "p", whenEmpty: "toString" as never }), "whenEmpty"],
    ["an infinite lifetime", () => client.updateSandbox("s", { timeoutMs: Number.POSITIVE_INFINITY }), "timeoutMs"],
    ["text", () => client.updateSandbox("s", { timeoutMs: "9" as unknown as number }), "timeoutMs"],
  ])("%s is a ValidationError", async (_name, call, field) => {
    const error: unknown = await call().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(sandpool.ValidationError);
    expect(error).toMatchObject({ fieldViolations: [{ field }], code: "INVALID_ARGUMENT", reason: "INVALID_FIELD" });
  });

  test.each([
    ["an image and a template", () => client.createPool({ image: "i", templateName: "t" } as never), "image and templateName"],
    ["neither image nor template", () => client.createPool("p", {} as never), "none of them"],
    ["no options", () => client.createPool("p", undefined as never), "none of them"],
    ["a specification with a template", () => client.createPool({ templateName: "t", cpus: 1 } as never), "cpus"],
    ["two sizes", () => client.createPool({ templateName: "t", size: 1, warmContainers: 1 } as never), "warmContainers"],
    ["a size with an image", () => client.createPool({ image: "i", size: 1 } as never), "size"],
    ["a pool and an image", () => client.create({ poolId: "p", image: "i" } as never), "poolId and image"],
    ["no source", () => client.create({} as never), "exactly one of poolId, templateName, image"],
    ["a specification with a pool", () => client.create({ poolId: "p", memoryMb: 64 } as never), "memoryMb"],
    ["whenEmpty with an image", () => client.create({ image: "i", whenEmpty: "wait" } as never), "whenEmpty"],
    ["a queue timeout without a wait", () => client.create({ poolId: "p", queueTimeoutMs: 5 } as never), "queueTimeoutMs"],
    ["a batch with a name", () => client.createBatch(2, { poolId: "p", name: "n" } as never), "name"],
    ["no change of a pool", () => client.updatePool("p", { etag: "e" }), "nothing to update"],
    ["no change of a template", () => client.updateTemplate("t", {}), "nothing to update"],
    ["no change of a sandbox", () => client.updateSandbox("s", {}), "nothing to update"],
    ["a string for a list", () => client.createPool({ image: "i", entrypoint: "sleep" } as never), "entrypoint"],
  ])("%s is a TypeError", async (_name, call, message) => {
    const error: unknown = await call().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(TypeError);
    expect(String(error)).toContain(message);
  });

  test.each([
    ["a limit of a request", () => client.getPool("p", { requestTimeoutMs: 0 })],
    ["a limit of a wait", () => client.waitForPool("p", { timeoutMs: -1 })],
    ["a limit of a watch", () => client.watchPools([], { timeoutMs: 0 }).next()],
    ["a limit of the client", async () => new sandpool.SandboxClient({ requestTimeoutMs: 0 })],
    ["no attempts", async () => new sandpool.SandboxClient({ retry: { maxAttempts: 0 } })],
    ["a delay above the longest", async () => new sandpool.SandboxClient({ retry: { initialDelayMs: 9_000 } })],
  ])("%s out of range is a RangeError", async (_name, call) => {
    await expect(call()).rejects.toThrow(RangeError);
  });
});

/** Returns the classes of the tree at the top of errors.ts, each with its parent. */
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

test("the tree at the top of the module matches the classes", () => {
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
  test.each(wrong)("%j is not valid", (address) => {
    expect(() => originOf(address)).toThrow(TypeError);
  });
});
