/** Watches, logs and waits are resumed after a broken connection, and report what they may have missed. */
import { Code, ConnectError } from "@connectrpc/connect";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { ErrorInfoSchema, ResourceInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { FileChange } from "../src/gen/sandpool/v1/file_pb.js";
import { PoolErrorReason, PoolState } from "../src/gen/sandpool/v1/pool_pb.js";
import { WatchEventType } from "../src/gen/sandpool/v1/pool_service_pb.js";
import { SandboxState } from "../src/gen/sandpool/v1/sandbox_pb.js";
import {
  type Pool,
  PoolPausedError,
  ResourceNotFoundError,
  ResourceTimeoutError,
  type Sandbox,
  SandboxConnectionError,
} from "../src/index.js";
import { CREATED, pool, type Services, sandbox, withServer } from "./server.js";

const broken = () => new ConnectError("broken", Code.Unavailable);
const missing = (resourceName: string) =>
  new ConnectError("no such pool", Code.NotFound, undefined, [
    { desc: ErrorInfoSchema, value: { reason: "POOL_NOT_FOUND" } },
    { desc: ResourceInfoSchema, value: { resourceType: "pool", resourceName } },
  ]);
const ID = pool().poolId;
const OTHER = "pool-00000000000000000002";

type Fields = Parameters<typeof pool>[0];
const current = (values: Fields = {}) => ({ type: WatchEventType.CURRENT, pool: pool({ name: "p", ...values }) });
const changed = (status: NonNullable<Fields>["status"]) => ({
  type: WatchEventType.CHANGED,
  pool: pool({ name: "p", status: { state: PoolState.FILLING, desired: 2, ...status } }),
});

/** Plays one script for each connection: messages, and an error that breaks it. */
function played<T>(...scripts: T[][]) {
  return async function* (): AsyncGenerator<Exclude<T, ConnectError>> {
    for (const step of scripts.shift() ?? []) {
      if (step instanceof ConnectError) throw step;
      yield step as Exclude<T, ConnectError>;
    }
  };
}

async function inSandbox(services: Services, use: (box: Sandbox) => Promise<void>): Promise<void> {
  const sandboxes = { getSandbox: () => ({ sandbox: sandbox() }), ...services.sandboxes };
  await withServer({ ...services, sandboxes }, async (client) => use(await client.getSandbox("s")));
}

describe("watchPools", () => {
  test("on named pools is resumed and reports pools that were deleted in the meantime", async () => {
    const requested: string[][] = [];
    const play = played(
      [current(), current({ poolId: OTHER, name: "q" }), broken()],
      [missing(OTHER)],
      [current(), broken()],
      [missing(ID)],
    );
    const watchPools = ({ poolIds }: { poolIds: string[] }) => {
      requested.push(poolIds);
      return play();
    };
    await withServer({ pools: { watchPools } }, async (client) => {
      const seen: [string, string][] = [];
      for await (const { type, pool } of client.watchPools(["p", OTHER])) seen.push([type, pool.poolId]);
      expect(seen).toEqual([
        ["current", ID],
        ["current", OTHER],
        ["deleted", OTHER],
        ["current", ID],
        ["deleted", ID],
      ]);
    });
    expect(requested).toEqual([["p", OTHER], [ID, OTHER], [ID], [ID]]);
  });

  test("on all pools is resumed and reports once each pool that was deleted in the meantime", async () => {
    const other = { poolId: OTHER, name: "q" };
    const bookmark = { type: WatchEventType.BOOKMARK };
    const requested: boolean[] = [];
    const play = played<ReturnType<typeof current> | typeof bookmark | ConnectError>(
      [current(), current(other), bookmark, broken()],
      [current(other), broken()], // breaks again before its bookmark
      [current(other), bookmark, broken()],
      [current(other), bookmark, { ...current(other), type: WatchEventType.DELETED }, broken()],
      [bookmark],
    );
    const watchPools = ({ poolIds, bookmark }: { poolIds: string[]; bookmark: boolean }) => {
      requested.push(poolIds.length === 0 && bookmark);
      return play();
    };
    await withServer({ pools: { watchPools } }, async (client) => {
      const seen: [string, string][] = [];
      for await (const { type, pool } of client.watchPools()) seen.push([type, pool.poolId]);
      expect(seen).toEqual([
        ["current", ID],
        ["current", OTHER],
        ["current", OTHER],
        ["current", OTHER],
        ["deleted", ID],
        ["current", OTHER],
        ["deleted", OTHER],
      ]);
    });
    expect(requested).toEqual([true, true, true, true, true]);
  });

  test("rejects for a pool that never existed", async () => {
    await withServer({ pools: { watchPools: played([missing("p")]) } }, (client) =>
      expect(client.watchPools(["p"]).next()).rejects.toThrow(ResourceNotFoundError),
    );
  });
});

describe("waitForPool", () => {
  const pull = { imagePull: { image: "i", currentBytes: 25n, totalBytes: 100n } };

  test("reports each state, also after a broken connection, until the pool is full", async () => {
    const full = changed({ state: PoolState.READY, warm: 2 });
    const watchPools = played([current(), changed(pull), broken()], [changed({ warm: 1 }), full]);
    await withServer({ pools: { watchPools } }, async (client) => {
      const reported: Pool[] = [];
      const found = await client.waitForPool("p", { onProgress: (pool) => reported.push(pool) });
      expect(reported.map(({ status }) => [status.imagePull?.currentBytes, status.warm])).toEqual([
        [undefined, 0],
        [25, 0],
        [undefined, 1],
        [undefined, 2],
      ]);
      expect(found).toEqual(reported.at(-1));
    });
  });

  test("waits for the given number of containers", async () => {
    await withServer({ pools: { watchPools: played([changed({ warm: 0 }), changed({ warm: 1 })]) } }, async (client) => {
      expect((await client.waitForPool("p", { warm: 1 })).status.warm).toBe(1);
    });
  });

  test("reports the last failure when the pool is not full in time", async () => {
    const lastError = { reason: PoolErrorReason.START_FAILED, message: "no luck", time: timestampFromDate(CREATED) };
    async function* watchPools(_request: unknown, { signal }: { signal: AbortSignal }) {
      yield changed({ warm: 1, lastError });
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    }
    await withServer({ pools: { watchPools } }, async (client) => {
      const failure = await client.waitForPool("p", { timeoutMs: 200 }).catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(ResourceTimeoutError);
      expect(String(failure)).toContain("pool p did not have its warm containers within 200 ms: 1 of 2 are warm; the last failure: no luck");
      const given = client.waitForPool("p", { signal: AbortSignal.abort(new Error("enough")) });
      await expect(given).rejects.toThrow("enough");
    });
  });

  test.each([
    ["paused", changed({ state: PoolState.PAUSED }), { paused: true }, PoolPausedError],
    ["deleted", { ...changed({}), type: WatchEventType.DELETED }, {}, ResourceNotFoundError],
  ])("rejects for a pool that is %s", async (_what, event, fields, kind) => {
    Object.assign(event.pool, fields);
    await withServer({ pools: { watchPools: played([event]) } }, (client) =>
      expect(client.waitForPool("p")).rejects.toThrow(kind),
    );
  });
});

test("a watch on a sandbox is resumed until the sandbox is terminated", async () => {
  const ended = { sandbox: sandbox({ state: SandboxState.TERMINATED }) };
  const watchSandbox = played([{ sandbox: sandbox() }, broken()], [{ sandbox: sandbox() }, ended]);
  await inSandbox({ sandboxes: { watchSandbox } }, async (box) => {
    const states: string[] = [];
    for await (const { state } of box.watch()) states.push(state);
    expect(states).toEqual(["running", "running", "terminated"]);
  });
});

test("a log continues after the last line received", async () => {
  const requested: [bigint, number | undefined][] = [];
  const line = (sequence: number) => ({
    entries: [{ sequence: BigInt(sequence), time: timestampFromDate(CREATED), source: "web", text: `${sequence}` }],
  });
  const play = played<object>([line(4), line(5), broken()], [broken()], [{ ...line(6), droppedEntries: 3n }]);
  const readLogs = ({ afterSequence, tail }: { afterSequence: bigint; tail?: number | undefined }) => {
    requested.push([afterSequence, tail]);
    return play();
  };
  await inSandbox({ monitor: { readLogs } }, async (box) => {
    const texts: string[] = [];
    const dropped: number[] = [];
    for await (const { text, droppedEntries } of box.logs({ follow: true, tail: 2 })) {
      texts.push(text);
      dropped.push(droppedEntries);
    }
    expect(texts).toEqual(["4", "5", "6"]);
    expect(dropped).toEqual([0, 0, 3]);
  });
  expect(requested).toEqual([[0n, 2], [5n, undefined], [5n, undefined]]);
});

test("a watch on files reports that changes may have been missed", async () => {
  const started = { change: FileChange.UNSPECIFIED, path: "/w" };
  const made = (path: string) => ({ change: FileChange.CREATED, path });
  const watchFiles = played([started, made("/w/a"), broken()], [started, started, made("/w/b")]);
  await inSandbox({ files: { watchFiles } }, async (box) => {
    const seen: [string, string][] = [];
    for await (const { change, path } of await box.files.watch("/w")) seen.push([change, path]);
    expect(seen).toEqual([["created", "/w/a"], ["overflow", "/w"], ["created", "/w/b"]]);
  });
});

test("metrics are resumed", async () => {
  const sample = { metrics: { time: timestampFromDate(CREATED), cpus: 1 } };
  await inSandbox({ monitor: { watchMetrics: played([sample, broken()], [sample]) } }, async (box) => {
    let seen = 0;
    for await (const { cpus } of box.watchMetrics()) seen += cpus;
    expect(seen).toBe(2);
  });
});

test("an archive is sent again after a broken connection, unless it was given in parts", async () => {
  const arrived: number[] = [];
  const uploadDirectory = async (requests: AsyncIterable<{ part: { case?: string | undefined; value?: unknown } }>) => {
    let bytes = 0;
    for await (const { part } of requests) if (part.case === "data") bytes += (part.value as Uint8Array).length;
    arrived.push(bytes);
    if (arrived.length % 2 === 1) throw broken();
    return { entries: 1n, bytesWritten: BigInt(bytes) };
  };
  await inSandbox({ files: { uploadDirectory } }, async (box) => {
    const archive = new Uint8Array(3 << 20);
    expect((await box.files.uploadArchive(archive, "/w")).bytesWritten).toBe(3 << 20);
    expect(arrived).toEqual([3 << 20, 3 << 20]);
    async function* parts() {
      yield archive;
    }
    const failure = await box.files.uploadArchive(parts(), "/w").catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(SandboxConnectionError);
    expect(failure).toMatchObject({ reason: "UPLOAD_INCOMPLETE", resourceType: "file", resourceName: "/w" });
    expect(arrived.length).toBe(3);
    arrived.length = 0;
    expect((await box.files.uploadArchive(parts, "/w")).bytesWritten).toBe(3 << 20);
    expect(arrived).toEqual([3 << 20, 3 << 20]);
  });
});

test("an archive that is received in part is reported as incomplete", async () => {
  const downloadDirectory = played([{ data: new Uint8Array(5) }, broken()]);
  await inSandbox({ files: { downloadDirectory } }, async (box) => {
    const parts = box.files.downloadArchive("/w");
    expect((await parts.next()).value?.length).toBe(5);
    const failure = await parts.next().catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(SandboxConnectionError);
    expect(failure).toMatchObject({ reason: "DOWNLOAD_INCOMPLETE", resourceName: "/w" });
  });
});

test("an archive is requested again while nothing has arrived", async () => {
  const downloadDirectory = played<object>([broken()], [{ data: new Uint8Array(5) }]);
  await inSandbox({ files: { downloadDirectory } }, async (box) => {
    const sizes: number[] = [];
    for await (const part of box.files.downloadArchive("/w")) sizes.push(part.length);
    expect(sizes).toEqual([5]);
  });
});

test("a followed log ends when the sandbox terminated while the connection was broken", async () => {
  const terminated = new ConnectError("terminated", Code.FailedPrecondition, undefined, [
    { desc: ErrorInfoSchema, value: { reason: "SANDBOX_TERMINATED" } },
  ]);
  const entries = [{ sequence: 1n, time: timestampFromDate(CREATED), source: "web", text: "up" }];
  await inSandbox({ monitor: { readLogs: played<object>([{ entries }, broken()], [terminated]) } }, async (box) => {
    const texts: string[] = [];
    for await (const { text } of box.logs({ follow: true })) texts.push(text);
    expect(texts).toEqual(["up"]);
  });
});
