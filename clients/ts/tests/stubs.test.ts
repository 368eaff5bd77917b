import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import * as stubs from "../src/stubs.js";

const folder = new URL("../src/gen/sandpool/v1/", import.meta.url);

test("every file of the contract is among the stubs", async () => {
  const files = readdirSync(folder);
  expect(files.length).toBeGreaterThan(10);
  for (const file of files) {
    const generated = (await import(new URL(file, folder).href)) as Record<string, unknown>;
    for (const [name, value] of Object.entries(generated)) expect(stubs).toHaveProperty(name, value);
  }
});
