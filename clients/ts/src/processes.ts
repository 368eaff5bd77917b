import { CommandHandle } from "./command.js";
import { type Inside, toProcess, toRestartPolicy } from "./core/inside.js";
import { allPages, PAGE_SIZE } from "./core/pages.js";
import { texts } from "./core/requests.js";
import type { CallOptions, HealthCheck, ProcessOptions } from "./options.js";
import type { Process } from "./types.js";

/** The processes of one sandbox that outlive the call that started them, and its services. */
export class Processes {
  readonly #inside: Inside;
  readonly #sandboxId: string;

  /** @internal */
  constructor(inside: Inside, sandboxId: string) {
    this.#inside = inside;
    this.#sandboxId = sandboxId;
  }

  /**
   * Starts a process, or a service where it has a `name`. A string goes to the shell of the container; an array is the
   * program and its arguments. With the `processId` of one that is there already nothing is started.
   */
  async start(command: string | readonly string[], process: ProcessOptions = {}, call?: CallOptions): Promise<Process> {
    const request = startRequest(this.#sandboxId, command, process);
    return toProcess((await this.#inside.safe((to) => this.#inside.processes.startProcess(request, to), call)).process);
  }

  /** Reads a process by its identifier, or a service by its name. */
  async get(process: string, call?: CallOptions): Promise<Process> {
    const request = this.#ref(process);
    return toProcess((await this.#inside.safe((to) => this.#inside.processes.getProcess(request, to), call)).process);
  }

  /** All processes, oldest first, those that ended a while ago included. */
  async list(call?: CallOptions): Promise<Process[]> {
    const pages = allPages(async (pageToken) => {
      const request = { sandboxId: this.#sandboxId, pageToken, pageSize: PAGE_SIZE };
      const answer = await this.#inside.safe((to) => this.#inside.processes.listProcesses(request, to), call);
      return { items: answer.processes, next: answer.nextPageToken };
    });
    return (await pages).map(toProcess);
  }

  /** A process's output from the given offsets on, and its end. */
  async attach(
    process: string,
    from: { readonly stdoutOffset?: number; readonly stderrOffset?: number; readonly signal?: AbortSignal } = {},
  ): Promise<CommandHandle> {
    const found = await this.get(process, { signal: from.signal });
    const about = { sandboxId: this.#sandboxId, commandId: found.processId, pid: found.pid };
    return new CommandHandle(this.#inside, about, from, from.signal);
  }

  /** Sends a signal, such as 15, to a process, or with `tree` to all that it started too. It is never sent twice. */
  async signal(process: string, signal: number, options: { readonly tree?: boolean } = {}): Promise<void> {
    const request = { ...this.#ref(process), signal, tree: options.tree ?? false };
    await this.#inside.once((to) => this.#inside.processes.signalProcess(request, to));
  }

  /** Kills a process and all that it started; resolves to it, ended. */
  async kill(process: string, call?: CallOptions): Promise<Process> {
    const request = this.#ref(process);
    return toProcess((await this.#inside.safe((to) => this.#inside.processes.killProcess(request, to), call)).process);
  }

  /** Ends a service's present run and starts the next. */
  async restart(service: string, call?: CallOptions): Promise<Process> {
    const request = this.#ref(service);
    return toProcess((await this.#inside.once((to) => this.#inside.processes.restartProcess(request, to), call)).process);
  }

  #ref(process: string): { sandboxId: string; processId: string } {
    return { sandboxId: this.#sandboxId, processId: process };
  }
}

/** The request that starts a process. */
export function startRequest(sandboxId: string, command: string | readonly string[], process: ProcessOptions) {
  const { name } = process;
  return {
    sandboxId: sandboxId,
    processId: process.processId ?? crypto.randomUUID(),
    ...(typeof command === "string" ? { command } : { argv: [...command] }),
    env: texts("env", process.env),
    workingDir: process.cwd ?? "",
    user: process.user ?? "",
    stdin: process.stdin ?? false,
    terminal: process.terminal,
    timeoutSecs: process.timeout,
    idleTimeoutSecs: process.idleTimeout,
    ttlSecs: process.ttlSeconds,
    killOnDisconnect: process.killOnDisconnect ?? false,
    outputBufferBytes: process.outputBufferBytes,
    service:
      name === undefined
        ? undefined
        : {
            name,
            restartPolicy: toRestartPolicy(process.restart ?? "never"),
            healthCheck: healthCheck(process.healthCheck),
          },
  };
}

function healthCheck(check: HealthCheck | undefined) {
  if (check === undefined) return undefined;
  const { port, path, intervalSecs, timeoutSecs, retries } = check;
  return {
    check: path === undefined ? { case: "tcp" as const, value: { port } } : { case: "http" as const, value: { port, path } },
    intervalSecs,
    timeoutSecs,
    retries,
  };
}
