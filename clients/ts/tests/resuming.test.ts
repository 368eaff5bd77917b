/** Watches, logs and waits that go on where their connection broke, and how they say what they cannot know. */
import { Code, ConnectError } from "@connectrpc/connect";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { ErrorInfoSchema, ResourceInfoSchema } from "../src/core/details.js";
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

const broken = () => new ConnectError("gone", Code.Unavailable);
const missing = (resourceName: string) =>
  new ConnectError("no such pool", Code.NotFound, undefined, [
    { desc: ErrorInfoSchema, value: { reason: "POOL_NOT_FOUND" } },
    { desc: ResourceInfoSchema, value: { resourceType: "pool", resourceName } },
  ]);
const ID = pool().poolId;
const OTHER = "pool-00000000000000000002";

type Fields = Parameters<typeof pool>[0];
const present = (values: Fields = {}) => ({ type: WatchEventType.PRESENT, pool: pool({ name: "p", ...values }) });
const changed = (status: NonNullable<Fields>["status"]) => ({
  type: WatchEventType.CHANGED,
  pool: pool({ name: "p", status: { state: PoolState.FILLING, wanted: 2, ...status } }),
});

/** Plays one script a connection: messages, and an error at which it breaks. */
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
  test("one that names its pools goes on, and tells of what was deleted meanwhile", async () => {
    const asked: string[][] = [];
    const play = played(
      [present(), present({ poolId: OTHER, name: "q" }), broken()],
      [missing(OTHER)],
      [present(), broken()],
      [missing(ID)],
    );
    const watchPools = ({ poolIds }: { poolIds: string[] }) => {
      asked.push(poolIds);
      return play();
    };
    await withServer({ pools: { watchPools } }, async (client) => {
      const seen: [string, string][] = [];
      for await (const { type, pool } of client.watchPools({ pools: ["p", OTHER] })) seen.push([type, pool.poolId]);
      expect(seen).toEqual([
        ["present", ID],
        ["present", OTHER],
        ["deleted", OTHER],
        ["present", ID],
        ["deleted", ID],
      ]);
    });
    expect(asked).toEqual([["p", OTHER], [ID, OTHER], [ID], [ID]]);
  });

  test("one of all pools goes on, and tells once what was deleted meanwhile", async () => {
    const other = { poolId: OTHER, name: "q" };
    const bookmark = { type: WatchEventType.BOOKMARK };
    const asked: boolean[] = [];
    const play = played<ReturnType<typeof present> | typeof bookmark | ConnectError>(
      [present(), present(other), bookmark, broken()],
      [present(other), broken()], // it broke again before its bookmark
      [present(other), bookmark, broken()],
      [present(other), bookmark, { ...present(other), type: WatchEventType.DELETED }, broken()],
      [bookmark],
    );
    const watchPools = ({ poolIds, bookmark }: { poolIds: string[]; bookmark: boolean }) => {
      asked.push(poolIds.length === 0 && bookmark);
      return play();
    };
    await withServer({ pools: { watchPools } }, async (client) => {
      const seen: [string, string][] = [];
      for await (const { type, pool } of client.watchPools()) seen.push([type, pool.poolId]);
      expect(seen).toEqual([
        ["present", ID],
        ["present", OTHER],
        ["present", OTHER],
        ["present", OTHER],
        ["deleted", ID],
        ["present", OTHER],
        ["deleted", OTHER],
      ]);
    });
    expect(asked).toEqual([true, true, true, true, true]);
  });

  test("a pool that there never was is an error", async () => {
    await withServer({ pools: { watchPools: played([missing("p")]) } }, (client) =>
      expect(client.watchPools({ pools: ["p"] }).next()).rejects.toThrow(ResourceNotFoundError),
    );
  });
});

describe("waitForPool", () => {
  const pull = { imagePull: { image: "i", currentBytes: 25n, totalBytes: 100n } };

  test("tells each state, over a broken connection too, until the pool is full", async () => {
    const full = changed({ state: PoolState.READY, warm: 2 });
    const watchPools = played([present(), changed(pull), broken()], [changed({ warm: 1 }), full]);
    await withServer({ pools: { watchPools } }, async (client) => {
      const told: Pool[] = [];
      const found = await client.waitForPool("p", { onProgress: (pool) => told.push(pool) });
      expect(told.map(({ status }) => [status.imagePull?.currentBytes, status.warm])).toEqual([
        [undefined, 0],
        [25, 0],
        [undefined, 1],
        [undefined, 2],
      ]);
      expect(found).toEqual(told.at(-1));
    });
  });

  test("as many as are asked for are enough", async () => {
    await withServer({ pools: { watchPools: played([changed({ warm: 0 }), changed({ warm: 1 })]) } }, async (client) => {
      expect((await client.waitForPool("p", { warm: 1 })).status.warm).toBe(1);
    });
  });

  test("one that is not full in time says what went wrong last", async () => {
    const lastError = { reason: PoolErrorReason.START_FAILED, message: "no luck", time: timestampFromDate(CREATED) };
    async function* watchPools(_request: unknown, { signal }: { signal: AbortSignal }) {
      yield changed({ warm: 1, lastError });
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    }
    await withServer({ pools: { watchPools } }, async (client) => {
      const failure = await client.waitForPool("p", { timeout: 0.2 }).catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(ResourceTimeoutError);
      expect(String(failure)).toContain("pool p was not full within 0.2 s: 1 of 2 are ready; the last failure: no luck");
      const given = client.waitForPool("p", { signal: AbortSignal.abort(new Error("enough")) });
      await expect(given).rejects.toThrow("enough");
    });
  });

  test.each([
    ["paused", changed({ state: PoolState.PAUSED }), { paused: true }, PoolPausedError],
    ["deleted", { ...changed({}), type: WatchEventType.DELETED }, {}, ResourceNotFoundError],
  ])("one that is %s is an error", async (_what, event, fields, kind) => {
    Object.assign(event.pool, fields);
    await withServer({ pools: { watchPools: played([event]) } }, (client) =>
      expect(client.waitForPool("p")).rejects.toThrow(kind),
    );
  });
});

test("a watch on a sandbox goes on until the sandbox has ended", async () => {
  const ended = { sandbox: sandbox({ state: SandboxState.TERMINATED }) };
  const watchSandbox = played([{ sandbox: sandbox() }, broken()], [{ sandbox: sandbox() }, ended]);
  await inSandbox({ sandboxes: { watchSandbox } }, async (box) => {
    const states: string[] = [];
    for await (const { state } of box.watch()) states.push(state);
    expect(states).toEqual(["running", "running", "terminated"]);
  });
});

test("a log goes on after the last line that came", async () => {
  const asked: [bigint, number | undefined][] = [];
  const line = (sequence: number) => ({
    entries: [{ sequence: BigInt(sequence), time: timestampFromDate(CREATED), source: "web", text: `${sequence}` }],
  });
  const play = played([line(4), line(5), broken()], [broken()], [line(6)]);
  const readLogs = ({ afterSequence, tail }: { afterSequence: bigint; tail?: number | undefined }) => {
    asked.push([afterSequence, tail]);
    return play();
  };
  await inSandbox({ monitor: { readLogs } }, async (box) => {
    const texts: string[] = [];
    for await (const { text } of box.logs({ follow: true, tail: 2 })) texts.push(text);
    expect(texts).toEqual(["4", "5", "6"]);
  });
  expect(asked).toEqual([[0n, 2], [5n, undefined], [5n, undefined]]);
});

test("a watch on files says that something may have been missed", async () => {
  const begun = { change: FileChange.UNSPECIFIED, path: "/w" };
  const made = (path: string) => ({ change: FileChange.CREATED, path });
  const watchFiles = played([begun, made("/w/a"), broken()], [begun, begun, made("/w/b")]);
  await inSandbox({ files: { watchFiles } }, async (box) => {
    const seen: [string, string][] = [];
    let ready = 0;
    for await (const { change, path } of box.files.watch("/w", { onReady: () => ready++ })) seen.push([change, path]);
    expect(seen).toEqual([["created", "/w/a"], ["overflow", "/w"], ["created", "/w/b"]]);
    expect(ready).toBe(1);
  });
});

test("figures go on", async () => {
  const stats = { stats: { time: timestampFromDate(CREATED), cpus: 1 } };
  await inSandbox({ monitor: { watchStats: played([stats, broken()], [stats]) } }, async (box) => {
    let seen = 0;
    for await (const { cpus } of box.watchStats()) seen += cpus;
    expect(seen).toBe(2);
  });
});

test("an archive that can be had again is sent anew; one that came in parts cannot be", async () => {
  const arrived: number[] = [];
  const uploadFolder = async (requests: AsyncIterable<{ part: { case?: string | undefined; value?: unknown } }>) => {
    let bytes = 0;
    for await (const { part } of requests) if (part.case === "data") bytes += (part.value as Uint8Array).length;
    arrived.push(bytes);
    if (arrived.length % 2 === 1) throw broken();
    return { entries: 1n, bytesWritten: BigInt(bytes) };
  };
  await inSandbox({ files: { uploadFolder } }, async (box) => {
    const archive = new Uint8Array(3 << 20);
    expect((await box.files.uploadFolder("/w", archive)).bytesWritten).toBe(3 << 20);
    expect(arrived).toEqual([3 << 20, 3 << 20]);
    async function* parts() {
      yield archive;
    }
    const failure = await box.files.uploadFolder("/w", parts()).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(SandboxConnectionError);
    expect(failure).toMatchObject({ reason: "UPLOAD_INCOMPLETE", resourceType: "file", resourceName: "/w" });
    expect(arrived.length).toBe(3);
    arrived.length = 0;
    expect((await box.files.uploadFolder("/w", parts)).bytesWritten).toBe(3 << 20);
    expect(arrived).toEqual([3 << 20, 3 << 20]);
  });
});

test("an archive that breaks on its way says that it is incomplete", async () => {
  const downloadFolder = played([{ data: new Uint8Array(5) }, broken()]);
  await inSandbox({ files: { downloadFolder } }, async (box) => {
    const parts = box.files.downloadFolder("/w");
    expect((await parts.next()).value?.length).toBe(5);
    const failure = await parts.next().catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(SandboxConnectionError);
    expect(failure).toMatchObject({ reason: "DOWNLOAD_INCOMPLETE", resourceName: "/w" });
  });
});
