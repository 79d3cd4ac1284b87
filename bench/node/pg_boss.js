// pg-boss: jobs in PostgreSQL; a queue of the policy key_strict_fifo runs the jobs of a key, here the user, in order.
'use strict'

const { Pool } = require('pg')
const { PgBoss } = require('pg-boss')
const { main, serve, THREADS } = require('./control')
const { perform } = require('./trace')

const connectionString = process.env.DATABASE_URL
const QUEUE = 'bench'
const POLLING = { pollingIntervalSeconds: 0.5, burstWhenBatchFull: true, batchSize: 10, perJobResults: true }

async function work () {
  const boss = new PgBoss({ connectionString })
  boss.on('error', error => console.error(error))
  await boss.start()
  await boss.work(QUEUE, { ...POLLING, localConcurrency: THREADS }, async jobs => {
    const results = []
    for (const job of jobs) {
      try {
        results.push({ id: job.id, status: 'completed', output: await perform(job.data) })
      } catch (error) {
        results.push({ id: job.id, status: 'failed', output: { message: String(error) } })
      }
    }
    return results
  })
}

async function control () {
  const boss = new PgBoss({ connectionString })
  boss.on('error', error => console.error(error))
  await boss.start()
  await boss.createQueue(QUEUE, { policy: 'key_strict_fifo', retryLimit: 2, retryDelay: 1 })
  const sql = new Pool({ connectionString, max: 1 })

  async function add (jobs) {
    // What one statement inserts has one moment, and no order within it: no two of a user together.
    for (const some of Map.groupBy(jobs, job => job.n).values()) {
      await boss.insert(QUEUE, some.map(job => ({ data: job, singletonKey: `user-${job.user}` })))
    }
    if (jobs.length > 1) await sql.query('ANALYZE pgboss.job')
  }

  async function outcomes () {
    const found = await sql.query("SELECT count(*)::int AS n FROM pgboss.job WHERE state = 'completed'")
    return found.rows[0].n
  }

  await serve({ add, outcomes, clear: () => boss.deleteAllJobs(QUEUE) })
}

main({ work, control })
