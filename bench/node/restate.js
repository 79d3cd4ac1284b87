// Restate: a virtual object a user; its exclusive handler runs the user's jobs one after another, in order, durably.
'use strict'

const restate = require('@restatedev/restate-sdk')
const { main, serve } = require('./control')
const { perform } = require('./trace')

const { BENCH_INGRESS, BENCH_ADMIN, BENCH_SERVICE_PORT, BENCH_NUMBER } = process.env
const port = Number(BENCH_SERVICE_PORT) + Number(BENCH_NUMBER ?? 0)

async function work () {
  const user = restate.object({ name: 'user', handlers: { job: async (context, job) => perform(job) } })
  await restate.serve({ services: [user], port })
  await post(`${BENCH_ADMIN}/deployments`, { uri: `http://127.0.0.1:${port}`, force: true })
}

// A worker may not have registered itself yet.
async function send (url, body, triesLeft = 100) {
  try {
    return await post(url, body)
  } catch (error) {
    if (!triesLeft || !String(error).includes('404')) throw error
    await new Promise(resolve => setTimeout(resolve, 200))
    return send(url, body, triesLeft - 1)
  }
}

async function post (url, body) {
  const answer = await fetch(url, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body)
  })
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${await answer.text()}`)
  return answer.json()
}

// A server that has just started does not know its own partitions yet.
async function query (sql, triesLeft = 100) {
  const answer = await fetch(`${BENCH_ADMIN}/query`, {
    method: 'POST', headers: { 'content-type': 'application/json', accept: 'application/json' },
    body: JSON.stringify({ query: sql })
  })
  if (!answer.ok) {
    if (!triesLeft) throw new Error(`query: ${answer.status} ${await answer.text()}`)
    await new Promise(resolve => setTimeout(resolve, 100))
    return query(sql, triesLeft - 1)
  }
  return (await answer.json()).rows
}

async function control () {
  async function add (jobs) {
    const ofUser = [...Map.groupBy(jobs, job => job.user).entries()]
    while (ofUser.length) { // of one user in order: each when the one before is accepted
      await Promise.all(ofUser.splice(0, 64).map(async ([user, own]) => {
        for (const job of own) await send(`${BENCH_INGRESS}/user/${user}/job/send`, job)
      }))
    }
  }

  const outcomes = async () =>
    (await query("SELECT count(*) AS n FROM sys_invocation WHERE completion_result = 'success'"))[0].n

  async function clear () {
    for (const { id } of await query('SELECT id FROM sys_invocation')) {
      await fetch(`${BENCH_ADMIN}/invocations/${id}?mode=purge`, { method: 'DELETE' })
    }
  }

  await serve({ add, outcomes, clear })
}

main({ work, control })
