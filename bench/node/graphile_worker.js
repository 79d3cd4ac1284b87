// Graphile Worker: jobs in PostgreSQL, done ones are deleted; `queueName`, here the user, has them run one by one.
'use strict'

const { Pool } = require('pg')
const { makeWorkerUtils, run } = require('graphile-worker')
const { main, serve, THREADS } = require('./control')
const { perform } = require('./trace')

const connectionString = process.env.DATABASE_URL

async function work () {
  await run({ connectionString, concurrency: THREADS, taskList: { job: payload => perform(payload) } })
}

async function control () {
  const utils = await makeWorkerUtils({ connectionString })
  await utils.migrate()
  const sql = new Pool({ connectionString, max: 1 })

  async function add (jobs) {
    for (let first = 0; first < jobs.length; first += 500) {
      await utils.addJobs(jobs.slice(first, first + 500).map(
        job => ({ identifier: 'job', payload: job, queueName: `user-${job.user}`, maxAttempts: 3 })))
    }
    if (jobs.length > 1) await sql.query('ANALYZE graphile_worker._private_jobs, graphile_worker._private_job_queues')
  }

  const clear = () => sql.query('TRUNCATE graphile_worker._private_jobs, graphile_worker._private_job_queues')
  // A job that is done is deleted: it keeps no record.
  await serve({ add, outcomes: () => null, clear })
}

main({ work, control })
