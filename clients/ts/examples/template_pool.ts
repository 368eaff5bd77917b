/**
 * The template style from start to end: creates a template, a sandbox without a pool (cold) and a pool; waits until the
 * pool is full; creates a sandbox from it (warm), runs a command, waits until the pool is full again, and removes all.
 *
 *     npm run build && node dist/examples/template_pool.js [IMAGE] [SIZE]
 *
 * The server is that of SANDPOOL_ADDRESS, otherwise 127.0.0.1:50051. Progress is written to standard error. The only line
 * on standard output is JSON: the measured times in milliseconds.
 */
import { type Pool, type Sandbox, SandboxClient } from "sandpool";

interface Times {
  coldStartMs: number;
  fillMs: number;
  warmStartMs: number;
  firstCommandMs: number;
  refillMs: number;
}

/** Writes a line to standard error. */
function report(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Returns the result of the work and its duration in milliseconds. */
async function timed<T>(work: Promise<T>): Promise<[T, number]> {
  const started = performance.now();
  const value = await work;
  return [value, Math.round((performance.now() - started) * 10) / 10];
}

/** Waits until a pool is full, and reports its progress. */
function filled(client: SandboxClient, name: string, signal: AbortSignal): Promise<Pool> {
  const onProgress = ({ status }: Pool) => {
    report(`  ${name}: ${status.warm} of ${status.desired} warm (${status.state})`);
    const { state, lastError } = status;
    if (state === "degraded" && lastError !== null) throw new Error(`${name} cannot be filled: ${lastError.message}`);
  };
  return client.waitForPool(name, { onProgress, signal });
}

async function run(sandbox: Sandbox, signal: AbortSignal): Promise<void> {
  const { stdout, success, stderr } = await sandbox.run("uname -sr && id -un", { signal });
  if (!success) throw new Error(`the command failed: ${stderr}`);
  report(`  ${sandbox.sandboxId} (${sandbox.startType}) printed: ${stdout.trim().replaceAll("\n", ", ")}`);
}

async function flow(client: SandboxClient, image: string, size: number, signal: AbortSignal): Promise<Times> {
  const suffix = crypto.randomUUID().slice(0, 8);
  const templateName = `ts-template-${suffix}`;
  const poolName = `ts-pool-${suffix}`;

  report(`template ${templateName} of ${image}`);
  await client.createTemplate(templateName, { image, signal });
  try {
    report("a sandbox without a pool");
    const [cold, coldStartMs] = await timed(client.create({ templateName, signal }));
    try {
      await run(cold, signal);
    } finally {
      await cold.delete();
    }

    report(`pool ${poolName} of ${size}`);
    await client.createPool(poolName, { templateName, size, signal });
    try {
      const [, fillMs] = await timed(filled(client, poolName, signal));
      report("a sandbox of the same template");
      const [warm, warmStartMs] = await timed(client.create({ templateName, signal }));
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
    report("removed sandboxes, pool and template");
  }
}

const interrupted = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.once(name, () => interrupted.abort(new Error(`interrupted by ${name}`)));
}

const [image = "python:3.11-slim", size = "2"] = process.argv.slice(2);
const client = new SandboxClient();
try {
  const times = await flow(client, image, Number(size), interrupted.signal);
  process.stdout.write(`${JSON.stringify(times)}\n`);
} catch (error) {
  report(error instanceof Error ? `failed: ${error.message}` : `failed: ${String(error)}`);
  process.exitCode = 1;
} finally {
  client.close();
}
