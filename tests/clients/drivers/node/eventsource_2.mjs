// eventsource 2: reconnects and resumes by itself.
import EventSource from "eventsource";
import { NAMES, print, url } from "./print.mjs";

const source = new EventSource(url);
for (const name of NAMES) source.addEventListener(name, (event) => event.data !== undefined && print(name, event.data));
