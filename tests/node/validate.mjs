// Ends with status 0 when the AsyncAPI document on stdin is one; else each fault is a line on stdout.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
const faults = diagnostics.filter(({ severity }) => severity === 0);
for (const { path, message } of faults) console.log(`${path.join(".")}: ${message}`);
if (document === undefined || faults.length > 0) process.exit(1);
console.log(`${document.version()}: ${document.channels().length} channels, ${document.operations().length} operations`);
