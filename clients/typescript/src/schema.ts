// Written by `npm run generate` from the OpenAPI document. A test compares it with the service's.

export interface components {
    schemas: {
        BatchShown: {
            requests: components["schemas"]["RequestShown"][];
        };
        ErrorShown: {
            /** Format: date-time */
            at: string;
            message: string;
            type: string;
        };
        LimitedByShown: {
            kind: string;
            reason: components["schemas"]["ReasonEnum"];
            /**
             * Format: date-time
             * @description Of a rate: when another may begin, whosesoever.
             */
            until: string | null;
        };
        Operations: {
            cancel: {
                answer: components["schemas"]["RequestShown"];
                /** @constant */
                method: "POST";
                /** @constant */
                path: "/api/v1/requests/{request_id}/cancel";
                query: Record<string, never>;
            };
            login: {
                answer: components["schemas"]["TokensShown"];
                /** @constant */
                method: "POST";
                /** @constant */
                path: "/api/v1/auth/token";
                query: Record<string, never>;
            };
            pause: {
                answer: components["schemas"]["QueueShown"];
                /** @constant */
                method: "POST";
                /** @constant */
                path: "/api/v1/queue/pause";
                query: Record<string, never>;
            };
            purge: {
                answer: components["schemas"]["QueueShown"];
                /** @constant */
                method: "POST";
                /** @constant */
                path: "/api/v1/queue/purge";
                query: Record<string, never>;
            };
            queue: {
                answer: components["schemas"]["QueueShown"];
                /** @constant */
                method: "GET";
                /** @constant */
                path: "/api/v1/queue";
                query: Record<string, never>;
            };
            refresh: {
                answer: components["schemas"]["TokensShown"];
                /** @constant */
                method: "POST";
                /** @constant */
                path: "/api/v1/auth/token/refresh";
                query: Record<string, never>;
            };
            request: {
                answer: components["schemas"]["RequestShown"];
                /** @constant */
                method: "GET";
                /** @constant */
                path: "/api/v1/requests/{request_id}";
                query: {
                    /**
                     * @description Seconds: answers when the request is final, or after so long. When very many wait, sooner.
                     * @default 0
                     */
                    wait?: number;
                };
            };
            requests: {
                answer: components["schemas"]["PageShown"];
                /** @constant */
                method: "GET";
                /** @constant */
                path: "/api/v1/requests";
                query: {
                    /**
                     * Format: date-time
                     * @description Only what was created later than this.
                     */
                    created_after?: string;
                    /**
                     * Format: date-time
                     * @description Only what was created earlier than this.
                     */
                    created_before?: string;
                    /** @description From `next` or `previous` of another page. */
                    cursor?: string;
                    kind?: string;
                    /**
                     * @description Of a page, which ends sooner when it gets too large; `next` tells whether there is more.
                     * @default 50
                     */
                    limit?: number;
                    /**
                     * @description By sequence. What has none (scheduled) stands at the new end: first in `desc`, last in `asc`.
                     *
                     *     * `asc` - asc
                     *     * `desc` - desc
                     * @default desc
                     * @enum {string}
                     */
                    order?: "asc" | "desc";
                    /**
                     * @description * `scheduled` - Scheduled
                     *     * `queued` - Queued
                     *     * `running` - Running
                     *     * `retrying` - Retrying
                     *     * `blocked` - Blocked
                     *     * `succeeded` - Succeeded
                     *     * `failed` - Failed
                     *     * `cancelled` - Cancelled
                     *     * `expired` - Expired
                     * @enum {string}
                     */
                    status?: "scheduled" | "queued" | "running" | "retrying" | "blocked" | "succeeded" | "failed" | "cancelled" | "expired";
                };
            };
            resume: {
                answer: components["schemas"]["QueueShown"];
                /** @constant */
                method: "POST";
                /** @constant */
                path: "/api/v1/queue/resume";
                query: Record<string, never>;
            };
            retry: {
                answer: components["schemas"]["RequestShown"];
                /** @constant */
                method: "POST";
                /** @constant */
                path: "/api/v1/requests/{request_id}/retry";
                query: Record<string, never>;
            };
            skip: {
                answer: components["schemas"]["RequestShown"];
                /** @constant */
                method: "POST";
                /** @constant */
                path: "/api/v1/requests/{request_id}/skip";
                query: Record<string, never>;
            };
            submit: {
                answer: components["schemas"]["RequestShown"];
                /** @constant */
                method: "POST";
                /** @constant */
                path: "/api/v1/requests";
                query: Record<string, never>;
            };
            submit_batch: {
                answer: components["schemas"]["BatchShown"];
                /** @constant */
                method: "POST";
                /** @constant */
                path: "/api/v1/requests/batch";
                query: Record<string, never>;
            };
        };
        PageShown: {
            /** Format: uri */
            next: string | null;
            /** Format: uri */
            previous: string | null;
            results: components["schemas"]["RequestShown"][];
        };
        /** @description RFC 9457. Compare `type`; show `title` and `detail`; report `request_id`. */
        Problem: {
            detail: string;
            errors?: {
                code: string;
                detail: string;
                /** @description Dotted: `payload.items.3.name`; empty: the whole. */
                field: string;
            }[];
            /** @description The X-Request-ID of the answer. */
            request_id: string;
            status: number;
            title: string;
            /**
             * Format: uri-reference
             * @example /problems/validation
             */
            type: string;
        };
        ProgressShown: {
            current: number;
            note: string;
            total: number;
        };
        QueueShown: {
            /**
             * Format: uuid
             * @description The failed head that wants retry, skip or cancel.
             */
            blocked_by: string | null;
            /** @description Requests in line without a final status, the running one included. */
            depth: number;
            /**
             * Format: double
             * @description Until all of it is done at the present pace.
             */
            eta_seconds: number | null;
            /**
             * Format: double
             * @description Succeeded or failed within the last minute.
             */
            finished_per_minute: number;
            /** @description The depth at which more is refused with 429. */
            limit: number;
            /** @description The head waits because its kind is paused, or as many as may run or begin. */
            limited_by: components["schemas"]["LimitedByShown"] | null;
            /**
             * Format: date-time
             * @description Since when the next that waits could begin: created then, or its `not_before`.
             */
            oldest_waiting_at: string | null;
            paused: boolean;
            /**
             * Format: uuid
             * @description The request that runs.
             */
            running: string | null;
            state: components["schemas"]["QueueShownStateEnum"];
        };
        /**
         * @description * `idle` - Idle
         *     * `ready` - Ready
         *     * `draining` - Draining
         *     * `waiting` - Waiting
         *     * `blocked` - Blocked
         * @enum {string}
         */
        QueueShownStateEnum: "idle" | "ready" | "draining" | "waiting" | "blocked";
        /**
         * @description * `paused` - paused
         *     * `max_concurrency` - max_concurrency
         *     * `rate` - rate
         * @enum {string}
         */
        ReasonEnum: "paused" | "max_concurrency" | "rate";
        RequestShown: {
            /** @description The one that runs, or ran last; 0 before the first. */
            attempt: number;
            /** @description Its handler was asked to stop. */
            cancel_requested: boolean;
            /** Format: date-time */
            created_at: string;
            /** @description Of the last attempt, if it failed. */
            error: components["schemas"]["ErrorShown"] | null;
            /**
             * Format: double
             * @description Until its turn at the present pace; null where nobody knows, as in a blocked queue.
             */
            eta_seconds: number | null;
            /** Format: date-time */
            expires_at: string | null;
            /** Format: date-time */
            finished_at: string | null;
            /** Format: uuid */
            id: string;
            kind: string;
            max_attempts: number;
            /** Format: date-time */
            not_before: string | null;
            payload: unknown;
            /** @description Requests ahead of it that are not final; null when final or scheduled. */
            position: number | null;
            /** @description While it runs, if its handler tells. */
            progress: components["schemas"]["ProgressShown"] | null;
            /** @description What the handler returned; null until it has succeeded. */
            result: unknown;
            /** Format: uuid */
            retry_of: string | null;
            /** @description 1, 2, 3 ..: its place; null while scheduled. */
            sequence: number | null;
            /**
             * Format: date-time
             * @description When its first attempt began; it never changes.
             */
            started_at: string | null;
            status: components["schemas"]["StatusEnum"];
            version: number;
        };
        /**
         * @description * `scheduled` - Scheduled
         *     * `queued` - Queued
         *     * `running` - Running
         *     * `retrying` - Retrying
         *     * `blocked` - Blocked
         *     * `succeeded` - Succeeded
         *     * `failed` - Failed
         *     * `cancelled` - Cancelled
         *     * `expired` - Expired
         * @enum {string}
         */
        StatusEnum: "scheduled" | "queued" | "running" | "retrying" | "blocked" | "succeeded" | "failed" | "cancelled" | "expired";
        TokensShown: {
            /** @description For `Authorization: Bearer`; lives minutes. */
            access: string;
            /** @description Good for one refresh; lives days. Absent with `Accept-Session: cookie`. */
            refresh?: string;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
