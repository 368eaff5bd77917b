import type { CallOptions as ConnectOptions } from "@connectrpc/connect";
import { bytesOf, joined, pieces } from "./core/bytes.js";
import { PathNotFoundError, SandboxConnectionError } from "./core/errors.js";
import { type Inside, toFileChange, toFileInfo } from "./core/inside.js";
import { allPages, PAGE_SIZE } from "./core/pages.js";
import { WriteMode } from "./gen/sandpool/v1/file_service_pb.js";
import type { FileOptions, ReadOptions, TransferOptions, UploadOptions, WriteOptions } from "./inside-options.js";
import type { FileChange, FileInfo } from "./inside-types.js";
import { download, PART, readParts, type Target, upload } from "./transfer.js";

const WRITE_MODES = { replace: WriteMode.REPLACE, create: WriteMode.CREATE, append: WriteMode.APPEND } as const;

/** What can be written: text, bytes, or parts of bytes as they come. */
export type Content = string | Uint8Array | AsyncIterable<Uint8Array>;

/** A tar archive: its bytes, parts of them as they come, or what makes those parts, each time that they are needed. */
export type Archive = Uint8Array | AsyncIterable<Uint8Array> | (() => AsyncIterable<Uint8Array>);

/** The files of one sandbox. Paths are absolute. */
export class Files {
  readonly #inside: Inside;
  readonly #sandboxId: string;

  /** @internal */
  constructor(inside: Inside, sandboxId: string) {
    this.#inside = inside;
    this.#sandboxId = sandboxId;
  }

  /** Reads a file, whole or the given part. */
  async read(path: string, call: ReadOptions = {}): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for await (const part of this.stream(path, call)) parts.push(part);
    return joined(parts);
  }

  /** Reads a whole file as text. */
  async readText(path: string, call: ReadOptions = {}): Promise<string> {
    return new TextDecoder().decode(await this.read(path, call));
  }

  /**
   * A file in parts, whole or from `offset` on `length` bytes. A connection that breaks is taken up where it was; when the
   * file was changed meanwhile that is a `ResourceChangedError`.
   */
  async *stream(path: string, options: ReadOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const part of readParts(this.#inside, this.#at(path), options)) {
      if (part instanceof Uint8Array) yield part;
    }
  }

  /**
   * Writes a file of any size, in parts that are each safe to repeat; it appears at its path whole and at once, with
   * its parent folders.
   */
  async write(path: string, content: Content, options: WriteOptions = {}): Promise<FileInfo> {
    const writeMode = WRITE_MODES[options.writeMode ?? "replace"];
    const target = { ...this.#target(path, options), writeMode };
    const whole = typeof content === "string" ? bytesOf(content) : content;
    const total = whole instanceof Uint8Array ? whole.length : undefined;
    let offset = 0;
    const put = async (data: Uint8Array, more: boolean) => {
      const request = { target: { ...target, offset: BigInt(offset) }, data, more };
      const invoke = (to: ConnectOptions) => this.#inside.files.putFile(request, to);
      // The last part finishes the file: once more it would append it anew, or find that it is there.
      const repeatable = more || writeMode === WriteMode.REPLACE;
      const answer = await (repeatable ? this.#inside.safe(invoke, options) : this.#inside.once(invoke, options));
      offset += data.length;
      options.onProgress?.(offset, total);
      return answer;
    };
    let last: Uint8Array = new Uint8Array();
    for await (const part of parts(whole)) {
      if (last.length > 0) await put(last, true);
      last = part;
    }
    return toFileInfo((await put(last, false)).file);
  }

  /**
   * Copies a file of this machine into the sandbox, in one stream; it appears whole and at once. A connection that breaks
   * is taken up at the first byte that has not arrived. Node only.
   */
  upload(localPath: string, path: string, options: UploadOptions = {}): Promise<FileInfo> {
    return upload(this.#inside, this.#target(path, options), localPath, options);
  }

  /**
   * Copies a file of the sandbox to this machine, where it appears when all has arrived. A connection that breaks is taken
   * up where it was; when the file was changed meanwhile that is a `ResourceChangedError`. Node only.
   */
  download(path: string, localPath: string, options: TransferOptions = {}): Promise<FileInfo> {
    return download(this.#inside, this.#at(path), localPath, options);
  }

  /** Tells what a path names; of a symbolic link, with `follow`, what it leads to. */
  async stat(path: string, options: { readonly follow?: boolean } = {}): Promise<FileInfo> {
    const request = { ...this.#at(path), follow: options.follow ?? false };
    return toFileInfo((await this.#inside.safe((to) => this.#inside.files.statFile(request, to))).file);
  }

  /** Whether there is anything at this path. */
  async exists(path: string): Promise<boolean> {
    try {
      await this.stat(path);
      return true;
    } catch (error) {
      if (error instanceof PathNotFoundError) return false;
      throw error;
    }
  }

  /** What is in a folder, and with a `depth` of more than 1 in its folders. */
  async list(path: string, options: { readonly depth?: number } = {}): Promise<FileInfo[]> {
    const pages = allPages(async (pageToken) => {
      const request = { ...this.#at(path), depth: options.depth ?? 1, pageToken, pageSize: PAGE_SIZE };
      const answer = await this.#inside.safe((to) => this.#inside.files.listDirectory(request, to));
      return { items: answer.files, next: answer.nextPageToken };
    });
    return (await pages).map(toFileInfo);
  }

  /** Makes a folder, and its parents. */
  async mkdir(path: string, options: { readonly mode?: number; readonly owner?: string } = {}): Promise<FileInfo> {
    const request = { ...this.#at(path), mode: options.mode, owner: options.owner ?? "" };
    return toFileInfo((await this.#inside.safe((to) => this.#inside.files.makeDirectory(request, to))).file);
  }

  /** Moves a file or folder. It is never sent twice: a second one would find nothing to move. */
  async move(source: string, destination: string, options: { readonly overwrite?: boolean } = {}): Promise<FileInfo> {
    const request = { sandboxId: this.#sandboxId, source, destination, overwrite: options.overwrite ?? false };
    return toFileInfo((await this.#inside.once((to) => this.#inside.files.moveFile(request, to))).file);
  }

  /** Copies a file, or a folder with all that is in it. It is never sent twice. */
  async copy(source: string, destination: string, options: { readonly overwrite?: boolean } = {}): Promise<FileInfo> {
    const request = { sandboxId: this.#sandboxId, source, destination, overwrite: options.overwrite ?? false };
    return toFileInfo((await this.#inside.once((to) => this.#inside.files.copyFile(request, to))).file);
  }

  /** Removes a file, or with `recursive` a folder with all that is in it. It is never sent twice. */
  async remove(
    path: string,
    options: { readonly recursive?: boolean; readonly missingOk?: boolean } = {},
  ): Promise<void> {
    const { recursive = false, missingOk = false } = options;
    await this.#inside.once((to) => this.#inside.files.removeFile({ ...this.#at(path), recursive, missingOk }, to));
  }

  /** What matches a pattern: an absolute path with `*`, `?`, `[a-z]`, `{a,b}` and `**`. */
  async glob(pattern: string): Promise<FileInfo[]> {
    const pages = allPages(async (pageToken) => {
      const request = { sandboxId: this.#sandboxId, pattern, pageToken, pageSize: PAGE_SIZE };
      const answer = await this.#inside.safe((to) => this.#inside.files.globFiles(request, to));
      return { items: answer.files, next: answer.nextPageToken };
    });
    return (await pages).map(toFileInfo);
  }

  /**
   * What changes in a folder, or of a file, from now on. Leaving the loop ends the watch. After a connection that broke it
   * goes on with a change `overflow`: something may have happened meanwhile, so look at the folder again.
   */
  async *watch(
    path: string,
    options: { readonly recursive?: boolean; readonly signal?: AbortSignal; readonly onReady?: () => void } = {},
  ): AsyncGenerator<FileChange, void, undefined> {
    const request = { ...this.#at(path), recursive: options.recursive ?? false };
    const watching = (to: ConnectOptions) => this.#inside.files.watchFiles(request, to);
    const { signal } = options;
    const changesOf = async function* (inside: Inside, again: boolean): AsyncGenerator<FileChange | null> {
      let begun = false;
      for await (const answer of inside.stream(watching, signal)) {
        if (again && !begun) yield { change: "overflow", path };
        begun = true;
        yield toFileChange(answer.change, answer.path);
      }
    };
    let ready = false;
    for await (const change of this.#inside.follow((again) => changesOf(this.#inside, again), signal)) {
      if (change !== null) yield change;
      else if (!ready) {
        ready = true;
        options.onReady?.();
      }
    }
  }

  /**
   * A folder as a tar archive, in parts.
   *
   * @throws {@link SandboxConnectionError} with the reason `DOWNLOAD_INCOMPLETE` where the connection broke: an archive
   * cannot be taken up, because the folder may have changed. Read it anew.
   */
  async *downloadFolder(path: string, options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<Uint8Array, void> {
    const request = this.#at(path);
    const answers = this.#inside.stream((to) => this.#inside.files.downloadFolder(request, to), options.signal);
    try {
      for await (const { data } of answers) yield data;
    } catch (error) {
      throw incomplete(error, "DOWNLOAD_INCOMPLETE", path, `the connection broke while ${path} was read; read it anew`);
    }
  }

  /**
   * Writes a tar archive's content into a folder. Needs a transport that can stream requests, as Node's can. Where the
   * connection breaks an archive that is given whole, or as a function that makes its parts, is sent anew, which replaces
   * what was written before.
   *
   * @throws {@link SandboxConnectionError} with the reason `UPLOAD_INCOMPLETE` where it broke too often, or the archive
   * came in parts, which cannot be had again. What was written stays.
   */
  async uploadFolder(
    path: string,
    archive: Archive,
    options: { readonly owner?: string; readonly signal?: AbortSignal } = {},
  ): Promise<{ readonly entries: number; readonly bytesWritten: number }> {
    const target = { ...this.#at(path), owner: options.owner ?? "" };
    async function* requests() {
      yield { part: { case: "target" as const, value: target } };
      const content = typeof archive === "function" ? archive() : archive;
      for await (const part of parts(content)) yield { part: { case: "data" as const, value: part } };
    }
    const repeatable = archive instanceof Uint8Array || typeof archive === "function" ? "safe" : "unsent";
    try {
      const invoke = (to: ConnectOptions) => this.#inside.files.uploadFolder(requests(), to);
      const answer = await this.#inside.long(invoke, repeatable, options);
      return { entries: Number(answer.entries), bytesWritten: Number(answer.bytesWritten) };
    } catch (error) {
      const message = `the connection broke while a folder was sent: a part of it may be in ${path}; send it again`;
      throw incomplete(error, "UPLOAD_INCOMPLETE", path, message);
    }
  }

  /** An upload of its own to this path. */
  #target(path: string, { mode, owner = "" }: FileOptions): Target {
    return { ...this.#at(path), mode, owner, uploadId: crypto.randomUUID() };
  }

  #at(path: string): { sandboxId: string; path: string } {
    return { sandboxId: this.#sandboxId, path };
  }
}

/** Content in parts that fit into a message. */
async function* parts(content: Uint8Array | AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const piece of content instanceof Uint8Array ? [content] : content) {
    yield* pieces(piece, PART);
  }
}

/** The error for a folder that broke on its way; any other error as it is. */
function incomplete(error: unknown, reason: string, resourceName: string, message: string): unknown {
  if (!(error instanceof SandboxConnectionError)) return error;
  const { code, retryAfterMs } = error;
  const details = { code, reason, resourceType: "file", resourceName, retryAfterMs: retryAfterMs ?? undefined, cause: error };
  return new SandboxConnectionError(`${message} (${error.message})`, details);
}
