/** Transfers of files, which continue after a broken connection. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { bytes } from "./core/arguments.js";
import { toFileInfo } from "./core/convert-io.js";
import { ResourceNotFoundError, type SandpoolError } from "./core/errors.js";
import { Resumption, sleep } from "./core/retry.js";
import type { SandboxIo } from "./core/sandbox-io.js";
import type { FileInfo as FileMessage } from "./gen/sandpool/v1/file_pb.js";
import { WriteMode, type WriteFileTargetSchema } from "./gen/sandpool/v1/file_service_pb.js";
import { type LocalFile, openFile, receiveFile } from "./platform/node.js";
import type { ReadOptions, TransferOptions } from "./sandbox-options.js";
import type { FileInfo } from "./sandbox-types.js";

/** The largest part of a file in one request. */
export const PART_BYTES = 2 << 20;

/** The file to write. */
export type Target = MessageInitShape<typeof WriteFileTargetSchema> & { sandboxId: string; uploadId: string };

/** Yields the description of a file and then its bytes. When the connection breaks, it continues in the same content. */
export async function* readParts(
  io: SandboxIo,
  file: { readonly sandboxId: string; readonly path: string },
  options: ReadOptions,
): AsyncGenerator<FileMessage | Uint8Array, void, undefined> {
  let offset = bytes("offset", options.offset ?? 0);
  const length = bytes("length", options.length);
  const end = length === undefined ? undefined : offset + length;
  let total = 0;
  let etag = "";
  const open = () => {
    const request = { ...file, offset, length: end === undefined ? undefined : end - offset, etag };
    return io.stream((to) => io.files.readFile(request, to), options);
  };
  for await (const { part } of io.resumed(open, options.signal)) {
    if (part.case === "file") {
      if (etag === "") yield part.value;
      ({ etag } = part.value);
      total = Number(part.value.size);
    } else if (part.case === "data") {
      offset += BigInt(part.value.length);
      options.onProgress?.(Number(offset), total);
      yield part.value;
    }
  }
}

/** Receives a file into a file of this machine, which appears when all of it has arrived. */
export async function download(
  io: SandboxIo,
  file: { readonly sandboxId: string; readonly path: string },
  localPath: string,
  options: TransferOptions,
): Promise<FileInfo> {
  const incoming = await receiveFile(localPath);
  try {
    let found: FileMessage | undefined;
    for await (const part of readParts(io, file, options)) {
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

/** Sends a file of this machine; after a broken connection from the first byte that has not arrived. */
export async function upload(
  io: SandboxIo,
  target: Target,
  localPath: string,
  options: TransferOptions,
): Promise<FileInfo> {
  const source = await openFile(localPath);
  try {
    return await new Upload(io, target, source, options).run();
  } finally {
    await source.close();
  }
}

/** The upload of one file. */
class Upload {
  readonly #io: SandboxIo;
  readonly #target: Target;
  readonly #source: LocalFile;
  readonly #options: TransferOptions;
  #sent = 0;
  /** The failure to read the file, which the call reports only as a cancellation. */
  #unreadable: Error | undefined;

  constructor(io: SandboxIo, target: Target, source: LocalFile, options: TransferOptions) {
    this.#io = io;
    this.#target = { ...target, size: BigInt(source.size) };
    this.#source = source;
    this.#options = options;
  }

  async run(): Promise<FileInfo> {
    const resumption = new Resumption(this.#io.retry);
    let offset = 0;
    for (let broken = false; ; broken = true) {
      try {
        const arrived = broken ? await this.#arrived() : 0;
        if (arrived > offset) resumption.arrived();
        offset = arrived;
        return await this.#send(offset);
      } catch (error) {
        if (this.#sent > 0) resumption.begin();
        const complete = this.#sent === this.#source.size; // it may be finished, and the response lost
        const repeatable = !complete || this.#target.writeMode === WriteMode.REPLACE;
        const delay = repeatable ? resumption.delay(error as SandpoolError) : null;
        if (delay === null) throw error;
        await sleep(delay, this.#options.signal);
      }
    }
  }

  async #send(offset: number): Promise<FileInfo> {
    const invoke = (to: object) => this.#io.files.writeFile(this.#messages(offset), to);
    try {
      return toFileInfo((await this.#io.long(invoke, "unsent", this.#options)).file);
    } catch (error) {
      throw this.#unreadable ?? error;
    }
  }

  async *#messages(offset: number) {
    yield { part: { case: "target" as const, value: { ...this.#target, offset: BigInt(offset) } } };
    this.#sent = offset;
    while (this.#sent < this.#source.size) {
      const value = await this.#read(this.#sent);
      this.#sent += value.length;
      yield { part: { case: "data" as const, value } };
      this.#options.onProgress?.(this.#sent, this.#source.size);
    }
  }

  async #read(offset: number): Promise<Uint8Array> {
    try {
      return await this.#source.read(offset, PART_BYTES);
    } catch (error) {
      this.#unreadable = error as Error;
      throw error;
    }
  }

  /** Returns the number of bytes that arrived: 0 when none did, or when the upload is finished and its response lost. */
  async #arrived(): Promise<number> {
    const { sandboxId, uploadId } = this.#target;
    const invoke = (to: object) => this.#io.files.getUpload({ sandboxId, uploadId }, to);
    try {
      return Number((await this.#io.safe(invoke, { signal: this.#options.signal })).receivedBytes);
    } catch (error) {
      if (error instanceof ResourceNotFoundError && error.resourceType === "upload") return 0;
      throw error;
    }
  }
}
