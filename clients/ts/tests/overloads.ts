/**
 * What the types allow and refuse. `tsc` checks this file: a line under `@ts-expect-error` that compiles is an error.
 * Nothing here runs.
 */
import {
  type CommandHandle,
  type CommandResult,
  type FileInfo,
  type OutputChunk,
  type Pool,
  type PoolEvent,
  type PoolState,
  type Process,
  type ProcessHealth,
  type Pty,
  type Sandbox,
  SandboxClient,
  type SandboxStart,
  type SandboxState,
  type Secret,
  type WhenEmpty,
} from "sandpool";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const isTrue = <T extends true>(value?: T): T | undefined => value;

export async function pools(client: SandboxClient, count: number | undefined): Promise<void> {
  const pool = await client.createPool("python-pool", { templateName: "python-sandbox", size: 5 });
  isTrue<Equal<typeof pool, Pool>>();
  isTrue<Equal<PoolState, "ready" | "filling" | "degraded" | "paused" | "drained" | "unknown">>();
  isTrue<Equal<(typeof pool)["createTime"], Date>>();
  await client.createPool("python-pool", { templateName: "python-sandbox", replicas: 5, maxContainers: 9 });
  await client.createPool({ templateName: "python-sandbox", name: "python-pool" });
  await client.createPool({ image: "python:3.11-slim", warmContainers: 3, cpus: 0.5, memoryMb: 256 });
  await client.createPool("named", { image: "python:3.11-slim", size: 3 }, { signal: AbortSignal.timeout(1) });
  await client.createPool({ image: "python:3.11-slim", warmContainers: count });
  // @ts-expect-error neither image nor template
  await client.createPool({ warmContainers: 3 });
  // @ts-expect-error both
  await client.createPool({ image: "python:3.11-slim", templateName: "python-sandbox" });
  // @ts-expect-error the specification is the template's
  await client.createPool("python-pool", { templateName: "python-sandbox", size: 5, memoryMb: 256 });
  // @ts-expect-error one size under two names
  await client.createPool("python-pool", { templateName: "python-sandbox", size: 5, replicas: 5 });
  // @ts-expect-error the name is given already
  await client.createPool("python-pool", { name: "other", image: "python:3.11-slim" });
  // @ts-expect-error misspelt
  await client.createPool({ image: "python:3.11-slim", warm_containers: 3 });
  const kept = { pullPolicy: "always", imageCheckSecs: 60, maxAgeSecs: 3600, drain: true } as const;
  await client.createPool("python-pool", { templateName: "python-sandbox", size: 5, ...kept });
  await client.createPool({ image: "python:3.11-slim", env: { A: "1" }, readinessCommand: ["true"], ...kept });
  // @ts-expect-error the environment is the template's
  await client.createPool({ templateName: "python-sandbox", env: { A: "1" } });
  // @ts-expect-error the readiness command is the template's
  await client.createPool({ templateName: "python-sandbox", readinessCommand: ["true"] });
  // @ts-expect-error there is no such policy
  await client.createPool({ image: "python:3.11-slim", pullPolicy: "sometimes" });
  // @ts-expect-error it is only answered
  await client.createPool({ image: "python:3.11-slim", pullPolicy: "unknown" });
  // @ts-expect-error variables are texts
  await client.createPool({ image: "python:3.11-slim", env: { A: 1 } });
  await client.updatePool("python-pool", { env: null, readinessCommand: null, pullPolicy: null, imageCheckSecs: null });
  isTrue<Equal<Awaited<ReturnType<typeof client.drainPool>>, Pool>>();
  await client.deletePool("python-pool", { force: true });
  // @ts-expect-error templates are not deleted by force
  await client.deleteTemplate("python-sandbox", { force: true });
  await client.updatePool("python-pool", { size: 2, maxContainers: null, newName: null });
  // @ts-expect-error a pool always has an image
  await client.updatePool("python-pool", { image: null });
  // @ts-expect-error what is answered does not change
  pool.size = 3;
  for await (const event of client.watchPools()) isTrue<Equal<typeof event, PoolEvent>>();
}

export async function secrets(client: SandboxClient): Promise<void> {
  const secret = await client.createSecret("A", "value");
  isTrue<Equal<typeof secret, Secret>>();
  isTrue<Equal<Awaited<ReturnType<typeof client.listSecrets>>, Secret[]>>();
  await client.deleteSecret("A", { force: true });
  // @ts-expect-error a secret has a value
  await client.createSecret("A");
  // @ts-expect-error a value is text
  await client.updateSecret("A", new Uint8Array([1]));
  // @ts-expect-error nobody gets it back
  void secret.value;
}

export async function draws(client: SandboxClient, whenEmpty: WhenEmpty): Promise<void> {
  await client.create({ poolId: "p", env: { A: "1" }, whenEmpty });
  await client.create({ poolId: "p", whenEmpty: "wait", waitSecs: 5 });
  await client.create({ templateName: "t", whenEmpty: "fail" });
  await client.create({ image: "i", env: { A: "1" }, readinessCommand: ["true"], readinessRetries: 3 });
  await client.createSandbox("t", { whenEmpty: "wait", waitSecs: 5, timeout: 10 });
  // @ts-expect-error a sandbox from an image is always started cold
  await client.create({ image: "i", whenEmpty: "wait" });
  // @ts-expect-error nothing to wait for
  await client.create({ poolId: "p", waitSecs: 5 });
  // @ts-expect-error it does not wait
  await client.createSandbox("t", { whenEmpty: "fail", waitSecs: 5 });
  // @ts-expect-error there is no such word
  await client.create({ poolId: "p", whenEmpty: "queue" });
  // @ts-expect-error the readiness command is the pool's
  await client.create({ poolId: "p", readinessCommand: ["true"] });
  const batch = await client.createBatch(2, { poolId: "p", whenEmpty: "wait", metadata: { a: "b" } });
  isTrue<Equal<typeof batch, Sandbox[]>>();
  // @ts-expect-error they are alike, so that none has a name
  await client.createBatch(2, { poolId: "p", name: "n" });
  const status = await client.getSandboxStatus("s");
  isTrue<Equal<typeof status, SandboxState>>();
  const waited = await client.waitForSandbox("s", { timeout: 5, pollInterval: 1 });
  isTrue<Equal<typeof waited, Sandbox>>();
}

export async function sandboxes(client: SandboxClient): Promise<void> {
  await using sandbox = await client.create({ poolId: "p" });
  isTrue<Equal<typeof sandbox, Sandbox>>();
  isTrue<Equal<(typeof sandbox)["start"], SandboxStart | null>>();
  await client.create({ templateName: "t", name: "n" });
  await client.create({ image: "i", memoryMb: 64 });
  await client.createSandbox("t", { name: "n", timeout: 5 });
  // @ts-expect-error from nowhere
  await client.create({ name: "n" });
  // @ts-expect-error from two places
  await client.create({ poolId: "p", image: "i" });
  // @ts-expect-error the specification is the pool's
  await client.create({ poolId: "p", memoryMb: 64 });
  // @ts-expect-error there is no such state
  await client.listSandboxes({ states: ["gone"] });
  await client.updateSandbox("s", "new-name");
  const result = await sandbox.run(["echo", "hello"], { timeout: 1, env: { A: "1" } });
  isTrue<Equal<typeof result, CommandResult>>();
  isTrue<Equal<(typeof result)["exitCode"], number | null>>();
  // @ts-expect-error a program is words
  await sandbox.run(["sleep", 1]);
}

export async function commands(sandbox: Sandbox): Promise<void> {
  const onStdout = (text: string): void => void text;
  isTrue<Equal<Awaited<ReturnType<typeof sandbox.runOnce>>, CommandResult>>();
  const waited = await sandbox.run("make", { onStdout, idleTimeout: 5, killOnDisconnect: true, pty: { rows: 9, cols: 80 } });
  isTrue<Equal<typeof waited, CommandResult>>();
  const handle = await sandbox.run("make", { args: ["all"], shell: "/bin/zsh", workingDir: "/srv", wait: false });
  isTrue<Equal<typeof handle, CommandHandle>>();
  for await (const chunk of handle) isTrue<Equal<typeof chunk, OutputChunk>>();
  isTrue<Equal<(typeof handle)["result"], Promise<CommandResult>>>();
  await sandbox.reconnect(handle.commandId, handle.offsets);
  // @ts-expect-error a terminal has lines and columns
  await sandbox.run("make", { pty: { rows: 9 } });
  // @ts-expect-error a command in one call has no stream
  await sandbox.runOnce("make", { onStdout });
  // @ts-expect-error there is no such option
  await sandbox.run("make", { timeoutSecs: 5 });
  // @ts-expect-error listeners take text
  await sandbox.run("make", { onStdout: (bytes: Uint8Array) => bytes.length });
}

export async function processes(sandbox: Sandbox): Promise<void> {
  const healthCheck = { port: 80, path: "/", intervalSecs: 1, timeoutSecs: 1, retries: 3 };
  const service = await sandbox.startProcess("server", { name: "web", restart: "on_failure", healthCheck });
  isTrue<Equal<typeof service, Process>>();
  isTrue<Equal<(typeof service)["health"], ProcessHealth | null>>();
  await sandbox.startProcess(["cat"], { stdinMode: "pipe", outputOverflow: "drop_oldest", outputBufferBytes: 1 << 16 });
  // @ts-expect-error a health check has a port
  await sandbox.startProcess("server", { name: "web", healthCheck: { path: "/" } });
  // @ts-expect-error there is no such policy
  await sandbox.startProcess("server", { restart: "sometimes" });
  // @ts-expect-error there is no such mode
  await sandbox.startProcess("cat", { stdinMode: "open" });
  // @ts-expect-error there is no such way
  await sandbox.startProcess("cat", { outputOverflow: "block" });
  // @ts-expect-error there is no such state
  await sandbox.listProcesses({ states: ["gone"] });
  await using pty = await sandbox.createPty({ rows: 30, cols: 100, onData: (data) => data.length });
  isTrue<Equal<typeof pty, Pty>>();
}

export async function files(sandbox: Sandbox, parts: AsyncIterable<Uint8Array>): Promise<void> {
  const onProgress = (done: number, total: number): number => done / total;
  isTrue<Equal<Awaited<ReturnType<typeof sandbox.write>>, FileInfo>>();
  await sandbox.write("/a", parts, { mode: 0o600, owner: "nobody", writeMode: "append" });
  isTrue<Equal<Awaited<ReturnType<typeof sandbox.read>>, Uint8Array>>();
  await sandbox.read("/a", { offset: 1, length: 2, onProgress });
  await sandbox.uploadFile("a", "/a", { mode: 0o600, owner: "nobody", onProgress });
  await sandbox.downloadFile("/a", "a", { onProgress, signal: AbortSignal.timeout(1) });
  // @ts-expect-error what comes in parts has no known size
  await sandbox.write("/a", parts, { onProgress });
  // @ts-expect-error a file that is received has no owner
  await sandbox.downloadFile("/a", "a", { owner: "nobody" });
  // @ts-expect-error numbers are no content
  await sandbox.write("/a", 1);
  // @ts-expect-error there is no such mode
  await sandbox.write("/a", "x", { writeMode: "prepend" });
}
