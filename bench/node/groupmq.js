// GroupMQ: jobs in Redis; a group, here the user, has its jobs run one after another, in order.
'use strict'

const Redis = require('ioredis')
const { Queue, Worker } = require('groupmq')
const { forget, main, redisOptions, serve, THREADS } = require('./control')
const { perform } = require('./trace')

const queue = redis => new Queue({ redis, namespace: 'bench', keepCompleted: 1e6, maxAttempts: 3 })

async function work () {
  const worker = new Worker({
    queue: queue(new Redis(redisOptions())),
    concurrency: THREADS,
    backoff: () => 100,
    handler: job => perform(job.data)
  })
  worker.on('error', error => console.error(error))
  await worker.run()
}

async function control () {
  const redis = new Redis(redisOptions())
  const jobs = queue(redis)

  async function add (some) {
    const ofUser = Map.groupBy(some, job => job.user)
    const users = [...ofUser.keys()]
    while (users.length) {
      await Promise.all(users.splice(0, 50).map(async user => {
        for (const job of ofUser.get(user)) await jobs.add({ groupId: `user-${user}`, data: job, orderMs: job.n + 1 })
      }))
    }
  }

  await serve({ add, outcomes: () => jobs.getCompletedCount(), clear: () => forget(redis, 'groupmq:bench:*') })
}

main({ work, control })
