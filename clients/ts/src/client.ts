import { type CallOptions as ConnectOptions, type Client, createClient } from "@connectrpc/connect";
import { Caller } from "./core/caller.js";
import { oneOf } from "./core/commands.js";
import { toCommandResult, toPool, toSandboxInfo, toSecret, toTemplate } from "./core/convert.js";
import { commandMs, creationMs } from "./core/deadlines.js";
import { ResourceTimeoutError, SandboxNotReadyError } from "./core/errors.js";
import { Inside } from "./core/inside.js";
import { allPages, PAGE_SIZE } from "./core/pages.js";
import * as requests from "./core/requests.js";
import { DEFAULT_RETRY } from "./core/retry.js";
import { PoolService } from "./gen/sandpool/v1/pool_service_pb.js";
import { SandboxService } from "./gen/sandpool/v1/sandbox_service_pb.js";
import { SecretService } from "./gen/sandpool/v1/secret_service_pb.js";
import { TemplateService } from "./gen/sandpool/v1/template_service_pb.js";
import type { RunOptions } from "./inside-options.js";
import type { CommandResult } from "./inside-types.js";
import type * as options from "./options.js";
import { connect, DEFAULT_ADDRESS, environment } from "./platform/node.js";
import { Sandbox } from "./sandbox.js";
import type { Pool, PoolEvent, SandboxInfo, SandboxState, Secret, Template } from "./types.js";
import { VERSION } from "./version.js";
import { allPoolEvents, fullPool, limitOf, poolEvents } from "./watching.js";

/** The limit of calls in milliseconds where neither the client nor the call has one. */
const DEFAULT_TIMEOUT_MS = 60_000;
/** How long a wait for a sandbox lasts where nothing else is said, in seconds. */
const DEFAULT_WAIT_SECS = 120;

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
  readonly #secrets: Client<typeof SecretService>;
  readonly #timeoutMs: number;
  readonly #inside: Inside;

  /** Makes a client; the connection is made with the first call. */
  constructor(settings: options.SandboxClientOptions = {}) {
    const { transport } = settings;
    const given = oneOf("address", settings.address, "apiEndpoint", settings.apiEndpoint);
    const address = given ?? environment("SANDPOOL_ADDRESS") ?? DEFAULT_ADDRESS;
    const connection =
      transport === undefined
        ? connect(address)
        : { transport, duplex: false, target: given ?? "the transport's address", close: () => undefined };
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
    this.#secrets = createClient(SecretService, connection.transport);
    this.#timeoutMs = settings.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#inside = new Inside(this.#caller, connection.transport, this.#timeoutMs);
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
    const pages = allPages(async (pageToken) => {
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

  /** Lets nothing be created for a pool and nothing be taken from it; what it has stays. */
  pausePool(pool: string, call?: options.MutationOptions): Promise<Pool> {
    return this.updatePool(pool, { paused: true }, call);
  }

  /** Pauses a pool and removes its ready containers; sandboxes in use stay. */
  drainPool(pool: string, call?: options.MutationOptions): Promise<Pool> {
    return this.updatePool(pool, { drain: true }, call);
  }

  /** Lets a pool that was paused or drained work again. */
  resumePool(pool: string, call?: options.MutationOptions): Promise<Pool> {
    return this.updatePool(pool, { paused: false, drain: false }, call);
  }

  /**
   * Deletes a pool and its unclaimed containers, with `force` also the sandboxes of it that are in use.
   *
   * @throws {@link ResourceInUseError} while sandboxes of it are in use.
   */
  async deletePool(pool: string, call?: options.DeletePoolOptions): Promise<void> {
    const { etag = "", force = false } = call ?? {};
    const request = { poolId: pool, etag, force, requestId: requestId(call) };
    await this.#safe((to) => this.#pools.deletePool(request, to), call);
  }

  /**
   * The present state of the pools and then each change of one; of all pools, new ones included, where none is named.
   * Changes in quick succession may arrive as one. Leaving the loop or aborting the signal ends the watch.
   *
   * It goes on over broken connections, with the state as it is then; what was deleted meanwhile is told. A watch that
   * names its pools ends when all of them are deleted.
   */
  watchPools(
    watch: { readonly pools?: readonly string[] | undefined; readonly signal?: AbortSignal | undefined } = {},
  ): AsyncGenerator<PoolEvent, void, undefined> {
    const { pools = [], signal } = watch;
    return pools.length === 0
      ? allPoolEvents(this.#caller, this.#pools, signal)
      : poolEvents(this.#caller, this.#pools, pools, signal);
  }

  /**
   * Resolves to a pool as soon as it has its containers ready.
   *
   * @throws {@link ResourceNotFoundError} when there is none or it was deleted meanwhile, {@link PoolPausedError} when it
   * does not fill, {@link ResourceTimeoutError} when it is not full in time; the message says what its last failure was.
   */
  waitForPool(pool: string, wait: options.WaitForPoolOptions = {}): Promise<Pool> {
    return fullPool(pool, (signal) => this.watchPools({ pools: [pool], signal }), wait);
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
    const pages = allPages(async (pageToken) => {
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

  /** Keeps a new secret, encrypted: `name` is that of the environment variable in the sandboxes that are given it. */
  async createSecret(name: string, value: string, call?: options.MutationOptions): Promise<Secret> {
    const request = requests.secretRequest(name, value, requestId(call));
    const answer = await this.#safe((to) => this.#secrets.createSecret(request, to), call);
    return toSecret(answer.secret);
  }

  /** Changes a secret's value: sandboxes claimed from now on get the new one. */
  async updateSecret(name: string, value: string, call?: options.MutationOptions): Promise<Secret> {
    const request = requests.secretRequest(name, value, requestId(call));
    const answer = await this.#safe((to) => this.#secrets.updateSecret(request, to), call);
    return toSecret(answer.secret);
  }

  /** All secrets by name, without values. */
  async listSecrets(call?: options.CallOptions): Promise<Secret[]> {
    const pages = allPages(async (pageToken) => {
      const answer = await this.#safe((to) => this.#secrets.listSecrets({ pageSize: PAGE_SIZE, pageToken }, to), call);
      return { items: answer.secrets, next: answer.nextPageToken };
    });
    return (await pages).map(toSecret);
  }

  /**
   * Deletes a secret, with `force` also one that pools or templates name.
   *
   * @throws {@link ResourceInUseError} while pools or templates name it.
   */
  async deleteSecret(name: string, call?: options.DeleteSecretOptions): Promise<void> {
    const request = { name, force: call?.force ?? false, requestId: requestId(call) };
    await this.#safe((to) => this.#secrets.deleteSecret(request, to), call);
  }

  /**
   * Creates a sandbox from a pool, from a template or from an image, and resolves when it runs commands.
   *
   * @throws {@link QuotaExceededError} when the pool is at its `maxContainers`, {@link PoolEmptyError} when none is ready
   * and `whenEmpty` is `fail`, {@link ResourceTimeoutError} after `waitSecs`, {@link PoolPausedError}.
   */
  async create(sandbox: options.CreateOptions, call?: options.MutationOptions): Promise<Sandbox> {
    const request = requests.createSandboxRequest(sandbox, requestId(call));
    const invoke = (to: ConnectOptions) => this.#sandboxes.createSandbox(request, to);
    const answer = await this.#safe(invoke, call, creationMs(sandbox));
    return this.#sandbox(toSandboxInfo(answer.sandbox));
  }

  /** Creates `count` sandboxes alike, 1 to 1,000, all or none; errors as {@link SandboxClient.create}. */
  async createBatch(count: number, sandbox: options.BatchOptions, call?: options.MutationOptions): Promise<Sandbox[]> {
    const request = requests.batchCreateSandboxesRequest(count, sandbox, requestId(call));
    const invoke = (to: ConnectOptions) => this.#sandboxes.batchCreateSandboxes(request, to);
    const answer = await this.#safe(invoke, call, creationMs(sandbox));
    return answer.sandboxes.map((message) => this.#sandbox(toSandboxInfo(message)));
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

  /** Where a sandbox is in its life. */
  async getSandboxStatus(sandbox: string, call?: options.CallOptions): Promise<SandboxState> {
    return (await this.getSandbox(sandbox, call)).state;
  }

  /**
   * Resolves to a sandbox as soon as it runs commands, for those who did not create it: a creation waits itself.
   *
   * @throws {@link SandboxNotReadyError} when it has ended, {@link ResourceTimeoutError} when it still starts after
   * `timeout`.
   */
  async waitForSandbox(sandbox: string, wait: options.WaitOptions = {}): Promise<Sandbox> {
    const { timeout = DEFAULT_WAIT_SECS, signal } = wait;
    const limit = limitOf(timeout, signal);
    const about = { resourceType: "sandbox", resourceName: sandbox };
    try {
      for await (const found of this.watchSandbox(sandbox, { signal: limit.signal })) {
        if (found.state === "running") return found;
        if (found.state !== "starting") break;
      }
    } catch (error) {
      if (!limit.isOver(error)) throw error;
      const message = `sandbox ${sandbox} still starts after ${timeout} s; wait longer`;
      throw new ResourceTimeoutError(message, { ...about, code: "deadline_exceeded", reason: "NOT_READY_IN_TIME" });
    }
    const ended = `sandbox ${sandbox} has ended; create another one`;
    throw new SandboxNotReadyError(ended, { ...about, code: "failed_precondition", reason: "SANDBOX_ENDED" });
  }

  /** The sandboxes that meet the conditions, oldest first; without conditions all that have not ended. */
  async listSandboxes(filter: options.ListSandboxesOptions = {}, call?: options.CallOptions): Promise<Sandbox[]> {
    const pages = allPages(async (pageToken) => {
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

  /**
   * The sandbox as it is now and after each change, over broken connections too; ends when the sandbox has. Leaving the
   * loop ends the watch.
   */
  async *watchSandbox(
    sandbox: string,
    call: Pick<options.CallOptions, "signal"> = {},
  ): AsyncGenerator<Sandbox, void, undefined> {
    const request = { sandboxId: sandbox };
    const invoke = (to: ConnectOptions) => this.#sandboxes.watchSandbox(request, to);
    const open = () => this.#caller.stream(invoke, call.signal);
    for await (const change of this.#caller.follow(open, call.signal)) yield this.#sandbox(toSandboxInfo(change.sandbox));
  }

  /**
   * Runs a short command in a sandbox, in one call; see {@link Sandbox.runOnce}. It is repeated only when the server
   * could not be reached at all, never once it may have been sent.
   */
  async runOnce(
    sandbox: string,
    command: string | readonly string[],
    run: RunOptions = {},
  ): Promise<CommandResult> {
    const request = requests.runCommandRequest(sandbox, command, run);
    const bounds = { timeoutMs: commandMs(run), signal: run.signal };
    const answer = await this.#caller.unary((to) => this.#sandboxes.runCommand(request, to), "unsent", bounds);
    return toCommandResult(answer);
  }

  /** Makes a call that may be repeated; `leastMs` is its least limit where it is given none of its own. */
  #safe<T>(
    invoke: (to: ConnectOptions) => Promise<T>,
    call: options.CallOptions | undefined,
    leastMs = 0,
  ): Promise<T> {
    const timeoutMs = call?.timeoutMs ?? Math.max(this.#timeoutMs, leastMs);
    return this.#caller.unary(invoke, "safe", { timeoutMs, signal: call?.signal });
  }

  #sandbox(info: SandboxInfo): Sandbox {
    return new Sandbox(info, this, this.#inside);
  }
}

function requestId(call: options.MutationOptions | undefined): string {
  return call?.requestId ?? crypto.randomUUID();
}
