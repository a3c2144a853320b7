// Bundles src/ into ss4d/viewer/player.html, the page without a clip. `--check` compares instead of writing.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const options = { bundle: true, minify: true, write: false, charset: "ascii", target: "es2022", legalComments: "none" };
const bundle = async (name) => (await build({ ...options, entryPoints: [here(name)] })).outputFiles[0].text.trim();

const parts = { STYLE: await bundle("src/player.css"), SCRIPT: await bundle("src/main.ts") };
const template = readFileSync(here("src/page.html"), "utf8");
const page = template.replace(/\{\{(STYLE|SCRIPT)\}\}/g, (_, name) => parts[name]);
const target = here("../ss4d/viewer/player.html");

if (!process.argv.includes("--check")) {
  writeFileSync(target, page);
  console.log(`${target}: ${page.length} characters`);
} else if (readFileSync(target, "utf8") !== page) {
  console.error("ss4d/viewer/player.html is not what viewer/src builds: run `npm run build` in viewer/.");
  process.exit(1);
}
