// @microsoft/fetch-event-source, made for browsers: Node needs stand-ins for window and document.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
const { fetchEventSource } = await import("@microsoft/fetch-event-source");
const { print, url } = await import("./print.mjs");

fetchEventSource(url, {
  openWhenHidden: true,
  onmessage: ({ event, data }) => print(event || "message", data),
  onclose() {
    throw new Error("the end of a stream is an end, unless its user says so");
  },
  onerror: () => 100,
});
