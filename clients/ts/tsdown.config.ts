import { fileURLToPath } from "node:url";
import { defineConfig } from "tsdown";

const common = { format: "esm", platform: "node", target: "node20", fixedExtension: false, hash: false } as const;

/** Puts the browser's platform in the place of Node's: the one module in which they differ. */
const forBrowsers = {
  name: "platform",
  resolveId: (source: string) =>
    source.endsWith("/platform/node.js") ? fileURLToPath(new URL("src/platform/browser.ts", import.meta.url)) : null,
};

export default defineConfig([
  { ...common, entry: { index: "src/index.ts", gen: "src/stubs.ts" }, outDir: "dist", dts: true, unbundle: true },
  // With all that it needs in one file, so that a page can load it as it is.
  {
    ...common,
    platform: "browser",
    entry: { index: "src/index.ts" },
    outDir: "dist/browser",
    dts: false,
    plugins: [forBrowsers],
    deps: { alwaysBundle: [/./] },
  },
  // The examples use the built package by its name, as a program of somebody else would.
  {
    ...common,
    entry: { template_pool: "examples/template_pool.ts" },
    outDir: "dist/examples",
    dts: false,
    deps: { neverBundle: ["sandpool"] },
  },
]);
