/** Files of this machine on their way into a sandbox and out of one, over connections that break. */
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ErrorInfoSchema, ResourceInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { FileType } from "../src/gen/sandpool/v1/file_pb.js";
import type { WriteFileRequest, WriteFileTarget } from "../src/gen/sandpool/v1/file_service_pb.js";
import { ConflictError, PathNotFoundError, type Sandbox, SandboxConnectionError } from "../src/index.js";
import { CREATED, type Services, sandbox, withServer } from "./server.js";

const MIB = 1 << 20;
const broken = () => new ConnectError("broken", Code.Unavailable);
const noUpload = () =>
  new ConnectError("no such upload", Code.NotFound, undefined, [
    { desc: ErrorInfoSchema, value: { reason: "UPLOAD_NOT_FOUND" } },
    { desc: ResourceInfoSchema, value: { resourceType: "upload", resourceName: "u" } },
  ]);
const file = (size: number, etag = "e") => {
  const about = { path: "/f", name: "f", type: FileType.FILE, mode: 0o640, modifyTime: timestampFromDate(CREATED) };
  return { ...about, size: BigInt(size), etag };
};

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "sandpool-"));
});
afterEach(() => rm(directory, { recursive: true }));

async function inSandbox(files: NonNullable<Services["files"]>, use: (box: Sandbox) => Promise<void>): Promise<void> {
  const sandboxes = { getSandbox: () => ({ sandbox: sandbox() }) };
  await withServer({ files, sandboxes }, async (client) => use(await client.getSandbox("s")));
}

/** Creates a local file whose bytes differ from offset to offset. */
async function local(size: number): Promise<[string, Uint8Array]> {
  const path = join(directory, "local");
  const bytes = Uint8Array.from({ length: size }, (_, place) => (place * 7 + (place >> 11)) % 251);
  await writeFile(path, bytes);
  return [path, bytes];
}

/** Receives uploads as the server does; the first calls break at the given sizes, or at their end. */
class Uploads {
  readonly targets: WriteFileTarget[] = [];
  received: Uint8Array = new Uint8Array();
  readonly #breaks: (number | "end")[];

  constructor(...breaks: (number | "end")[]) {
    this.#breaks = breaks;
  }

  writeFile = async (requests: AsyncIterable<WriteFileRequest>) => {
    const end = this.#breaks.shift();
    for await (const { part } of requests) {
      if (part.case === "target") {
        this.targets.push(part.value);
        this.received = this.received.slice(0, Number(part.value.offset));
      } else if (part.case === "data") {
        this.received = Buffer.concat([this.received, part.value]);
        if (typeof end === "number" && this.received.length >= end) throw broken();
      }
    }
    if (end === "end") throw broken();
    return { file: file(this.received.length) };
  };

  getUpload = () => {
    if (this.received.length === Number(this.targets[0]?.size)) throw noUpload(); // the upload is finished
    return { receivedBytes: BigInt(this.received.length), path: "/f" };
  };
}

describe("upload", () => {
  test("continues at the first byte that has not arrived", async () => {
    const [path, bytes] = await local(5 * MIB);
    const uploads = new Uploads(MIB, 3 * MIB);
    const reported: number[] = [];
    await inSandbox(uploads, async (box) => {
      const onProgress = (sent: number, total: number) => reported.push(sent, total);
      const found = await box.files.upload(path, "/f", { mode: 0o755, owner: "root", onProgress });
      expect(found).toMatchObject({ path: "/f", size: 5 * MIB });
    });
    expect(uploads.targets.map(({ offset }) => Number(offset) / MIB)).toEqual([0, 2, 4]);
    const [first] = uploads.targets;
    expect(first).toMatchObject({ path: "/f", size: BigInt(5 * MIB), mode: 0o755, owner: "root" });
    expect(new Set(uploads.targets.map(({ uploadId }) => uploadId))).toEqual(new Set([first?.uploadId]));
    expect(Buffer.compare(uploads.received, bytes)).toBe(0);
    expect(reported.slice(-2)).toEqual([5 * MIB, 5 * MIB]);
  });

  test("starts again when it was finished and the response was lost", async () => {
    const [path, bytes] = await local(10);
    const uploads = new Uploads("end");
    await inSandbox(uploads, async (box) => void (await box.files.upload(path, "/f")));
    expect(uploads.targets.map(({ offset }) => offset)).toEqual([0n, 0n]);
    expect(Buffer.compare(uploads.received, bytes)).toBe(0);
  });

  test("ends when its signal is aborted, also between two connections", async () => {
    const [path] = await local(10);
    const stop = new AbortController();
    const getUpload = () => {
      stop.abort(new Error("enough"));
      throw noUpload();
    };
    await inSandbox({ writeFile: new Uploads("end", "end").writeFile, getUpload }, (box) =>
      expect(box.files.upload(path, "/f", { signal: stop.signal })).rejects.toThrow("enough"),
    );
  });

  test("rejects for a file that became shorter and for a missing file", async () => {
    const [path] = await local(5 * MIB);
    const writeFile = async (requests: AsyncIterable<WriteFileRequest>) => {
      for await (const { part } of requests) if (part.case === "target") await truncate(path, MIB);
      return { file: file(0) };
    };
    await inSandbox({ writeFile }, async (box) => {
      await expect(box.files.upload(path, "/f")).rejects.toThrow("became shorter");
      await expect(box.files.upload(join(directory, "none"), "/f")).rejects.toMatchObject({ code: "ENOENT" });
    });
  });
});

describe("write", () => {
  const content = "once";

  test.each(["append", "create"] as const)("%s is not repeated when it may have been done", async (writeMode) => {
    let calls = 0;
    const putFile = () => {
      calls += 1;
      throw broken();
    };
    await inSandbox({ putFile }, (box) =>
      expect(box.files.write("/f", content, { writeMode })).rejects.toThrow(SandboxConnectionError),
    );
    expect(calls).toBe(1);
  });

  test("replacing a file is repeated", async () => {
    let calls = 0;
    const putFile = () => {
      calls += 1;
      if (calls === 1) throw broken();
      return { file: file(content.length) };
    };
    await inSandbox({ putFile }, async (box) => expect((await box.files.write("/f", content)).size).toBe(4));
    expect(calls).toBe(2);
  });
});

describe("download", () => {
  /** Plays one script for each read: parts, and an error that breaks it. */
  const reads = (...scripts: (Uint8Array | ConnectError | string)[][]) =>
    async function* readFile({ offset }: { offset: bigint }) {
      const [etag = "", ...parts] = scripts.shift() ?? [];
      yield { part: { case: "file" as const, value: file(6, String(etag)) } };
      for (const part of parts) {
        if (part instanceof ConnectError) throw part;
        yield { part: { case: "data" as const, value: (part as Uint8Array).slice(Number(offset)) } };
      }
    };

  test("is complete and has its mode after a broken connection", async () => {
    const readFile_ = reads(["e", Uint8Array.of(1, 2, 3), broken()], ["e", Uint8Array.of(0, 0, 0, 4, 5, 6)]);
    const path = join(directory, "copy");
    const reported: [number, number][] = [];
    await inSandbox({ readFile: readFile_ }, async (box) => {
      const onProgress = (received: number, total: number) => reported.push([received, total]);
      expect(await box.files.download("/f", path, { onProgress })).toMatchObject({ path: "/f", size: 6, mode: 0o640 });
    });
    expect([...(await readFile(path))]).toEqual([1, 2, 3, 4, 5, 6]);
    expect((await stat(path)).mode & 0o111).toBe(0);
    expect(reported).toEqual([
      [3, 6],
      [6, 6],
    ]);
    expect(await readdir(directory)).toEqual(["copy"]);
  });

  test("keeps the existing file and leaves no other when it fails", async () => {
    const path = join(directory, "copy");
    await writeFile(path, "before");
    const changed = new ConnectError("changed", Code.Aborted, undefined, [
      { desc: ErrorInfoSchema, value: { reason: "FILE_CHANGED" } },
    ]);
    await inSandbox({ readFile: reads(["e", Uint8Array.of(1), broken()], ["e", changed]) }, (box) =>
      expect(box.files.download("/f", path)).rejects.toThrow(ConflictError),
    );
    expect(await readFile(path, "utf8")).toBe("before");
    expect(await readdir(directory)).toEqual(["copy"]);
  });
});

describe("calls that are repeated only when they are idempotent", () => {
  const missing = () =>
    new ConnectError("no such file", Code.NotFound, undefined, [
      { desc: ErrorInfoSchema, value: { reason: "FILE_NOT_FOUND" } },
      { desc: ResourceInfoSchema, value: { resourceType: "file", resourceName: "/a" } },
    ]);

  /** A method whose first responses are lost. */
  const losing = <T>(calls: string[], name: string, ...failures: ConnectError[]) =>
    (response: T) => () => {
      calls.push(name);
      const failure = failures.shift();
      if (failure !== undefined) throw failure;
      return response;
    };

  test("move and copy with overwrite, and remove with missingOk, are repeated", async () => {
    const calls: string[] = [];
    const services = {
      moveFile: losing<object>(calls, "move", broken())({ file: file(1) }),
      copyFile: losing<object>(calls, "copy", broken())({ file: file(1) }),
      removeFile: losing<object>(calls, "remove", broken())({}),
    };
    await inSandbox(services, async (box) => {
      await box.files.move("/a", "/f", { overwrite: true });
      await box.files.copy("/a", "/f", { overwrite: true });
      await box.files.remove("/f", { missingOk: true });
    });
    expect(calls).toEqual(["move", "move", "copy", "copy", "remove", "remove"]);
  });

  test("without them they are not repeated", async () => {
    const calls: string[] = [];
    const services = {
      moveFile: losing<object>(calls, "move", broken())({ file: file(1) }),
      copyFile: losing<object>(calls, "copy", broken())({ file: file(1) }),
      removeFile: losing<object>(calls, "remove", broken())({}),
    };
    await inSandbox(services, async (box) => {
      await expect(box.files.move("/a", "/f")).rejects.toThrow(SandboxConnectionError);
      await expect(box.files.copy("/a", "/f")).rejects.toThrow(SandboxConnectionError);
      await expect(box.files.remove("/f")).rejects.toThrow(SandboxConnectionError);
    });
    expect(calls).toEqual(["move", "copy", "remove"]);
  });

  test("a repeated move whose source does not exist returns the destination", async () => {
    const calls: string[] = [];
    const services = {
      moveFile: losing<object>(calls, "move", broken(), missing())({}),
      statFile: losing<object>(calls, "stat")({ file: file(1) }),
    };
    await inSandbox(services, async (box) => {
      expect((await box.files.move("/a", "/f", { overwrite: true })).path).toBe("/f");
    });
    expect(calls).toEqual(["move", "move", "stat"]);
    const first = { moveFile: losing<object>([], "move", missing())({}) };
    await inSandbox(first, (box) =>
      expect(box.files.move("/a", "/f", { overwrite: true })).rejects.toThrow(PathNotFoundError),
    );
  });
});
