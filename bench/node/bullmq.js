// BullMQ, a queue a user: each has a Worker of concurrency 1, in one process or shared out among several by the user.
'use strict'

const Redis = require('ioredis')
const { Queue, Worker } = require('bullmq')
const { forget, main, redisOptions, serve } = require('./control')
const { perform } = require('./trace')

const { BENCH_USERS, BENCH_NUMBER, BENCH_PROCESSES } = process.env
const name = user => `user-${user}`

async function work () {
  const connection = new Redis(redisOptions())
  connection.setMaxListeners(0)
  for (let user = Number(BENCH_NUMBER); user < Number(BENCH_USERS); user += Number(BENCH_PROCESSES)) {
    const worker = new Worker(name(user), job => perform(job.data), { connection, concurrency: 1 })
    worker.on('error', error => console.error(error))
  }
}

async function control () {
  const connection = new Redis(redisOptions())
  connection.setMaxListeners(0)
  const queues = new Map()

  function queue (user) {
    if (!queues.has(user)) queues.set(user, new Queue(name(user), { connection }))
    return queues.get(user)
  }

  async function add (jobs) {
    const ofUser = Map.groupBy(jobs, job => job.user)
    const users = [...ofUser.keys()]
    while (users.length) {
      await Promise.all(users.splice(0, 50).map(user => queue(user).addBulk(ofUser.get(user).map(
        job => ({ name: 'job', data: job, opts: { attempts: 3, backoff: { type: 'fixed', delay: 100 } } })))))
    }
  }

  const outcomes = async () => {
    let count = 0
    const users = [...queues.keys()]
    while (users.length) {
      const found = await Promise.all(users.splice(0, 500).map(user => connection.zcard(`bull:${name(user)}:completed`)))
      count += found.reduce((sum, n) => sum + n, 0)
    }
    return count
  }

  await serve({ add, outcomes, clear: () => forget(connection, 'bull:user-*') })
}

main({ work, control })
