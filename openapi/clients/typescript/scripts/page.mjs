/**
 * Writes the files of the page that the edge serves (regions/edge/talk), or checks them with --check.
 *
 * The same sources and the same locked esbuild give the same bytes. The first line of each script names a digest of the sources,
 * by which a test of the server sees without Node that they are older than the sources.
 */

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = join(dirname(fileURLToPath(import.meta.url)), "..");
const target = join(here, "..", "..", "..", "regions", "edge", "talk");

/** Over path and content of every source, in order of path. */
function digest() {
  const hash = createHash("sha256");
  const found = ["src", "page"].flatMap((folder) => files(join(here, folder)));
  for (const path of found.sort()) hash.update(`${path}\0`).update(readFileSync(join(here, path))).update("\0");
  return hash.digest("hex");
}

function files(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? files(path) : [relative(here, path).replaceAll("\\", "/")];
  });
}

async function bundled(entry) {
  const { outputFiles } = await build({
    entryPoints: [join(here, entry)],
    absWorkingDir: here,
    bundle: true,
    write: false,
    format: "esm",
    target: "es2022",
    charset: "utf8",
    legalComments: "none",
    banner: { js: `// Generated from openapi/clients/typescript (make typescript-page); do not edit. Sources: ${digest()}` },
  });
  return outputFiles[0].text;
}

const wanted = {
  "talk.html": readFileSync(join(here, "page", "talk.html"), "utf8"),
  "talk.css": readFileSync(join(here, "page", "talk.css"), "utf8"),
  "talk.js": await bundled("page/talk.ts"),
  "worklet.js": await bundled("src/audio/worklet.ts"),
};

const check = process.argv.includes("--check");
let stale = false;
mkdirSync(target, { recursive: true });
for (const [name, text] of Object.entries(wanted)) {
  const path = join(target, name);
  if (!check) {
    writeFileSync(path, text);
    continue;
  }
  let had = null;
  try {
    had = readFileSync(path, "utf8");
  } catch {
    // it is not there
  }
  if (had !== text) {
    stale = true;
    console.error(`out of date: regions/edge/talk/${name}. Run \`make typescript-page\` and commit what it writes.`);
  }
}
process.exitCode = stale ? 1 : 0;
