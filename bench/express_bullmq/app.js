// Accepts a job: the token is checked, the body read, the job added to BullMQ on Redis. No order, no record.
'use strict'

const cluster = require('node:cluster')
const express = require('express')
const jwt = require('jsonwebtoken')
const { Queue } = require('bullmq')

const { BENCH_SECRET, PORT, REDIS_URL, WORKERS = '1' } = process.env

if (cluster.isPrimary && Number(WORKERS) > 1) {
  for (let n = 0; n < Number(WORKERS); n++) cluster.fork()
  process.on('SIGTERM', () => process.exit())
} else {
  serve()
}

function serve () {
  const url = new URL(REDIS_URL)
  const queue = new Queue('bench', {
    connection: {
      host: url.hostname,
      port: Number(url.port || 6379),
      password: decodeURIComponent(url.password) || undefined,
      db: Number(url.pathname.slice(1) || 0)
    }
  })
  const app = express()
  app.disable('x-powered-by')
  app.use(express.json())

  app.post('/requests', caller, async (request, response) => {
    const { kind, payload } = request.body ?? {}
    if (typeof kind !== 'string') return response.status(400).json({ detail: 'kind is missing' })
    const job = await queue.add(kind, { user: request.user, payload })
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
