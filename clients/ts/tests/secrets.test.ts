/** Secrets go in and never come out: not in answers, not in errors. */
import { inspect } from "node:util";
import { Code, ConnectError } from "@connectrpc/connect";
import { expect, test } from "vitest";
import type {
  CreateSecretRequest,
  DeleteSecretRequest,
  UpdateSecretRequest,
} from "../src/gen/sandpool/v1/secret_service_pb.js";
import { RemoteAPIError, SandboxClient, ValidationError } from "../src/index.js";
import { CREATED, secret, withServer } from "./server.js";

const VALUE = "hush-\u2603-0123456789";
/** Ends in half a character: a string in JavaScript, and no text. */
const HALF = `${VALUE}\ud800`;

test("all four calls", async () => {
  const seen: (CreateSecretRequest | UpdateSecretRequest)[] = [];
  const deleted: DeleteSecretRequest[] = [];
  const keep = (request: CreateSecretRequest | UpdateSecretRequest) => {
    seen.push(request);
    return { secret: secret(request.name) };
  };
  const listSecrets = ({ pageToken }: { pageToken: string }) =>
    pageToken === "" ? { secrets: [secret("A")], nextPageToken: "2" } : { secrets: [secret("B")] };
  const deleteSecret = (request: DeleteSecretRequest) => {
    deleted.push(request);
    return {};
  };
  const secrets = { createSecret: keep, updateSecret: keep, listSecrets, deleteSecret };
  await withServer({ secrets }, async (client) => {
    const made = await client.createSecret("TOKEN", VALUE);
    expect(made).toStrictEqual({ name: "TOKEN", createTime: CREATED, updateTime: CREATED });
    expect((await client.updateSecret("TOKEN", "other", { requestId: "mine" })).name).toBe("TOKEN");
    expect((await client.listSecrets()).map(({ name }) => name)).toEqual(["A", "B"]);
    await client.deleteSecret("TOKEN");
    await client.deleteSecret("TOKEN", { force: true });
    expect(inspect(made, { depth: null }) + inspect(client, { depth: null, showHidden: true })).not.toContain("hush");
  });
  expect(seen.map(({ name, value }) => [name, value])).toEqual([["TOKEN", VALUE], ["TOKEN", "other"]]);
  expect(seen[0]?.requestId).not.toBe("");
  expect(seen[1]?.requestId).toBe("mine");
  expect(deleted.map(({ name, force }) => [name, force])).toEqual([["TOKEN", false], ["TOKEN", true]]);
});

test("neither a secret nor an environment is in an error, its causes included", async () => {
  const fail = () => {
    throw new ConnectError("broken", Code.Internal);
  };
  const services = { secrets: { createSecret: fail }, sandboxes: { createSandbox: fail }, pools: { updatePool: fail } };
  await withServer(services, async (client) => {
    const calls = [
      client.createSecret("TOKEN", VALUE),
      client.create({ poolId: "p", env: { TOKEN: VALUE } }),
      client.updatePool("p", { env: { TOKEN: VALUE } }),
    ];
    for (const result of await Promise.allSettled(calls)) {
      if (result.status === "fulfilled") throw new Error("it did not fail");
      expect(result.reason).toBeInstanceOf(RemoteAPIError);
      expect(inspect(result.reason, { depth: null, showHidden: true })).not.toContain("hush");
    }
  });
});

test.each([["half a character", HALF], ["bytes", new TextEncoder().encode(VALUE)], ["nothing", null]])(
  "%s is refused without showing it",
  async (_what, given) => {
    const client = new SandboxClient();
    const value = given as string;
    const calls = [
      () => client.createSecret("TOKEN", value),
      () => client.updateSecret("TOKEN", value),
      () => client.create({ poolId: "p", env: { TOKEN: value } }),
      () => client.updatePool("p", { env: { TOKEN: value } }),
      () => client.createTemplate("t", { image: "i", env: { TOKEN: value } }),
      () => client.runOnce("s", "true", { env: { TOKEN: value } }),
    ];
    for (const call of calls) {
      const error: unknown = await call().catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(ValidationError);
      expect((error as ValidationError).fieldViolations[0]?.field).toMatch(/^value$|^env\["TOKEN"\]$/);
      expect(inspect(error, { depth: null, showHidden: true })).not.toContain("hush");
    }
  },
);
