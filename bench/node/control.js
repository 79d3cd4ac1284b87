// The control process of a peer on Node: a verb a line comes in, an answer a line goes out. It ends with its input.
'use strict'

const readline = require('node:readline')
const { now } = require('./trace')

async function serve ({ add, outcomes, clear }) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [verb, jobs] = JSON.parse(line)
    let answer
    try {
      const began = now()
      if (verb === 'add') await add(jobs)
      answer = { ok: verb === 'add' ? began : (await (verb === 'clear' ? clear() : outcomes())) ?? null }
    } catch (error) {
      answer = { error: String(error) }
    }
    process.stdout.write(JSON.stringify(answer) + '\n')
  }
  process.exit()
}

function redisOptions () {
  const url = new URL(process.env.BENCH_REDIS_URL || process.env.REDIS_URL)
  return {
    host: url.hostname,
    port: Number(url.port || 6379),
    password: decodeURIComponent(url.password) || undefined,
    db: Number(url.pathname.slice(1) || 0),
    maxRetriesPerRequest: null
  }
}

// Forgets all keys that a pattern names.
async function forget (redis, pattern) {
  let cursor = '0'
  do {
    const [next, found] = await redis.scan(cursor, 'MATCH', pattern, 'COUNT', 1000)
    if (found.length) await redis.unlink(...found)
    cursor = next
  } while (cursor !== '0')
}

// `node <peer>.js work` or `node <peer>.js control`.
function main ({ work, control }) {
  const asked = process.argv[2] === 'work' ? work : control
  asked().catch(error => { console.error(error); process.exit(1) })
  process.on('SIGTERM', () => process.exit())
}

module.exports = { forget, main, redisOptions, serve, THREADS: 8 }
