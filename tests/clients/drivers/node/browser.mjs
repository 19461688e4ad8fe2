// A browser's EventSource: on a page of the gateway's origin, or ("cross") on one of another's.
import { open } from "./launch.mjs";
import { NAMES, print, url } from "./print.mjs";

const page = await open(url, process.argv[3]);
await page.exposeFunction("say", print);
await page.evaluate(
  (url, names) => {
    const source = new EventSource(url);
    for (const name of names) source.addEventListener(name, ({ data }) => data !== undefined && window.say(name, data));
  },
  url,
  NAMES,
);
