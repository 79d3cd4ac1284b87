// What can go wrong, each as a class of its own: made of the service's `application/problem+json`.

import type { components } from "./schema.js";

type Problem = components["schemas"]["Problem"];
export type FieldError = NonNullable<Problem["errors"]>[number];

/** The base of all that this package throws of its own. A signal that is aborted throws its own reason. */
export class OrderedWorkError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** No answer came, also when it was tried again. `cause` is what the last attempt met. */
export class Unreachable extends OrderedWorkError {}

/** The request was not final within the time that `wait` had. It goes on. */
export class StillRunning extends OrderedWorkError {}

/** The service refused. Compare `type`; report `requestId`; `retryAfter` is in seconds. */
export class ApiError extends OrderedWorkError {
  readonly type: string;
  readonly detail: string;
  readonly requestId: string;
  readonly errors: readonly FieldError[];

  constructor(readonly status: number, problem: Partial<Problem>, readonly retryAfter?: number) {
    const { type = "about:blank", detail = `The service answered ${status}.`, request_id = "" } = problem;
    const errors = Array.isArray(problem.errors) ? problem.errors : [];
    super([`${status} ${type}: ${detail}`, ...errors.map((error) => `${error.field}: ${error.detail}`)].join(" "));
    this.type = type;
    this.detail = detail;
    this.requestId = request_id;
    this.errors = errors;
  }
}

/** 400: `errors` names the fields. */
export class Invalid extends ApiError {}
/** 401: log in again. */
export class NotAuthenticated extends ApiError {}
/** 403. */
export class Forbidden extends ApiError {}
/** 404: it is not there, or somebody else's. */
export class NotFound extends ApiError {}
/** 409: the state of things does not allow it. */
export class Conflict extends ApiError {}
/** 422: the idempotency key came before with something else. */
export class KeyReused extends ApiError {}
/** 429: a limit is used up; `retryAfter` says for how long. */
export class TooMany extends ApiError {}
/** 502, 503 or 504: also when it was tried again. */
export class Unavailable extends ApiError {}

const BY_STATUS: Record<number, typeof ApiError> = {
  400: Invalid,
  401: NotAuthenticated,
  403: Forbidden,
  404: NotFound,
  409: Conflict,
  422: KeyReused,
  429: TooMany,
  502: Unavailable,
  503: Unavailable,
  504: Unavailable,
};

/** The error that an answer means. */
export function errorOf(response: Response, text: string): ApiError {
  let problem: unknown;
  try {
    problem = JSON.parse(text);
  } catch {
    // Not the service's own answer: a proxy's, for example.
  }
  const known = typeof problem === "object" && problem !== null && !Array.isArray(problem) ? problem : {};
  return new (BY_STATUS[response.status] ?? ApiError)(response.status, known, retryAfter(response));
}

/** The seconds of Retry-After. */
function retryAfter(response: Response): number | undefined {
  const text = response.headers.get("Retry-After") ?? "";
  return /^\d+$/.test(text) ? Number(text) : undefined;
}
