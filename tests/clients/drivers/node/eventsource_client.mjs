// eventsource-client: reconnects and resumes by itself.
import { createEventSource } from "eventsource-client";
import { print, url } from "./print.mjs";

createEventSource({ url, onMessage: ({ event, data }) => print(event ?? "message", data) });
