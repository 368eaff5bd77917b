import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { CommandHandle } from "./command.js";
import { type Inside, toLogEntry, toStats } from "./core/inside.js";
import { type Content, Files } from "./files.js";
import type {
  LogOptions,
  OutputOffsets,
  ProcessOptions,
  PtyOptions,
  ReadOptions,
  TransferOptions,
  UploadOptions,
  WriteOptions,
} from "./inside-options.js";
import type {
  DirectoryListing,
  ExposedPort,
  FileInfo,
  LogEntry,
  OutputChunk,
  Process,
  ProcessOutput,
  ProcessState,
  SandboxStats,
} from "./inside-types.js";
import type { CallOptions } from "./options.js";
import { type PortConnection, Ports, type Tunnel } from "./ports.js";
import { Processes, startRequest } from "./processes.js";
import { Pty, type PtyListeners, TERMINAL } from "./pty.js";

/**
 * What can be done inside a sandbox, each by one method of the sandbox itself, under the names that the Python client
 * has too. {@link Files}, {@link Processes} and {@link Ports} do more. A `process` is an identifier or a service's name.
 */
export abstract class InsideMethods {
  readonly #inside: Inside;
  readonly #files: Files;
  readonly #processes: Processes;
  readonly #ports: Ports;
  readonly #id: string;

  /** @internal */
  constructor(inside: Inside, sandboxId: string) {
    this.#inside = inside;
    this.#id = sandboxId;
    this.#files = new Files(inside, sandboxId);
    this.#processes = new Processes(inside, sandboxId);
    this.#ports = new Ports(inside, sandboxId);
  }

  /** Its files. */
  get files(): Files {
    return this.#files;
  }

  /** Its processes and services. */
  get processes(): Processes {
    return this.#processes;
  }

  /** Its ports. */
  get ports(): Ports {
    return this.#ports;
  }

  // --- processes -----------------------------------------------------------------------------------------------------

  /** See {@link Processes.start}. */
  startProcess(command: string | readonly string[], process?: ProcessOptions, call?: CallOptions): Promise<Process> {
    return this.#processes.start(command, process, call);
  }

  /** See {@link Processes.list}. */
  listProcesses(which?: { readonly states?: readonly ProcessState[] }, call?: CallOptions): Promise<Process[]> {
    return this.#processes.list(which, call);
  }

  /** See {@link Processes.get}. */
  getProcess(process: string, call?: CallOptions): Promise<Process> {
    return this.#processes.get(process, call);
  }

  /** Kills a process and all that it started; resolves when they are gone. */
  async killProcess(process: string, call?: CallOptions): Promise<void> {
    await this.#processes.kill(process, call);
  }

  /** See {@link Processes.restart}. */
  restartProcess(service: string, call?: CallOptions): Promise<Process> {
    return this.#processes.restart(service, call);
  }

  /** See {@link Processes.signal}. */
  sendSignal(process: string, signal = 15, options?: { readonly tree?: boolean }): Promise<void> {
    return this.#processes.signal(process, signal, options);
  }

  /** See {@link Processes.write}. */
  writeStdin(process: string, data: string | Uint8Array): Promise<void> {
    return this.#processes.write(process, data);
  }

  /** See {@link Processes.closeInput}. */
  closeStdin(process: string): Promise<void> {
    return this.#processes.closeInput(process);
  }

  /** See {@link Processes.output}. */
  getOutput(process: string): Promise<ProcessOutput> {
    return this.#processes.output(process);
  }

  /** The same for standard output alone. */
  async getStdout(process: string): Promise<ProcessOutput> {
    return { ...(await this.#processes.output(process)), stderr: "", stderrBytes: new Uint8Array() };
  }

  /** The same for standard error alone. */
  async getStderr(process: string): Promise<ProcessOutput> {
    return { ...(await this.#processes.output(process)), stdout: "", stdoutBytes: new Uint8Array() };
  }

  /** See {@link Processes.follow}. */
  followOutput(
    process: string,
    from?: OutputOffsets & { readonly signal?: AbortSignal },
  ): AsyncGenerator<OutputChunk, void, undefined> {
    return this.#processes.follow(process, from);
  }

  /** What a process prints to its standard output: see {@link InsideMethods.followOutput}. */
  async *followStdout(process: string, offset = 0): AsyncGenerator<OutputChunk, void, undefined> {
    for await (const chunk of this.followOutput(process, { stdoutOffset: offset })) {
      if (chunk.stream === "stdout") yield chunk;
    }
  }

  /** What a process prints to its standard error: see {@link InsideMethods.followOutput}. */
  async *followStderr(process: string, offset = 0): AsyncGenerator<OutputChunk, void, undefined> {
    for await (const chunk of this.followOutput(process, { stderrOffset: offset })) {
      if (chunk.stream === "stderr") yield chunk;
    }
  }

  // --- terminals -----------------------------------------------------------------------------------------------------

  /** Starts a program on a terminal, by default a shell. */
  async createPty(options: PtyOptions = {}): Promise<Pty> {
    const { command = ["/bin/sh"], args, rows = TERMINAL.rows, cols = TERMINAL.cols, env, timeout } = options;
    const request = startRequest(this.#id, command, {
      args,
      env: { TERM: "xterm-256color", ...env },
      cwd: options.cwd,
      workingDir: options.workingDir,
      user: options.user,
      terminal: { rows, cols },
      timeout,
      idleTimeout: options.idleTimeout,
    });
    const { process } = await this.#inside.safe((to) => this.#inside.processes.startProcess(request, to));
    const left = new AbortController();
    const about = { sandboxId: this.#id, commandId: request.processId, pid: process?.pid || null };
    return new Pty(new CommandHandle(this.#inside, about, {}, left.signal), left, options);
  }

  /** Follows a program on a terminal that was started before, from this byte on; -1: from now on. */
  async connectPty(sessionId: string, options: PtyListeners & { readonly offset?: number } = {}): Promise<Pty> {
    const left = new AbortController();
    const from = { stdoutOffset: options.offset ?? 0, signal: left.signal };
    return new Pty(await this.#processes.attach(sessionId, from), left, options);
  }

  // --- files ---------------------------------------------------------------------------------------------------------

  /** Reads a whole file. */
  read(path: string, options?: ReadOptions): Promise<Uint8Array> {
    return this.#files.read(path, options);
  }

  /** The same as {@link InsideMethods.read}. */
  readFile(path: string, options?: ReadOptions): Promise<Uint8Array> {
    return this.#files.read(path, options);
  }

  /** Writes a file of any size; it appears whole and at once. */
  write(path: string, content: Content, options?: WriteOptions): Promise<FileInfo> {
    return this.#files.write(path, content, options);
  }

  /** The same as {@link InsideMethods.write}. */
  writeFile(path: string, content: Content, options?: WriteOptions): Promise<FileInfo> {
    return this.#files.write(path, content, options);
  }

  /** See {@link Files.upload}. Node only. */
  uploadFile(localPath: string, path: string, options?: UploadOptions): Promise<FileInfo> {
    return this.#files.upload(localPath, path, options);
  }

  /** See {@link Files.download}. Node only. */
  downloadFile(path: string, localPath: string, options?: TransferOptions): Promise<FileInfo> {
    return this.#files.download(path, localPath, options);
  }

  /** Removes a file or an empty folder; {@link Files.remove} does more. */
  deleteFile(path: string): Promise<void> {
    return this.#files.remove(path);
  }

  /** What is in a folder, by name. */
  async listDirectory(path: string): Promise<DirectoryListing> {
    return { path, entries: await this.#files.list(path) };
  }

  // --- ports ---------------------------------------------------------------------------------------------------------

  /** A listener on this machine's loopback address whose connections lead to a port of the sandbox. Node only. */
  tunnel(remotePort: number, options?: { readonly localPort?: number }): Promise<Tunnel> {
    return this.#ports.tunnel(remotePort, options);
  }

  /** The same as {@link InsideMethods.tunnel}. */
  createTunnel(remotePort: number, options?: { readonly localPort?: number }): Promise<Tunnel> {
    return this.#ports.tunnel(remotePort, options);
  }

  /** See {@link Ports.connect}. */
  connectPort(port: number, options?: { readonly connectTimeout?: number }): Promise<PortConnection> {
    return this.#ports.connect(port, options);
  }

  /** Serves ports by HTTP, each under a URL of its own: see {@link Ports.expose}. */
  async exposePorts(ports: number | readonly number[], call?: CallOptions): Promise<ExposedPort[]> {
    const exposed: ExposedPort[] = [];
    for (const port of typeof ports === "number" ? [ports] : ports) exposed.push(await this.#ports.expose(port, call));
    return exposed;
  }

  /** Serves ports no longer. */
  async unexposePorts(ports: number | readonly number[], call?: CallOptions): Promise<void> {
    for (const port of typeof ports === "number" ? [ports] : ports) await this.#ports.unexpose(port, call);
  }

  /** The ports that are exposed, by number. */
  getPortAccess(call?: CallOptions): Promise<ExposedPort[]> {
    return this.#ports.list(call);
  }

  // --- logs and figures ----------------------------------------------------------------------------------------------

  /**
   * What the entrypoint and the services printed, line by line. A connection that breaks is taken up after the last line
   * that came; with `follow` it goes on until the sandbox ends.
   */
  async *logs(options: LogOptions = {}): AsyncGenerator<LogEntry, void, undefined> {
    const { follow = false, signal } = options;
    let afterSequence = BigInt(options.afterSequence ?? 0);
    const open = (again: boolean) => {
      const request = {
        sandboxId: this.#id,
        sources: [...(options.sources ?? [])],
        tail: again ? undefined : options.tail, // what comes after the last line that came is wanted whole
        since: options.since === undefined ? undefined : timestampFromDate(options.since),
        afterSequence,
        follow,
      };
      return this.#inside.stream((to) => this.#inside.monitor.readLogs(request, to), signal);
    };
    for await (const { entries } of this.#inside.follow(open, signal)) {
      afterSequence = entries.at(-1)?.sequence ?? afterSequence;
      yield* entries.map(toLogEntry);
    }
  }

  /** The lines that are there, as a list: {@link InsideMethods.logs} without following. */
  async getLogs(options: Omit<LogOptions, "follow"> = {}): Promise<LogEntry[]> {
    const entries: LogEntry[] = [];
    for await (const entry of this.logs(options)) entries.push(entry);
    return entries;
  }

  /** What the sandbox uses now. */
  async stats(call?: CallOptions): Promise<SandboxStats> {
    const request = { sandboxId: this.#id };
    return toStats((await this.#inside.safe((to) => this.#inside.monitor.getStats(request, to), call)).stats);
  }

  /** What the sandbox uses, every `interval` seconds (1 by default), over broken connections too. */
  async *watchStats(
    options: { readonly interval?: number; readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<SandboxStats, void, undefined> {
    const request = { sandboxId: this.#id, intervalSecs: options.interval };
    const open = () => this.#inside.stream((to) => this.#inside.monitor.watchStats(request, to), options.signal);
    for await (const { stats } of this.#inside.follow(open, options.signal)) yield toStats(stats);
  }
}
