/**
 * Times the client and its bare stubs in turns, and prints the milliseconds of each as JSON:
 * node overhead.mjs ADDRESS POOL-ID SANDBOX-ID CREATES ROUNDS WARM-UPS
 *
 * Of the pool 2 * (CREATES + WARM-UPS) sandboxes are drawn.
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

/** Each work once a round, so that whatever else the machine does meets both alike; the first rounds are for the compiler. */
async function inTurns(count, works) {
  const taken = {};
  for (let round = -warmUps; round < count; round++) {
    for (const [name, work] of Object.entries(works)) {
      const began = performance.now();
      await work();
      if (round >= 0) (taken[name] ??= []).push(performance.now() - began);
    }
  }
  return taken;
}

/** The requests of a command's run, as the client sends them. */
async function* connect() {
  yield { message: { case: "start", value: { sandboxId, processId: randomUUID(), argv: COMMAND } } };
}

const client = new SandboxClient({ address });
const transport = createGrpcTransport({ baseUrl: `http://${address}` });
const sandboxes = createClient(SandboxService, transport);
const processes = createClient(ProcessService, transport);
const sandbox = await client.getSandbox(sandboxId);
const told = {
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
console.log(JSON.stringify(told));
