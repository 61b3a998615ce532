// Reads an AsyncAPI document with the official parser; fails on any error it finds.
//   node asyncapi-check.mjs FILE     (run where @asyncapi/parser is installed)
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.cwd(), "package.json"));
const { Parser } = require("@asyncapi/parser");

const text = await readFile(process.argv[2], "utf8");
const { document, diagnostics } = await new Parser().parse(text);
const ERROR = 0;
for (const { severity, message, path } of diagnostics) {
  console.log(`${severity === ERROR ? "error" : "note"}: ${path.join(".")}: ${message}`);
}
if (!document || diagnostics.some(({ severity }) => severity === ERROR)) process.exit(1);
console.log(`${process.argv[2]}: ${document.allChannels().length} channels, valid`);
