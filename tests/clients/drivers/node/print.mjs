// What all drivers say: a line of JSON for each event that their client hands out.
export const print = (name, data) => process.stdout.write(JSON.stringify([name, data]) + "\n");
export const url = process.argv[2];
export const NAMES = ["message", "gap", "error"];
