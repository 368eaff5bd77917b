import { fileURLToPath } from "node:url";
import { defineConfig } from "tsdown";

const common = { format: "esm", platform: "node", target: "node20", fixedExtension: false, hash: false } as const;
const compat = {
  "compat/langsmith": "src/compat/langsmith.ts",
  "compat/tensorlake": "src/compat/tensorlake.ts",
};

/** Replaces the platform of Node by that of browsers: the only module in which the two builds differ. */
const forBrowsers = {
  name: "platform",
  resolveId: (source: string) =>
    source.endsWith("/platform/node.js") ? fileURLToPath(new URL("src/platform/browser.ts", import.meta.url)) : null,
};

/** Leaves the core out of the modules for other products: they import the file next to them. */
const withoutCore = {
  name: "core",
  resolveId: (source: string) => (source === "../index.js" ? { id: "../index.js", external: true } : null),
};

export default defineConfig([
  {
    ...common,
    entry: { index: "src/index.ts", gen: "src/stubs.ts", ...compat },
    outDir: "dist",
    dts: true,
    unbundle: true,
  },
  // One file with all dependencies, so that a page can load it without a bundler.
  {
    ...common,
    platform: "browser",
    entry: { index: "src/index.ts" },
    outDir: "dist/browser",
    dts: false,
    plugins: [forBrowsers],
    deps: { alwaysBundle: [/./] },
  },
  ...Object.entries(compat).map(([name, file]) => ({
    ...common,
    platform: "browser" as const,
    entry: { [name]: file },
    outDir: "dist/browser",
    clean: false,
    dts: false,
    plugins: [withoutCore],
  })),
  // The examples import the built package by its name, as other programs do.
  {
    ...common,
    entry: { template_pool: "examples/template_pool.ts" },
    outDir: "dist/examples",
    dts: false,
    deps: { neverBundle: ["sandpool"] },
  },
]);
