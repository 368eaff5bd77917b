/** Files on their way, which go on after the connection has broken. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { ResourceNotFoundError, type SandpoolError } from "./core/errors.js";
import { type Inside, toFileInfo } from "./core/inside.js";
import { retryDelay, sleep } from "./core/retry.js";
import type { FileInfo as FileMessage } from "./gen/sandpool/v1/file_pb.js";
import type { WriteFileTargetSchema } from "./gen/sandpool/v1/file_service_pb.js";
import type { ReadOptions, TransferOptions } from "./inside-options.js";
import type { FileInfo } from "./inside-types.js";
import { type LocalFile, openFile, receiveFile } from "./platform/node.js";

/** How much of a file goes in one message: as much as a client may send that cannot stream, and more than the way takes. */
export const PART = 2 << 20;

/** Which file to write, and how. */
export type Target = MessageInitShape<typeof WriteFileTargetSchema> & { sandboxId: string; uploadId: string };

/**
 * What a file is, and then its bytes. A connection that breaks is taken up where it was; when the file was changed
 * meanwhile that is a `ResourceChangedError`.
 */
export async function* readParts(
  inside: Inside,
  file: { readonly sandboxId: string; readonly path: string },
  options: ReadOptions,
): AsyncGenerator<FileMessage | Uint8Array, void, undefined> {
  let offset = options.offset ?? 0;
  const end = options.length === undefined ? undefined : offset + options.length;
  let total = 0;
  let etag = "";
  const open = () => {
    const length = end === undefined ? undefined : BigInt(end - offset);
    const request = { ...file, offset: BigInt(offset), length, etag };
    return inside.stream((to) => inside.files.readFile(request, to), options.signal);
  };
  for await (const { part } of inside.follow(open, options.signal)) {
    if (part.case === "file") {
      if (etag === "") yield part.value;
      ({ etag } = part.value);
      total = Number(part.value.size);
    } else if (part.case === "data") {
      offset += part.value.length;
      options.onProgress?.(offset, total);
      yield part.value;
    }
  }
}

/** Receives a file into one of this machine, which appears when all has arrived. */
export async function download(
  inside: Inside,
  file: { readonly sandboxId: string; readonly path: string },
  localPath: string,
  options: TransferOptions,
): Promise<FileInfo> {
  const incoming = await receiveFile(localPath);
  try {
    let found: FileMessage | undefined;
    for await (const part of readParts(inside, file, options)) {
      if (part instanceof Uint8Array) await incoming.write(part);
      else found = part;
    }
    const info = toFileInfo(found);
    await incoming.finish(info.mode);
    return info;
  } finally {
    await incoming.drop();
  }
}

/** Sends a file of this machine, in one stream, and after a broken connection from the first byte that has not arrived. */
export async function upload(
  inside: Inside,
  target: Target,
  localPath: string,
  options: TransferOptions,
): Promise<FileInfo> {
  const source = await openFile(localPath);
  try {
    return await new Upload(inside, target, source, options).run();
  } finally {
    await source.close();
  }
}

/** One file on its way into a sandbox. */
class Upload {
  readonly #inside: Inside;
  readonly #target: Target;
  readonly #source: LocalFile;
  readonly #options: TransferOptions;
  /** Why the file could not be read, which the call tells only as its own failure. */
  #unreadable: Error | undefined;

  constructor(inside: Inside, target: Target, source: LocalFile, options: TransferOptions) {
    this.#inside = inside;
    this.#target = { ...target, size: BigInt(source.size) };
    this.#source = source;
    this.#options = options;
  }

  async run(): Promise<FileInfo> {
    let offset = 0;
    let broken = false;
    for (let retry = 0; ; retry++) {
      try {
        const arrived = broken ? await this.#arrived() : 0;
        if (arrived > offset) retry = 0;
        offset = arrived;
        return await this.#send(offset);
      } catch (error) {
        broken = true;
        const delay = retryDelay(error as SandpoolError, retry, "safe", this.#inside.patient);
        if (delay === null) throw error;
        await sleep(delay, this.#options.signal);
      }
    }
  }

  async #send(offset: number): Promise<FileInfo> {
    const invoke = (to: object) => this.#inside.files.writeFile(this.#messages(offset), to);
    try {
      return toFileInfo((await this.#inside.once(invoke, this.#options)).file);
    } catch (error) {
      throw this.#unreadable ?? error;
    }
  }

  async *#messages(offset: number) {
    yield { part: { case: "target" as const, value: { ...this.#target, offset: BigInt(offset) } } };
    let sent = offset;
    while (sent < this.#source.size) {
      const value = await this.#read(sent);
      sent += value.length;
      yield { part: { case: "data" as const, value } };
      this.#options.onProgress?.(sent, this.#source.size);
    }
  }

  async #read(offset: number): Promise<Uint8Array> {
    try {
      return await this.#source.read(offset, PART);
    } catch (error) {
      this.#unreadable = error as Error;
      throw error;
    }
  }

  /** How much of it is there; nothing where none of it has arrived, or it was finished and the answer lost. */
  async #arrived(): Promise<number> {
    const { sandboxId, uploadId } = this.#target;
    const invoke = (to: object) => this.#inside.files.getUpload({ sandboxId, uploadId }, to);
    try {
      return Number((await this.#inside.safe(invoke, { signal: this.#options.signal })).receivedBytes);
    } catch (error) {
      if (error instanceof ResourceNotFoundError && error.resourceType === "upload") return 0;
      throw error;
    }
  }
}
