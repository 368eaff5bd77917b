import type { CallOptions as ConnectOptions } from "@connectrpc/connect";
import { integer } from "./core/arguments.js";
import { bytesOf, joined, pieces } from "./core/bytes.js";
import { toFileEvent, toFileInfo } from "./core/convert-io.js";
import { fromWriteMode } from "./core/enums.js";
import { PathNotFoundError, SandboxConnectionError, type SandpoolError } from "./core/errors.js";
import { limited } from "./core/limits.js";
import { type PagedList, paged } from "./core/pages.js";
import { type Repeatable, Resumption, sleep } from "./core/retry.js";
import type { SandboxAccess } from "./core/sandbox-io.js";
import { WriteMode } from "./gen/sandpool/v1/file_service_pb.js";
import type { CallOptions, ListOptions } from "./options.js";
import { packDirectory, unpackDirectory } from "./platform/node.js";
import type * as options from "./sandbox-options.js";
import type { DirectoryUpload, FileEvent, FileInfo } from "./sandbox-types.js";
import { download, PART_BYTES, readParts, type Target, upload } from "./transfer.js";

/** The content of a file: text, bytes, or bytes in parts. */
export type Content = string | Uint8Array | AsyncIterable<Uint8Array>;

/** A tar archive: bytes, bytes in parts, or a function that returns the parts, for each attempt to send them. */
export type Archive = Uint8Array | AsyncIterable<Uint8Array> | (() => AsyncIterable<Uint8Array>);

/** The files of a sandbox. Paths are absolute. */
export class Files {
  readonly #access: SandboxAccess;

  /** @internal */
  constructor(access: SandboxAccess) {
    this.#access = access;
  }

  /** Reads a file, or a part of it. */
  async read(path: string, options: options.ReadOptions = {}): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for await (const part of this.stream(path, options)) parts.push(part);
    return joined(parts);
  }

  /**
   * Reads a file as text.
   *
   * @throws TypeError when the file is not UTF-8.
   */
  async readText(path: string, options: options.ReadOptions = {}): Promise<string> {
    return new TextDecoder("utf-8", { ignoreBOM: true, fatal: true }).decode(await this.read(path, options));
  }

  /**
   * Yields the parts of a file. When the connection breaks, it continues at the last byte received.
   *
   * @throws {@link ConflictError} when the connection broke and the file changed in the meantime.
   */
  async *stream(path: string, options: options.ReadOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const part of readParts(this.#access.io, this.#at(path), options)) {
      if (part instanceof Uint8Array) yield part;
    }
  }

  /**
   * Writes a file of any size. The write is atomic: the complete file appears under its path at once. Missing parent
   * directories are created.
   *
   * @throws {@link ResourceAlreadyExistsError} with `writeMode: "create"` when the file exists.
   */
  async write(path: string, content: Content, options: options.WriteOptions = {}): Promise<FileInfo> {
    const { io } = this.#access;
    const target = this.#target(path, options);
    const whole = typeof content === "string" ? bytesOf(content) : content;
    const total = whole instanceof Uint8Array ? whole.length : undefined;
    let offset = 0;
    const put = async (data: Uint8Array, more: boolean) => {
      const request = { target: { ...target, offset: BigInt(offset) }, data, more };
      const invoke = (to: ConnectOptions) => io.files.putFile(request, to);
      // The last part completes the file. Repeated, it would append again, or find that the file exists.
      const repeatable = more || target.writeMode === WriteMode.REPLACE;
      const response = await (repeatable ? io.safe(invoke, options) : io.once(invoke, options));
      offset += data.length;
      options.onProgress?.(offset, total);
      return response;
    };
    let last: Uint8Array = new Uint8Array();
    for await (const part of partsOf(whole)) {
      if (last.length > 0) await put(last, true);
      last = part;
    }
    return toFileInfo((await put(last, false)).file);
  }

  /**
   * Copies a file of this machine into the sandbox. The upload is atomic. When the connection breaks, it continues at the
   * first byte that has not arrived. Node only.
   */
  async upload(localPath: string, path: string, options: options.UploadOptions = {}): Promise<FileInfo> {
    return upload(this.#access.io, this.#target(path, options), localPath, options);
  }

  /**
   * Copies a file of the sandbox to this machine. The download is atomic. When the connection breaks, it continues at the
   * last byte received. Node only.
   *
   * @throws {@link ConflictError} when the connection broke and the file changed in the meantime.
   */
  async download(path: string, localPath: string, options: options.TransferOptions = {}): Promise<FileInfo> {
    return download(this.#access.io, this.#at(path), localPath, options);
  }

  /** Describes a path. */
  async stat(path: string, options: options.StatOptions = {}): Promise<FileInfo> {
    const { io } = this.#access;
    const request = { ...this.#at(path), followSymlinks: options.followSymlinks ?? false };
    return toFileInfo((await io.safe((to) => io.files.statFile(request, to), options)).file);
  }

  /** Returns whether a path exists. */
  async exists(path: string, call?: CallOptions): Promise<boolean> {
    try {
      await this.stat(path, call);
      return true;
    } catch (error) {
      if (error instanceof PathNotFoundError) return false;
      throw error;
    }
  }

  /** Lists the contents of a directory by name; with `depth`, those of its subdirectories too. */
  list(path: string, options: options.ListDirectoryOptions = {}): PagedList<FileInfo> {
    const depth = integer("depth", options.depth ?? 1);
    const read = async (page: object) => {
      const { io } = this.#access;
      const response = await io.safe((to) => io.files.listDirectory({ ...this.#at(path), depth, ...page }, to), options);
      return { items: response.files, next: response.nextPageToken };
    };
    return paged(options.pageSize, read, toFileInfo);
  }

  /** Lists the paths that match a pattern: an absolute path with `*`, `?`, `[a-z]`, `{a,b}` and `**`. */
  glob(pattern: string, options: ListOptions = {}): PagedList<FileInfo> {
    const read = async (page: object) => {
      const { io, sandboxId } = this.#access;
      const response = await io.safe((to) => io.files.globFiles({ sandboxId, pattern, ...page }, to), options);
      return { items: response.files, next: response.nextPageToken };
    };
    return paged(options.pageSize, read, toFileInfo);
  }

  /** Creates a directory and its missing parents. An existing directory is returned unchanged. */
  async mkdir(path: string, options: options.MakeDirectoryOptions = {}): Promise<FileInfo> {
    const { io } = this.#access;
    const request = { ...this.#at(path), mode: integer("mode", options.mode), owner: options.owner ?? "" };
    return toFileInfo((await io.safe((to) => io.files.makeDirectory(request, to), options)).file);
  }

  /**
   * Moves a file or a directory. With `overwrite` it is repeated when the response is lost.
   *
   * @throws {@link ResourceAlreadyExistsError} when the destination exists, without `overwrite`.
   */
  async move(source: string, destination: string, options: options.MoveOptions = {}): Promise<FileInfo> {
    const { io, sandboxId } = this.#access;
    const { overwrite = false } = options;
    const request = { sandboxId, source, destination, overwrite };
    let attempts = 0;
    const invoke = (to: ConnectOptions) => {
      attempts += 1;
      return io.files.moveFile(request, to);
    };
    try {
      return toFileInfo((await io.long(invoke, repetition(overwrite), options)).file);
    } catch (error) {
      const moved = attempts > 1 && error instanceof PathNotFoundError && error.resourceName === source;
      if (!moved) throw error;
      return this.stat(destination, options); // an earlier attempt moved it, and its response was lost
    }
  }

  /** Copies a file, or a directory with all of its contents. Errors and repetition: as {@link Files.move}. */
  async copy(source: string, destination: string, options: options.MoveOptions = {}): Promise<FileInfo> {
    const { io, sandboxId } = this.#access;
    const { overwrite = false } = options;
    const request = { sandboxId, source, destination, overwrite };
    const invoke = (to: ConnectOptions) => io.files.copyFile(request, to);
    return toFileInfo((await io.long(invoke, repetition(overwrite), options)).file);
  }

  /**
   * Removes a file or an empty directory; with `recursive`, a directory with all of its contents. Symbolic links are not
   * followed. With `missingOk` it is repeated when the response is lost.
   */
  async remove(path: string, options: options.RemoveOptions = {}): Promise<void> {
    const { io } = this.#access;
    const { recursive = false, missingOk = false } = options;
    const request = { ...this.#at(path), recursive, missingOk };
    await io.long((to) => io.files.removeFile(request, to), repetition(missingOk), options);
  }

  /**
   * Watches a directory or a file. The promise resolves when the watch has started; the iterator yields later changes. To
   * end the watch, leave the loop.
   *
   * When the connection breaks, the watch is resumed and yields the change `overflow`: changes may have been missed, so
   * list the directory again.
   *
   * @example
   * ```ts
   * for await (const { change, path } of await sandbox.files.watch("/srv")) console.log(change, path);
   * ```
   */
  async watch(
    path: string,
    options: options.WatchFilesOptions = {},
  ): Promise<AsyncGenerator<FileEvent, void, undefined>> {
    const { io } = this.#access;
    const request = { ...this.#at(path), recursive: options.recursive ?? false };
    const invoke = (to: ConnectOptions) => io.files.watchFiles(request, to);
    const connection = async function* (signal: AbortSignal | undefined, again: boolean) {
      let started = false;
      for await (const response of io.stream(invoke, { signal })) {
        if (again && !started) yield { change: "overflow", path } as const;
        started = true;
        yield toFileEvent(response);
      }
    };
    const open = (signal: AbortSignal | undefined) => io.resumed((again) => connection(signal, again), signal);
    const events = limited(`the watch on ${path}`, options, open);
    const first = await events.next(); // the first response confirms that the watch has started
    return changes(first.done ? null : first.value, events);
  }

  /**
   * Copies the contents of a directory of this machine into a directory of the sandbox, which is created if it does not
   * exist. Modes and times are preserved; symbolic links stay links. Node only.
   *
   * When the connection breaks, the directory is sent again, which overwrites the files that arrived.
   *
   * @throws {@link SandboxConnectionError} with the reason `UPLOAD_INCOMPLETE` when it broke each time. Files that arrived
   * remain.
   */
  async uploadDirectory(
    localPath: string,
    path: string,
    options: options.UploadDirectoryOptions = {},
  ): Promise<DirectoryUpload> {
    return this.uploadArchive(() => packDirectory(localPath), path, options);
  }

  /**
   * Copies the contents of a directory of the sandbox into a directory of this machine, which is created if it does not
   * exist. Returns the number of entries. Node only.
   *
   * The directory is unpacked when all of it has arrived. When the connection breaks, it is read again. An entry that
   * would lie or lead outside of the directory is rejected with an error.
   */
  async downloadDirectory(path: string, localPath: string, call: CallOptions = {}): Promise<number> {
    const resumption = new Resumption(this.#access.io.retry);
    const parts = () => this.downloadArchive(path, call);
    for (;;) {
      try {
        return await unpackDirectory(parts, localPath, () => resumption.begin());
      } catch (error) {
        const delay = resumption.delay(error as SandpoolError);
        if (delay === null) throw error;
        await sleep(delay, call.signal);
      }
    }
  }

  /**
   * Extracts a tar archive into a directory of the sandbox, which is created if it does not exist. Needs a transport that
   * can stream requests, as that of Node can. When the connection breaks, an archive that is given as bytes or as a
   * function is sent again.
   *
   * @throws {@link SandboxConnectionError} with the reason `UPLOAD_INCOMPLETE` when it broke each time, or once for an
   * archive that is given in parts. Files that arrived remain.
   */
  async uploadArchive(
    archive: Archive,
    path: string,
    options: options.UploadDirectoryOptions = {},
  ): Promise<DirectoryUpload> {
    const { io } = this.#access;
    const target = { ...this.#at(path), owner: options.owner ?? "" };
    const again = archive instanceof Uint8Array || typeof archive === "function";
    const resumption = new Resumption(io.retry);
    let unreadable: unknown;
    async function* content() {
      try {
        yield* partsOf(typeof archive === "function" ? archive() : archive);
      } catch (error) {
        unreadable = error; // the call reports it only as a cancellation
        throw error;
      }
    }
    async function* requests() {
      yield { part: { case: "target" as const, value: target } };
      for await (const part of content()) {
        resumption.begin(); // the transport asked for data: there is a connection
        yield { part: { case: "data" as const, value: part } };
      }
    }
    for (;;) {
      try {
        const response = await io.long((to) => io.files.uploadDirectory(requests(), to), "unsent", options);
        return { entries: Number(response.entries), bytesWritten: Number(response.bytesWritten) };
      } catch (error) {
        if (unreadable !== undefined) throw unreadable;
        const delay = again ? resumption.delay(error as SandpoolError) : null;
        if (delay === null) {
          const message = `the connection broke while a directory was sent: a part of it may be in ${path}; send it again`;
          throw incomplete(error, "UPLOAD_INCOMPLETE", path, message);
        }
        await sleep(delay, options.signal);
      }
    }
  }

  /**
   * Yields a directory of the sandbox as a tar archive, in parts.
   *
   * @throws {@link SandboxConnectionError} with the reason `DOWNLOAD_INCOMPLETE` when the connection broke after the first
   * part: an archive cannot be continued, because the directory may have changed. Read it again.
   */
  async *downloadArchive(path: string, call: CallOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const { io } = this.#access;
    const invoke = (to: ConnectOptions) => io.files.downloadDirectory(this.#at(path), to);
    let failure: unknown;
    const open = async function* () {
      let arrived = false;
      try {
        for await (const { data } of io.stream(invoke, call)) {
          arrived = true;
          yield data;
        }
      } catch (error) {
        if (!arrived) throw error;
        failure = error; // ends the attempts
      }
    };
    yield* io.resumed(open, call.signal);
    if (failure === undefined) return;
    const message = `the connection broke while ${path} was read; read it again`;
    throw incomplete(failure, "DOWNLOAD_INCOMPLETE", path, message);
  }

  /** The target of one upload to a path. */
  #target(path: string, options: options.UploadOptions | options.WriteOptions): Target {
    const { mode, owner = "", writeMode = "replace" } = options;
    return {
      ...this.#at(path),
      mode: integer("mode", mode),
      owner,
      writeMode: fromWriteMode("writeMode", writeMode),
      uploadId: crypto.randomUUID(),
    };
  }

  #at(path: string): { sandboxId: string; path: string } {
    return { sandboxId: this.#access.sandboxId, path };
  }
}

function repetition(isIdempotent: boolean): Repeatable {
  return isIdempotent ? "safe" : "unsent";
}

async function* changes(
  first: FileEvent | null,
  events: AsyncGenerator<FileEvent | null, void, undefined>,
): AsyncGenerator<FileEvent, void, undefined> {
  if (first !== null) yield first;
  for await (const event of events) if (event !== null) yield event;
}

/** Yields content in parts that fit into a request. */
async function* partsOf(content: Uint8Array | AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const piece of content instanceof Uint8Array ? [content] : content) yield* pieces(piece, PART_BYTES);
}

/** Returns the error for a directory whose transfer broke; returns any other error unchanged. */
function incomplete(error: unknown, reason: string, resourceName: string, message: string): unknown {
  if (!(error instanceof SandboxConnectionError)) return error;
  const { retryAfterMs } = error;
  const details = { reason, resourceType: "file", resourceName, retryAfterMs: retryAfterMs ?? undefined, cause: error };
  return new SandboxConnectionError(`${message} (${error.message})`, { code: error.code ?? undefined, ...details });
}
