/**
 * The template style from beginning to end: a template, a sandbox without a pool (cold), a pool that fills, a sandbox
 * out of it (warm), a command, the pool refilling, and everything removed again.
 *
 *     npm run build && node dist/examples/template_pool.js [IMAGE] [SIZE]
 *
 * The server is the one of SANDPOOL_ADDRESS, else 127.0.0.1:50051. Progress goes to standard error; the last thing,
 * and all of standard output, is one line of JSON with the times in milliseconds.
 */
import { type Sandbox, SandboxClient } from "sandpool";

interface Times {
  coldStartMs: number;
  fillMs: number;
  warmStartMs: number;
  firstCommandMs: number;
  refillMs: number;
}

/** Says on standard error what happens. */
function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** What the work resolves to, and how long it took in milliseconds. */
async function timed<T>(work: Promise<T>): Promise<[T, number]> {
  const started = performance.now();
  const value = await work;
  return [value, Math.round((performance.now() - started) * 10) / 10];
}

/** Watches the pool until as many containers are ready as it wants; a pool that cannot be filled is an error. */
async function filled(client: SandboxClient, pool: string, signal: AbortSignal): Promise<void> {
  for await (const event of client.watchPools({ pools: [pool], signal })) {
    const { state, warm, wanted, lastError } = event.pool.status;
    say(`  ${pool}: ${warm} of ${wanted} ready (${state})`);
    if (state === "degraded" && lastError !== null) throw new Error(`${pool} cannot be filled: ${lastError.message}`);
    if (state === "ready" && warm >= wanted) return;
  }
}

async function run(sandbox: Sandbox, signal: AbortSignal): Promise<void> {
  const { stdout, success, stderr } = await sandbox.run("uname -sr && id -un", { signal });
  if (!success) throw new Error(`the command failed: ${stderr}`);
  say(`  ${sandbox.sandboxId} (${sandbox.start}) says: ${stdout.trim().replaceAll("\n", ", ")}`);
}

async function flow(client: SandboxClient, image: string, size: number, signal: AbortSignal): Promise<Times> {
  const call = { signal };
  const suffix = crypto.randomUUID().slice(0, 8);
  const templateName = `ts-template-${suffix}`;
  const poolName = `ts-pool-${suffix}`;

  say(`template ${templateName} of ${image}`);
  await client.createTemplate(templateName, { image }, call);
  try {
    say("a sandbox without a pool");
    const [cold, coldStartMs] = await timed(client.createSandbox(templateName, {}, call));
    try {
      await run(cold, signal);
    } finally {
      await cold.delete();
    }

    say(`pool ${poolName} of ${size}`);
    await client.createPool(poolName, { templateName, size }, call);
    try {
      const [, fillMs] = await timed(filled(client, poolName, signal));
      say("a sandbox of the same template");
      const [warm, warmStartMs] = await timed(client.createSandbox(templateName, {}, call));
      try {
        const [, firstCommandMs] = await timed(run(warm, signal));
        const [, refillMs] = await timed(filled(client, poolName, signal));
        return { coldStartMs, fillMs, warmStartMs, firstCommandMs, refillMs };
      } finally {
        await warm.delete();
      }
    } finally {
      await client.deletePool(poolName);
    }
  } finally {
    await client.deleteTemplate(templateName);
    say("removed sandboxes, pool and template");
  }
}

const interrupted = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.once(name, () => interrupted.abort(new Error(`ended by ${name}`)));
}

const [image = "python:3.11-slim", size = "2"] = process.argv.slice(2);
const client = new SandboxClient();
try {
  const times = await flow(client, image, Number(size), interrupted.signal);
  process.stdout.write(`${JSON.stringify(times)}\n`);
} catch (error) {
  say(error instanceof Error ? `failed: ${error.message}` : `failed: ${String(error)}`);
  process.exitCode = 1;
} finally {
  client.close();
}
