// Sends calls through Segment's Node library as it is: only the host is another one.
// In: node send.cjs HOST WRITE_KEY, one call a line on stdin: {"kind": "track", "arguments": {...}}.
// Out: exit code 0 when the library says that all of it arrived, else 1 and why on stderr.
'use strict'

const { createInterface } = require('node:readline')
const { Analytics } = require('@segment/analytics-node')

async function main() {
  const [host, writeKey] = process.argv.slice(2)
  const analytics = new Analytics({ host, writeKey })
  analytics.on('error', (error) => {
    console.error(error.code, error.reason)
    process.exitCode = 1
  })
  for await (const line of createInterface({ input: process.stdin })) {
    const call = JSON.parse(line)
    analytics[call.kind]({ ...call.arguments, timestamp: new Date(call.arguments.timestamp) })
  }
  await analytics.closeAndFlush()
}

main()
