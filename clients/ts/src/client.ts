import { type CallOptions as ConnectOptions, type Client, createClient } from "@connectrpc/connect";
import { type CallBounds, Caller } from "./core/caller.js";
import { toCommandResult, toPool, toPoolEvent, toSandboxInfo, toTemplate } from "./core/convert.js";
import * as requests from "./core/requests.js";
import { DEFAULT_RETRY } from "./core/retry.js";
import { PoolService } from "./gen/sandpool/v1/pool_service_pb.js";
import { SandboxService } from "./gen/sandpool/v1/sandbox_service_pb.js";
import { TemplateService } from "./gen/sandpool/v1/template_service_pb.js";
import type * as options from "./options.js";
import { connect, DEFAULT_ADDRESS, environment } from "./platform/node.js";
import { Sandbox } from "./sandbox.js";
import type { CommandResult, Pool, PoolEvent, SandboxInfo, Template } from "./types.js";
import { VERSION } from "./version.js";

/** The limit of calls in milliseconds where neither the client nor the call has one. */
const DEFAULT_TIMEOUT_MS = 60_000;
/** The least that the creation of a sandbox gets where the call has no limit of its own: it may start a container. */
const CREATE_TIMEOUT_MS = 120_000;
/** A command's own limit in seconds where none is given; the server's default. */
const DEFAULT_COMMAND_TIMEOUT_SECS = 60;
/** What a call may take over its command's limit: the way, and the killing of what runs, in milliseconds. */
const COMMAND_GRACE_MS = 30_000;
const PAGE_SIZE = 1000;

/**
 * The client of one sandpool server.
 *
 * Pools, templates and sandboxes are named by identifier or name alike. Every method rejects with a
 * {@link SandpoolError}; a call is repeated when the server does not answer and repeating is safe.
 *
 * @example
 * ```ts
 * const client = new SandboxClient();
 * await client.createPool("python-pool", { templateName: "python-sandbox", size: 5 });
 * await using sandbox = await client.createSandbox("python-sandbox");
 * console.log((await sandbox.run("python3 --version")).stdout);
 * ```
 */
export class SandboxClient {
  readonly #caller: Caller;
  readonly #pools: Client<typeof PoolService>;
  readonly #templates: Client<typeof TemplateService>;
  readonly #sandboxes: Client<typeof SandboxService>;
  readonly #timeoutMs: number;

  /** Makes a client; the connection is made with the first call. */
  constructor(settings: options.SandboxClientOptions = {}) {
    const { transport } = settings;
    const address = settings.address ?? environment("SANDPOOL_ADDRESS") ?? DEFAULT_ADDRESS;
    const connection =
      transport === undefined
        ? connect(address)
        : { transport, target: settings.address ?? "the transport's address", close: () => undefined };
    const apiKey = settings.apiKey ?? environment("SANDPOOL_API_KEY");
    const headers = {
      "User-Agent": `sandpool-ts/${VERSION}`,
      ...(apiKey === undefined ? {} : { Authorization: `Bearer ${apiKey}` }),
    };
    const maxRetries = settings.maxRetries ?? DEFAULT_RETRY.maxRetries;
    this.#caller = new Caller(connection, headers, { ...DEFAULT_RETRY, maxRetries });
    this.#pools = createClient(PoolService, connection.transport);
    this.#templates = createClient(TemplateService, connection.transport);
    this.#sandboxes = createClient(SandboxService, connection.transport);
    this.#timeoutMs = settings.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  }

  /**
   * Ends the connection. Calls under way and later ones reject with {@link ClientClosedError}; sandboxes live on. With
   * an injected transport the calls under way are left to whoever made it.
   */
  close(): void {
    this.#caller.close();
  }

  /** Closes the client at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Creates a pool and begins to fill it; does not wait until it is full.
   *
   * @throws {@link ResourceAlreadyExistsError} when the name is taken, {@link ResourceNotFoundError} when there is no
   * such template or secret.
   */
  createPool(name: string, pool: options.CreatePoolOptions, call?: options.MutationOptions): Promise<Pool>;
  /** Creates a pool; a name is optional. */
  createPool(pool: options.CreatePoolOptions & options.Named, call?: options.MutationOptions): Promise<Pool>;
  async createPool(
    first: string | (options.CreatePoolOptions & options.Named),
    second?: options.CreatePoolOptions | options.MutationOptions,
    third?: options.MutationOptions,
  ): Promise<Pool> {
    const named = typeof first === "string";
    // Which overload it is decides what the second argument is; the types above keep callers to them.
    const pool = (named ? second : first) as options.CreatePoolOptions;
    const call = (named ? third : second) as options.MutationOptions | undefined;
    const name = named ? first : first.name;
    const request = requests.createPoolRequest(name, pool, requestId(call));
    const answer = await this.#safe((to) => this.#pools.createPool(request, to), call);
    return toPool(answer.pool);
  }

  /** Reads one pool with its present status. */
  async getPool(pool: string, call?: options.CallOptions): Promise<Pool> {
    const answer = await this.#safe((to) => this.#pools.getPool({ poolId: pool }, to), call);
    return toPool(answer.pool);
  }

  /** All pools, oldest first. */
  async listPools(call?: options.CallOptions): Promise<Pool[]> {
    const pages = this.#pages(async (pageToken) => {
      const answer = await this.#safe((to) => this.#pools.listPools({ pageSize: PAGE_SIZE, pageToken }, to), call);
      return { items: answer.pools, next: answer.nextPageToken };
    });
    return (await pages).map(toPool);
  }

  /**
   * Changes a pool and resolves to it after the change. Ready containers of another specification are replaced;
   * sandboxes keep what they started with.
   */
  async updatePool(pool: string, changes: options.UpdatePoolOptions, call?: options.MutationOptions): Promise<Pool> {
    const request = requests.updatePoolRequest(pool, changes, requestId(call));
    const answer = await this.#safe((to) => this.#pools.updatePool(request, to), call);
    return toPool(answer.pool);
  }

  /**
   * Deletes a pool and its unclaimed containers.
   *
   * @throws {@link ResourceInUseError} while sandboxes of it are in use.
   */
  async deletePool(pool: string, call?: options.DeleteOptions): Promise<void> {
    const request = { poolId: pool, etag: call?.etag ?? "", requestId: requestId(call) };
    await this.#safe((to) => this.#pools.deletePool(request, to), call);
  }

  /**
   * The present state of the pools and then each change of one; of all pools, new ones included, where none is named.
   * Changes in quick succession may arrive as one. Leaving the loop or aborting the signal ends the watch.
   */
  async *watchPools(
    watch: { readonly pools?: readonly string[] | undefined; readonly signal?: AbortSignal | undefined } = {},
  ): AsyncGenerator<PoolEvent, void, undefined> {
    const request = { poolIds: [...(watch.pools ?? [])] };
    const events = this.#caller.stream((to) => this.#pools.watchPools(request, to), watch.signal);
    for await (const event of events) yield toPoolEvent(event);
  }

  /** Creates a template. */
  async createTemplate(
    name: string,
    template: options.CreateTemplateOptions,
    call?: options.MutationOptions,
  ): Promise<Template> {
    const request = requests.createTemplateRequest(name, template, requestId(call));
    const answer = await this.#safe((to) => this.#templates.createTemplate(request, to), call);
    return toTemplate(answer.template);
  }

  /** Reads one template. */
  async getTemplate(template: string, call?: options.CallOptions): Promise<Template> {
    const answer = await this.#safe((to) => this.#templates.getTemplate({ templateName: template }, to), call);
    return toTemplate(answer.template);
  }

  /** All templates, oldest first. */
  async listTemplates(call?: options.CallOptions): Promise<Template[]> {
    const pages = this.#pages(async (pageToken) => {
      const request = { pageSize: PAGE_SIZE, pageToken };
      const answer = await this.#safe((to) => this.#templates.listTemplates(request, to), call);
      return { items: answer.templates, next: answer.nextPageToken };
    });
    return (await pages).map(toTemplate);
  }

  /** Changes a template, and with it every pool that follows it. */
  async updateTemplate(
    template: string,
    changes: options.UpdateTemplateOptions,
    call?: options.MutationOptions,
  ): Promise<Template> {
    const request = requests.updateTemplateRequest(template, changes, requestId(call));
    const answer = await this.#safe((to) => this.#templates.updateTemplate(request, to), call);
    return toTemplate(answer.template);
  }

  /**
   * Deletes a template.
   *
   * @throws {@link ResourceInUseError} while pools follow it.
   */
  async deleteTemplate(template: string, call?: options.DeleteOptions): Promise<void> {
    const request = { templateName: template, etag: call?.etag ?? "", requestId: requestId(call) };
    await this.#safe((to) => this.#templates.deleteTemplate(request, to), call);
  }

  /**
   * Creates a sandbox from a pool, from a template or from an image, and resolves when it runs commands.
   *
   * @throws {@link QuotaExceededError} when the pool is at its `maxContainers`.
   */
  async create(sandbox: options.CreateOptions, call?: options.MutationOptions): Promise<Sandbox> {
    const request = requests.createSandboxRequest(sandbox, requestId(call));
    const bounds = this.#bounds(call, CREATE_TIMEOUT_MS);
    const answer = await this.#caller.unary((to) => this.#sandboxes.createSandbox(request, to), "safe", bounds);
    return this.#sandbox(toSandboxInfo(answer.sandbox));
  }

  /** Draws a sandbox from a pool: `create({ poolId })`. */
  claim(pool: string, call?: options.MutationOptions): Promise<Sandbox> {
    return this.create({ poolId: pool }, call);
  }

  /** Creates a sandbox of a template: drawn from any pool that follows it, started where none has a ready one. */
  async createSandbox(
    templateName: string,
    sandbox: options.CreateSandboxOptions = {},
    call?: options.MutationOptions,
  ): Promise<Sandbox> {
    const { timeout, ...rest } = sandbox;
    const bounds = timeout === undefined ? call : { timeoutMs: timeout * 1000, ...call };
    return this.create({ ...rest, templateName }, bounds);
  }

  /** Reads one sandbox, also one that ended a while ago. */
  async getSandbox(sandbox: string, call?: options.CallOptions): Promise<Sandbox> {
    const answer = await this.#safe((to) => this.#sandboxes.getSandbox({ sandboxId: sandbox }, to), call);
    return this.#sandbox(toSandboxInfo(answer.sandbox));
  }

  /** The sandboxes that meet the conditions, oldest first; without conditions all that have not ended. */
  async listSandboxes(filter: options.ListSandboxesOptions = {}, call?: options.CallOptions): Promise<Sandbox[]> {
    const pages = this.#pages(async (pageToken) => {
      const request = { ...requests.listSandboxesRequest(filter, pageToken), pageSize: PAGE_SIZE };
      const answer = await this.#safe((to) => this.#sandboxes.listSandboxes(request, to), call);
      return { items: answer.sandboxes, next: answer.nextPageToken };
    });
    return (await pages).map((message) => this.#sandbox(toSandboxInfo(message)));
  }

  /** Changes a sandbox's name, labels or lifetime and resolves to it after the change; a string is a new name. */
  async updateSandbox(
    sandbox: string,
    changes: string | options.UpdateSandboxOptions,
    call?: options.MutationOptions,
  ): Promise<Sandbox> {
    const wanted = typeof changes === "string" ? { newName: changes } : changes;
    const request = requests.updateSandboxRequest(sandbox, wanted, requestId(call));
    const answer = await this.#safe((to) => this.#sandboxes.updateSandbox(request, to), call);
    return this.#sandbox(toSandboxInfo(answer.sandbox));
  }

  /** Ends a sandbox; its container is removed and never used again. It is no error when it has ended already. */
  async deleteSandbox(sandbox: string, call?: options.MutationOptions): Promise<void> {
    const request = { sandboxId: sandbox, requestId: requestId(call) };
    await this.#safe((to) => this.#sandboxes.deleteSandbox(request, to), call);
  }

  /** The sandbox as it is now and after each change; ends when the sandbox has. Leaving the loop ends the watch. */
  async *watchSandbox(
    sandbox: string,
    call: Pick<options.CallOptions, "signal"> = {},
  ): AsyncGenerator<Sandbox, void, undefined> {
    const request = { sandboxId: sandbox };
    const changes = this.#caller.stream((to) => this.#sandboxes.watchSandbox(request, to), call.signal);
    for await (const change of changes) yield this.#sandbox(toSandboxInfo(change.sandbox));
  }

  /**
   * Runs a command in a sandbox; see {@link Sandbox.run}. It is repeated only when the server could not be reached at
   * all, never once it may have been sent.
   */
  async run(
    sandbox: string,
    command: string | readonly string[],
    run: options.RunOptions = {},
  ): Promise<CommandResult> {
    const request = requests.runCommandRequest(sandbox, command, run);
    const timeoutMs = (run.timeout ?? DEFAULT_COMMAND_TIMEOUT_SECS) * 1000 + COMMAND_GRACE_MS;
    const bounds = { timeoutMs, signal: run.signal };
    const answer = await this.#caller.unary((to) => this.#sandboxes.runCommand(request, to), "unsent", bounds);
    return toCommandResult(answer);
  }

  #safe<T>(invoke: (to: ConnectOptions) => Promise<T>, call: options.CallOptions | undefined): Promise<T> {
    return this.#caller.unary(invoke, "safe", this.#bounds(call));
  }

  #bounds(call: options.CallOptions | undefined, leastMs = 0): CallBounds {
    return { timeoutMs: call?.timeoutMs ?? Math.max(this.#timeoutMs, leastMs), signal: call?.signal };
  }

  #sandbox(info: SandboxInfo): Sandbox {
    return new Sandbox(info, this);
  }

  async #pages<T>(read: (pageToken: string) => Promise<{ items: T[]; next: string }>): Promise<T[]> {
    const all: T[] = [];
    for (let token = ""; ; ) {
      const page = await read(token);
      all.push(...page.items);
      if (page.next === "") return all;
      token = page.next;
    }
  }
}

function requestId(call: options.MutationOptions | undefined): string {
  return call?.requestId ?? crypto.randomUUID();
}
