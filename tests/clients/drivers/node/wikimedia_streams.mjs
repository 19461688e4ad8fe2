// wikimedia-streams: its host is fixed, so the EventSource that it loads is one that goes to ours.
import { createRequire } from "node:module";
import { print, url } from "./print.mjs";

const require = createRequire(import.meta.url);
const Real = require("eventsource");
class Ours extends Real {
  constructor(_, options) {
    super(url, options);
  }
}
require.cache[require.resolve("eventsource")].exports = Ours;
const loaded = require("wikimedia-streams");
const WikimediaStream = loaded.default ?? loaded;

const stream = new WikimediaStream("recentchange");
stream.on("recentchange", (data) => print("message", JSON.stringify(data)));
stream.on("error", () => {});
