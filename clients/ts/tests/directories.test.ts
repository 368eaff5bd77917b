/** Directories are packed and unpacked as tar archives; archives from sandboxes are not trusted. */
import { Code, ConnectError } from "@connectrpc/connect";
import { createTarPacker, type TarHeader } from "modern-tar";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Sandbox } from "../src/index.js";
import { type Services, sandbox, withServer } from "./server.js";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "sandpool-"));
});
afterEach(() => rm(directory, { recursive: true }));

async function inSandbox(files: NonNullable<Services["files"]>, use: (box: Sandbox) => Promise<void>): Promise<void> {
  const sandboxes = { getSandbox: () => ({ sandbox: sandbox() }) };
  await withServer({ files, sandboxes }, async (client) => use(await client.getSandbox("s")));
}

/** Returns an archive with these entries. */
async function archiveOf(...headers: (TarHeader & { readonly body?: string })[]): Promise<Uint8Array> {
  const { readable, controller } = createTarPacker();
  const written = (async () => {
    for (const { body = "", ...header } of headers) {
      const entry = controller.add({ ...header, size: body.length }).getWriter();
      if (body !== "") await entry.write(new TextEncoder().encode(body));
      await entry.close();
    }
    controller.finalize();
  })();
  const parts: Uint8Array[] = [];
  for await (const part of readable as unknown as AsyncIterable<Uint8Array>) parts.push(part);
  await written;
  return Buffer.concat(parts);
}

/** Keeps uploaded archives and serves the last one; the first calls break after their first part. */
class Archives {
  readonly uploaded: Uint8Array[] = [];
  #breaks: number;

  constructor(breaks = 0) {
    this.#breaks = breaks;
  }

  uploadDirectory = async (requests: AsyncIterable<{ part: { case?: string | undefined; value?: unknown } }>) => {
    const parts: Uint8Array[] = [];
    for await (const { part } of requests) {
      if (part.case === "data") parts.push(part.value as Uint8Array);
      if (parts.length === 1 && this.#breaks-- > 0) throw new ConnectError("broken", Code.Unavailable);
    }
    this.uploaded.push(Buffer.concat(parts));
    return { entries: 4n, bytesWritten: 7n };
  };

  downloadDirectory = async function* (this: Archives) {
    const archive = this.uploaded.at(-1)!;
    yield { data: archive.subarray(0, 600) };
    if (this.#breaks-- > 0) throw new ConnectError("broken", Code.Unavailable);
    yield { data: archive.subarray(600) };
  }.bind(this);
}

describe("a directory", () => {
  test.each([0, 1])("is copied there and back with modes, times and links, over %i broken connections", async (breaks) => {
    const source = join(directory, "source");
    const time = new Date("2026-01-02T03:04:05Z");
    await mkdir(join(source, "sub"), { recursive: true });
    await writeFile(join(source, "run.sh"), "echo\n");
    await chmod(join(source, "run.sh"), 0o750);
    await utimes(join(source, "run.sh"), time, time);
    await writeFile(join(source, "sub", "b.txt"), "two\n");
    await symlink("run.sh", join(source, "link"));
    await inSandbox(new Archives(breaks), async (box) => {
      expect(await box.files.uploadDirectory(source, "/d")).toEqual({ entries: 4, bytesWritten: 7 });
    });
    const archives = new Archives();
    await inSandbox(archives, async (box) => void (await box.files.uploadDirectory(source, "/d")));
    const served = new Archives(breaks);
    served.uploaded.push(archives.uploaded[0]!);
    const copy = join(directory, "new", "copy");
    await inSandbox(served, async (box) => expect(await box.files.downloadDirectory("/d", copy)).toBe(4));
    expect((await readdir(copy)).toSorted()).toEqual(["link", "run.sh", "sub"]);
    expect(await readlink(join(copy, "link"))).toBe("run.sh");
    expect(await readFile(join(copy, "sub", "b.txt"), "utf8")).toBe("two\n");
    const { mode, mtime } = await stat(join(copy, "run.sh"));
    expect([mode & 0o777, mtime]).toEqual([0o750, time]);
  });

  test("that does not exist on this machine is an error", async () => {
    await inSandbox(new Archives(), async (box) => {
      const missing = box.files.uploadDirectory(join(directory, "none"), "/d");
      await expect(missing).rejects.toMatchObject({ code: "ENOENT" });
    });
  });
});

describe("an archive from a sandbox", () => {
  const outside: [string, TarHeader & { body?: string }][] = [
    ["a path that leads outside", { name: "../outside", size: 0, body: "x" }],
    ["a link that leads outside", { name: "link", type: "symlink", linkname: "../outside", size: 0 }],
    ["an absolute link", { name: "link", type: "symlink", linkname: "/etc/passwd", size: 0 }],
    ["a hard link that leads outside", { name: "hard", type: "link", linkname: "../outside", size: 0 }],
    ["a device", { name: "null", type: "character-device", size: 0 }],
  ];

  test.each(outside)("with %s is rejected", async (_name, entry) => {
    const archives = new Archives();
    archives.uploaded.push(await archiveOf(entry));
    const target = join(directory, "target");
    await inSandbox(archives, (box) => expect(box.files.downloadDirectory("/d", target)).rejects.toThrow());
    expect(existsSync(join(directory, "outside"))).toBe(false);
    expect(await readdir(target)).toEqual([]);
  });

  test("cannot write through a link", async () => {
    const archives = new Archives();
    const link: TarHeader = { name: "a", type: "symlink", linkname: "..", size: 0 };
    archives.uploaded.push(await archiveOf(link, { name: "a/outside", size: 0, body: "x" }));
    const target = join(directory, "target");
    await inSandbox(archives, (box) => expect(box.files.downloadDirectory("/d", target)).rejects.toThrow());
    expect(existsSync(join(directory, "outside"))).toBe(false);
  });
});
