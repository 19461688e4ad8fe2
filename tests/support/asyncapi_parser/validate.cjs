// Reads an AsyncAPI document and writes what is wrong with it, one finding a line; run in the folder of its packages.
const { createRequire } = require('module');
const { Parser } = createRequire(process.cwd() + '/')('@asyncapi/parser');

const ERROR = 0;

async function main() {
  const { document, diagnostics } = await new Parser().parse(require('fs').readFileSync(0, 'utf8'));
  for (const { severity, path, message } of diagnostics) {
    if (severity === ERROR) console.log(`${path.join('.')}: ${message}`);
  }
  if (document) console.log(`channels ${document.channels().length} operations ${document.operations().length}`);
}
main();
