/**
 * Times the client and its stubs in turns, and prints the milliseconds of each call as JSON:
 * node overhead.mjs ADDRESS POOL-ID SANDBOX-ID CREATES ROUNDS WARM-UPS
 *
 * It claims 2 * (CREATES + WARM-UPS) sandboxes from the pool.
 */
import { randomUUID } from "node:crypto";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { SandboxClient } from "sandpool";
import { ProcessService, SandboxService } from "sandpool/gen";

const [address, poolId, sandboxId, ...counts] = process.argv.slice(2);
const [creates, rounds, warmUps] = counts.map(Number);
const COMMAND = ["/bin/echo", "hello"];
const CALL = { timeoutMs: 60_000 };

/** Runs each function once a round, so that other load affects all of them; the first rounds warm up the compiler. */
async function inTurns(count, works) {
  const taken = {};
  for (let round = -warmUps; round < count; round++) {
    for (const [name, work] of Object.entries(works)) {
      const started = performance.now();
      await work();
      if (round >= 0) (taken[name] ??= []).push(performance.now() - started);
    }
  }
  return taken;
}

/** The requests that run a command, as the client sends them. */
async function* connect() {
  yield { message: { case: "start", value: { sandboxId, processId: randomUUID(), argv: COMMAND } } };
}

const client = new SandboxClient({ address });
const transport = createGrpcTransport({ baseUrl: `http://${address}` });
const sandboxes = createClient(SandboxService, transport);
const processes = createClient(ProcessService, transport);
const sandbox = await client.getSandbox(sandboxId);
const results = {
  create: await inTurns(creates, {
    client: () => client.create({ poolId }),
    stub: () => sandboxes.createSandbox({ poolId, requestId: randomUUID() }, CALL),
  }),
  run: await inTurns(rounds, {
    client: () => sandbox.run(COMMAND),
    stub: async () => {
      for await (const _ of processes.connectProcess(connect(), CALL));
    },
  }),
  get: await inTurns(rounds * 3, {
    client: () => client.getSandbox(sandboxId),
    stub: () => sandboxes.getSandbox({ sandboxId }, CALL),
  }),
};
console.log(JSON.stringify(results));
