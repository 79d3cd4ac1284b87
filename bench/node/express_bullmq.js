// Accepts a job: the token is checked, the body read, the job added to BullMQ on Redis. No order, no record.
'use strict'

const cluster = require('node:cluster')
const express = require('express')
const Redis = require('ioredis')
const jwt = require('jsonwebtoken')
const { Queue } = require('bullmq')
const { redisOptions } = require('./control')

const { BENCH_SECRET, PORT, WORKERS = '1' } = process.env

if (cluster.isPrimary && Number(WORKERS) > 1) {
  for (let n = 0; n < Number(WORKERS); n++) cluster.fork()
  process.on('SIGTERM', () => process.exit())
} else {
  serve()
}

function serve () {
  const connection = new Redis(redisOptions())
  connection.setMaxListeners(0)
  const queues = new Map()

  // For `accept` one queue takes all; end to end each user has one, whose worker bullmq.js runs.
  function queue (payload) {
    const name = process.env.BENCH_TRACE ? `user-${payload.user}` : 'bench'
    if (!queues.has(name)) queues.set(name, new Queue(name, { connection }))
    return queues.get(name)
  }

  const app = express()
  app.disable('x-powered-by')
  app.use(express.json())

  app.post('/requests', caller, async (request, response) => {
    const { kind, payload } = request.body ?? {}
    if (typeof kind !== 'string') return response.status(400).json({ detail: 'kind is missing' })
    const data = process.env.BENCH_TRACE ? payload : { user: request.user, payload }
    const job = await queue(payload).add(kind, data)
    response.status(202).json({ id: job.id, kind, status: 'queued', payload })
  })

  app.listen(Number(PORT), '127.0.0.1')
}

function caller (request, response, next) {
  const token = (request.get('authorization') ?? '').replace(/^Bearer /, '')
  try {
    const claims = jwt.verify(token, BENCH_SECRET, { algorithms: ['HS256'], audience: 'bench', issuer: 'bench' })
    request.user = claims.sub
    next()
  } catch {
    response.status(401).set('WWW-Authenticate', 'Bearer').json({ detail: 'The token is not valid.' })
  }
}
