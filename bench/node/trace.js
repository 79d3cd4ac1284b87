// What trace.py says: the work of all peers, and a record of each run. The clock is the system's monotonic one.
'use strict'

const fs = require('node:fs')
const path = require('node:path')

const FOLDER = process.env.BENCH_TRACE
let file = null

const now = () => Number(process.hrtime.bigint()) / 1e9

async function perform (job) {
  const began = now()
  if (job.ms) await new Promise(resolve => setTimeout(resolve, job.ms))
  const failed = job.fail && firstAttempt(job)
  const record = Buffer.alloc(28)
  record.writeInt32LE(job.user, 0)
  record.writeInt32LE(job.n, 4)
  record.writeInt32LE(failed ? 0 : 1, 8)
  record.writeDoubleLE(began, 12)
  record.writeDoubleLE(now(), 20)
  file ??= fs.openSync(path.join(FOLDER, `${process.pid}.trace`), 'a')
  fs.writeSync(file, record)
  if (failed) throw new Error('a head that fails in its first attempt, as it was asked to')
  return { n: job.n }
}

function firstAttempt (job) {
  try {
    fs.closeSync(fs.openSync(path.join(FOLDER, `failed-${job.user}-${job.n}`), 'wx'))
    return true
  } catch (error) {
    if (error.code === 'EEXIST') return false
    throw error
  }
}

module.exports = { perform, now }
