// Client of Ordered work, for browsers and Node.

export { Client, isFinal } from "./client.js";
export type { AnySubmission, Filters, FollowOptions, SubmitOptions, WaitOptions } from "./client.js";
export type { Options, Patience, Tokens } from "./connection.js";
export * from "./errors.js";
export type { Queue, QueueEvent, WorkRequest } from "./events.js";
